//! Rule 9: what has a limit is within it, and what is kept for a time is not kept for longer.

use sqlx::PgPool;
use time::{Duration, OffsetDateTime};

use crate::{
    broker::{Broker, Depths},
    config::Config,
    store::verify::{KeptUntil, kept_beyond, outbox_rows},
};

/// What clears away comes round within minutes; a day says that it does not come at all.
const LATE: Duration = Duration::DAY;

/// How many limits were looked at, and what is beyond one.
pub(super) async fn look(
    config: &Config,
    pool: &PgPool,
    broker: &Broker,
    now: OffsetDateTime,
) -> anyhow::Result<(i64, Vec<String>)> {
    let (mut checked, mut offending) = (0, Vec::new());
    let mut limit = |what: &str, there: u64, most: u64| {
        checked += 1;
        if there > most {
            offending.push(format!("{what}: {there}, and {most} are allowed"));
        }
    };
    let longest = u64::from(config.broker.max_queue_length);
    for (queue, waiting, dead) in Depths::open(broker).await?.read().await? {
        limit(queue.name(), u64::from(waiting), longest);
        limit(queue.dead_name(), u64::from(dead), longest);
    }
    limit("messages in the outbox", outbox_rows(pool).await?, config.intake.max_outbox_rows);
    let days = |days: u32| now - Duration::days(i64::from(days)) - LATE;
    let until = KeptUntil {
        idempotency_keys: days(config.intake.idempotency_keep_days),
        dead_letters: days(config.park.keep_days),
        audits: days(config.park.audit_days),
    };
    for (what, rows) in kept_beyond(pool, until).await? {
        limit(&format!("{what} kept beyond their time"), rows, 0);
    }
    Ok((checked, offending))
}
