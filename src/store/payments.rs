//! Payments as they are read, and the payer's return from the bank. Statuses are written elsewhere, by the books.

use sqlx::{PgPool, Row, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, outbox::OutboxRow, read_money, read_word};
use crate::{
    clock::new_id,
    contracts::{ChallengeCompleted, Event, Topic},
    payment::{
        Money, PublicStatus, Status,
        card::{DeclineReason, MaskedCard},
        operation::Challenge,
    },
};

/// A payment as its payer may see it.
#[derive(Debug, Clone)]
pub struct Payment {
    /// Its id.
    pub id: Uuid,
    /// The bill's code.
    pub bill: String,
    /// Grows with every change.
    pub version: i32,
    /// Where it stands.
    pub status: Status,
    /// What the payer is told; takes full refunds into account.
    pub public_status: PublicStatus,
    /// The amount.
    pub amount: Money,
    /// What was given back of it by refunds, in minor units.
    pub refunded: i64,
    /// The card, masked, once the worker has opened it.
    pub card: Option<MaskedCard>,
    /// Why it was declined.
    pub decline_reason: Option<DeclineReason>,
    /// The confirmation the bank asks for, while it does.
    pub challenge: Option<Challenge>,
    /// Whether the payer has come back from the bank with its answer.
    pub returned: bool,
    /// The receipt's number, once paid.
    pub receipt_number: Option<String>,
    /// The language of its payer.
    pub locale: String,
    /// When it was accepted.
    pub accepted_at: OffsetDateTime,
    /// When it changed last.
    pub updated_at: OffsetDateTime,
}

/// A step of a payment's life.
#[derive(Debug, Clone)]
pub struct Step {
    /// What happened.
    pub event: String,
    /// Where the payment stood then.
    pub status: Status,
    /// When.
    pub at: OffsetDateTime,
}

