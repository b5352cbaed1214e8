//! The JSON of the HTTP contract (`schemas/acquirer.openapi.json`), as both its ends in this repository speak it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::payment::{
    Money, OperationKind,
    card::{Card, CardInput},
    operation::{Challenge, Undone},
};

/// Body of `POST /v1/authorizations`. No `Debug`: it holds a card.
#[derive(Serialize)]
pub(crate) struct Authorize<'a> {
    pub(crate) reference: &'a str,
    pub(crate) amount: Money,
    pub(crate) capture: bool,
    pub(crate) card: CardFields<'a>,
}

/// A card on its way out, borrowed so that no copy of it is left behind.
#[derive(Serialize)]
pub(crate) struct CardFields<'a> {
    number: &'a str,
    expiry_month: u8,
    expiry_year: u16,
    cvc: &'a str,
    holder: &'a str,
}

impl<'a> From<&'a Card> for CardFields<'a> {
    fn from(card: &'a Card) -> Self {
        let (expiry_month, expiry_year) = card.expiry();
        Self { number: card.number(), expiry_month, expiry_year, cvc: card.cvc(), holder: card.holder() }
    }
}

/// The same body as the acquirer reads it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthorizeRequest {
    pub(crate) reference: String,
    pub(crate) amount: Money,
    pub(crate) capture: bool,
    pub(crate) card: CardInput,
}

/// Body of `POST /v1/authorizations/{original}/challenge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteChallenge {
    pub(crate) reference: String,
    pub(crate) amount: Money,
    pub(crate) capture: bool,
    pub(crate) response: Vec<(String, String)>,
}

/// Body of `.../captures` and `.../refunds`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    pub(crate) reference: String,
    pub(crate) amount: Money,
}

/// Body of `.../reversal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reverse {
    pub(crate) reference: String,
    pub(crate) amount: Money,
    pub(crate) repeat: bool,
}

/// Where an operation stands at the acquirer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Done.
    Approved,
    /// Waits for the payer's confirmation.
    Challenged,
    /// Refused.
    Declined,
    /// Being worked on.
    Pending,
    /// Undone, or closed before anything came of it; `undone` tells which.
    Closed,
}

/// The operation object: the answer to every request of the contract.
///
/// Unknown members are ignored, so that an acquirer may add to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) reference: String,
    pub(crate) kind: OperationKind,
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) amount: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authorization_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rrn: Option<String>,
    #[serde(default)]
    pub(crate) captured: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) undone: Option<Undone>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decline: Option<Refusal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<Challenge>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
}

/// Why it was declined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// ISO 8583 field 39.
    pub(crate) code: String,
    /// For people at the acquirer; never shown or kept, because nobody vouches for what it quotes.
    #[serde(default)]
    pub(crate) message: String,
}

/// `code` of a problem: the key was used before with another body.
pub(crate) const KEY_REUSED: &str = "key_reused";

/// An error (RFC 9457), with `code` and, for an inquiry, `reference`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) title: String,
    pub(crate) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
}
