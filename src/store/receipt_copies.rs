//! Receipts beyond the mail that brings each once: the one by SMS, and mails sent again because the payer asked. Each is
//! a row with a fate of its own, one sender at a time, so that none holds up or repeats another.

use std::time::Duration;

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    receipts::{COLUMNS, ReceiptRow, read},
};
use crate::payment::PaymentCode;

/// Mails that may be asked for within [`ASKED_WITHIN`], for each receipt: nobody's mailbox is to be filled by a stranger.
const ASKED_AT_MOST: i64 = 3;
const ASKED_WITHIN: time::Duration = time::Duration::hours(24);

/// What kind of copy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A short message to the payer's telephone.
    Sms,
    /// The mail once more, on request.
    Again,
}

/// What came of asking for a receipt once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// It will be sent; or the first mail has not gone out yet, and will.
    Asked,
    /// It was asked for too often lately.
    Enough,
    /// The bill was not paid by a payment of ours, or there is no such bill.
    NoReceipt,
}

/// A claimed copy.
#[derive(Clone)]
pub struct ReceiptCopy {
    /// Its own id, constant over all attempts.
    pub id: Uuid,
    /// What it says and whom it is for.
    pub receipt: ReceiptRow,
    /// The payer's telephone (ITU-T E.164).
    pub phone: String,
    /// Attempts to send it, this one included.
    pub attempts: i32,
    /// Since when it is to be sent.
    pub created_at: OffsetDateTime,
}

/// Asks for the receipt of the payment that paid this bill to be sent once more, to the address it was first sent to.
///
/// # Errors
/// [`StoreError`] as the database gives it; asked again after [`StoreError::TimedOut`], it may be sent twice.
pub async fn send_again(pool: &PgPool, bill: &PaymentCode, now: OffsetDateTime) -> Result<Resend, StoreError> {
    let mut transaction = pool.begin().await?;
    // Locked, so that two who ask at once are counted one after the other.
    let receipt: Option<(Uuid, bool)> = sqlx::query_as(
        "SELECT r.payment_id, r.sent_at IS NULL AND r.given_up_at IS NULL
         FROM bill b JOIN receipt r ON r.payment_id = b.paid_by WHERE b.code = $1 FOR UPDATE OF r",
    )
    .bind(bill.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((payment, still_to_come)) = receipt else { return Ok(Resend::NoReceipt) };
    if still_to_come {
        return Ok(Resend::Asked);
    }
    let asked = sqlx::query(
        "INSERT INTO receipt_copy (payment_id, kind, created_at, next_try_at)
         SELECT $1, 'again', $2, $2
         WHERE (SELECT count(*) FROM receipt_copy WHERE payment_id = $1 AND kind = 'again' AND created_at > $3) < $4",
    )
    .bind(payment)
    .bind(now)
    .bind(now - ASKED_WITHIN)
    .bind(ASKED_AT_MOST)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(if asked.rows_affected() == 1 { Resend::Asked } else { Resend::Enough })
}

/// Plans the short messages of these payments' receipts, each once however often this is called. A receipt issued before
/// `issued_after` is no news: its message was replayed, or came before there was a gateway.
pub async fn plan_sms(
    pool: &PgPool,
    payments: &[Uuid],
    now: OffsetDateTime,
    issued_after: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO receipt_copy (payment_id, kind, created_at, next_try_at)
         SELECT r.payment_id, 'sms', $2, $2 FROM receipt r WHERE r.payment_id = ANY($1) AND r.issued_at > $3
         ON CONFLICT (payment_id) WHERE kind = 'sms' DO NOTHING",
    )
    .bind(payments)
    .bind(now)
    .bind(issued_after)
    .execute(pool)
    .await?;
    Ok(())
}

/// Claims copies of a kind for sending during `lease`, the longest due first; any number of senders may do so at once.
pub async fn claim(
    pool: &PgPool,
    kind: Kind,
    now: OffsetDateTime,
    lease: Duration,
    limit: i64,
) -> Result<Vec<ReceiptCopy>, StoreError> {
    let statement = format!(
        "WITH due AS MATERIALIZED (
             SELECT id FROM receipt_copy
             WHERE kind = $4 AND sent_at IS NULL AND given_up_at IS NULL AND next_try_at <= $1
               AND (sending_until IS NULL OR sending_until < $1)
             ORDER BY next_try_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         UPDATE receipt_copy c SET sending_until = $1 + make_interval(secs => $2), attempts = c.attempts + 1
         FROM due, receipt r, payment p, bill b
         WHERE c.id = due.id AND r.payment_id = c.payment_id AND p.id = r.payment_id AND b.code = p.bill_code
         RETURNING c.id, c.attempts, c.created_at, p.payer_phone, {COLUMNS}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(now)
        .bind(lease.as_secs_f64())
        .bind(limit)
        .bind(kind.as_str())
        .fetch_all(pool)
        .await?;
    rows.iter().map(read_copy).collect()
}

/// Marks copies as sent.
pub async fn mark_sent(pool: &PgPool, copies: &[Uuid], now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query("UPDATE receipt_copy SET sent_at = $2, sending_until = NULL WHERE id = ANY($1)")
        .bind(copies)
        .bind(now)
        .execute(pool)
        .await?;
    Ok(())
}

/// Gives claimed copies back, each for another try at its time.
pub async fn postpone(pool: &PgPool, copies: &[Uuid], until: &[OffsetDateTime]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE receipt_copy c SET sending_until = NULL, next_try_at = l.until
         FROM unnest($1::uuid[], $2::timestamptz[]) AS l(id, until) WHERE c.id = l.id AND c.sent_at IS NULL",
    )
    .bind(copies)
    .bind(until)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives claimed copies up: no further try would go better.
pub async fn give_up(pool: &PgPool, copies: &[Uuid], now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE receipt_copy SET given_up_at = $2, sending_until = NULL WHERE id = ANY($1) AND sent_at IS NULL",
    )
    .bind(copies)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}

impl Kind {
    /// The word used in the database.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Again => "again",
        }
    }
}

fn read_copy(row: &sqlx::postgres::PgRow) -> Result<ReceiptCopy, StoreError> {
    Ok(ReceiptCopy {
        id: row.try_get("id")?,
        receipt: read(row)?,
        phone: row.try_get("payer_phone")?,
        attempts: row.try_get("attempts")?,
        created_at: row.try_get("created_at")?,
    })
}
