//! The simulator's HTTP side: reads requests, plays the cards' faults, writes answers.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    Simulator, acs,
    bank::{Asked, Done, Plan, Refusal},
    cards::{self, Behaviour},
    entry::Fingerprint,
    socket::Line,
};
use crate::{
    acquirer::http::wire::{self, Problem},
    payment::Money,
};

const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_REFERENCE: usize = 64;

/// What every handler has.
#[derive(Clone)]
pub(super) struct App {
    pub(super) simulator: Simulator,
    shutdown: CancellationToken,
}

pub(super) fn router(simulator: Simulator, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/v1/authorizations", post(authorize))
        .route("/v1/authorizations/{original}/challenge", post(complete))
        .route("/v1/authorizations/{original}/captures", post(capture))
        .route("/v1/authorizations/{original}/reversal", post(reverse))
        .route("/v1/authorizations/{original}/refunds", post(refund))
        .route("/v1/operations/{reference}", get(inquire))
        .route("/books", get(|State(app): State<App>| async move { Json(app.simulator.books()) }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/acs/{reference}", post(acs::open))
        .route("/acs/{reference}/answer", post(acs::act))
        .fallback(|| async { Fault::new(StatusCode::NOT_FOUND, "no_such_address") })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(App { simulator, shutdown })
}

type Answer = Result<Response, Fault>;

/// An error answer, RFC 9457.
struct Fault {
    status: StatusCode,
    code: &'static str,
    reference: Option<String>,
    retry_after_s: Option<u64>,
}

impl Fault {
    const fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, reference: None, retry_after_s: None }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = Problem {
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: Some(self.code.to_owned()),
            reference: self.reference,
        };
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

async fn authorize(
    State(app): State<App>,
    ConnectInfo(line): ConnectInfo<Line>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let request: wire::AuthorizeRequest = read(&body)?;
    check(&headers, &request.reference, request.amount)?;
    let asked = app.asked(&headers, &request.reference, request.amount, fingerprint(&request)?);
    let own = app.simulator.0.options.cards.iter().find(|(number, _)| *number == request.card.number);
    let behaviour = own.map_or_else(|| cards::behaviour(&request.card.number), |(_, behaviour)| *behaviour);
    app.latency().await;
    match behaviour {
        Behaviour::TimeoutBefore => return Ok(app.never(&line).await),
        Behaviour::ResetBefore => return Ok(cut(&line)),
        _ => {}
    }
    let options = &app.simulator.0.options;
    let open = if behaviour == Behaviour::ShortChallenge { options.short_challenge } else { options.challenge };
    let delay = behaviour.delay(options.slow, options.late);
    let last_four = request.card.number.get(request.card.number.len().saturating_sub(4)..).unwrap_or_default();
    let plan = Plan { behaviour, capture: request.capture, open, delay, last_four };
    let done = app.simulator.bank().authorize(asked.borrow(), plan);
    let done = done.map_err(|refusal| app.refuse(refusal, &request.reference))?;
    if !done.fresh {
        return Ok(operation(done));
    }
    match done.behaviour {
        Behaviour::TimeoutAfter | Behaviour::Late => Ok(app.never(&line).await),
        Behaviour::ErrorAfter => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal")),
        Behaviour::ResetAfter => Ok(cut(&line)),
        Behaviour::Slow => {
            tokio::time::sleep(options.slow).await;
            let done = app.simulator.bank().mature(&request.reference, app.simulator.0.clock.now(), &asked.site);
            done.map(operation).map_err(|refusal| app.refuse(refusal, &request.reference))
        }
        _ => Ok(operation(done)),
    }
}

async fn complete(State(app): State<App>, Path(original): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::CompleteChallenge = read(&body)?;
    check(&headers, &request.reference, request.amount)?;
    let asked = app.asked(&headers, &request.reference, request.amount, fingerprint(&(&original, &request))?);
    app.latency().await;
    let done = app.simulator.bank().complete(asked.borrow(), &original, &request.response, request.capture);
    done.map(operation).map_err(|refusal| app.refuse(refusal, &original))
}

async fn capture(State(app): State<App>, Path(original): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::Move = read(&body)?;
    check(&headers, &request.reference, request.amount)?;
    let asked = app.asked(&headers, &request.reference, request.amount, fingerprint(&(&original, &request))?);
    app.latency().await;
    let done = app.simulator.bank().capture(asked.borrow(), &original);
    answer_unless(Behaviour::CaptureErrorAfter, done.map_err(|refusal| app.refuse(refusal, &original))?)
}

async fn reverse(State(app): State<App>, Path(original): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut request: wire::Reverse = read(&body)?;
    check(&headers, &request.reference, request.amount)?;
    // A repeat says that it is one, and is the same request all the same.
    request.repeat = false;
    let asked = app.asked(&headers, &request.reference, request.amount, fingerprint(&(&original, &request))?);
    app.latency().await;
    let done = app.simulator.bank().reverse(asked.borrow(), &original);
    answer_unless(Behaviour::ReversalErrorAfter, done.map_err(|refusal| app.refuse(refusal, &original))?)
}

async fn refund(State(app): State<App>, Path(original): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::Move = read(&body)?;
    check(&headers, &request.reference, request.amount)?;
    let asked = app.asked(&headers, &request.reference, request.amount, fingerprint(&(&original, &request))?);
    app.latency().await;
    let done = app.simulator.bank().refund(asked.borrow(), &original);
    done.map(operation).map_err(|refusal| app.refuse(refusal, &original))
}

async fn inquire(State(app): State<App>, Path(reference): Path<String>, headers: HeaderMap) -> Answer {
    app.latency().await;
    let found = app.simulator.bank().inquire(&reference, app.simulator.0.clock.now(), &app.site(&headers));
    found.map(|operation| Json(operation).into_response()).ok_or_else(|| app.refuse(Refusal::NotFound, &reference))
}

/// What the bank is asked, owned, so that the lock is never held across an await.
struct Request {
    reference: String,
    amount: Money,
    fingerprint: Fingerprint,
    site: String,
    clock: crate::clock::Clock,
}

impl Request {
    fn borrow(&self) -> Asked<'_> {
        Asked {
            reference: &self.reference,
            amount: self.amount,
            fingerprint: self.fingerprint,
            now: self.clock.now(),
            site: &self.site,
        }
    }
}

impl App {
    fn asked(&self, headers: &HeaderMap, reference: &str, amount: Money, fingerprint: Fingerprint) -> Request {
        let clock = self.simulator.0.clock.clone();
        Request { reference: reference.to_owned(), amount, fingerprint, site: self.site(headers), clock }
    }

    fn site(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.simulator.0.options.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("http://{host}")
    }

    async fn latency(&self) {
        let latency = self.simulator.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// No answer until the client gives up, or the simulator ends and the connection with it.
    async fn never(&self, line: &Line) -> Response {
        self.shutdown.cancelled().await;
        cut(line)
    }

    fn refuse(&self, refusal: Refusal, reference: &str) -> Fault {
        let wait = self.simulator.0.options.retry_after;
        let wait = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        let busy = Fault::new(StatusCode::SERVICE_UNAVAILABLE, "busy");
        match refusal {
            Refusal::InFlight => Fault { retry_after_s: wait, ..Fault::new(StatusCode::CONFLICT, "in_flight") },
            Refusal::KeyReused => Fault::new(StatusCode::UNPROCESSABLE_ENTITY, wire::KEY_REUSED),
            Refusal::NotFound => {
                Fault { reference: Some(reference.to_owned()), ..Fault::new(StatusCode::NOT_FOUND, "not_found") }
            }
            Refusal::Busy => Fault { retry_after_s: wait, ..busy },
            Refusal::Full => Fault { retry_after_s: Some(60), code: "full", ..busy },
        }
    }
}

fn cut(line: &Line) -> Response {
    line.cut();
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// The operation; 402 if it was declined.
fn operation(done: Done) -> Response {
    let declined = done.operation.state == wire::State::Declined;
    let status = if declined { StatusCode::PAYMENT_REQUIRED } else { StatusCode::OK };
    (status, Json(done.operation)).into_response()
}

/// The first answer of a card with this behaviour is lost in an error, though the operation is booked.
fn answer_unless(lost: Behaviour, done: Done) -> Answer {
    if done.fresh && done.behaviour == lost {
        return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    }
    Ok(operation(done))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "invalid_body"))
}

fn check(headers: &HeaderMap, reference: &str, amount: Money) -> Result<(), Fault> {
    let bad = |code| Err(Fault::new(StatusCode::BAD_REQUEST, code));
    if reference.is_empty() || reference.len() > MAX_REFERENCE {
        return bad("invalid_reference");
    }
    if headers.get("idempotency-key").is_none_or(|key| key.as_bytes() != reference.as_bytes()) {
        return bad("key_mismatch");
    }
    if amount.value <= 0 { bad("invalid_amount") } else { Ok(()) }
}

/// A hash of the request as it was understood; the card is in it, and cannot be had back from it.
fn fingerprint(request: &impl Serialize) -> Result<Fingerprint, Fault> {
    let bytes = serde_json::to_vec(request).map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "invalid_body"))?;
    Ok(Sha256::digest(&*Zeroizing::new(bytes)).into())
}
