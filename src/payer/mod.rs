//! A payer: pays through the public HTTP API as a browser does, over a real socket.
//!
//! For the demo, the benchmark and tests. It knows the API's contract and nothing of what stands behind it, so that
//! what works for it works for everybody.

pub mod sse;

use std::time::Duration;

use p256::PublicKey;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::Url;
use uuid::Uuid;

use crate::{
    contracts,
    payment::{Money, PaymentCode, PublicStatus, card::CardInput},
    sealing::{self, Kid},
};

/// A server of ours answers or sheds load long before.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Before a stream that ended early is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
const FOLLOWING: &str = "following a payment";
/// How long a sealed card may wait, well below what the intake takes at most.
const SEALED_FOR: Duration = Duration::from_secs(600);

/// A payer's browser. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Payer {
    base: Url,
    client: Client,
}

/// What a payer sees of a bill.
#[derive(Debug, Clone, Deserialize)]
pub struct Bill {
    /// The payment code.
    pub code: PaymentCode,
    /// What is paid for.
    pub service: String,
    /// The applicant's full name.
    pub applicant: String,
    /// What is owed.
    pub amount: Money,
    /// `open`, `paid`, `cancelled` or `expired`.
    pub status: String,
    /// The version of the terms that the payer accepts by paying.
    pub terms: String,
}

/// A key that cards are sealed with.
#[derive(Debug, Clone)]
pub struct SealingKey {
    kid: Kid,
    key: PublicKey,
}

/// A payment's request: the body of `POST /v1/payments`.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// The bill.
    pub bill: PaymentCode,
    /// Must equal the bill's.
    pub amount: Money,
    /// The sealed card.
    pub card: Card,
    /// Where the receipt goes.
    pub payer: contracts::Payer,
    /// The language of the receipt: `ky`, `ru` or `en`.
    pub locale: String,
    /// The accepted version of the terms.
    pub terms: String,
}

/// A card, as a request holds it.
#[derive(Clone, Serialize)]
pub struct Card {
    /// Compact JWE.
    pub sealed: String,
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Card(***)")
    }
}

/// The answer to a submission, whatever it was.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// 202, or why not.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its JSON body; null if it has none.
    pub body: Value,
}

/// Where a payment stands, as far as a payer needs it. The whole document stands beside it.
#[derive(Debug, Clone)]
pub struct News {
    /// What the payer is told.
    pub public_status: PublicStatus,
    /// The document, as `GET /v1/payments/{id}/events` has it.
    pub payment: Value,
}

