//! What the senders of mail and of short messages share: their rounds, and when a message is tried again.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::{
    store::{StoreError, receipt_copies},
    worker::Context,
};

/// The rounds of a sender that polls the books.
pub(super) struct Rounds(Interval);

/// How long a message is tried for, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The first wait, which doubles ...
    pub(super) retry_s: u32,
    /// ... up to this.
    pub(super) longest_retry_s: u32,
    /// What is older than this is given up.
    pub(super) give_up_days: u32,
}

/// What is to be written down after a batch was tried.
#[derive(Debug, Default)]
pub(super) struct Fates {
    pub(super) sent: Vec<Uuid>,
    pub(super) again: Vec<Uuid>,
    pub(super) again_at: Vec<OffsetDateTime>,
    pub(super) lost: Vec<Uuid>,
}

impl Rounds {
    pub(super) fn every(poll_ms: u64) -> Self {
        let mut tick = tokio::time::interval(Duration::from_millis(poll_ms));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(tick)
    }

    /// Waits for the next round; false once the process is to stop.
    pub(super) async fn next(&mut self, context: &Context) -> bool {
        tokio::select! {
            _ = self.0.tick() => true,
            () = context.stop.cancelled() => false,
        }
    }
}

impl Patience {
    /// When to try again what is to be sent `since` then: after a wait that doubles with each attempt, until the message is
    /// too old.
    pub(super) fn next_try(self, attempts: i32, since: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let too_old = since + time::Duration::days(i64::from(self.give_up_days));
        let doubled = u32::try_from(attempts - 1).ok().and_then(|times| 2_u64.checked_pow(times));
        let wait_s = u64::from(self.retry_s).saturating_mul(doubled.unwrap_or(u64::MAX));
        let at = now + Duration::from_secs(wait_s.min(u64::from(self.longest_retry_s)));
        (now < too_old).then_some(at)
    }
}

/// The database's answer; none if it refuses, or if the process is to stop while it is away.
pub(super) async fn ask<T, F>(context: &Context, work: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match context.until_available(work).await? {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the database refuses a sender's work");
            None
        }
    }
}

/// Writes down what became of copies of receipts.
pub(super) async fn settle_copies(context: &Context, fates: &Fates) -> Option<()> {
    let (pool, now) = (&context.pool, context.clock.now());
    ask(context, || receipt_copies::mark_sent(pool, &fates.sent, now)).await?;
    ask(context, || receipt_copies::postpone(pool, &fates.again, &fates.again_at)).await?;
    ask(context, || receipt_copies::give_up(pool, &fates.lost, now)).await
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_ends_after_days() {
        let patience = Patience { retry_s: 60, longest_retry_s: 21_600, give_up_days: 7 };
        let since = datetime!(2026-11-22 20:05:09 UTC);
        let waits =
            [1, 2, 3, 9, 10, 70, i32::MAX].map(|attempts| patience.next_try(attempts, since, since).unwrap() - since);
        assert_eq!(waits.map(time::Duration::whole_seconds), [60, 120, 240, 15_360, 21_600, 21_600, 21_600]);
        let last = since + time::Duration::days(7);
        assert!(patience.next_try(9, since, last - time::Duration::SECOND).is_some());
        assert_eq!(patience.next_try(9, since, last), None);
    }
}
