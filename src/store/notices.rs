//! Notices: which payers are to be told that their payment is unknown, or that it did not go through; one sender at a
//! time, and a mark once it is done.
//!
//! A notice is planned first, and then is a row: unique by payment and kind, so that nobody is told twice.

use std::{fmt, str::FromStr, time::Duration};

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, read_money, read_word};
use crate::payment::{Money, PaymentCode, Status, bill::UnknownWord, card::MaskedCard};

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not known yet: do not pay again.
    Unknown,
    /// It did not go through, or is given back.
    NotCharged,
}

/// What a payer can do about the bill now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillNow {
    /// Pay it again.
    Open,
    /// Wait: another payment holds it.
    Held,
    /// Nothing: it is paid.
    Paid,
    /// Ask the agency: it was withdrawn, or its time has passed.
    Closed,
}

/// A notice to be sent.
#[derive(Clone)]
pub struct Notice {
    /// Its own id, constant over all attempts.
    pub id: Uuid,
    /// What it is about.
    pub kind: Kind,
    /// The payment.
    pub payment: Uuid,
    /// Where the payment stood when the notice was claimed.
    pub status: Status,
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// Where the bill stood then.
    pub bill_now: BillNow,
    /// The service.
    pub service: String,
    /// What was to be paid.
    pub amount: Money,
    /// The card, masked, if it got as far as a worker.
    pub card: Option<MaskedCard>,
    /// When the payer paid.
    pub accepted_at: OffsetDateTime,
    /// `ky`, `ru` or `en`.
    pub locale: String,
    /// The payer's address.
    pub email: String,
    /// Attempts to send it, this one included.
    pub attempts: i32,
    /// Since when it is to be sent.
    pub created_at: OffsetDateTime,
}

/// What is due for a notice.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// Now.
    pub now: OffsetDateTime,
    /// Payments that have been unknown, or in review, since then or longer.
    pub unknown_since: OffsetDateTime,
    /// What was reversed before then is no news.
    pub reversed_after: OffsetDateTime,
    /// At most so many of each.
    pub limit: i64,
}

/// Plans the notices that are due, and calls off those that have become untrue.
pub async fn plan(pool: &PgPool, due: &Due) -> Result<(), StoreError> {
    plan_unknown(pool, due).await?;
    plan_answers(pool, due).await?;
    plan_reversed(pool, due).await
}

async fn plan_unknown(pool: &PgPool, due: &Due) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO notice (payment_id, kind, created_at, next_try_at)
         SELECT p.id, 'unknown', $1, $1 FROM payment p
         WHERE p.status IN ('unknown', 'review') AND p.updated_at <= $2
           AND NOT EXISTS (SELECT FROM notice n WHERE n.payment_id = p.id AND n.kind = 'unknown')
         ORDER BY p.updated_at LIMIT $3 ON CONFLICT DO NOTHING",
    )
    .bind(due.now)
    .bind(due.unknown_since)
    .bind(due.limit)
    .execute(pool)
    .await?;
    Ok(())
}

/// The end of a payment is told to whoever may have been told that it is unknown: an attempt that failed counts, for
/// the mail may have arrived. While one is under way the answer waits, so that the two arrive in their order. A payment
/// that was captured has its receipt.
async fn plan_answers(pool: &PgPool, due: &Due) -> Result<(), StoreError> {
    sqlx::query(
        "WITH ended AS MATERIALIZED (
             SELECT n.id, n.payment_id, p.status, n.attempts > 0 AS told
             FROM notice n JOIN payment p ON p.id = n.payment_id
             WHERE n.kind = 'unknown' AND n.answered_at IS NULL AND (n.sending_until IS NULL OR n.sending_until < $1)
               AND p.status IN ('captured', 'settled', 'declined', 'failed', 'reversed')
             LIMIT $2 FOR UPDATE OF n SKIP LOCKED),
         answered AS (UPDATE notice n SET answered_at = $1 FROM ended WHERE n.id = ended.id)
         INSERT INTO notice (payment_id, kind, created_at, next_try_at)
         SELECT payment_id, 'not_charged', $1, $1 FROM ended
         WHERE status = 'reversed' OR told AND status IN ('declined', 'failed')
         ON CONFLICT DO NOTHING",
    )
    .bind(due.now)
    .bind(due.limit)
    .execute(pool)
    .await?;
    Ok(())
}

