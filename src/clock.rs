//! Time, identifiers and chance, injected so that tests and the simulation may drive them.

mod dice;
mod ids;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use time::{Date, OffsetDateTime, UtcOffset};
use tokio::sync::Notify;

pub use self::{
    dice::Dice,
    ids::{follow, new_id, new_secret_id},
};

/// Asia/Bishkek has been UTC+6 without daylight saving since 2005-08-12 (IANA tz database, file `asia`).
pub const BISHKEK: UtcOffset = match UtcOffset::from_hms(6, 0, 0) {
    Ok(offset) => offset,
    Err(_) => unreachable!(),
};

/// The day of books, statements and receipts. At the end of representable time, which only a broken peer names, it is
/// the day in UTC.
pub fn bishkek_day(at: OffsetDateTime) -> Date {
    at.checked_to_offset(BISHKEK).unwrap_or(at).date()
}

/// A clock: the system's, or one that a test moves.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Hands>>);

/// The hands of a manual clock.
#[derive(Debug)]
struct Hands {
    /// Milliseconds since 1970.
    at: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: OffsetDateTime) -> Self {
        Self(Some(Arc::new(Hands { at: AtomicI64::new(millis(start)), moved: Notify::new() })))
    }

    /// Moves a manual clock; the system's is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(hands) = &self.0 {
            hands.at.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            hands.moved.notify_waiters();
        }
    }

    /// Waits for this long; by a manual clock, until it has been moved so far.
    pub async fn sleep(&self, duration: Duration) {
        let Some(hands) = &self.0 else { return tokio::time::sleep(duration).await };
        let until = self.now() + duration;
        loop {
            // Asked for before the look at the time, so that no move falls in between.
            let moved = hands.moved.notified();
            if self.now() >= until {
                return;
            }
            moved.await;
        }
    }

    /// Now, in UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the place from which everyone else gets the time")]
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            None => OffsetDateTime::now_utc(),
            Some(hands) => {
                let nanos = i128::from(hands.at.load(Ordering::SeqCst)) * 1_000_000;
                OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
            }
        }
    }
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_sleeper_by_a_manual_clock_wakes_when_it_has_been_moved_so_far() {
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
        let mut asleep = Box::pin(clock.sleep(Duration::from_secs(5)));
        assert!(asleep.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_millis(4_999));
        assert!(asleep.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_millis(1));
        assert!(asleep.as_mut().now_or_never().is_some());
    }
}
