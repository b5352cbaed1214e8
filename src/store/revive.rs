//! Payments that stand still: their message was lost by someone's hand, their challenge ran out of time, their hold is
//! about to lapse. Any number of workers may look for them at once.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    facts::{self, FactOf},
    operations::{AuthorizationOf, open_reversals},
    outbox::{self, OutboxRow},
    read_money, read_word,
    status::{self, StatusWrite},
};
use crate::{
    clock,
    contracts::{ChallengeCompleted, Event as Message, Topic},
    payment::{Money, PaymentCode, Status},
};

const SOURCE: &str = "/tolom/resolve";

/// When a payment counts as standing still.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Nothing has happened for this long.
    pub stalled: Duration,
    /// The acquirer holds money for this long without a capture.
    pub hold: Duration,
}

/// A payment that stands still.
struct Stalled {
    id: Uuid,
    status: Status,
    version: i32,
    bill: PaymentCode,
    traceparent: Option<String>,
    answered: bool,
    challenge_over: bool,
    lapsing: bool,
    /// The reference of its authorization, if one was sent.
    authorization: Option<String>,
    amount: Money,
}

impl Stalled {
    fn authorization(&self) -> Option<AuthorizationOf<'_>> {
        Some((self.id, self.authorization.as_deref()?))
    }
}

/// Payments that wait to be authorized, and nothing has happened to them for long: their cards may be gone.
pub async fn waiting_to_be_authorized(
    pool: &PgPool,
    patience: Patience,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT p.id FROM payment p
         WHERE p.status IN ('accepted', 'authorizing') AND p.updated_at < $1
           AND NOT EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id
                           AND (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing)
           AND NOT EXISTS (SELECT FROM sealed_card c WHERE c.id = p.card_id AND c.expires_at > $2)
         ORDER BY p.updated_at, p.id LIMIT $3",
    )
    .bind(now - patience.stalled)
    .bind(now)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids)
}

/// Puts payments back on their way. Returns their messages, committed.
///
/// Standing still means: nothing has happened for long, and no operation is open that would be looked into anyway. A
/// payment whose message is merely slow loses nothing by a second one; so that a long backlog is not doubled again and
/// again, each repetition waits twice as long as the one before, up to an hour.
pub async fn revive(
    pool: &PgPool,
    patience: Patience,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<OutboxRow>, StoreError> {
    let mut transaction = pool.begin().await?;
    let stalled = take(&mut transaction, patience, now, limit).await?;
    let (mut announce, mut expired, mut writes, mut touched) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for payment in &stalled {
        match payment.status {
            // The payer came back: the bank decides whether that was in time.
            Status::Challenged if payment.answered => announce.push(challenge_completed(payment, now)),
            Status::Challenged if payment.challenge_over => expired.extend(payment.authorization()),
            Status::Challenged => continue,
            Status::Authorized if payment.lapsing => {
                let why = "the hold was about to lapse without a capture";
                writes.push(StatusWrite::give_back(payment.id, payment.version, why));
                expired.extend(payment.authorization());
            }
            Status::Authorized => announce.extend(authorized(payment, now)),
            _ => {
                announce.push(facts::payment_requested(payment.id, SOURCE, payment.traceparent.clone(), now));
            }
        }
        touched.push(payment.id);
    }
    status::write(&mut transaction, &writes).await?;
    // Closing our reference at the acquirer comes first; its acknowledgement says `declined` or `reversed`.
    open_reversals(&mut transaction, &expired, now).await?;
    outbox::insert(&mut transaction, &announce).await?;
    sqlx::query("UPDATE payment SET updated_at = now() WHERE id = ANY($1)")
        .bind(&touched)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(announce)
}

async fn take(
    transaction: &mut PgConnection,
    patience: Patience,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Stalled>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.id, p.status, p.version, p.bill_code, p.amount_minor, p.currency, p.traceparent,
                p.challenge_response IS NOT NULL AS answered,
                coalesce(p.challenge_until < $3 OR p.updated_at < $3 - interval '1 hour', false) AS challenge_over,
                p.accepted_at < $4 AS lapsing,
                (SELECT a.reference FROM operation a WHERE a.payment_id = p.id AND a.kind = 'authorize'
                 AND a.outcome IS DISTINCT FROM 'not_sent') AS authorization_reference
         FROM payment p
         WHERE p.status IN ('accepted', 'authorizing', 'challenged', 'authorized')
           AND (p.updated_at < $1
                  AND p.updated_at < $3 - least(p.updated_at - p.accepted_at, interval '1 hour')
                OR p.status = 'challenged' AND p.challenge_until < $3)
           AND (p.status <> 'challenged'
                OR (p.challenge_until < $3 OR p.updated_at < $3 - interval '1 hour') AND p.challenge_response IS NULL
                OR p.challenge_response IS NOT NULL AND p.updated_at < $1)
           AND NOT EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id
                           AND (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing)
         ORDER BY p.updated_at, p.id LIMIT $2 FOR NO KEY UPDATE OF p SKIP LOCKED",
    )
    .bind(now - patience.stalled)
    .bind(limit)
    .bind(now)
    .bind(now - patience.hold)
    .fetch_all(transaction)
    .await?;
    rows.iter()
        .map(|row| {
            let bill: String = row.try_get("bill_code")?;
            Ok(Stalled {
                id: row.try_get("id")?,
                status: read_word(row, "status")?,
                version: row.try_get("version")?,
                bill: bill.parse().map_err(|_| StoreError::Unreadable(format!("payment: {bill}")))?,
                traceparent: row.try_get("traceparent")?,
                answered: row.try_get("answered")?,
                challenge_over: row.try_get("challenge_over")?,
                lapsing: row.try_get("lapsing")?,
                authorization: row.try_get("authorization_reference")?,
                amount: read_money(row, "amount_minor", "currency")?,
            })
        })
        .collect()
}

fn authorized(payment: &Stalled, now: OffsetDateTime) -> Option<OutboxRow> {
    let of = FactOf {
        payment: payment.id,
        bill: payment.bill.clone(),
        version: payment.version,
        status: payment.status,
        amount: payment.amount,
        card: None,
        decline_reason: None,
        receipt_number: None,
        traceparent: payment.traceparent.clone(),
    };
    facts::fact(of, SOURCE, now)
}

fn challenge_completed(payment: &Stalled, now: OffsetDateTime) -> OutboxRow {
    let (id, topic) = (clock::new_id(), Topic::PaymentChallengeCompleted);
    let data = ChallengeCompleted { payment: payment.id };
    let body = Message::new(topic, id, SOURCE, payment.id, now, data).to_bytes();
    OutboxRow { id, topic, body, traceparent: payment.traceparent.clone() }
}
