//! Rows of one accept: how a member is judged, written and announced.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CardSource, NewPayment, Refusal};
use crate::{
    clock::new_id,
    contracts::{Event, PaymentRequested, Topic},
    payment::{BillStatus, Money},
    store::{StoreError, outbox::OutboxRow},
};

const SOURCE: &str = "/tolom/intake";

/// The message that starts the work. A foreign message is that itself.
pub(super) fn message(member: &NewPayment, now: OffsetDateTime) -> Option<OutboxRow> {
    if member.event.is_some() {
        return None;
    }
    let id = new_id();
    let data = PaymentRequested { payment: member.id, request: None };
    let event = Event::new(Topic::PaymentRequested, id, SOURCE, member.id, now, data);
    let traceparent = member.traceparent.clone();
    Some(OutboxRow { id, topic: Topic::PaymentRequested, body: event.to_bytes(), traceparent })
}

pub(super) fn judge_bill(
    status: BillStatus,
    valid_until: OffsetDateTime,
    owed: Money,
    offered: Money,
    now: OffsetDateTime,
) -> Option<Refusal> {
    match status {
        BillStatus::Paid => Some(Refusal::BillPaid),
        BillStatus::Cancelled => Some(Refusal::BillCancelled),
        BillStatus::Expired => Some(Refusal::BillExpired),
        BillStatus::Open if valid_until <= now => Some(Refusal::BillExpired),
        BillStatus::Open if owed.currency != offered.currency => Some(Refusal::CurrencyDiffers),
        BillStatus::Open if owed.value != offered.value => Some(Refusal::AmountDiffers),
        BillStatus::Open => None,
    }
}

pub(super) async fn existing(db: &mut PgConnection, codes: &[&str]) -> Result<HashSet<String>, StoreError> {
    let rows = sqlx::query("SELECT code FROM bill WHERE code = ANY($1)").bind(codes).fetch_all(db).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Which idempotency keys and payments were inserted, by the payments' ids.
#[derive(Default)]
pub(super) struct Inserted {
    pub(super) keys: HashSet<Uuid>,
    pub(super) payments: HashSet<Uuid>,
}

/// Inserts idempotency keys, in order, and then the payments that got theirs, or have none, in order. The unique indexes
/// judge. Waits for an undecided rival at most the lock time-out.
pub(super) async fn insert(
    db: &mut PgConnection,
    members: &[&NewPayment],
    now: OffsetDateTime,
) -> Result<Inserted, StoreError> {
    let keyed = || members.iter().filter_map(|member| Some((*member, member.idempotency.as_ref()?)));
    let each = || members.iter();
    let rows = sqlx::query(
        "WITH keyed AS (
             INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::text[]) AS n (caller, key)
             ORDER BY n.caller, n.key ON CONFLICT DO NOTHING RETURNING payment_id),
         accepted AS (
             INSERT INTO payment (id, bill_code, amount_minor, currency, acquirer, capture_at_once, card_id, payer_email,
                    payer_phone, locale, terms_version, traceparent, caller, event_source, event_id, status, accepted_at,
                    updated_at)
             SELECT n.*, 'accepted', $6, $6
             FROM unnest($7::uuid[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::boolean[], $13::uuid[],
                    $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[])
                  AS n (id, bill_code)
             WHERE n.id = ANY (ARRAY(SELECT payment_id FROM keyed UNION ALL SELECT unnest($22::uuid[])))
             ORDER BY n.bill_code, n.id ON CONFLICT DO NOTHING RETURNING id)
         SELECT id, true AS is_payment FROM accepted UNION ALL SELECT payment_id, false FROM keyed",
    )
    .bind(keyed().map(|(member, _)| member.caller.as_str()).collect::<Vec<_>>())
    .bind(keyed().map(|(_, idempotency)| idempotency.key.as_str()).collect::<Vec<_>>())
    .bind(keyed().map(|(_, idempotency)| &idempotency.fingerprint[..]).collect::<Vec<_>>())
    .bind(keyed().map(|(member, _)| member.id).collect::<Vec<_>>())
    .bind(keyed().map(|(_, idempotency)| idempotency.answer.as_str()).collect::<Vec<_>>())
    .bind(now)
    .bind(each().map(|member| member.id).collect::<Vec<_>>())
    .bind(each().map(|member| member.bill.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.amount.value).collect::<Vec<_>>())
    .bind(each().map(|member| member.amount.currency.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.acquirer.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.capture_at_once).collect::<Vec<_>>())
    .bind(each().map(|member| card_id(member)).collect::<Vec<_>>())
    .bind(each().map(|member| member.payer.email.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.payer.phone.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.locale.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.terms.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(each().map(|member| member.caller.as_str()).collect::<Vec<_>>())
    .bind(each().map(|member| member.event.as_ref().map(|(source, _)| source.as_str())).collect::<Vec<_>>())
    .bind(each().map(|member| member.event.as_ref().map(|(_, id)| id.as_str())).collect::<Vec<_>>())
    .bind(each().filter(|member| member.idempotency.is_none()).map(|member| member.id).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let mut inserted = Inserted::default();
    for row in &rows {
        let ids = if row.try_get("is_payment")? { &mut inserted.payments } else { &mut inserted.keys };
        ids.insert(row.try_get("id")?);
    }
    Ok(inserted)
}

pub(super) fn card_id(member: &NewPayment) -> Uuid {
    match &member.card {
        CardSource::Inline(card) => card.id,
        CardSource::Stored(id) => *id,
    }
}

/// A row's place in the arrays that were sent.
pub(super) fn place(row: &sqlx::postgres::PgRow) -> Result<usize, StoreError> {
    let place: i64 = row.try_get("place")?;
    usize::try_from(place).map_err(|_| StoreError::Unreadable(format!("a row at place {place}")))
}