/// One payment, without its timeline.
pub async fn read(pool: &PgPool, id: Uuid) -> Result<Option<Payment>, StoreError> {
    let row = sqlx::query(
        "SELECT p.*, r.number AS receipt_number,
                coalesce((SELECT sum(s.amount_minor)::bigint FROM posting s
                          WHERE s.payment_id = p.id AND s.kind = 'refund'), 0) AS refunded
         FROM payment p LEFT JOIN receipt r ON r.payment_id = p.id WHERE p.id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(payment).transpose()
}

/// One payment with its timeline, the oldest step first. News that changed nothing are left out.
pub async fn read_with_timeline(pool: &PgPool, id: Uuid) -> Result<Option<(Payment, Vec<Step>)>, StoreError> {
    let Some(payment) = read(pool, id).await? else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT event, to_status, at FROM journal
         WHERE payment_id = $1 AND from_status IS DISTINCT FROM to_status ORDER BY id LIMIT 200",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    let steps = rows
        .iter()
        .map(|row| {
            Ok(Step { event: row.try_get("event")?, status: read_word(row, "to_status")?, at: row.try_get("at")? })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Some((payment, steps)))
}

fn payment(row: &sqlx::postgres::PgRow) -> Result<Payment, StoreError> {
    let status: Status = read_word(row, "status")?;
    let amount = read_money(row, "amount_minor", "currency")?;
    let refunded: i64 = row.try_get("refunded")?;
    let paid = status.public() == PublicStatus::Paid;
    let challenge: Option<Json<Challenge>> =
        if status == Status::Challenged { row.try_get("challenge")? } else { None };
    Ok(Payment {
        id: row.try_get("id")?,
        bill: row.try_get("bill_code")?,
        version: row.try_get("version")?,
        status,
        public_status: if paid && refunded >= amount.value { PublicStatus::Refunded } else { status.public() },
        amount,
        refunded,
        card: masked_card(row)?,
        decline_reason: row.try_get::<Option<String>, _>("decline_reason")?.map(decline_reason).transpose()?,
        challenge: challenge.map(|json| json.0),
        returned: row.try_get::<Option<serde_json::Value>, _>("challenge_response")?.is_some(),
        receipt_number: row.try_get("receipt_number")?,
        locale: row.try_get("locale")?,
        accepted_at: row.try_get("accepted_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn masked_card(row: &sqlx::postgres::PgRow) -> Result<Option<MaskedCard>, StoreError> {
    let number: Option<String> = row.try_get("card_number_masked")?;
    let brand: Option<String> = row.try_get("card_brand")?;
    Ok(number.zip(brand).map(|(number, brand)| MaskedCard { number, brand }))
}

fn decline_reason(word: String) -> Result<DeclineReason, StoreError> {
    let unreadable = |error| StoreError::Unreadable(format!("decline_reason: {error}"));
    serde_json::from_value(serde_json::Value::String(word)).map_err(unreadable)
}

/// What came of the payer's return from the bank.
#[derive(Debug)]
pub enum Returned {
    /// Stored now; announce this.
    Stored(OutboxRow),
    /// The same response was stored before.
    Already,
    /// The bank does not wait any more.
    Over,
    /// No such payment.
    Unknown,
}

/// Stores what the payer's browser came back from the bank with, and promises the work. The version grows, so that the
/// challenge's expiry, decided on the version before, loses.
pub async fn complete_challenge(
    pool: &PgPool,
    id: Uuid,
    response: &[(String, String)],
    now: OffsetDateTime,
    traceparent: Option<String>,
) -> Result<Returned, StoreError> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query("SELECT status, challenge_response, version FROM payment WHERE id = $1 FOR UPDATE")
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(row) = row else { return Ok(Returned::Unknown) };
    let stored: Option<Json<Vec<(String, String)>>> = row.try_get("challenge_response")?;
    if stored.is_some_and(|stored| stored.0 == response) {
        return Ok(Returned::Already);
    }
    let (status, version): (Status, i32) = (read_word(&row, "status")?, row.try_get("version")?);
    if status != Status::Challenged || row.try_get::<Option<serde_json::Value>, _>("challenge_response")?.is_some() {
        return Ok(Returned::Over);
    }
    let event_id = new_id();
    let data = ChallengeCompleted { payment: id };
    let event = Event::new(Topic::PaymentChallengeCompleted, event_id, "/tolom/intake", id, now, data);
    let row = OutboxRow { id: event_id, topic: Topic::PaymentChallengeCompleted, body: event.to_bytes(), traceparent };
    let updated = sqlx::query(
        "WITH changed AS (UPDATE payment SET challenge_response = $3, version = version + 1, updated_at = $4
                          WHERE id = $1 AND status = 'challenged' AND version = $2 RETURNING id, version),
              journalled AS (INSERT INTO journal (payment_id, version, event, from_status, to_status, actor, at)
                             SELECT id, version, 'payer_returned', 'challenged', 'challenged', 'intake', $4 FROM changed)
         INSERT INTO outbox (id, routing_key, body, traceparent) SELECT $5, $6, $7, $8 FROM changed",
    )
    .bind(id)
    .bind(version)
    .bind(Json(response))
    .bind(now)
    .bind(row.id)
    .bind(row.topic.routing_key())
    .bind(&row.body)
    .bind(row.traceparent.as_deref())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(if updated.rows_affected() == 1 { Returned::Stored(row) } else { Returned::Over })
}

/// Forgets idempotency keys older than `keep_days` whose payment is definite: an unknown or reviewed payment, and one on
/// its way, keep theirs. At most `limit` in one go; returns how many.
pub async fn forget_old_keys(
    pool: &PgPool,
    now: OffsetDateTime,
    keep_days: u32,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "DELETE FROM idempotency_key WHERE (caller, key) IN (
             SELECT k.caller, k.key FROM idempotency_key k LEFT JOIN payment p ON p.id = k.payment_id
             WHERE k.created_at < $1
               AND (p.id IS NULL OR p.status IN ('captured', 'settled', 'declined', 'failed', 'reversed'))
             ORDER BY k.created_at LIMIT $2 FOR UPDATE OF k SKIP LOCKED)",
    )
    .bind(now - time::Duration::days(i64::from(keep_days)))
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// An operation of a payment, for operators.
#[derive(Debug, Clone, serde::Serialize)]
pub struct OperationLine {
    /// What was asked.
    pub kind: String,
    /// Our reference.
    pub reference: String,
    /// What it came to, if known.
    pub outcome: Option<String>,
    /// Why nothing definite is known, in the words of the last report.
    pub why: Option<String>,
    /// Why a person has to look.
    pub conflict: Option<String>,
    /// Attempts so far.
    pub attempts: i32,
    /// When `resolve` looks next, while it is open.
    #[serde(with = "time::serde::rfc3339")]
    pub next_attempt_at: OffsetDateTime,
}

/// The operations of a payment, the oldest first.
pub async fn operations(pool: &PgPool, id: Uuid) -> Result<Vec<OperationLine>, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, reference, outcome, detail ->> 'why' AS why, conflict, attempts, next_attempt_at FROM operation
         WHERE payment_id = $1 ORDER BY created_at, id",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(OperationLine {
                kind: row.try_get("kind")?,
                reference: row.try_get("reference")?,
                outcome: row.try_get("outcome")?,
                why: row.try_get("why")?,
                conflict: row.try_get("conflict")?,
                attempts: row.try_get("attempts")?,
                next_attempt_at: row.try_get("next_attempt_at")?,
            })
        })
        .collect()
}
