//! A whole Tolom for one test: its own database, queue prefix, simulator, mailbox, keys and ports.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    app::{App, Roles},
    broker::{self, Broker},
    clock::Clock,
    config::Config,
    contracts,
    mail_catcher::MailCatcher,
    payer::{Payer, Request, Submitted},
    payment::{PaymentCode, card::CardInput},
    simulator::{self, Simulator, SimulatorOptions},
    verify,
    workers::{self, Role},
};
use uuid::Uuid;

use super::{database::TestDatabase, services::services};

/// Everything ends within this, or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) broker: Broker,
    pub(crate) simulator: Simulator,
    pub(crate) mail: MailCatcher,
    pub(crate) payer: Payer,
    /// Where the intake is.
    pub(crate) site: String,
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    apps: Vec<App>,
    /// Whether dead letters leave the broker.
    parks: bool,
    _database: TestDatabase,
    _simulator: DropGuard,
    keys: PathBuf,
}

impl World {
    /// Everything running, with short time-outs.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// The same with settings of the test's own.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::prepared(change).await;
        world.run(workers::ALL.to_vec()).await;
        world
    }

    /// Database, topology, simulator and mailbox; no role runs yet.
    pub(crate) async fn prepared(change: impl FnOnce(&mut Config)) -> Self {
        Self::on_broker(&services().await.amqp_url, change).await
    }

    /// The same on a broker of the test's own.
    pub(crate) async fn on_broker(amqp_url: &str, change: impl FnOnce(&mut Config)) -> Self {
        // Quiet unless asked: TOLOM_TEST_LOG=info cargo test ...
        let filter = std::env::var("TOLOM_TEST_LOG").unwrap_or_else(|_| "off".to_owned());
        tolom::telemetry::log(&tolom::config::Log { format: tolom::config::LogFormat::Pretty, filter });
        let database = TestDatabase::fresh().await;
        let clock = Clock::system();
        let simulator = Simulator::with_options(
            clock.clone(),
            SimulatorOptions {
                slow: Duration::from_millis(300),
                // Longer than a reversal needs to close the reference.
                late: Duration::from_secs(30),
                short_challenge: Duration::from_millis(300),
                ..SimulatorOptions::default()
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acquirer = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(simulator::serve(listener, simulator.clone(), stop.clone()));
        let mail = MailCatcher::start_whole().await.unwrap();
        let id = &Uuid::new_v4().simple().to_string()[..12];
        let keys = std::env::temp_dir().join(format!("tolom-test-keys-{id}"));

        let mut config = Config::defaults();
        config.database.url = database.url.clone().into();
        config.database.max_connections = 8;
        config.broker.url = amqp_url.to_owned().into();
        config.broker.prefix = format!("test-{id}.");
        config.broker.retry_delays_ms = vec![100, 500];
        config.acquirer.url = format!("http://{acquirer}");
        config.acquirer.connect_timeout_ms = 500;
        config.acquirer.answer_timeout_ms = 1_000;
        config.acquirer.grace_ms = 100;
        config.acquirer.send_within_ms = 1_000;
        config.resolve.poll_ms = 50;
        config.resolve.schedule_s = vec![1];
        config.mail.url = format!("smtp://{}", mail.smtp_addr()).into();
        config.sealing.keys_dir = keys.display().to_string();
        config.intake.lookups_per_minute = 100_000;
        wide(&mut config.limits);
        config.shutdown.drain_s = 20;
        change(&mut config);
        let broker = Broker::new(&config.broker);
        broker::apply(&broker).await.unwrap();
        Self {
            broker,
            simulator,
            mail,
            payer: Payer::new("http://127.0.0.1:1").unwrap(),
            site: String::new(),
            pool: database.pool.clone(),
            clock,
            apps: Vec::new(),
            parks: false,
            config: Arc::new(config),
            _database: database,
            _simulator: stop.drop_guard(),
            keys,
        }
    }

    /// Starts the intake and these workers.
    pub(crate) async fn run(&mut self, workers: Vec<Role>) {
        let intake = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = (*self.config).clone();
        self.site = format!("http://{}", intake.local_addr().unwrap());
        config.intake.public_url.clone_from(&self.site);
        self.payer = Payer::new(&self.site).unwrap();
        self.config = Arc::new(config);
        self.start_roles(Roles { intake: Some(intake), admin: None, workers });
    }

    /// Starts more workers beside what runs, as a process of theirs would.
    pub(crate) async fn run_too(&mut self, workers: Vec<Role>) {
        self.start_roles(Roles { intake: None, admin: None, workers });
    }

    fn start_roles(&mut self, roles: Roles) {
        self.parks |= roles.workers.iter().any(|role| role.name == "park");
        self.apps.push(App::start(Arc::clone(&self.config), self.clock.clone(), roles).unwrap());
    }

    /// Drains the workers that were started beside the intake.
    pub(crate) async fn stop_workers(&mut self) {
        for app in self.apps.drain(1..) {
            assert!(app.stop().await, "drained in time");
        }
    }

    /// Drains what runs.
    pub(crate) async fn stop(&mut self) {
        for app in self.apps.drain(..) {
            assert!(app.stop().await, "drained in time");
        }
    }

    /// Takes the database away, as a crash or a cut network does.
    pub(crate) async fn take_database_away(&self) {
        self._database.take_away().await;
    }

    /// Gives it back.
    pub(crate) async fn give_database_back(&self) {
        self._database.give_back().await;
    }

    /// Makes a sealing key, where no authorize worker does.
    pub(crate) async fn make_sealing_key(&self) {
        let keys = tolom::sealing::KeyDir::open(&self.config.sealing.keys_dir).unwrap();
        tolom::sealing::create(&self.pool, &keys, &self.config.sealing, self.clock.now()).await.unwrap();
    }

    /// Issues an open bill.
    pub(crate) async fn bill(&self, code: &str) -> PaymentCode {
        self.bills(&[code.to_owned()]).await.remove(0)
    }

    /// Issues open bills of 510 som.
    pub(crate) async fn bills(&self, codes: &[String]) -> Vec<PaymentCode> {
        sqlx::query(
            "INSERT INTO api_client (id, kind, name, token_hash) VALUES ('agency', 'agency', 'Agency', $1)
             ON CONFLICT DO NOTHING",
        )
        .bind(vec![7_u8; 32])
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until)
             SELECT code, 'agency', 'passport', 'Асанов Айбек', 51000, 'KGS', now() + interval '30 days'
             FROM unnest($1::text[]) code",
        )
        .bind(codes)
        .execute(&self.pool)
        .await
        .unwrap();
        codes.iter().map(|code| code.parse().unwrap()).collect()
    }

    /// A request to pay a bill with a card.
    pub(crate) async fn request(&self, bill: &PaymentCode, number: &str) -> Request {
        self.request_with(bill, &card(number)).await
    }

    /// A request to pay a bill with whatever was typed.
    pub(crate) async fn request_with(&self, bill: &PaymentCode, card: &CardInput) -> Request {
        let key = wait_for(async || self.payer.keys().await.ok()).await.remove(0);
        let shown = self.payer.bill(bill).await.unwrap();
        Request {
            bill: bill.clone(),
            amount: shown.amount,
            card: self.payer.seal(&key, bill, card, self.clock.now()),
            payer: contracts::Payer { email: "payer@example.com".into(), phone: "+996555123456".into() },
            locale: "ru".into(),
            terms: shown.terms,
        }
    }

    /// Submits a payment under a new key.
    pub(crate) async fn pay(&self, bill: &PaymentCode, number: &str) -> Submitted {
        let request = self.request(bill, number).await;
        self.payer.submit(&request, &Uuid::new_v4().to_string()).await.unwrap()
    }

    /// Pays and follows the payment to its end: its id and final status.
    pub(crate) async fn pay_to_the_end(&self, bill: &PaymentCode, number: &str) -> (Uuid, String) {
        let submitted = self.pay(bill, number).await;
        let id = submitted.id().unwrap_or_else(|| panic!("accepted: {submitted:?}"));
        (id, self.end_of(id).await)
    }

    /// Follows a payment to its end.
    pub(crate) async fn end_of(&self, id: Uuid) -> String {
        let end = tokio::time::timeout(PATIENCE, self.payer.follow(id)).await.expect("an end in time").unwrap();
        end["status"].as_str().unwrap().to_owned()
    }

    /// Waits until a question to the database has this answer.
    pub(crate) async fn wait_until(&self, question: &'static str, answer: i64) {
        let asked = ask_until(async || {
            let now: i64 = sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap();
            (now == answer).then_some(())
        });
        if asked.await.is_none() {
            panic!("`{question}` is not {answer} in time\n{}", self.describe().await);
        }
    }

    /// Where everything stands, for a failed test's message.
    async fn describe(&self) -> String {
        let lines: Vec<String> = sqlx::query_scalar(
            "SELECT format('payments %s: %s', status, count(*)) FROM payment GROUP BY status
             UNION ALL SELECT format('payment %s %s, updated %s ago; %s of its card stored', p.id, p.status,
                 now() - p.updated_at, (SELECT count(*) FROM sealed_card c WHERE c.id = p.card_id))
                 FROM payment p WHERE p.status NOT IN ('captured', 'declined', 'failed', 'reversed')
             UNION ALL SELECT format('operation %s of %s: %s, owner %s, attempts %s, next in %s', kind, payment_id,
                 coalesce(outcome, 'open'), owner, attempts, next_attempt_at - now())
                 FROM operation WHERE outcome IS NULL OR outcome = 'unknown'
             UNION ALL SELECT format('outbox %s, attempts %s, due in %s', routing_key, attempts, publish_after - now())
                 FROM outbox
             UNION ALL SELECT format('receipts not sent: %s', count(*)) FROM receipt WHERE sent_at IS NULL",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let mut text = lines.join("\n");
        if let Ok(depths) = broker::Depths::open(&self.broker).await {
            for (queue, waiting, dead) in depths.read().await.unwrap_or_default() {
                text.push_str(&format!("\n{}: {waiting} waiting, {dead} dead", queue.name()));
            }
        }
        text
    }

    /// Asks the database for a number.
    pub(crate) async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap()
    }

    /// Whether none of the broker's dead queues holds anything.
    pub(crate) async fn no_dead_letter_at_the_broker(&self) -> bool {
        let Ok(depths) = broker::Depths::open(&self.broker).await else { return false };
        depths.read().await.is_ok_and(|depths| depths.iter().all(|(_, _, dead)| *dead == 0))
    }

    /// Waits until nothing is on its way, holds every rule, and leaves nothing behind.
    pub(crate) async fn finish(mut self) {
        self.wait_until("SELECT count(*) FROM outbox", 0).await;
        self.wait_until(
            "SELECT count(*) FROM operation WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
            0,
        )
        .await;
        if self.parks {
            wait_for(async || self.no_dead_letter_at_the_broker().await.then_some(())).await;
        }
        let findings =
            verify::verify(&self.config, &self.pool, &self.broker, &self.clock, Duration::ZERO, None).await.unwrap();
        assert!(verify::all_kept(&findings), "\n{}", verify::table(&findings));
        self.stop().await;
        broker::remove(&self.broker).await.unwrap();
    }
}

impl World {
    /// Leaves nothing behind, where the acquirer has no books to be held against.
    pub(crate) async fn finish_without_acquirer(mut self) {
        self.stop().await;
        broker::remove(&self.broker).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.keys);
    }
}

/// Limits that no test meets that is not about them: more than are ever counted.
pub(crate) fn wide(limits: &mut tolom::config::Limits) {
    for rule in [
        &mut limits.codes,
        &mut limits.client,
        &mut limits.bill,
        &mut limits.device,
        &mut limits.card,
        &mut limits.address,
    ] {
        rule.free = 1_000_000;
    }
}

/// A card of this number that is good otherwise.
pub(crate) fn card(number: &str) -> CardInput {
    CardInput {
        number: number.to_owned(),
        expiry_month: 12,
        expiry_year: 2035,
        cvc: "123".to_owned(),
        holder: "AIBEK ASANOV".to_owned(),
    }
}

/// Asks until there is an answer, for at most [`PATIENCE`].
pub(crate) async fn wait_for<T>(ask: impl AsyncFnMut() -> Option<T>) -> T {
    ask_until(ask).await.expect("an answer in time")
}

async fn ask_until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let wait = async {
        loop {
            tick.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.ok()
}
