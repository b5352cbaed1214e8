//! Bills: looked up by payers, issued, changed and withdrawn by their agencies.
//!
//! Whoever changes a bill locks its row first; accepting a payment holds the same row in share mode, so a change sees
//! either no payment or a committed one.

mod import;

pub use import::{ImportConflict, Imported, import};
use sqlx::{PgConnection, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, read_money, read_word};
use crate::payment::{BillStatus, Money, PaymentCode};

/// What an agency says of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillTerms {
    /// The payment code.
    pub code: PaymentCode,
    /// The service, by the code's prefix.
    pub service: String,
    /// The applicant's full name.
    pub applicant: String,
    /// What is owed.
    pub amount: Money,
    /// Until when a payment may be accepted.
    pub valid_until: OffsetDateTime,
}

/// Whether a text may stand as the applicant's name: 1 to 200 characters, none of them a control character.
pub fn is_applicant(text: &str) -> bool {
    let length = text.chars().count();
    (1..=200).contains(&length) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// Cuts a time to the whole second, so that it compares equal with what the database keeps. None outside 2000 to 2100.
pub fn whole_second(at: OffsetDateTime) -> Option<OffsetDateTime> {
    // `9999-12-31T23:59:59-01:00` is well-formed (RFC 3339), and its UTC is out of what can be represented.
    let at = at.checked_to_offset(time::UtcOffset::UTC)?.replace_nanosecond(0).ok()?;
    (2000..=2100).contains(&at.year()).then_some(at)
}

/// A bill as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// What its agency says.
    pub terms: BillTerms,
    /// Who issued it.
    pub agency: String,
    /// Where it stands; an open bill past `valid_until` is expired.
    pub status: BillStatus,
    /// The payment of ours that paid it; none if it was paid by another channel.
    pub paid_by: Option<Uuid>,
    /// When it was paid.
    pub paid_at: Option<OffsetDateTime>,
    /// Whether a payment is on its way: no other is accepted, and the bill cannot be changed.
    pub being_paid: bool,
}

/// What came of an agency's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new bill.
    Issued(Bill),
    /// Done, or it was so already.
    Done(Bill),
    /// Refused.
    Refused(ChangeRefused),
}

/// Why a bill is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRefused {
    /// There is no such bill.
    Unknown,
    /// Another agency's.
    NotYours,
    /// A payment is live.
    BeingPaid,
    /// It is paid.
    Paid,
}

/// The bill of this code.
pub async fn get(pool: &PgPool, code: &PaymentCode, now: OffsetDateTime) -> Result<Option<Bill>, StoreError> {
    let mut connection = pool.acquire().await?;
    read_one(&mut connection, code, now).await
}

/// Issues a bill, or changes it. A withdrawn one is open again.
pub async fn put(pool: &PgPool, agency: &str, bill: &BillTerms, now: OffsetDateTime) -> Result<Change, StoreError> {
    change(pool, agency, &bill.code, now, Wanted::Terms(bill)).await
}

/// Marks a bill as paid by another channel. An approval of ours that arrives later is reversed.
pub async fn put_paid(
    pool: &PgPool,
    agency: &str,
    code: &PaymentCode,
    now: OffsetDateTime,
) -> Result<Change, StoreError> {
    change(pool, agency, code, now, Wanted::Paid).await
}

/// Withdraws a bill.
pub async fn cancel(
    pool: &PgPool,
    agency: &str,
    code: &PaymentCode,
    now: OffsetDateTime,
) -> Result<Change, StoreError> {
    change(pool, agency, code, now, Wanted::Cancelled).await
}

enum Wanted<'a> {
    Terms(&'a BillTerms),
    Paid,
    Cancelled,
}

