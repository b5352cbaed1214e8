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

pub(super) async fn insert(
    db: &mut PgConnection,
    members: Vec<&NewPayment>,
    now: OffsetDateTime,
) -> Result<HashSet<Uuid>, StoreError> {
    let rows = sqlx::query(
        "INSERT INTO payment (id, bill_code, amount_minor, currency, acquirer, capture_at_once, card_id, payer_email,
                payer_phone, locale, terms_version, traceparent, caller, event_source, event_id, status, accepted_at,
                updated_at)
         SELECT n.*, 'accepted', $16, $16
         FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::boolean[], $7::uuid[],
                $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[])
              AS n (id, bill_code)
         ORDER BY n.bill_code, n.id ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(members.iter().map(|member| member.id).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.bill.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.amount.value).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.amount.currency.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.acquirer.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.capture_at_once).collect::<Vec<_>>())
    .bind(members.iter().map(|member| card_id(member)).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.payer.email.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.payer.phone.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.locale.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.terms.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.caller.as_str()).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.event.as_ref().map(|(source, _)| source.as_str())).collect::<Vec<_>>())
    .bind(members.iter().map(|member| member.event.as_ref().map(|(_, id)| id.as_str())).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
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