/// Money that was held or taken was seen by its owner, so its return is told in any case.
async fn plan_reversed(pool: &PgPool, due: &Due) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO notice (payment_id, kind, created_at, next_try_at)
         SELECT p.id, 'not_charged', $1, $1 FROM payment p
         WHERE p.status = 'reversed' AND p.updated_at > $2
           AND NOT EXISTS (SELECT FROM notice n WHERE n.payment_id = p.id)
         ORDER BY p.updated_at LIMIT $3 ON CONFLICT DO NOTHING",
    )
    .bind(due.now)
    .bind(due.reversed_after)
    .bind(due.limit)
    .execute(pool)
    .await?;
    Ok(())
}

/// Claims notices for sending during `lease`, the longest due first; any number of senders may do so at once.
pub async fn claim(pool: &PgPool, now: OffsetDateTime, lease: Duration, limit: i64) -> Result<Vec<Notice>, StoreError> {
    let rows = sqlx::query(
        "WITH due AS MATERIALIZED (
             SELECT n.id FROM notice n JOIN payment p ON p.id = n.payment_id
             WHERE n.sent_at IS NULL AND n.given_up_at IS NULL AND n.answered_at IS NULL AND n.next_try_at <= $1
               AND (n.sending_until IS NULL OR n.sending_until < $1)
               AND (n.kind <> 'unknown' OR p.status IN ('unknown', 'review'))
             ORDER BY n.next_try_at LIMIT $3 FOR UPDATE OF n SKIP LOCKED)
         UPDATE notice n SET sending_until = $1 + make_interval(secs => $2), attempts = n.attempts + 1
         FROM due, payment p, bill b
         WHERE n.id = due.id AND p.id = n.payment_id AND b.code = p.bill_code
         RETURNING n.id, n.kind, n.payment_id, p.status, p.bill_code, b.service, p.amount_minor, p.currency,
                   p.card_number_masked, p.card_brand, p.accepted_at, p.locale, p.payer_email, n.attempts,
                   n.created_at,
                   CASE WHEN b.status = 'paid' THEN 'paid'
                        WHEN EXISTS (SELECT FROM payment o WHERE o.bill_code = b.code AND o.id <> p.id
                                     AND o.status NOT IN ('declined', 'failed', 'reversed')) THEN 'held'
                        WHEN b.status = 'open' AND b.valid_until > $1 THEN 'open'
                        ELSE 'closed' END AS bill_now",
    )
    .bind(now)
    .bind(lease.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(read).collect()
}

/// Marks notices as sent.
pub async fn mark_sent(pool: &PgPool, notices: &[Uuid], now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query("UPDATE notice SET sent_at = $2, sending_until = NULL WHERE id = ANY($1)")
        .bind(notices)
        .bind(now)
        .execute(pool)
        .await?;
    Ok(())
}

/// Gives claimed notices back, each for another try at its time.
pub async fn postpone(pool: &PgPool, notices: &[Uuid], until: &[OffsetDateTime]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE notice n SET sending_until = NULL, next_try_at = l.until
         FROM unnest($1::uuid[], $2::timestamptz[]) AS l(id, until)
         WHERE n.id = l.id AND n.sent_at IS NULL",
    )
    .bind(notices)
    .bind(until)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives claimed notices up: no further try would go better.
pub async fn give_up(pool: &PgPool, notices: &[Uuid], now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query("UPDATE notice SET given_up_at = $2, sending_until = NULL WHERE id = ANY($1) AND sent_at IS NULL")
        .bind(notices)
        .bind(now)
        .execute(pool)
        .await?;
    Ok(())
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Notice, StoreError> {
    let bill: &str = row.try_get("bill_code")?;
    let number: Option<String> = row.try_get("card_number_masked")?;
    let brand: Option<String> = row.try_get("card_brand")?;
    Ok(Notice {
        id: row.try_get("id")?,
        kind: read_word(row, "kind")?,
        payment: row.try_get("payment_id")?,
        status: read_word(row, "status")?,
        bill: bill.parse().map_err(|error| StoreError::Unreadable(format!("bill_code: {error}")))?,
        bill_now: read_word(row, "bill_now")?,
        service: row.try_get("service")?,
        amount: read_money(row, "amount_minor", "currency")?,
        card: number.zip(brand).map(|(number, brand)| MaskedCard { number, brand }),
        accepted_at: row.try_get("accepted_at")?,
        locale: row.try_get("locale")?,
        email: row.try_get("payer_email")?,
        attempts: row.try_get("attempts")?,
        created_at: row.try_get("created_at")?,
    })
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Unknown, Self::NotCharged];

    /// The word used in the database and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotCharged => "not_charged",
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl FromStr for BillNow {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "open" => Self::Open,
            "held" => Self::Held,
            "paid" => Self::Paid,
            "closed" => Self::Closed,
            other => return Err(UnknownWord(other.to_owned())),
        })
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice").field("payment", &self.payment).field("kind", &self.kind).finish_non_exhaustive()
    }
}
