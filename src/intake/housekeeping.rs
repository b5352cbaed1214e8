//! What the intake clears away: sealed cards past their time, idempotency keys past their days, and from where payments
//! came once no limit looks at it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Intake;
use crate::store::{StoreError, cards, limits, payments};

const EVERY: Duration = Duration::from_secs(60);
/// Rows forgotten in one statement.
const ROWS_AT_ONCE: u64 = 5_000;

/// Clears away, every minute, until stopped. Several intakes may do so at once.
pub(super) async fn run(intake: &Intake, stop: &CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        // A lock that is not given is tried again next time: nothing here is urgent.
        if let Some(Err(error)) = stop.run_until_cancelled(round(intake)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "housekeeping has to wait");
        }
    }
}

async fn round(intake: &Intake) -> Result<(), StoreError> {
    cards::truncate_past(&intake.pool, &intake.clock).await?;
    let (pool, limit) = (&intake.pool, ROWS_AT_ONCE.cast_signed());
    let keep_days = intake.config.intake.idempotency_keep_days;
    while payments::forget_old_keys(pool, intake.clock.now(), keep_days, limit).await? == ROWS_AT_ONCE {}
    while limits::forget(pool, &intake.config.limits, intake.clock.now(), limit).await? == ROWS_AT_ONCE {}
    Ok(())
}
