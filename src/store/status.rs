//! The only code that writes a payment's status: guarded by status and version, journalled in the same transaction.

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::payment::{
    Event, Status,
    card::{DeclineReason, MaskedCard},
    operation::Challenge,
};

/// What happens to one payment in this transaction. The caller holds the row's lock.
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
    /// Where the payment stands afterwards.
    pub fn to(&self) -> Status {
        self.steps.last().map_or(self.from, |(_, status)| *status)
    }

    /// Its version afterwards.
    pub fn version_after(&self) -> i32 {
        if self.to() == self.from { self.version } else { self.version + 1 }
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
    if writes.is_empty() {
        return Ok(());
    }
    let changed: Vec<&StatusWrite> = writes.iter().filter(|write| write.to() != write.from).collect();
    let written = update(transaction, &changed, &Journal::of(writes)).await?;
    if written == changed.len() as u64 {
        return Ok(());
    }
    Err(StoreError::Unreadable(format!("{written} of {} guarded status writes held", changed.len())))
}

/// Journal rows as arrays, for `unnest`.
#[derive(Default)]
struct Journal<'a> {
    payments: Vec<Uuid>,
    versions: Vec<i32>,
    events: Vec<&'static str>,
    from: Vec<&'static str>,
    to: Vec<&'static str>,
    operations: Vec<Option<Uuid>>,
    actors: Vec<&'a str>,
    details: Vec<Option<&'a str>>,
}

impl<'a> Journal<'a> {
    fn of(writes: &'a [StatusWrite]) -> Self {
        let mut rows = Self::default();
        for write in writes {
            let mut before = write.from;
            for (event, after) in &write.steps {
                rows.payments.push(write.payment);
                rows.versions.push(write.version_after());
                rows.events.push(event.as_str());
                rows.from.push(before.as_str());
                rows.to.push(after.as_str());
                rows.operations.push(write.operation);
                rows.actors.push(write.actor.as_str());
                rows.details.push(write.detail.as_deref());
                before = *after;
            }
        }
        rows
    }
}

/// Both in one statement; returns how many statuses were written.
async fn update(
    transaction: &mut PgConnection,
    writes: &[&StatusWrite],
    journal: &Journal<'_>,
) -> Result<u64, StoreError> {
    fn column<'a, T>(writes: &[&'a StatusWrite], value: impl Fn(&'a StatusWrite) -> T) -> Vec<T> {
        writes.iter().map(|write| value(write)).collect()
    }
    let card = |write: &StatusWrite| write.learnt.card.clone();
    let written: i64 = sqlx::query_scalar(
        "WITH written AS (UPDATE payment p SET
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
         FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::text[], $11::text[], $12::jsonb[], $13::timestamptz[])
              AS n(id, from_status, version, status, previous, card_number, card_brand, authorization_code, rrn,
                   decline_reason, note, challenge, challenge_until)
         WHERE p.id = n.id AND p.status = n.from_status AND p.version = n.version RETURNING 1),
         noted AS (
             INSERT INTO journal (payment_id, version, event, from_status, to_status, operation_id, actor, detail)
             SELECT * FROM unnest($14::uuid[], $15::int[], $16::text[], $17::text[], $18::text[], $19::uuid[],
                                  $20::text[], $21::text[]))
         SELECT count(*) FROM written",
    )
    .bind(column(writes, |write| write.payment))
    .bind(column(writes, |write| write.from.as_str()))
    .bind(column(writes, |write| write.version))
    .bind(column(writes, |write| write.to().as_str()))
    .bind(column(writes, |write| write.previous().as_str()))
    .bind(column(writes, |write| card(write).map(|card| card.number)))
    .bind(column(writes, |write| card(write).map(|card| card.brand)))
    .bind(column(writes, |write| write.learnt.authorization_code.as_deref()))
    .bind(column(writes, |write| write.learnt.rrn.as_deref()))
    .bind(column(writes, |write| write.learnt.decline_reason.map(DeclineReason::as_str)))
    .bind(column(writes, |write| write.detail.as_deref()))
    .bind(column(writes, |write| write.learnt.challenge.as_ref().map(|challenge| serde_json::json!(challenge))))
    .bind(column(writes, |write| write.learnt.challenge.as_ref().map(|challenge| challenge.expires_at)))
    .bind(&journal.payments)
    .bind(&journal.versions)
    .bind(&journal.events)
    .bind(&journal.from)
    .bind(&journal.to)
    .bind(&journal.operations)
    .bind(&journal.actors)
    .bind(&journal.details)
    .fetch_one(transaction)
    .await?;
    Ok(written.unsigned_abs())
}
