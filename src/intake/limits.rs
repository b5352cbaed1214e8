//! Limits: requests in progress, their time, what waits to be published, how often an address may ask, and how often
//! anybody may fail.

mod address;
mod codes;
mod origin;
mod places;

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use tokio_util::sync::CancellationToken;

pub use self::origin::remember_device;
pub(super) use self::{
    address::{ClientAddress, Proxies, forwarded_for, network_of},
    codes::{Asker, Codes},
    origin::Device,
    places::{Place, Places},
};
use super::{Intake, problem::Problem};
use crate::{
    payment::limits::{By, wait_s},
    store::{accept::Refusal, outbox},
};

/// From the end of the headers to the start of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Addresses that are remembered at most.
const MAX_ADDRESSES: usize = 100_000;
/// Every so many checks the addresses that have been quiet are forgotten.
const FORGET_EVERY: u32 = 10_000;

/// Answers 503 at once when too much is in progress, in all or for its address, and after a time when a request takes too long. An event stream
/// counts until its first byte; it has a bound of its own.
pub(super) async fn shed_and_time_out(State(intake): State<Intake>, request: Request, next: Next) -> Response {
    let address = address::client_address(&intake.proxies, request.headers(), request.extensions());
    let Some(_place) = intake.in_flight.take(address) else { return shed("requests").into_response() };
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable().into_response(),
    }
}

/// Refuses a request for now, because there is too much of something.
pub(super) fn shed(of: &'static str) -> Problem {
    count_shed(of, 1);
    Problem::overloaded()
}

/// Shows what has not been shed yet, too: a series that begins at one does not look like a change.
pub(super) fn show_shed() {
    ["requests", "batches", "streams", "outbox"].into_iter().for_each(|of| count_shed(of, 0));
}

/// Shows the limits before they have refused anybody, too.
pub(super) fn show_limited() {
    [By::Address, By::Client].into_iter().for_each(|by| count_limited(by, "lookup", 0));
    [By::Address, By::Bill, By::Device].into_iter().for_each(|by| count_limited(by, "payment", 0));
}

pub(super) fn count_limited(by: By, what: &'static str, requests: u64) {
    metrics::counter!("tolom_limited_total", "by" => by.as_str(), "what" => what).increment(requests);
}

impl Intake {
    /// Lets somebody ask about a code, or something that would tell of one. A client asks for many payers, so that only
    /// what it guesses is counted.
    pub(super) fn may_look_up(&self, asker: impl Into<Asker>) -> Result<(), Problem> {
        let (asker, now) = (asker.into(), self.clock.now());
        let asked = match (self.codes.shut_until(&asker, now), &asker) {
            (Some(until), _) => Err(Problem::rate_limited(wait_s(until, now))),
            (None, Asker::Address(address)) => self.lookups.check(*address),
            (None, Asker::Client(_)) => Ok(()),
        };
        asked.inspect_err(|_| count_limited(asker.by(), "lookup", 1))
    }

    /// Gives an answer about a code to who asked, unless they have meanwhile guessed too often: of many questions at once
    /// only the first ones are answered, known code or not.
    pub(super) fn tell<T>(&self, asker: Asker, found: Option<T>) -> Result<T, Problem> {
        let now = self.clock.now();
        let by = asker.by();
        let shut = match found {
            Some(_) => self.codes.shut_until(&asker, now),
            None => self.codes.unknown(asker, now),
        };
        if let Some(until) = shut {
            count_limited(by, "lookup", 1);
            return Err(Problem::rate_limited(wait_s(until, now)));
        }
        found.ok_or_else(Problem::bill_unknown)
    }

    /// The same for a refused payment, which tells of a code as well.
    pub(super) fn tell_refusal(&self, asker: Asker, refusal: Refusal) -> Problem {
        let told = match refusal {
            Refusal::BillUnknown => self.tell::<()>(asker, None),
            refusal if refusal.tells_of_the_bill() => self.tell(asker, Some(())),
            _ => Ok(()),
        };
        told.err().unwrap_or_else(|| refusal.into())
    }
}

fn count_shed(of: &'static str, requests: u64) {
    metrics::counter!("tolom_requests_shed_total", "reason" => of).increment(requests);
}

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether more waits to be published than may: the broker has been away, in alarm or full for long.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicBool);

impl Backlog {
    /// Looks at the outbox every second until `stop`.
    pub(super) async fn watch(intake: &Intake, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            // Without a database nothing is accepted anyway.
            let Some(Ok(rows)) = stop.run_until_cancelled(outbox::estimate(&intake.pool)).await else { continue };
            let full = rows >= intake.config.intake.max_outbox_rows;
            if intake.backlog.0.swap(full, Ordering::Relaxed) != full {
                tracing::warn!(rows, full, "the outbox is full, or has room again");
            }
        }
    }
}

/// Lets a new payment in while the outbox has room for it; stands before the body, which is not even read otherwise.
pub(super) struct Admitted;

impl FromRequestParts<Intake> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        if intake.backlog.0.load(Ordering::Relaxed) { Err(shed("outbox").after_a_while()) } else { Ok(Self) }
    }
}

/// A bound on how often one address may ask (generic cell rate algorithm).
pub(super) struct ByAddress {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    checks: AtomicU32,
}

impl ByAddress {
    /// So many a minute, all of which may come at once.
    pub(super) fn per_minute(count: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN));
        Self { limiter: RateLimiter::keyed(quota), checks: AtomicU32::new(0) }
    }

    /// Counts a request of this address, or refuses it.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Problem> {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        // A flood from more addresses than can be told apart counts as one.
        let address = if self.limiter.len() > MAX_ADDRESSES { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { address };
        self.limiter.check_key(&address).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            Problem::rate_limited(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_refused_after_its_share_and_others_are_not() {
        let limit = ByAddress::per_minute(3);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!((0..3).all(|_| limit.check(one).is_ok()));
        assert!(limit.check(one).is_err());
        assert!(limit.check(other).is_ok());
    }
}
