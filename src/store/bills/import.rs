//! Bills by the thousand: all of a file or none of it.

use sqlx::{PgConnection, PgPool, Row};
use time::OffsetDateTime;

use super::BillTerms;
use crate::store::StoreError;

/// What an import found of one row, by its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportConflict {
    /// Another agency's bill.
    NotYours,
    /// A payment is live, and the data differs.
    BeingPaid,
    /// It is paid, and the data differs.
    Paid,
    /// It was withdrawn, and the data differs; an import does not reopen it.
    Cancelled,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// New bills.
    pub issued: u64,
    /// Bills whose data has changed.
    pub changed: u64,
    /// Rows that were in the database already, just so.
    pub unchanged: u64,
    /// What is wrong, by index into the rows: nothing has been written then.
    pub conflicts: Vec<(usize, ImportConflict)>,
}

/// Writes all of these bills, or none when one of them conflicts. Codes must be unique. Safe to repeat.
pub async fn import(
    pool: &PgPool,
    agency: &str,
    bills: &[BillTerms],
    now: OffsetDateTime,
) -> Result<Imported, StoreError> {
    let mut order: Vec<usize> = (0..bills.len()).collect();
    // One lock order for everybody.
    order.sort_by(|a, b| bills[*a].code.cmp(&bills[*b].code));
    let mut imported = Imported::default();
    // Thousands of bills at once: the one place where rows had better be met by hashing.
    let mut tx = pool.begin_with("BEGIN; SET LOCAL enable_hashjoin = on").await?;
    sqlx::query("SET LOCAL lock_timeout = '5s'").execute(&mut *tx).await?;
    for part in order.chunks(5_000) {
        let rows: Vec<&BillTerms> = part.iter().map(|index| &bills[*index]).collect();
        imported.issued += insert_many(&mut tx, agency, &rows, now).await?;
        let conflicts = conflicts(&mut tx, agency, &rows).await?;
        imported.conflicts.extend(conflicts.into_iter().map(|(place, conflict)| (part[place], conflict)));
        imported.changed += update_many(&mut tx, agency, &rows, now).await?;
    }
    if imported.conflicts.is_empty() {
        tx.commit().await?;
        imported.unchanged = bills.len() as u64 - imported.issued - imported.changed;
    } else {
        tx.rollback().await?;
        imported.conflicts.sort_unstable_by_key(|(index, _)| *index);
        (imported.issued, imported.changed) = (0, 0);
    }
    Ok(imported)
}

/// The rows of an import as arrays, for `unnest`.
struct Columns<'a> {
    codes: Vec<&'a str>,
    services: Vec<&'a str>,
    applicants: Vec<&'a str>,
    amounts: Vec<i64>,
    currencies: Vec<&'a str>,
    valid_until: Vec<OffsetDateTime>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a BillTerms]) -> Self {
        Self {
            codes: rows.iter().map(|row| row.code.as_str()).collect(),
            services: rows.iter().map(|row| row.service.as_str()).collect(),
            applicants: rows.iter().map(|row| row.applicant.as_str()).collect(),
            amounts: rows.iter().map(|row| row.amount.value).collect(),
            currencies: rows.iter().map(|row| row.amount.currency.as_str()).collect(),
            valid_until: rows.iter().map(|row| row.valid_until).collect(),
        }
    }
}

async fn insert_many(
    db: &mut PgConnection,
    agency: &str,
    rows: &[&BillTerms],
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let columns = Columns::of(rows);
    let done = sqlx::query(
        "INSERT INTO bill (code, service, applicant, amount_minor, currency, valid_until, agency, created_at, updated_at)
         SELECT n.*, $7, $8, $8
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[]) AS n (code)
         ORDER BY n.code ON CONFLICT (code) DO NOTHING",
    )
    .bind(columns.codes)
    .bind(columns.services)
    .bind(columns.applicants)
    .bind(columns.amounts)
    .bind(columns.currencies)
    .bind(columns.valid_until)
    .bind(agency)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Locks the bills and tells which of them cannot become as wanted.
async fn conflicts(
    db: &mut PgConnection,
    agency: &str,
    rows: &[&BillTerms],
) -> Result<Vec<(usize, ImportConflict)>, StoreError> {
    let columns = Columns::of(rows);
    sqlx::query(
        "SELECT FROM unnest($1::text[]) AS n (code) JOIN bill b ON b.code = n.code ORDER BY b.code FOR UPDATE OF b",
    )
    .bind(&columns.codes)
    .execute(&mut *db)
    .await?;
    let found = sqlx::query(
        "SELECT n.place - 1 AS place, CASE
                WHEN b.agency <> $7 THEN 'not_yours'
                WHEN (b.service, b.applicant, b.amount_minor, b.currency, b.valid_until)
                     IS NOT DISTINCT FROM (n.service, n.applicant, n.amount_minor, n.currency, n.valid_until) THEN NULL
                WHEN b.status = 'cancelled' THEN 'cancelled'
                WHEN b.status = 'paid' THEN 'paid'
                WHEN EXISTS (SELECT FROM payment p WHERE p.bill_code = b.code
                             AND p.status NOT IN ('declined', 'failed', 'reversed')) THEN 'being_paid'
                END AS conflict
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[]) WITH ORDINALITY
              AS n (code, service, applicant, amount_minor, currency, valid_until, place)
         JOIN bill b ON b.code = n.code",
    )
    .bind(columns.codes)
    .bind(columns.services)
    .bind(columns.applicants)
    .bind(columns.amounts)
    .bind(columns.currencies)
    .bind(columns.valid_until)
    .bind(agency)
    .fetch_all(db)
    .await?;
    let mut conflicts = Vec::new();
    for row in found {
        let conflict = match row.try_get::<Option<&str>, _>("conflict")? {
            None => continue,
            Some("not_yours") => ImportConflict::NotYours,
            Some("cancelled") => ImportConflict::Cancelled,
            Some("paid") => ImportConflict::Paid,
            Some(_) => ImportConflict::BeingPaid,
        };
        let place: i64 = row.try_get("place")?;
        conflicts.push((usize::try_from(place).unwrap_or(0), conflict));
    }
    Ok(conflicts)
}

async fn update_many(
    db: &mut PgConnection,
    agency: &str,
    rows: &[&BillTerms],
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let columns = Columns::of(rows);
    let done = sqlx::query(
        "UPDATE bill b SET service = n.service, applicant = n.applicant, amount_minor = n.amount_minor,
                currency = n.currency, valid_until = n.valid_until, updated_at = $8
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[])
              AS n (code, service, applicant, amount_minor, currency, valid_until)
         WHERE b.code = n.code AND b.agency = $7 AND b.status = 'open'
           AND (b.service, b.applicant, b.amount_minor, b.currency, b.valid_until)
               IS DISTINCT FROM (n.service, n.applicant, n.amount_minor, n.currency, n.valid_until)",
    )
    .bind(columns.codes)
    .bind(columns.services)
    .bind(columns.applicants)
    .bind(columns.amounts)
    .bind(columns.currencies)
    .bind(columns.valid_until)
    .bind(agency)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
