//! The simulator's books as an outsider reads them, so that `verify` can compare them with ours.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    bank::Bank,
    entry::{Captured, Entry},
};
use crate::{
    acquirer::http::wire::State,
    payment::{Currency, OperationKind, operation::Undone},
};

/// One line of the acquirer's books. Each operation that reached the books is one row, under the reference it came
/// with; money taken in an authorization's own message has a second row, of kind `capture`, under the same reference.
///
/// What the acquirer owes is, over all rows: `capture` rows not `declined`, less `reverse` rows with `undone: capture`,
/// less `refund` rows not `declined`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookRow {
    /// Our reference of the operation.
    pub reference: String,
    /// The authorization it belongs to; its own reference for an authorization.
    pub original: String,
    /// What was asked. A completed challenge has a row of its own, but its money stands in the authorization's row.
    pub kind: OperationKind,
    /// Minor units: what was held, taken or given back; of a declined operation, what was asked. Zero for a reversal
    /// that gave nothing back.
    pub amount: i64,
    /// ISO 4217.
    pub currency: Currency,
    /// How it stands now.
    pub state: BookState,
    /// For a reversal: what there was to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// How a row of the books stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BookState {
    /// `authorize`: being worked on; nothing is held.
    Pending,
    /// `authorize`: waits for the payer; nothing is held.
    Challenged,
    /// `authorize`: approved and held.
    Held,
    /// `complete_challenge`: it approved the authorization, whose row tells the rest.
    Confirmed,
    /// `authorize`: approved and taken. `capture`: taken.
    Captured,
    /// Any kind: refused, no effect.
    Declined,
    /// `authorize`: was approved and has been undone. `capture`: taken and given back. `reverse`: gave it back.
    Reversed,
    /// `authorize`, `complete_challenge`: closed before anything came of it. `reverse`: there was nothing to undo.
    Closed,
    /// `refund`: given back.
    Refunded,
}

/// The rows in the order of arrival. An authorization that is late is not in the books yet.
pub(super) fn rows(bank: &mut Bank, now: OffsetDateTime) -> Vec<BookRow> {
    let entries: Vec<(&String, &Entry)> = bank.entries(now).collect();
    let undone: std::collections::HashMap<&str, Undone> =
        entries.iter().filter_map(|(reference, entry)| Some((reference.as_str(), entry.undone?))).collect();
    let mut rows = Vec::with_capacity(entries.len());
    for (reference, entry) in entries {
        if entry.is_pending() && entry.is_late() {
            continue;
        }
        let original = entry.root.as_deref().unwrap_or(reference);
        let given_back = undone.get(original) == Some(&Undone::Capture);
        rows.push(row(reference, original, entry, state(entry, given_back)));
        if let Some(captured) = entry.captured.as_ref().filter(|_| !entry.is_pending())
            && !captured.apart
        {
            rows.push(capture(original, captured, given_back));
        }
    }
    rows
}

fn row(reference: &str, original: &str, entry: &Entry, state: BookState) -> BookRow {
    BookRow {
        reference: reference.to_owned(),
        original: original.to_owned(),
        kind: entry.kind,
        amount: entry.amount.value,
        currency: entry.amount.currency,
        state,
        undone: entry.undone.filter(|_| entry.kind == OperationKind::Reverse),
        at: entry.at,
    }
}

/// The second row of an authorization or completion that took the money in its own message.
fn capture(original: &str, captured: &Captured, given_back: bool) -> BookRow {
    BookRow {
        reference: captured.by.clone(),
        original: original.to_owned(),
        kind: OperationKind::Capture,
        amount: captured.amount.value,
        currency: captured.amount.currency,
        state: if given_back { BookState::Reversed } else { BookState::Captured },
        undone: None,
        at: captured.at,
    }
}

fn state(entry: &Entry, given_back: bool) -> BookState {
    use OperationKind as Kind;
    match (entry.kind, entry.state) {
        (_, _) if entry.is_pending() => BookState::Pending,
        (_, State::Pending) => BookState::Pending,
        (_, State::Declined) => BookState::Declined,
        (_, State::Challenged) => BookState::Challenged,
        (_, State::Closed) if entry.undone == Some(Undone::Nothing) => BookState::Closed,
        (_, State::Closed) => BookState::Reversed,
        (Kind::Authorize, State::Approved) if entry.captured.is_some() => BookState::Captured,
        (Kind::Authorize | Kind::Inquire, State::Approved) => BookState::Held,
        (Kind::CompleteChallenge, State::Approved) => BookState::Confirmed,
        (Kind::Capture, State::Approved) if given_back => BookState::Reversed,
        (Kind::Capture, State::Approved) => BookState::Captured,
        (Kind::Reverse, State::Approved) if entry.undone == Some(Undone::Nothing) => BookState::Closed,
        (Kind::Reverse, State::Approved) => BookState::Reversed,
        (Kind::Refund, State::Approved) => BookState::Refunded,
    }
}
