//! Receipts: looked up, and to be sent by mail, one sender at a time, with a mark once it is done.

use std::time::Duration;

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

pub use super::receipt_copies::{Resend, send_again};
use super::{StoreError, read_money, read_word};
use crate::payment::{Money, PaymentCode, PublicStatus, Status, card::MaskedCard};

/// What a receipt says, and whom it is for.
#[derive(Clone)]
pub struct ReceiptRow {
    /// The payment.
    pub payment: Uuid,
    /// The receipt's number.
    pub number: String,
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// The service.
    pub service: String,
    /// The applicant's full name.
    pub applicant: String,
    /// What was paid.
    pub amount: Money,
    /// The card, masked.
    pub card: MaskedCard,
    /// The issuer's approval code.
    pub authorization_code: Option<String>,
    /// Retrieval reference number.
    pub rrn: Option<String>,
    /// When it was captured.
    pub paid_at: OffsetDateTime,
    /// `ky`, `ru` or `en`.
    pub locale: String,
    /// The payer's address.
    pub email: String,
}

/// What a claim of receipts came to.
#[derive(Default)]
pub struct Claimed {
    /// To be sent by the caller.
    pub mine: Vec<ReceiptRow>,
    /// Sent already.
    pub sent: Vec<Uuid>,
    /// Not there: such payments have no receipt.
    pub missing: Vec<Uuid>,
}

/// What anybody may know of a receipt whose number he has: whether it is genuine, and nothing personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenuineReceipt {
    /// Its number.
    pub number: String,
    /// What was paid.
    pub amount: Money,
    /// What was given back of it since, in minor units.
    pub refunded: i64,
    /// When it was paid.
    pub paid_at: OffsetDateTime,
    /// False once the money was given back in full.
    pub still_paid: bool,
}

/// Longest text that is looked up as a number.
const LONGEST_NUMBER: usize = 64;

pub(super) const COLUMNS: &str =
    "r.payment_id, r.number, p.bill_code, b.service, b.applicant, p.amount_minor, p.currency,
    coalesce(p.card_number_masked, '') AS card_number, coalesce(p.card_brand, 'other') AS card_brand,
    p.authorization_code, p.rrn, coalesce(p.captured_at, r.issued_at) AS paid_at, p.locale, p.payer_email";

/// Claims receipts for sending during `lease`. Those that are in no list are with another sender. Like the mark that
/// follows, it waits for no disk: a crash of the database may cost a second mail, as a crash of the sender may.
pub async fn claim(pool: &PgPool, payments: &[Uuid], lease: Duration) -> Result<Claimed, StoreError> {
    let statement = format!(
        "WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
         n AS MATERIALIZED (SELECT id FROM soon, unnest($1::uuid[]) AS n (id)),
         mine AS (
             UPDATE receipt r SET sending_until = now() + make_interval(secs => $2)
             FROM n JOIN payment p ON p.id = n.id JOIN bill b ON b.code = p.bill_code
             WHERE r.payment_id = p.id AND r.sent_at IS NULL
               AND (r.sending_until IS NULL OR r.sending_until < now())
             RETURNING {COLUMNS})
         SELECT n.id, (SELECT sent_at IS NOT NULL FROM receipt WHERE payment_id = n.id) AS sent, mine.*
         FROM n LEFT JOIN mine ON mine.payment_id = n.id"
    );
    let rows =
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(payments).bind(lease.as_secs_f64()).fetch_all(pool).await?;
    let mut claimed = Claimed::default();
    for row in &rows {
        let payment: Uuid = row.try_get("id")?;
        match row.try_get("sent")? {
            None => claimed.missing.push(payment),
            Some(true) => claimed.sent.push(payment),
            Some(false) if row.try_get::<Option<Uuid>, _>("payment_id")?.is_some() => claimed.mine.push(read(row)?),
            Some(false) => {}
        }
    }
    Ok(claimed)
}

/// The receipt of a payment; none until it is paid.
pub async fn of_payment(pool: &PgPool, payment: Uuid) -> Result<Option<ReceiptRow>, StoreError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM receipt r JOIN payment p ON p.id = r.payment_id JOIN bill b ON b.code = p.bill_code
         WHERE r.payment_id = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(payment).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

