//! One run: a seed makes a small world, plays it in bad weather, lets it come to rest, and asks.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::Row;
use time::{OffsetDateTime, macros::datetime};
use tolom::{
    broker::Broker,
    clock::{self, Clock},
    config::{CaptureMode, Config},
    payment::PaymentCode,
    sealing::{self, FingerprintKey, KeyDir},
};

use crate::support::world::wide;

use super::{
    bank::Bank,
    chance::Chance,
    checks,
    database::Database,
    faults::passing,
    gates::Stage,
    people::{AGENCY, AMOUNT, Errand, Payer, Seal},
    process::{Freeze, Ground},
    scheduler::{Scheduler, Step},
    trace::Trace,
};

const START: OffsetDateTime = datetime!(2026-11-23 00:00 UTC);
/// Nothing moves for longer than this once the weather is fine: the ladder of a day, and a day more.
const LONGEST_REST: Duration = Duration::from_secs(60 * 3_600);
const MOST_STEPS: u32 = 6_000;

/// What a thread needs for any number of runs.
pub(super) struct Harness {
    stage: Arc<Stage>,
    database: Database,
    keys: Arc<KeyDir>,
    fingerprints: Arc<FingerprintKey>,
    folder: PathBuf,
    seal: Seal,
}

/// What came of a run.
pub(super) struct Ran {
    pub(super) seed: u64,
    pub(super) broken: Vec<String>,
    pub(super) hash: u64,
    pub(super) steps: u32,
    pub(super) lines: Vec<String>,
    /// How its payments ended.
    pub(super) ends: Vec<String>,
}

impl Harness {
    pub(super) async fn open() -> Self {
        let stage = Arc::new(Stage::default());
        let mut database = Database::open(&stage).await;
        let folder = std::env::temp_dir().join(format!("tolom-simulation-{}", uuid::Uuid::new_v4().simple()));
        let keys = Arc::new(KeyDir::open(&folder).unwrap());
        let fingerprints = Arc::new(FingerprintKey::open(&folder.join("card-fingerprint.key")).unwrap());
        let mut settings = Config::defaults().sealing;
        // Good for every run: keys that change are not what is simulated.
        settings.seal_hours = 100_000;
        let kid = sealing::create(&database.pool, &keys, &settings, START).await.unwrap();
        let key = keys.get(&kid).unwrap().expect("it was made just now").public_key();
        sqlx::query("INSERT INTO api_client (id, kind, name, token_hash) VALUES ($1, 'agency', 'Agency', $2)")
            .bind(AGENCY)
            .bind(vec![7_u8; 32])
            .execute(&database.pool)
            .await
            .unwrap();
        database.keep().await;
        Self { stage, database, keys, fingerprints, folder, seal: Seal { kid, key } }
    }

