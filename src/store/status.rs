//! The only code that writes a payment's status: guarded by status and version, journalled in the same statement.
//!
//! The version moves with everything that bears on what may be decided about a payment, be it news that its status absorbs:
//! whoever has read without locks is told by it that something has happened.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{StoreError, writes::Writes};
use crate::payment::{
    Event, Status,
    card::{DeclineReason, MaskedCard},
    operation::Challenge,
};

/// What happens to one payment.
#[derive(Debug, Clone)]
pub struct StatusWrite {
    /// Which payment.
    pub payment: Uuid,
    /// The status it was read with.
    pub from: Status,
    /// The version it was read with.
    pub version: i32,
    /// The events and where each leads, in order; absorbed ones lead nowhere and are journalled all the same.
    pub steps: Vec<(Event, Status)>,
    /// What is learnt with it.
    pub learnt: Learnt,
    /// The operation that brought it.
    pub operation: Option<Uuid>,
    /// Which role or person.
    pub actor: String,
    /// Why, for people.
    pub detail: Option<String>,
}

/// Facts that are kept once known; `None` keeps what is there.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    /// The card, masked.
    pub card: Option<MaskedCard>,
    /// The issuer's approval code.
    pub authorization_code: Option<String>,
    /// Retrieval reference number.
    pub rrn: Option<String>,
    /// Why it was declined.
    pub decline_reason: Option<DeclineReason>,
    /// The bank's question to the payer.
    pub challenge: Option<Challenge>,
}

impl StatusWrite {
    /// What was authorized is given back, as `resolve` has found it necessary.
    pub(super) fn give_back(payment: Uuid, version: i32, why: &str) -> Self {
        Self {
            payment,
            from: Status::Authorized,
            version,
            steps: vec![(Event::ReversalRequired, Status::Reversing)],
            learnt: Learnt::default(),
            operation: None,
            actor: "resolve".to_owned(),
            detail: Some(why.to_owned()),
        }
    }

    /// Where the payment stands afterwards.
    pub fn to(&self) -> Status {
        self.steps.last().map_or(self.from, |(_, status)| *status)
    }

    /// Its version afterwards.
    pub const fn version_after(&self) -> i32 {
        self.version + 1
    }

    /// The status right before the last one: the pair that the transition table is asked about.
    fn previous(&self) -> Status {
        let mut path = vec![self.from];
        path.extend(self.steps.iter().map(|(_, status)| *status));
        path.dedup();
        path.iter().rev().nth(1).copied().unwrap_or(self.from)
    }
}

/// Writes statuses and journal. All or nothing: a guard that does not hold is an error, for the caller held the lock.
pub async fn write(transaction: &mut PgConnection, writes: &[StatusWrite]) -> Result<(), StoreError> {
    let mut rows = Writes::locked();
    add(&mut rows, writes);
    rows.execute(transaction).await
}

/// Adds statuses and journal to what is written together.
pub(super) fn add(rows: &mut Writes, writes: &[StatusWrite]) {
    if writes.is_empty() {
        return;
    }
    let (changed, noted): (Vec<&StatusWrite>, Vec<&StatusWrite>) =
        writes.iter().partition(|write| write.to() != write.from);
    add_statuses(rows, &changed);
    add_news(rows, &noted);
    let steps = || writes.iter().flat_map(|write| steps(write).map(move |step| (write, step)));
    if steps().next().is_none() {
        return;
    }
    rows.add(
        "journalled",
        "INSERT INTO journal (payment_id, version, event, from_status, to_status, operation_id, actor, detail)
         SELECT * FROM",
        |columns| {
            columns
                .add(steps().map(|(write, _)| write.payment))
                .add(steps().map(|(write, _)| write.version_after()))
                .add(steps().map(|(_, (event, ..))| event.as_str()))
                .add(steps().map(|(_, (_, before, _))| before.as_str()))
                .add(steps().map(|(_, (.., after))| after.as_str()))
                .add(steps().map(|(write, _)| write.operation))
                .add(steps().map(|(write, _)| write.actor.as_str()))
                .add(steps().map(|(write, _)| write.detail.as_deref()));
        },
        "",
    );
}

/// Each event with the statuses before and after it.
fn steps(write: &StatusWrite) -> impl Iterator<Item = (Event, Status, Status)> {
    write.steps.iter().scan(write.from, |status, (event, after)| {
        let before = std::mem::replace(status, *after);
        Some((*event, before, *after))
    })
}

/// What leaves the status as it is moves the version all the same.
fn add_news(rows: &mut Writes, writes: &[&StatusWrite]) {
    if writes.is_empty() {
        return;
    }
    rows.guard("noted", writes.len());
    rows.add(
        "noted",
        "UPDATE payment p SET version = p.version + 1 FROM",
        |columns| {
            columns
                .add(writes.iter().map(|write| write.payment))
                .add(writes.iter().map(|write| write.from.as_str()))
                .add(writes.iter().map(|write| write.version));
        },
        "AS n(id, status, version) WHERE p.id = n.id AND p.status = n.status AND p.version = n.version RETURNING 1",
    );
}

fn add_statuses(rows: &mut Writes, writes: &[&StatusWrite]) {
    if writes.is_empty() {
        return;
    }
    let each = || writes.iter();
    let cards = || each().map(|write| write.learnt.card.as_ref());
    let challenges = || each().map(|write| write.learnt.challenge.as_ref());
    rows.guard("written", writes.len());
    rows.add(
        "written",
        "UPDATE payment p SET
             status = n.status, previous_status = n.previous, version = p.version + 1, updated_at = now(),
             card_number_masked = coalesce(n.card_number, p.card_number_masked),
             card_brand = coalesce(n.card_brand, p.card_brand),
             authorization_code = coalesce(n.authorization_code, p.authorization_code),
             rrn = coalesce(n.rrn, p.rrn),
             decline_reason = coalesce(n.decline_reason, p.decline_reason),
             note = coalesce(n.note, p.note),
             challenge = coalesce(n.challenge, p.challenge),
             challenge_until = coalesce(n.challenge_until, p.challenge_until),
             captured_at = CASE WHEN n.status = 'captured' THEN now() ELSE p.captured_at END
         FROM",
        |columns| {
            columns
                .add(each().map(|write| write.payment))
                .add(each().map(|write| write.from.as_str()))
                .add(each().map(|write| write.version))
                .add(each().map(|write| write.to().as_str()))
                .add(each().map(|write| write.previous().as_str()))
                .add(cards().map(|card| card.map(|card| card.number.as_str())))
                .add(cards().map(|card| card.map(|card| card.brand.as_str())))
                .add(each().map(|write| write.learnt.authorization_code.as_deref()))
                .add(each().map(|write| write.learnt.rrn.as_deref()))
                .add(each().map(|write| write.learnt.decline_reason.map(DeclineReason::as_str)))
                .add(each().map(|write| write.detail.as_deref()))
                .add(challenges().map(|challenge| challenge.map(|challenge| serde_json::json!(challenge))))
                .add(challenges().map(|challenge| challenge.map(|challenge| challenge.expires_at)));
        },
        "AS n(id, from_status, version, status, previous, card_number, card_brand, authorization_code, rrn,
              decline_reason, note, challenge, challenge_until)
         WHERE p.id = n.id AND p.status = n.from_status AND p.version = n.version RETURNING 1",
    );
}
