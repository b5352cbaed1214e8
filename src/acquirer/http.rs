//! The adapter for acquirers that speak Tolom's own HTTP contract, `schemas/acquirer.openapi.json`: JSON over
//! HTTP/1.1, idempotent by our reference. A bank's shim or the simulator stands at the other end.
//!
//! The one question here is what a failure proves. `NotSent` rests on one of two proofs: the connection never took the
//! body (`body`), or the acquirer itself said that it did not process the request (`answer`). The words of the
//! client library's errors prove nothing and are only passed on to people.

mod answer;
mod body;
pub(crate) mod wire;

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::time::Instant;

use self::{
    answer::Received,
    body::{Fate, Guarded},
};
use super::{
    Acquirer, Call, Circuit,
    retry::{self, Attempt},
};
use crate::{
    chain::chain,
    clock::Clock,
    config,
    payment::{OperationKind, Outcome, card::Card, operation::Inquiry},
};

/// An answer larger than this is not read: an operation object is under 2 KiB, a challenge's form under 32.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Shorter than the idle time-outs common at the other end (Node closes after 5 s, Tomcat after 20, nginx after 75).
/// Writing to a connection just closed there gives an unknown outcome, which costs more than connecting anew.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 256;

/// Longest `Retry-After` that is taken at its word.
const DAY: u64 = 86_400;

/// An acquirer reached over the HTTP contract. Cheap to share; connections are kept alive between calls.
pub struct HttpAcquirer {
    name: String,
    base: Url,
    client: Client,
    clock: Clock,
    circuit: Circuit,
    call_timeout: Duration,
}

/// An answer's bytes, judged as the adapter does, without a connection.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// The header `Retry-After`, if there is one.
    pub retry_after: Option<&'a [u8]>,
    /// The body; at most 64 KiB of it are read off a connection.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// What the request of this kind and reference came to.
    pub fn of_call(&self, kind: OperationKind, reference: &str, now: OffsetDateTime) -> Attempt {
        answer::of_call(kind, reference, &self.received(now))
    }

    /// What an inquiry about the operation of this kind and reference came to.
    pub fn of_inquiry(&self, kind: OperationKind, reference: &str, now: OffsetDateTime) -> Inquiry {
        answer::of_inquiry(kind, reference, &self.received(now))
    }

    fn received(&self, now: OffsetDateTime) -> Received {
        let retry_after = self.retry_after.map(|value| read_retry_after(value, now));
        Received { status: self.status, retry_after, body: Ok(self.body.to_vec()) }
    }
}

/// Settings from which no adapter can be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpAcquirerError {
    /// `acquirer.url` is no https address, nor an http address that may be used.
    #[error("acquirer.url: an address that begins with https:// is expected; http:// needs acquirer.insecure")]
    Url,
    /// `acquirer.token` cannot stand in a header.
    #[error("acquirer.token: only visible ASCII is allowed")]
    Token,
    /// The HTTP client cannot be made, for example because the system has no root certificates.
    #[error("the acquirer's HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

impl HttpAcquirer {
    /// An adapter for the configured address. Connects to nothing yet.
    ///
    /// A call takes at most `connect_timeout_ms` (name look-up and TLS included) plus `answer_timeout_ms`.
    pub fn new(settings: &config::Acquirer, clock: Clock, circuit: Circuit) -> Result<Self, HttpAcquirerError> {
        let base = settings.address().ok_or(HttpAcquirerError::Url)?;
        if settings.sends_in_clear() {
            tracing::warn!("acquirer.insecure: card numbers and codes leave this machine in clear");
        }
        // Fails when the process has a provider already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("tolom/", env!("CARGO_PKG_VERSION")))
            .default_headers(default_headers(settings.token.expose())?)
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // One request on a connection at a time: with HTTP/2, what a lost connection proves differs by stream.
            .http1_only()
            // Whoever answers must be the acquirer; and nothing is sent twice behind our back.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(HttpAcquirerError::Client)?;
        let (name, call_timeout) = (settings.name.clone(), settings.call_timeout());
        Ok(Self { name, base, client, clock, circuit, call_timeout })
    }