    pub(super) async fn run(&mut self, seed: u64, live: bool) -> Ran {
        let mut chance = Chance::new(seed);
        let start = START + Duration::from_secs(chance.between(0, 86_400));
        let clock = Clock::manual(start);
        clock::follow(clock.clone(), seed);
        self.stage.clear();
        self.database.clear().await;
        self.database.set_time(start).await;
        self.database.fill(&self.stage).await;
        let mut config = Config::defaults();
        config.acquirer.name = "simulation".to_owned();
        config.resolve.batch = 3;
        wide(&mut config.limits);
        config.broker.publish_timeout_ms = 3_600_000;
        if chance.percent(40) {
            config.acquirer.capture = CaptureMode::AtAuthorization;
        }
        let ground = Ground {
            broker: Broker::new(&config.broker),
            config: Arc::new(config),
            pool: self.database.pool.clone(),
            clock,
            keys: Arc::clone(&self.keys),
            fingerprints: Arc::clone(&self.fingerprints),
            stage: Arc::clone(&self.stage),
            bank: Arc::new(Mutex::new(Bank::default())),
        };
        let trace = Trace::new(start, live);
        let mut scheduler = Scheduler::new(ground, &mut self.database, chance, self.seal.clone(), trace);
        let mut broken = play(&mut scheduler).await;
        if broken.is_empty() {
            broken = rest(&mut scheduler).await;
        }
        if broken.is_empty() {
            broken = checks::at_the_end(&mut scheduler).await;
        }
        let ends = ends(&mut scheduler).await;
        scheduler.say(&format!("the payments ended: {ends:?}"));
        broken = broken.iter().map(|what| scheduler.trace.names_in(what)).collect();
        broken.iter().for_each(|what| scheduler.say(what));
        let (hash, lines, steps) = (scheduler.trace.hash(), scheduler.trace.lines().to_vec(), scheduler.steps);
        // Dropped futures hold connections until now.
        scheduler.actors.clear();
        drop(scheduler);
        self.stage.clear();
        self.stage.settle(&self.database.pool).await;
        Ran { seed, broken, hash, steps, lines, ends }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Bills, payers and what else is to happen.
async fn people(scheduler: &mut Scheduler<'_>) {
    let now = scheduler.now();
    let at_once = scheduler.ground.config.acquirer.capture == CaptureMode::AtAuthorization;
    let bills: Vec<PaymentCode> =
        (0..2 + scheduler.chance.below(3)).map(|number| format!("11000000{number:02}").parse().unwrap()).collect();
    sqlx::query(
        "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until)
         SELECT code, $2, 'passport', 'Асанов Айбек', $3, 'KGS', now() + interval '30 days' FROM unnest($1::text[]) code",
    )
    .bind(bills.iter().map(PaymentCode::as_str).collect::<Vec<_>>())
    .bind(AGENCY)
    .bind(AMOUNT.value)
    .execute(scheduler.database.own())
    .await
    .unwrap();
    for number in 0..3 + scheduler.chance.below(4) {
        let bill = scheduler.chance.pick(&bills).clone();
        let payer = Payer::new(&mut scheduler.chance, bill, number, at_once);
        let errand = if payer.foreign { Errand::StoreCard(number) } else { Errand::Submit(number) };
        scheduler.payers.push(payer);
        let at = now + passing(&mut scheduler.chance);
        // The same request again, as browsers do.
        if scheduler.chance.percent(20) && matches!(errand, Errand::Submit(_)) {
            scheduler.errands.push((at + passing(&mut scheduler.chance), errand.clone()));
        }
        scheduler.errands.push((at, errand));
    }
    for _ in 0..scheduler.chance.below(3) {
        let bill = scheduler.chance.pick(&bills).clone();
        let errand = if scheduler.chance.percent(70) { Errand::PaidElsewhere(bill) } else { Errand::Cancel(bill) };
        let at = now + passing(&mut scheduler.chance);
        scheduler.errands.push((at, errand));
    }
    if scheduler.chance.percent(10) {
        scheduler.errands.push((now, Errand::Garbage));
    }
}

/// Bad weather, for as long as the seed says.
async fn play(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    people(scheduler).await;
    let steps =
        40 * u32::try_from(scheduler.payers.len()).unwrap() + u32::try_from(scheduler.chance.below(100)).unwrap();
    let look = u32::try_from(scheduler.chance.below(steps as usize)).unwrap();
    for number in 0..steps {
        let mut choices = scheduler.choices();
        if choices.is_empty() && scheduler.is_idle() {
            break;
        }
        choices.extend(scheduler.polls());
        choices.push((3, Step::Time));
        let fault = scheduler.chance.percent(scheduler.weather.faults);
        let step = if fault { Step::Fault } else { scheduler.chance.weighted(&choices) };
        scheduler.step(step).await;
        if number == look {
            let broken = checks::always(scheduler).await;
            if !broken.is_empty() {
                return broken;
            }
        }
    }
    checks::always(scheduler).await
}

/// Fine weather, until nothing moves any more.
async fn rest(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    scheduler.say("the weather is fine from now on");
    scheduler.weather = scheduler.weather.fine();
    if !scheduler.broker_is_there() {
        scheduler.broker_comes_back();
    }
    let now = scheduler.now();
    // In some runs the acquirer stays away for the whole ladder, and in some a process sleeps through it.
    let away = scheduler.chance.percent(6).then_some(now + Duration::from_secs(26 * 3_600));
    scheduler.acquirer_away = away;
    let mut in_review = false;
    for number in 0..scheduler.processes.len() {
        if number == 0 || scheduler.chance.percent(60) {
            scheduler.processes[number].frozen = None;
        }
    }
    let began = now;
    loop {
        let choices = scheduler.choices();
        if !choices.is_empty() {
            let step = scheduler.chance.weighted(&choices);
            scheduler.step(step).await;
            if scheduler.steps > MOST_STEPS {
                return vec![format!("does not come to rest in {MOST_STEPS} steps: {}", scheduler.unrest().await)];
            }
            continue;
        }
        if start_pollers(scheduler).await {
            continue;
        }
        if scheduler.is_at_rest().await {
            scheduler.clear_away_cards().await;
            return Vec::new();
        }
        let now = scheduler.now();
        if now > began + LONGEST_REST {
            return vec![format!("does not come to rest: {}", scheduler.unrest().await)];
        }
        if let Some(until) = away
            && !in_review
            && now + Duration::from_secs(1_800) > until
        {
            in_review = true;
            let broken = checks::unknown_is_in_review(scheduler).await;
            if !broken.is_empty() {
                return broken;
            }
        }
        let next = scheduler.next_moment().await.unwrap_or(now);
        let least = Duration::from_secs(1);
        let by = Duration::try_from(next - now).unwrap_or(least).max(least);
        scheduler.pass_time(by);
    }
}

/// Starts the pollers that are due, as many as there are connections for; whether there was one.
async fn start_pollers(scheduler: &mut Scheduler<'_>) -> bool {
    let mut any = false;
    loop {
        let polls = scheduler.polls();
        if polls.is_empty() {
            return any;
        }
        let poll = scheduler.chance.weighted(&polls);
        scheduler.step(poll).await;
        any = true;
    }
}

async fn ends(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    sqlx::query_scalar("SELECT status FROM payment ORDER BY accepted_at, id")
        .fetch_all(scheduler.database.own())
        .await
        .unwrap()
}

impl Scheduler<'_> {
    /// Whether nobody is at work or about to be, whatever the books still wait for.
    fn is_idle(&self) -> bool {
        self.actors.is_empty()
            && self.errands.is_empty()
            && self.rabbit.left() == 0
            && self.ground.bank.lock().unwrap().next().is_none()
    }

    async fn is_at_rest(&mut self) -> bool {
        self.is_idle() && self.unrest().await.is_empty()
    }

    /// Cards that nobody came for are cleared away by the clock.
    async fn clear_away_cards(&mut self) {
        for _ in 0..4 {
            let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM sealed_card)")
                .fetch_one(self.database.own())
                .await
                .unwrap();
            if !left {
                return;
            }
            self.pass_time(Duration::from_secs(11 * 60));
            while start_pollers(self).await {
                while let Some((_, step)) = self.choices().first() {
                    let step = *step;
                    self.step(step).await;
                }
            }
        }
    }

