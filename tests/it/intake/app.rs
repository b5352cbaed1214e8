//! An intake of the test's own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use p256::PublicKey;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tolom::{
    clock::Clock,
    config::Config,
    intake::{Intake, PROBLEM_BASE},
    live::LiveFeed,
    payment::{Currency, Money, card::CardInput},
    relay::{self, Announced},
    sealing::{self, KeyDir, Kid},
    store::{
        bills::{self, BillTerms},
        clients::{self, Client, ClientKind},
    },
    supervision::Supervisor,
};
use uuid::Uuid;

use crate::support::database::TestDatabase;

pub(crate) const AMOUNT: Money = Money::new(51_000, Currency::KGS);
pub(crate) const TERMS: &str = "2026-01-01";

pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    pub(crate) config: Arc<Config>,
    pub(crate) live: LiveFeed,
    pub(crate) client: reqwest::Client,
    pub(crate) key: (Kid, PublicKey),
    pub(crate) keys: KeyDir,
    /// The token of the agency `passports`.
    pub(crate) agency: String,
    pub(crate) announced: Mutex<mpsc::Receiver<Announced>>,
    address: SocketAddr,
    keys_path: std::path::PathBuf,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    /// Last, so that it is dropped when nothing uses it any more.
    pub(crate) database: TestDatabase,
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        // The HTTP client wants one although it never speaks TLS here; another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = TestDatabase::fresh().await;
        let pool = database.pool.clone();
        let mut config = Config::defaults();
        change(&mut config);
        let config = Arc::new(config);
        let clock = Clock::manual(Clock::system().now());
        let keys_path = std::env::temp_dir().join(format!("tolom-test-keys-{}", Uuid::now_v7()));
        let keys = KeyDir::open(&keys_path).unwrap();
        let kid = sealing::create(&pool, &keys, &config.sealing, clock.now()).await.unwrap();
        let public = keys.get(&kid).unwrap().unwrap().public_key();
        let agency = token(&pool, "passports", ClientKind::Agency).await;
        let (relay, announced) = relay::channel(64);
        let live = LiveFeed::new(64);
        let supervisor = Supervisor::default();
        let intake = Intake::start(pool.clone(), config.clone(), clock.clone(), relay, live.clone(), supervisor);
        let shutdown = CancellationToken::new();
        let (address, serving) = serve(intake, &shutdown).await;
        Self {
            pool,
            clock,
            config,
            live,
            client: reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap(),
            key: (kid, public),
            keys,
            agency,
            announced: Mutex::new(announced),
            address,
            keys_path,
            shutdown,
            serving: Some(serving),
            database,
        }
    }

    /// Another intake on the same database, as long as this one; where it is.
    pub(super) async fn another(&self) -> String {
        let (relay, _) = relay::channel(64);
        let (pool, config, clock) = (self.pool.clone(), self.config.clone(), self.clock.clone());
        let intake = Intake::start(pool, config, clock, relay, self.live.clone(), Supervisor::default());
        let (address, _) = serve(intake, &self.shutdown).await;
        format!("http://{address}")
    }

    /// Stops the intake and waits until it has drained.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        self.serving.take().unwrap().await.unwrap().unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// An open bill of the agency `passports`.
    pub(crate) async fn bill(&self, code: &str) {
        let terms = BillTerms {
            code: code.parse().unwrap(),
            service: "passport".into(),
            applicant: "Асанов Айбек".into(),
            amount: AMOUNT,
            valid_until: bills::whole_second(self.clock.now() + time::Duration::days(30)).unwrap(),
        };
        bills::put(&self.pool, "passports", &terms, self.clock.now()).await.unwrap();
    }

    pub(crate) fn sealed(&self, code: &str) -> String {
        self.sealed_until(code, self.clock.now() + time::Duration::minutes(5))
    }

    pub(crate) fn sealed_until(&self, code: &str, expires_at: OffsetDateTime) -> String {
        let (kid, public) = &self.key;
        sealing::seal(public, kid, &code.parse().unwrap(), expires_at, &card())
    }

    /// A request that is well.
    pub(crate) fn request(&self, code: &str) -> Value {
        json!({
            "bill": code,
            "amount": AMOUNT,
            "card": {"sealed": self.sealed(code)},
            "payer": {"email": "payer@example.org", "phone": "+996555123456"},
            "locale": "ky",
            "terms": TERMS,
        })
    }

    pub(crate) async fn submit(&self, key: &str, request: &Value) -> Response {
        let post = self.client.post(self.url("/v1/payments")).header("idempotency-key", key);
        post.json(request).send().await.unwrap()
    }

    /// Submits a payment that must be accepted; its id.
    pub(crate) async fn pay(&self, code: &str) -> Uuid {
        let response = self.submit(&Uuid::now_v7().to_string(), &self.request(code)).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let body: Value = response.json().await.unwrap();
        body["id"].as_str().unwrap().parse().unwrap()
    }

    /// A client at this address of loopback.
    pub(super) fn client_at(&self, address: [u8; 4]) -> reqwest::Client {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20));
        client.local_address(IpAddr::from(address)).build().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// A request of the agency `passports`.
    pub(crate) async fn agency(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.client.request(method, self.url(path)).bearer_auth(&self.agency);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// Rows of (payment, idempotency_key, sealed_card, journal, outbox).
    pub(crate) async fn stored(&self) -> [i64; 5] {
        let (a, b, c, d, e) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM payment), (SELECT count(*) FROM idempotency_key),
                    (SELECT count(*) FROM sealed_card), (SELECT count(*) FROM journal), (SELECT count(*) FROM outbox)",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        [a, b, c, d, e]
    }

    /// Moves a payment on as the books would.
    pub(crate) async fn move_on(&self, payment: Uuid, status: &str) {
        sqlx::query(
            "UPDATE payment SET previous_status = status, status = $2, version = version + 1,
                    captured_at = CASE WHEN $2 = 'captured' THEN now() END WHERE id = $1",
        )
        .bind(payment)
        .bind(status)
        .execute(&self.pool)
        .await
        .unwrap();
    }
}

async fn serve(intake: Intake, shutdown: &CancellationToken) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(tolom::intake::serve(listener, intake, shutdown.clone())))
}

impl Drop for App {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _ = std::fs::remove_dir_all(&self.keys_path);
    }
}

pub(crate) fn card() -> CardInput {
    CardInput {
        number: "4111111111111111".into(),
        expiry_month: 12,
        expiry_year: 2030,
        cvc: "123".into(),
        holder: "AIBEK ASANOV".into(),
    }
}

pub(crate) async fn token(pool: &PgPool, id: &str, kind: ClientKind) -> String {
    let client = Client { id: id.into(), kind, name: id.into() };
    clients::add(pool, &client).await.unwrap().expose().to_owned()
}

/// Checks that an answer is this problem, and gives its body.
#[track_caller]
pub(crate) fn is_problem(answer: &(StatusCode, String, Value), status: u16, name: &str, field: Option<&str>) {
    let (got, media_type, body) = answer;
    assert_eq!(
        (got.as_u16(), body["type"].as_str(), body["field"].as_str()),
        (status, Some(format!("{PROBLEM_BASE}{name}").as_str()), field),
        "{body}"
    );
    assert_eq!(media_type, "application/problem+json");
    assert_eq!(body["status"].as_u64(), Some(u64::from(status)));
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    assert!(!body.to_string().contains("4111"), "{body}");
}

/// Status, media type and body of an answer.
pub(crate) async fn read(response: Response) -> (StatusCode, String, Value) {
    let media_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, media_type.unwrap_or_default(), body)
}