async fn change(
    pool: &PgPool,
    agency: &str,
    code: &PaymentCode,
    now: OffsetDateTime,
    wanted: Wanted<'_>,
) -> Result<Change, StoreError> {
    let mut tx = pool.begin().await?;
    if let Wanted::Terms(bill) = &wanted
        && insert(&mut tx, agency, bill, now).await?
    {
        let issued = read_one(&mut tx, code, now).await?;
        tx.commit().await?;
        return issued.map(Change::Issued).ok_or_else(|| StoreError::Unreadable(format!("bill {code} vanished")));
    }
    sqlx::query("SELECT FROM bill WHERE code = $1 FOR UPDATE").bind(code.as_str()).execute(&mut *tx).await?;
    // Read after the lock, in a statement of its own: a payment accepted meanwhile is seen.
    let Some(before) = read_one(&mut tx, code, now).await? else {
        return Ok(Change::Refused(ChangeRefused::Unknown));
    };
    if let Some(refused) = refusal(&before, agency, &wanted) {
        return Ok(Change::Refused(refused));
    }
    match &wanted {
        Wanted::Terms(bill) => update(&mut tx, bill, now).await?,
        Wanted::Paid => set_status(&mut tx, code, BillStatus::Paid, now).await?,
        Wanted::Cancelled => set_status(&mut tx, code, BillStatus::Cancelled, now).await?,
    }
    let after = read_one(&mut tx, code, now).await?;
    tx.commit().await?;
    after.map(Change::Done).ok_or_else(|| StoreError::Unreadable(format!("bill {code} vanished")))
}

fn refusal(before: &Bill, agency: &str, wanted: &Wanted<'_>) -> Option<ChangeRefused> {
    let paid = before.status == BillStatus::Paid;
    if before.agency != agency {
        return Some(ChangeRefused::NotYours);
    }
    match wanted {
        // Paid here *and* by another channel: the agency must learn of it, so it is not simply agreed to.
        Wanted::Paid => before.paid_by.is_some().then_some(ChangeRefused::Paid),
        Wanted::Terms(_) | Wanted::Cancelled if before.being_paid => Some(ChangeRefused::BeingPaid),
        Wanted::Terms(bill) => (paid && before.terms != **bill).then_some(ChangeRefused::Paid),
        Wanted::Cancelled => paid.then_some(ChangeRefused::Paid),
    }
}

async fn insert(
    db: &mut PgConnection,
    agency: &str,
    bill: &BillTerms,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (code) DO NOTHING",
    )
    .bind(bill.code.as_str())
    .bind(agency)
    .bind(&bill.service)
    .bind(&bill.applicant)
    .bind(bill.amount.value)
    .bind(bill.amount.currency.as_str())
    .bind(bill.valid_until)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn update(db: &mut PgConnection, bill: &BillTerms, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE bill SET service = $2, applicant = $3, amount_minor = $4, currency = $5, valid_until = $6,
                status = 'open', updated_at = $7
         WHERE code = $1 AND status <> 'paid'
           AND (service, applicant, amount_minor, currency, valid_until, status) IS DISTINCT FROM ($2, $3, $4, $5, $6, 'open')",
    )
    .bind(bill.code.as_str())
    .bind(&bill.service)
    .bind(&bill.applicant)
    .bind(bill.amount.value)
    .bind(bill.amount.currency.as_str())
    .bind(bill.valid_until)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

async fn set_status(
    db: &mut PgConnection,
    code: &PaymentCode,
    status: BillStatus,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE bill SET status = $2, updated_at = $3, paid_at = CASE WHEN $2 = 'paid' THEN $3 END
         WHERE code = $1 AND status <> $2",
    )
    .bind(code.as_str())
    .bind(status.as_str())
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

async fn read_one(db: &mut PgConnection, code: &PaymentCode, now: OffsetDateTime) -> Result<Option<Bill>, StoreError> {
    let row = sqlx::query(
        "SELECT b.*, b.status <> 'paid' AND EXISTS (SELECT FROM payment p WHERE p.bill_code = b.code
                 AND p.status NOT IN ('declined', 'failed', 'reversed')) AS being_paid
         FROM bill b WHERE b.code = $1",
    )
    .bind(code.as_str())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let stored: BillStatus = read_word(&row, "status")?;
        let valid_until: OffsetDateTime = row.try_get("valid_until")?;
        let expired = stored == BillStatus::Open && valid_until <= now;
        Ok(Bill {
            terms: BillTerms {
                code: code.clone(),
                service: row.try_get("service")?,
                applicant: row.try_get("applicant")?,
                amount: read_money(&row, "amount_minor", "currency")?,
                valid_until,
            },
            agency: row.try_get("agency")?,
            status: if expired { BillStatus::Expired } else { stored },
            paid_by: row.try_get("paid_by")?,
            paid_at: row.try_get("paid_at")?,
            being_paid: row.try_get("being_paid")?,
        })
    })
    .transpose()
}