/// Why a payer could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PayerError {
    /// The address is none.
    #[error("an address that begins with http:// or https:// is expected")]
    Address,
    /// No connection, no answer in time, or a broken one.
    #[error("{0} failed")]
    Http(&'static str, #[source] reqwest::Error),
    /// Refused, with a problem document (RFC 9457).
    #[error("{what} was answered {status}: {problem}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The status.
        status: StatusCode,
        /// Its type and detail.
        problem: String,
    },
    /// An answer of a shape that the contract does not have.
    #[error("{what} was answered with {why}")]
    Unreadable {
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl Payer {
    /// A payer of the site at this address. Connects to nothing yet.
    pub fn new(base_url: &str) -> Result<Self, PayerError> {
        let base = Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or(PayerError::Address)?;
        // Fails when the process has a provider already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("tolom-payer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(1_024)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Repeating is the caller's decision: what is tested here is what a repetition does.
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| PayerError::Http("making the HTTP client", error))?;
        Ok(Self { base, client })
    }

    /// Looks a bill up.
    pub async fn bill(&self, code: &PaymentCode) -> Result<Bill, PayerError> {
        let what = "looking up a bill";
        let answer = self.ask(what, self.get(&["v1", "bills", code.as_str()])).await?;
        serde_json::from_value(answer).map_err(|error| PayerError::Unreadable { what, why: error.to_string() })
    }

    /// The keys to seal a card with, the best first; at least one.
    pub async fn keys(&self) -> Result<Vec<SealingKey>, PayerError> {
        let what = "asking for sealing keys";
        let answer = self.ask(what, self.get(&["v1", "encryption-keys"])).await?;
        let keys = answer["keys"].as_array().into_iter().flatten().filter_map(sealing::public_key);
        let keys: Vec<_> = keys.map(|(kid, key)| SealingKey { kid, key }).collect();
        if keys.is_empty() {
            return Err(PayerError::Unreadable { what, why: "no key on P-256".to_owned() });
        }
        Ok(keys)
    }

    /// Seals a card for one bill, to be used within ten minutes of `now`.
    pub fn seal(&self, key: &SealingKey, bill: &PaymentCode, card: &CardInput, now: OffsetDateTime) -> Card {
        Card { sealed: sealing::seal(&key.key, &key.kid, bill, now + SEALED_FOR, card) }
    }

    /// Submits a payment under an idempotency key. A refusal is an answer like any other here.
    pub async fn submit(&self, request: &Request, idempotency_key: &str) -> Result<Submitted, PayerError> {
        let post = self.client.post(self.url(&["v1", "payments"])).header("idempotency-key", idempotency_key);
        self.send("submitting a payment", post.json(request)).await
    }

    /// Stores a sealed card for a payment that comes by another way: its id.
    pub async fn store_card(&self, card: &Card) -> Result<Uuid, PayerError> {
        let what = "storing a card";
        let answer = self.ask(what, self.client.post(self.url(&["v1", "cards"])).json(card)).await?;
        let id = answer["id"].as_str().and_then(|id| id.parse().ok());
        id.ok_or_else(|| PayerError::Unreadable { what, why: "no id".to_owned() })
    }

    /// Where a payment stands, with its timeline.
    pub async fn payment(&self, id: Uuid) -> Result<Value, PayerError> {
        self.ask("reading a payment", self.get(&["v1", "payments", &id.to_string()])).await
    }

    /// Follows a payment to its end, and returns where it stands then.
    ///
    /// Waits for as long as it takes: the caller knows how long is too long.
    pub async fn follow(&self, id: Uuid) -> Result<Value, PayerError> {
        self.follow_until(id, |_| false).await
    }

    /// Follows a payment to its end, or until `wanted` holds for some news; `wanted` sees all of it.
    pub async fn follow_until(&self, id: Uuid, mut wanted: impl FnMut(&News) -> bool) -> Result<Value, PayerError> {
        loop {
            if let Some(mut stream) = self.open_events(id).await? {
                let mut reader = sse::Reader::default();
                while let Ok(Some(bytes)) = stream.chunk().await {
                    for event in reader.take(&bytes).into_iter().filter(|event| event.kind == "status") {
                        let news = read_news(FOLLOWING, &event.data)?;
                        if wanted(&news) || news.public_status.is_final() {
                            return Ok(news.payment);
                        }
                    }
                }
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    /// Opens a payment's event stream. None while the site is away or full: a browser tries again, and so do we; the
    /// next stream begins with where things stand.
    async fn open_events(&self, id: Uuid) -> Result<Option<Response>, PayerError> {
        let get = self.get(&["v1", "payments", &id.to_string(), "events"]).header("accept", "text/event-stream");
        match get.send().await {
            Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                succeed(FOLLOWING, answer).await.map(Some)
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Hands in what the bank's page gave the payer's browser.
    pub async fn challenge(&self, id: Uuid, fields: &[(&str, &str)]) -> Result<Submitted, PayerError> {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let post = self.client.post(self.url(&["v1", "payments", &id.to_string(), "challenge"]));
        self.send("confirming a payment", post.json(&json!({ "response": fields }))).await
    }

    /// An agency's word that a bill was paid by another channel.
    pub async fn mark_paid(&self, bill: &PaymentCode, token: &str) -> Result<Submitted, PayerError> {
        let put = self.client.put(self.url(&["v1", "bills", bill.as_str()])).bearer_auth(token);
        self.send("marking a bill paid", put.json(&json!({ "status": "paid" }))).await
    }

    /// The receipt of a payment that is paid.
    pub async fn receipt(&self, id: Uuid) -> Result<Value, PayerError> {
        let get = self.get(&["v1", "payments", &id.to_string(), "receipt"]);
        self.ask("reading a receipt", get.header("accept", "application/json")).await
    }

    /// Whether there is a page at this path.
    pub async fn has_page(&self, path: &[&str]) -> bool {
        self.get(path).timeout(REQUEST_TIMEOUT).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// A page's text.
    pub async fn page(&self, path: &[&str]) -> Result<String, PayerError> {
        let what = "reading a page";
        let http = |error| PayerError::Http(what, error);
        let answer = self.get(path).timeout(REQUEST_TIMEOUT).send().await.map_err(http)?;
        succeed(what, answer).await?.text().await.map_err(http)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An http address always has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn get(&self, segments: &[&str]) -> RequestBuilder {
        self.client.get(self.url(segments))
    }

    async fn send(&self, what: &'static str, request: RequestBuilder) -> Result<Submitted, PayerError> {
        let http = |error| PayerError::Http(what, error);
        let answer = request.timeout(REQUEST_TIMEOUT).send().await.map_err(http)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.map_err(http)?;
        Ok(Submitted { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    async fn ask(&self, what: &'static str, request: RequestBuilder) -> Result<Value, PayerError> {
        let http = |error| PayerError::Http(what, error);
        let answer = request.timeout(REQUEST_TIMEOUT).send().await.map_err(http)?;
        succeed(what, answer).await?.json().await.map_err(http)
    }
}

impl Submitted {
    /// The payment's id, if the request was accepted, now or before.
    pub fn id(&self) -> Option<Uuid> {
        (self.status == StatusCode::ACCEPTED).then_some(())?;
        self.body["id"].as_str()?.parse().ok()
    }

    /// Whether the answer is that of an earlier request under the same key.
    pub fn is_replay(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    /// The last part of the problem's type, where the answer is one.
    pub fn problem_name(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.rsplit(['/', '#', ':']).next().unwrap_or_default()
    }

    /// The answer as an error, for callers that wanted a payment.
    pub fn refused(&self, what: &'static str) -> PayerError {
        PayerError::Refused { what, status: self.status, problem: problem(&self.body) }
    }
}

async fn succeed(what: &'static str, answer: Response) -> Result<Response, PayerError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    // A refusal without a problem document is one all the same.
    let body = answer.json().await.unwrap_or(Value::Null);
    Err(PayerError::Refused { what, status, problem: problem(&body) })
}

/// The last part of a problem's type, and its detail.
fn problem(body: &Value) -> String {
    let text = |member: &str| body[member].as_str().unwrap_or_default();
    let kind = text("type").rsplit(['/', '#', ':']).next().unwrap_or_default();
    match (kind, text("detail")) {
        ("", "") => "without a reason".to_owned(),
        (kind, "") => kind.to_owned(),
        (kind, detail) => format!("{kind} ({detail})"),
    }
}

fn read_news(what: &'static str, data: &str) -> Result<News, PayerError> {
    let unreadable = |error: serde_json::Error| PayerError::Unreadable { what, why: error.to_string() };
    let payment: Value = serde_json::from_str(data).map_err(unreadable)?;
    let public_status = PublicStatus::deserialize(&payment["public_status"]).map_err(unreadable)?;
    Ok(News { public_status, payment })
}