    /// What our books still wait for.
    async fn unrest(&mut self) -> String {
        let rows = sqlx::query(
            "SELECT 'outbox ' || routing_key FROM outbox
             UNION ALL SELECT kind || ' of ' || payment_id || ' is ' || coalesce(outcome, 'open') FROM operation
                 WHERE outcome IS NULL OR outcome = 'unknown'
             UNION ALL SELECT 'payment ' || id || ' is ' || status FROM payment
                 WHERE status IN ('accepted', 'authorizing', 'challenged', 'authorized', 'unknown', 'reversing')",
        )
        .fetch_all(self.database.own())
        .await
        .unwrap();
        rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("; ")
    }

    /// When something is to happen next.
    async fn next_moment(&mut self) -> Option<OffsetDateTime> {
        let now = self.now();
        let books: Option<OffsetDateTime> = sqlx::query_scalar(
            "SELECT min(at) FROM (
                 SELECT next_attempt_at AS at FROM operation WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing
                 UNION ALL SELECT publish_after FROM outbox
                 UNION ALL SELECT CASE WHEN p.status = 'challenged' AND p.challenge_response IS NULL
                         THEN coalesce(p.challenge_until, p.updated_at + interval '1 hour')
                         ELSE p.updated_at + interval '60 seconds' END + interval '1 millisecond'
                     FROM payment p WHERE p.status IN ('accepted', 'authorizing', 'challenged', 'authorized')
                     AND NOT EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id
                                     AND (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing)) next",
        )
        .fetch_one(self.database.own())
        .await
        .unwrap();
        let frozen = self.processes.iter().filter_map(|process| process.frozen);
        let mut moments: Vec<OffsetDateTime> = frozen.map(|Freeze { until, .. }| until).collect();
        moments.extend(books);
        moments.extend(self.errands.iter().map(|(at, _)| *at));
        moments.extend(self.rabbit.next(now));
        moments.extend(self.ground.bank.lock().unwrap().next());
        moments.extend(self.acquirer_away);
        moments.into_iter().filter(|at| *at > now).min()
    }
}