    /// The configured address with these path segments, each percent-encoded.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        url
    }

    async fn call(&self, kind: OperationKind, call: &Call, url: Url, request: &impl Serialize) -> Outcome {
        let began = Instant::now();
        let outcome = match body::encode(request) {
            Ok(bytes) => retry::send(&self.clock, call.send_before, || self.attempt(kind, call, &url, &bytes)).await,
            Err(error) => Outcome::NotSent { why: format!("the request cannot be written: {error}") },
        };
        self.measure(kind, outcome.as_str(), began);
        outcome
    }

    /// One request and what its answer, or the lack of one, proves.
    async fn attempt(&self, kind: OperationKind, call: &Call, url: &Url, bytes: &Bytes) -> Attempt {
        let not_sent = |why: &str| Attempt::Done(Outcome::NotSent { why: why.to_owned() });
        if !call.may_be_sent(self.clock.now()) {
            return not_sent("send_before has passed");
        }
        let Some(headers) = call_headers(call) else {
            return not_sent("the reference cannot stand in a header");
        };
        if !self.circuit.pass() {
            return not_sent("the acquirer is away, and its circuit is open");
        }
        let (body, watch) = Guarded::new(bytes.clone(), call.clone(), self.clock.clone());
        let request = self.client.post(url.clone()).headers(headers).timeout(self.call_timeout);
        let answer = request.body(reqwest::Body::wrap(body)).send().await;
        let answer = match answer {
            Ok(response) => Ok(self.receive(response).await),
            Err(error) => Err(error),
        };
        self.judge(answer.as_ref().ok());
        match (watch.fate(), answer) {
            (Fate::TooLate, _) => not_sent("send_before passed while connecting"),
            (_, Ok(received)) => answer::of_call(kind, &call.reference, &received),
            (Fate::Untouched, Err(error)) => Attempt::Again { why: describe(error), in_flight: false, after: None },
            (Fate::Taken, Err(error)) => Attempt::Done(Outcome::Unknown { why: describe(error) }),
        }
    }

    async fn ask(&self, kind: OperationKind, reference: &str) -> Inquiry {
        if !self.circuit.pass() {
            return Inquiry::NoAnswer { why: "the acquirer is away, and its circuit is open".to_owned() };
        }
        let began = Instant::now();
        let request = self.client.get(self.url(&["operations", reference])).timeout(self.call_timeout);
        let answer = match request.send().await {
            Ok(response) => Ok(self.receive(response).await),
            Err(error) => Err(error),
        };
        self.judge(answer.as_ref().ok());
        let inquiry = match answer {
            Ok(received) => answer::of_inquiry(kind, reference, &received),
            Err(error) => Inquiry::NoAnswer { why: describe(error) },
        };
        let word = match &inquiry {
            Inquiry::Found(outcome) => outcome.as_str(),
            Inquiry::Pending => "pending",
            Inquiry::NotFound => "not_found",
            Inquiry::NoAnswer { .. } => "no_answer",
        };
        self.measure(OperationKind::Inquire, word, began);
        inquiry
    }

    /// Tells the circuit what the answer, or the lack of one, says of the acquirer's health.
    fn judge(&self, answer: Option<&Received>) {
        match answer {
            // Server errors, and "come later": both ask for quiet.
            Some(Received { status: 429 | 500..=599, .. }) | None => self.circuit.failed(),
            Some(_) => self.circuit.answered(),
        }
    }

    async fn receive(&self, mut response: Response) -> Received {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.map(|value| read_retry_after(value.as_bytes(), self.clock.now()));
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER_BYTES => {
                    return Received { status, retry_after, body: Err("the answer is too large".to_owned()) };
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Received { status, retry_after, body: Ok(body) },
                Err(error) => return Received { status, retry_after, body: Err(describe(error)) },
            }
        }
    }

    fn measure(&self, kind: OperationKind, outcome: &'static str, began: Instant) {
        metrics::histogram!(
            "tolom_operation_duration_seconds",
            "acquirer" => self.name.clone(), "kind" => kind.as_str(), "outcome" => outcome,
        )
        .record(began.elapsed().as_secs_f64());
    }
}

