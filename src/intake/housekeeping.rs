//! What the intake clears away: sealed cards past their time, idempotency keys past their days.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Intake;
use crate::store::{StoreError, cards, payments};

const EVERY: Duration = Duration::from_secs(60);
/// Keys forgotten in one statement.
const KEYS_AT_ONCE: u64 = 5_000;

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
    let keep_days = intake.config.intake.idempotency_keep_days;
    loop {
        let limit = KEYS_AT_ONCE.cast_signed();
        if payments::forget_old_keys(&intake.pool, intake.clock.now(), keep_days, limit).await? < KEYS_AT_ONCE {
            return Ok(());
        }
    }
}
