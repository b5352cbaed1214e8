//! Limits: requests in progress, their time, what waits to be published, how often an address may ask, and how often
//! anybody may fail.

mod codes;
mod origin;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use tokio_util::sync::CancellationToken;

pub use self::origin::remember_device;
pub(super) use self::{codes::Codes, origin::Device};
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

/// Answers 503 at once when too much is in progress, and after a time when a request takes too long. An event stream
/// counts until its first byte; it has a bound of its own.
pub(super) async fn shed_and_time_out(State(intake): State<Intake>, request: Request, next: Next) -> Response {
    let Ok(_permit) = intake.in_flight.try_acquire() else { return shed("requests").into_response() };
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
    count_limited(By::Address, "lookup", 0);
    [By::Address, By::Bill, By::Device].into_iter().for_each(|by| count_limited(by, "payment", 0));
}

pub(super) fn count_limited(by: By, what: &'static str, requests: u64) {
    metrics::counter!("tolom_limited_total", "by" => by.as_str(), "what" => what).increment(requests);
}

impl Intake {
    /// Lets an address ask about a code, or something that would tell of one.
    pub(super) fn may_look_up(&self, address: IpAddr) -> Result<(), Problem> {
        let now = self.clock.now();
        let asked = match self.codes.shut_until(address, now) {
            Some(until) => Err(Problem::rate_limited(wait_s(until, now))),
            None => self.lookups.check(address),
        };
        asked.inspect_err(|_| count_limited(By::Address, "lookup", 1))
    }

    /// Gives an answer about a code to who asked, unless its address has meanwhile guessed too often: of many questions
    /// at once only the first ones are answered, known code or not.
    pub(super) fn tell<T>(&self, address: IpAddr, found: Option<T>) -> Result<T, Problem> {
        let now = self.clock.now();
        let shut = match found {
            Some(_) => self.codes.shut_until(address, now),
            None => self.codes.unknown(address, now),
        };
        if let Some(until) = shut {
            count_limited(By::Address, "lookup", 1);
            return Err(Problem::rate_limited(wait_s(until, now)));
        }
        found.ok_or_else(Problem::bill_unknown)
    }

    /// The same for a refused payment, which tells of a code as well.
    pub(super) fn tell_refusal(&self, address: IpAddr, refusal: Refusal) -> Problem {
        let told = match refusal {
            Refusal::BillUnknown => self.tell::<()>(address, None),
            refusal if refusal.tells_of_the_bill() => self.tell(address, Some(())),
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

/// Where a request comes from. IPv6 counts by its /64, the smallest network that is given to a customer (RFC 6177).
pub(super) struct ClientAddress(pub(super) IpAddr);

impl FromRequestParts<Intake> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let forwarded = if intake.config.intake.trust_forwarded_for { forwarded_for(&parts.headers) } else { None };
        let address = forwarded.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Self(network_of(address)))
    }
}

/// The last address of `X-Forwarded-For`: the one that our own proxy saw. Those before it are the client's word.
pub(super) fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_proxys_word_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers), None);
        headers.append("x-forwarded-for", "1.1.1.1, 2.2.2.2".parse().unwrap());
        headers.append("x-forwarded-for", "3.3.3.3,192.0.2.7".parse().unwrap());
        assert_eq!(forwarded_for(&headers), Some(IpAddr::from([192, 0, 2, 7])));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let networks: Vec<_> = ["2001:db8:1:2::3", "2001:db8:1:2:ffff::", "::ffff:192.0.2.1"]
            .map(|text| network_of(text.parse().unwrap()).to_string())
            .into();
        assert_eq!(networks, ["2001:db8:1:2::", "2001:db8:1:2::", "192.0.2.1"]);
    }

    #[test]
    fn an_address_is_refused_after_its_share_and_others_are_not() {
        let limit = ByAddress::per_minute(3);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!((0..3).all(|_| limit.check(one).is_ok()));
        assert!(limit.check(one).is_err());
        assert!(limit.check(other).is_ok());
    }
}
