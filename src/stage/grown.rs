//! What an installation looks like after a year: the books full, letters parked, messages waiting at the broker.

use anyhow::Context as _;
use serde::Serialize;
use time::{Date, Duration, OffsetDateTime, Time};
use tokio::time::Instant;

use super::{AGENCY, AMOUNT};
use crate::{
    broker::{Broker, Parcel, Queue, backlog},
    clock::{BISHKEK, Clock, bishkek_day},
    config::{CaptureMode, Config},
    store::{
        self,
        grown::{self, Past},
    },
};

/// The queue whose messages wait, and whose letters are parked.
const QUEUE: Queue = Queue::Receipt;
/// Longer than anything is played. Messages wait for so long in a retry tier of their own, behind the others.
const WAITS_MS: u32 = 7 * 86_400_000;
/// What queues hold beside the backlog.
const ROOM: u64 = 1_000_000;
/// Payments that letters and waiting messages are about.
const TALKED_ABOUT: i64 = 50_000;

/// How much there is from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Grown {
    /// Captured payments, spread over a year that ends before today: at least one.
    pub payments: u64,
    /// Dead letters, parked.
    pub dead_letters: u64,
    /// Messages that wait in a retry tier.
    pub backlog: u64,
}

impl Grown {
    /// Makes room for the backlog: before anything reads the settings.
    pub(super) fn make_room(self, config: &mut Config) {
        if self.backlog > 0 {
            config.broker.retry_delays_ms.push(WAITS_MS);
            let length = u32::try_from(self.backlog + ROOM).unwrap_or(u32::MAX);
            config.broker.max_queue_length = config.broker.max_queue_length.max(length);
        }
    }

    /// Fills a new database and the queues, before any role starts. The day after the year.
    pub(super) async fn fill(self, config: &Config, say: &impl Fn(&str)) -> anyhow::Result<Date> {
        let now = Clock::system().now();
        let today = bishkek_day(now);
        let midnight = today.with_time(Time::MIDNIGHT).assume_offset(BISHKEK);
        let seconds = |began: Instant| began.elapsed().as_secs_f64();
        let began = Instant::now();
        say(&format!("making {} payments of a year", self.payments));
        grown::fill(&config.database, &self.past(config, midnight, now)?).await.context("the year cannot be made")?;
        let pool = store::connect(&config.database)?;
        let gigabytes = grown::size(&pool).await? as f64 / 1e9;
        say(&format!("{} payments are in the books, {gigabytes:.1} GB, after {:.0} s", self.payments, seconds(began)));
        let captured = grown::captured(&pool, TALKED_ABOUT).await?;
        let began = Instant::now();
        grown::park_letters(&pool, &captured, self.dead_letters, QUEUE.name(), now).await?;
        pool.close().await;
        say(&format!("{} dead letters are parked, after {:.0} s", self.dead_letters, seconds(began)));
        let began = Instant::now();
        let again = (0..self.backlog).zip(captured.iter().cycle()).filter_map(|(_, payment)| {
            let (id, body) = payment.fact()?;
            Some(Parcel { id: id.to_string(), body, ..Parcel::default() })
        });
        let broker = Broker::new(&config.broker);
        let waiting = backlog::fill(&broker, QUEUE, "the mail server is away", again).await?;
        say(&format!("{waiting} messages wait at the broker, after {:.0} s", seconds(began)));
        Ok(today)
    }

    fn past(self, config: &Config, midnight: OffsetDateTime, now: OffsetDateTime) -> anyhow::Result<Past> {
        let service = config.services.first().context("no service is configured")?;
        let until = midnight - Duration::MINUTE;
        Ok(Past {
            payments: self.payments,
            since: until - Duration::days(365),
            until,
            keys_since: now - Duration::days(config.intake.idempotency_keep_days.into()),
            agency: AGENCY.to_owned(),
            prefix: service.prefix.clone(),
            service: service.service.clone(),
            amount: AMOUNT,
            acquirer: config.acquirer.name.clone(),
            capture_at_once: config.acquirer.capture == CaptureMode::AtAuthorization,
            terms: config.terms_in_force(bishkek_day(now)).to_owned(),
        })
    }
}

/// How many messages of the backlog still wait.
pub(crate) async fn waiting(broker: &Broker) -> anyhow::Result<u64> {
    Ok(backlog::waiting(broker, QUEUE).await?)
}
