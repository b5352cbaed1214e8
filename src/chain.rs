//! Errors as they are told.

use std::error::Error;

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    anyhow::Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
