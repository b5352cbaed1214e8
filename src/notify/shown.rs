//! Amounts, times, cards and names as receipts show them, for pages that are to show the same.

use super::{
    Locale,
    texts::{Text, say},
};

pub use super::format::{amount, card, moment, one_line};

/// The name of a service by its word in the configuration.
pub fn service(word: &str, locale: Locale) -> String {
    say(locale, Text::service(word))
}

/// The name of a card network by its word in the configuration.
pub fn brand(word: &str, locale: Locale) -> String {
    say(locale, Text::brand(word))
}
