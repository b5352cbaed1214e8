//! Time and identifiers, injected so that tests and the simulation may drive them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use time::{Date, OffsetDateTime, UtcOffset};
use uuid::Uuid;

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
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: OffsetDateTime) -> Self {
        Self(Some(Arc::new(AtomicI64::new(millis(start)))))
    }

    /// Moves a manual clock; the system's is left alone.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(now) = &self.0 {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Now, in UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the place from which everyone else gets the time")]
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            None => OffsetDateTime::now_utc(),
            Some(now) => {
                let nanos = i128::from(now.load(Ordering::SeqCst)) * 1_000_000;
                OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
            }
        }
    }
}

/// A new identifier: UUID version 7 (RFC 9562), so that rows made together stand together on disk.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A new identifier that nobody can guess from another: UUID version 4. Knowing a payment's id is leave to read it.
pub fn new_secret_id() -> Uuid {
    Uuid::new_v4()
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