impl Acquirer for HttpAcquirer {
    fn authorize<'a>(&'a self, call: &'a Call, card: &'a Card, capture: bool) -> BoxFuture<'a, Outcome> {
        let Call { reference, amount, .. } = call;
        async move {
            let request = wire::Authorize { reference, amount: *amount, capture, card: card.into() };
            self.call(OperationKind::Authorize, call, self.url(&["authorizations"]), &request).await
        }
        .boxed()
    }

    fn complete_challenge<'a>(
        &'a self,
        call: &'a Call,
        original: &'a str,
        response: &'a [(String, String)],
        capture: bool,
    ) -> BoxFuture<'a, Outcome> {
        async move {
            let Call { reference, amount, .. } = call.clone();
            let request = wire::CompleteChallenge { reference, amount, capture, response: response.to_vec() };
            let url = self.url(&["authorizations", original, "challenge"]);
            self.call(OperationKind::CompleteChallenge, call, url, &request).await
        }
        .boxed()
    }

    fn capture<'a>(&'a self, call: &'a Call, original: &'a str) -> BoxFuture<'a, Outcome> {
        async move {
            let request = wire::Move { reference: call.reference.clone(), amount: call.amount };
            let url = self.url(&["authorizations", original, "captures"]);
            self.call(OperationKind::Capture, call, url, &request).await
        }
        .boxed()
    }

    fn reverse<'a>(&'a self, call: &'a Call, original: &'a str, repeat: bool) -> BoxFuture<'a, Outcome> {
        async move {
            let request = wire::Reverse { reference: call.reference.clone(), amount: call.amount, repeat };
            let url = self.url(&["authorizations", original, "reversal"]);
            self.call(OperationKind::Reverse, call, url, &request).await
        }
        .boxed()
    }

    fn refund<'a>(&'a self, call: &'a Call, original: &'a str) -> BoxFuture<'a, Outcome> {
        async move {
            let request = wire::Move { reference: call.reference.clone(), amount: call.amount };
            let url = self.url(&["authorizations", original, "refunds"]);
            self.call(OperationKind::Refund, call, url, &request).await
        }
        .boxed()
    }

    fn inquire<'a>(&'a self, kind: OperationKind, reference: &'a str) -> BoxFuture<'a, Inquiry> {
        self.ask(kind, reference).boxed()
    }
}

fn default_headers(token: &str) -> Result<HeaderMap, HttpAcquirerError> {
    let mut headers = HeaderMap::new();
    if !token.is_empty() {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| HttpAcquirerError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn call_headers(call: &Call) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("idempotency-key", HeaderValue::from_str(&call.reference).ok()?);
    // A trace that cannot be passed on is no reason to leave the payer's money alone.
    if let Some(traceparent) = call.traceparent.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert("traceparent", traceparent);
    }
    Some(headers)
}

/// Seconds or a date (RFC 9110, section 10.2.3); zero when it is neither.
fn read_retry_after(value: &[u8], now: OffsetDateTime) -> Duration {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Duration::from_secs(seconds.min(DAY));
    }
    OffsetDateTime::parse(text, &Rfc2822)
        .ok()
        .and_then(|at| Duration::try_from(at - now).ok())
        .unwrap_or_default()
        .min(Duration::from_secs(DAY))
}

/// Without the address.
fn describe(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_or_nothing() {
        let now = time::macros::datetime!(2026-11-23 10:00 UTC);
        let read = |text: &'static str| read_retry_after(text.as_bytes(), now);
        assert_eq!(read("7"), Duration::from_secs(7));
        assert_eq!(read("Mon, 23 Nov 2026 10:00:30 GMT"), Duration::from_secs(30));
        assert_eq!(read("Mon, 23 Nov 2026 09:00:00 GMT"), Duration::ZERO);
        assert_eq!(read("soon"), Duration::ZERO);
        assert_eq!(read("99999999999"), Duration::from_secs(DAY));
    }

    #[test]
    fn a_reference_cannot_lead_out_of_its_path() {
        let mut settings = config::Config::defaults().acquirer;
        settings.url = "https://bank.example/shim/".into();
        let acquirer = HttpAcquirer::new(&settings, Clock::system(), Circuit::new(&settings)).unwrap();
        let url = acquirer.url(&["authorizations", "a/../b?c", "captures"]);
        assert_eq!(url.as_str(), "https://bank.example/shim/v1/authorizations/a%2F..%2Fb%3Fc/captures");
    }

    #[test]
    fn an_address_that_is_no_web_address_is_refused() {
        let mut settings = config::Config::defaults().acquirer;
        for url in ["", "bank", "ftp://bank.example", "data:x", "http://bank.example"] {
            settings.url = url.into();
            assert!(HttpAcquirer::new(&settings, Clock::system(), Circuit::new(&settings)).is_err(), "{url}");
        }
    }
}
