//! A failed attempt, as it travels with its message and is kept with its dead letter.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A message could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// How often it had been tried before.
    pub attempt: u32,
    /// When it failed.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Why, for people.
    pub reason: String,
}