/// The receipt of this number, if it is one of ours. Any text may be asked about.
pub async fn by_number(pool: &PgPool, number: &str) -> Result<Option<GenuineReceipt>, StoreError> {
    // PostgreSQL has no texts with NUL; no number has anything but these.
    let is_number = number.len() <= LONGEST_NUMBER && number.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_number {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT r.number, p.status, p.amount_minor, p.currency, coalesce(p.captured_at, r.issued_at) AS paid_at,
                coalesce((SELECT sum(s.amount_minor)::bigint FROM posting s
                          WHERE s.payment_id = p.id AND s.kind = 'refund'), 0) AS refunded
         FROM receipt r JOIN payment p ON p.id = r.payment_id WHERE r.number = $1",
    )
    .bind(number)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(genuine).transpose()
}

/// Marks receipts as sent.
pub async fn mark_sent(pool: &PgPool, payments: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query(
        "WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
         UPDATE receipt SET sent_at = now(), sending_until = NULL FROM soon WHERE payment_id = ANY($1)",
    )
    .bind(payments)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives claimed receipts back: they were not sent.
pub async fn give_back(pool: &PgPool, payments: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query("UPDATE receipt SET sending_until = NULL WHERE payment_id = ANY($1) AND sent_at IS NULL")
        .bind(payments)
        .execute(pool)
        .await?;
    Ok(())
}

/// A receipt that its queue could not send.
#[derive(Debug, Clone, Copy)]
pub struct Overdue {
    /// The payment.
    pub payment: Uuid,
    /// Attempts outside the queue so far.
    pub attempts: i32,
    /// Since when it is to be sent.
    pub issued_at: OffsetDateTime,
}

/// Receipts that nobody has sent, and that no sender has claimed: issued before `issued_before` and never tried outside
/// their queue, or due for another try. At most `limit`, the oldest first.
pub async fn overdue(
    pool: &PgPool,
    now: OffsetDateTime,
    issued_before: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Overdue>, StoreError> {
    let rows = sqlx::query(
        "SELECT payment_id, attempts, issued_at FROM receipt
         WHERE sent_at IS NULL AND given_up_at IS NULL
           AND (next_try_at <= $1 OR next_try_at IS NULL AND issued_at <= $2)
           AND (sending_until IS NULL OR sending_until < now())
         ORDER BY issued_at LIMIT $3",
    )
    .bind(now)
    .bind(issued_before)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Overdue {
                payment: row.try_get("payment_id")?,
                attempts: row.try_get("attempts")?,
                issued_at: row.try_get("issued_at")?,
            })
        })
        .collect()
}

/// Gives claimed receipts back, each for another try outside its queue at its time.
pub async fn postpone(pool: &PgPool, payments: &[Uuid], until: &[OffsetDateTime]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE receipt r SET sending_until = NULL, attempts = r.attempts + 1, next_try_at = l.until
         FROM unnest($1::uuid[], $2::timestamptz[]) AS l(payment_id, until)
         WHERE r.payment_id = l.payment_id AND r.sent_at IS NULL",
    )
    .bind(payments)
    .bind(until)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives claimed receipts up: no further try would go better. A replayed message may send them all the same.
pub async fn give_up(pool: &PgPool, payments: &[Uuid], now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE receipt SET given_up_at = $2, sending_until = NULL WHERE payment_id = ANY($1) AND sent_at IS NULL",
    )
    .bind(payments)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}

fn genuine(row: &sqlx::postgres::PgRow) -> Result<GenuineReceipt, StoreError> {
    let status: Status = read_word(row, "status")?;
    let amount = read_money(row, "amount_minor", "currency")?;
    let refunded: i64 = row.try_get("refunded")?;
    Ok(GenuineReceipt {
        number: row.try_get("number")?,
        amount,
        refunded,
        paid_at: row.try_get("paid_at")?,
        still_paid: status.public() == PublicStatus::Paid && refunded < amount.value,
    })
}

pub(super) fn read(row: &sqlx::postgres::PgRow) -> Result<ReceiptRow, StoreError> {
    let (bill, currency): (String, String) = (row.try_get("bill_code")?, row.try_get("currency")?);
    let unreadable = |word: &str| StoreError::Unreadable(format!("receipt: {word}"));
    Ok(ReceiptRow {
        payment: row.try_get("payment_id")?,
        number: row.try_get("number")?,
        bill: bill.parse().map_err(|_| unreadable(&bill))?,
        service: row.try_get("service")?,
        applicant: row.try_get("applicant")?,
        amount: Money::new(row.try_get("amount_minor")?, currency.parse().map_err(|_| unreadable(&currency))?),
        card: MaskedCard { number: row.try_get("card_number")?, brand: row.try_get("card_brand")? },
        authorization_code: row.try_get("authorization_code")?,
        rrn: row.try_get("rrn")?,
        paid_at: row.try_get("paid_at")?,
        locale: row.try_get("locale")?,
        email: row.try_get("payer_email")?,
    })
}
