//! An acquirer's own books, where it lets an outsider read them (`GET /books`): what `verify` holds ours against.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use serde::{Deserialize, Deserializer, de::Error};
use time::OffsetDateTime;

use crate::config;

/// A row of an acquirer's books.
#[derive(Debug, Clone, Deserialize)]
pub struct BookRow {
    /// Our reference.
    pub reference: String,
    /// What was asked: `authorize`, `complete_challenge`, `capture`, `reverse`, `refund`.
    pub kind: String,
    /// Minor units, never negative.
    #[serde(deserialize_with = "minor_units")]
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// How it stands: `held`, `captured`, `declined`, `reversed`, `closed`, `refunded`, `challenged`, ...
    pub state: String,
    /// For a reversal: `nothing`, `hold` or `capture`.
    #[serde(default)]
    pub undone: Option<String>,
    /// The acquirer's time.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// Reads the books; `None` where the acquirer has no such page.
///
/// # Errors
/// When it does not answer, does not let us read them, or says what cannot be read.
pub async fn read(settings: &config::Acquirer) -> Result<Option<Vec<BookRow>>, reqwest::Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Whoever hears the token must be the acquirer.
    let client =
        Client::builder().timeout(Duration::from_secs(60)).no_proxy().redirect(redirect::Policy::none()).build()?;
    let mut request = client.get(format!("{}/books", settings.url.trim_end_matches('/')));
    let token = settings.token.expose();
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(Some(answer.error_for_status()?.json().await?))
}

/// `kind` gives the direction, so that an amount has no sign.
fn minor_units<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let amount = i64::deserialize(deserializer)?;
    if amount < 0 { Err(D::Error::custom("an amount is never negative")) } else { Ok(amount) }
}

/// Captured less given back in a currency, minor units.
pub fn captured(rows: &[BookRow], currency: &str) -> i64 {
    let moved = rows.iter().filter(|row| row.currency == currency).map(BookRow::moved);
    // A sum beyond 92 quadrillion is wrong in any case; it must not be taken for a small one.
    moved.fold(0, i64::saturating_add)
}

impl BookRow {
    /// What moved to us, minor units: positive for a capture, negative for what was given back, else nothing.
    pub fn moved(&self) -> i64 {
        match (self.kind.as_str(), self.state.as_str(), self.undone.as_deref()) {
            (_, "declined", _) => 0,
            ("capture", ..) => self.amount,
            ("refund", ..) | ("reverse", _, Some("capture")) => -self.amount,
            _ => 0,
        }
    }
}
