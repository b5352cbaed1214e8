//! The books of an installation that has been in use for a year, made at once: for a benchmark's own new database.
//!
//! Every payment is captured and has all the rows that the pipeline leaves of one, so that `verify` finds nothing. The
//! server makes the rows itself, table by table and side by side. Indexes and constraints are taken down before and put
//! up again afterwards, as they were: made at once they cost a fraction of what they cost row by row.

mod catalog;
mod rows;

use std::{thread::available_parallelism, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::PgConnectOptions};
use time::OffsetDateTime;
use uuid::Uuid;

use self::{catalog::Built, rows::TABLES};
use super::{StoreError, read_money, report};
use crate::{
    config,
    contracts::{FailedAttempt, Topic},
    payment::{Money, PaymentCode, Status, card::MaskedCard},
    store::{
        dead::{self, Letter},
        facts::{FactOf, fact},
    },
};

/// The bill of the first payment: bills that are issued afterwards are numbered far below.
pub const FIRST_BILL: u64 = 5_000_000_000;
/// The most payments: their bills' numbers have ten digits.
pub const MOST_PAYMENTS: u64 = 50_000_000;
/// Tables that are filled side by side, at most: more would only fight for the disk.
const SIDE_BY_SIDE: usize = 4;
/// Waits for nothing that can be made anew, and sorts in memory what fits.
const SESSION: &str =
    "SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET work_mem = '64MB'; SET jit = off";
/// Letters parked in one statement.
const LETTERS: u64 = 1_000;
const SOURCE: &str = "/tolom/record";

/// What lies behind an installation.
#[derive(Debug, Clone)]
pub struct Past {
    /// Payments, all captured: at least one, at most [`MOST_PAYMENTS`].
    pub payments: u64,
    /// They are spread evenly from here on,
    pub since: OffsetDateTime,
    /// and the last one was over by then.
    pub until: OffsetDateTime,
    /// Idempotency keys of payments accepted before are forgotten.
    pub keys_since: OffsetDateTime,
    /// Who issued the bills.
    pub agency: String,
    /// What the bills' codes begin with,
    pub prefix: String,
    /// and the service that this means.
    pub service: String,
    /// What each bill is about.
    pub amount: Money,
    /// Who took the money.
    pub acquirer: String,
    /// Whether it was taken in the authorization's own message.
    pub capture_at_once: bool,
    /// The version of the terms that was accepted.
    pub terms: String,
}

/// Fills a database that has a schema and an agency, and nothing else yet.
///
/// # Errors
/// When there are payments or bills already: then nothing was changed. After any other error the database is of no use.
pub async fn fill(settings: &config::Database, past: &Past) -> Result<(), StoreError> {
    let mut connection = connect(settings, past).await?;
    let books = "SELECT EXISTS (SELECT FROM payment) OR EXISTS (SELECT FROM bill)";
    if sqlx::query_scalar(books).fetch_one(&mut connection).await? {
        return Err(StoreError::Unreadable("the books are not empty: only a new database is filled".to_owned()));
    }
    let tables = TABLES.map(|(table, _)| table);
    let built = catalog::read(&mut connection, &tables).await?;
    catalog::take_down(&mut connection, &built).await?;
    let side_by_side = available_parallelism().map_or(1, usize::from).min(SIDE_BY_SIDE);
    let filling = TABLES.iter().map(|(table, rows)| fill_table(settings, past, table, rows, &built));
    stream::iter(filling).buffer_unordered(side_by_side).try_collect::<()>().await?;
    // What refers to other tables, once these are whole.
    let foreign: Vec<&Built> = built.iter().filter(|built| built.refers).collect();
    for foreign in &foreign {
        foreign.make(&mut connection).await?;
    }
    let validating = foreign.into_iter().map(|foreign| validate(settings, past, foreign));
    stream::iter(validating).buffer_unordered(side_by_side).try_collect::<()>().await?;
    let again = catalog::read(&mut connection, &tables).await?;
    if again != built {
        return Err(StoreError::Unreadable("indexes and constraints are not as they were".to_owned()));
    }
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
    // It is done; the server notices a closed socket anyway.
    let _ = connection.close().await;
    Ok(())
}

async fn fill_table(
    settings: &config::Database,
    past: &Past,
    table: &str,
    rows: &str,
    built: &[Built],
) -> Result<(), StoreError> {
    let mut connection = connect(settings, past).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows.to_owned())).execute(&mut connection).await?;
    // While the rows are still in memory.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("VACUUM (ANALYZE) {table}"))).execute(&mut connection).await?;
    for built in built.iter().filter(|built| built.table == table && !built.refers) {
        built.make(&mut connection).await?;
    }
    let _ = connection.close().await;
    Ok(())
}

async fn validate(settings: &config::Database, past: &Past, foreign: &Built) -> Result<(), StoreError> {
    let mut connection = connect(settings, past).await?;
    foreign.validate(&mut connection).await?;
    let _ = connection.close().await;
    Ok(())
}

/// A session that knows the past, with none of the limits that the pipeline's own have.
async fn connect(settings: &config::Database, past: &Past) -> Result<PgConnection, StoreError> {
    let options: PgConnectOptions = settings.url.expose().parse()?;
    let mut connection = PgConnection::connect_with(&options.application_name("tolom past")).await?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await?;
    rows::describe(&mut connection, past).await?;
    Ok(connection)
}

/// How much disk a database takes, in bytes.
pub async fn size(pool: &PgPool) -> Result<u64, StoreError> {
    let size = sqlx::query_scalar::<_, i64>("SELECT pg_database_size(current_database())").fetch_one(pool).await?;
    Ok(size.unsigned_abs())
}

/// A payment that was captured, for messages about it.
#[derive(Debug, Clone)]
pub struct Captured {
    of: FactOf,
    at: OffsetDateTime,
}

impl Captured {
    /// Its `payment.captured` once more, under an id of its own: (id, body).
    pub fn fact(&self) -> Option<(Uuid, Vec<u8>)> {
        fact(self.of.clone(), SOURCE, self.at).map(|row| (row.id, row.body))
    }
}

/// So many of the captured payments whose receipts were sent, at most.
pub async fn captured(pool: &PgPool, limit: i64) -> Result<Vec<Captured>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.id, p.bill_code, p.version, p.amount_minor, p.currency, p.card_number_masked, p.card_brand,
                p.traceparent, p.captured_at, r.number
         FROM (SELECT payment_id, number FROM receipt WHERE sent_at IS NOT NULL LIMIT $1) r
         JOIN payment p ON p.id = r.payment_id WHERE p.captured_at IS NOT NULL",
    )
    .bind(limit)
    .fetch_all(&mut *report(pool).await?)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Captured, StoreError> {
    let bill: String = row.try_get("bill_code")?;
    let bill: PaymentCode = bill.parse().map_err(|_| StoreError::Unreadable(format!("bill {bill}")))?;
    let (number, brand) = (row.try_get("card_number_masked")?, row.try_get("card_brand")?);
    let of = FactOf {
        payment: row.try_get("id")?,
        bill,
        version: row.try_get("version")?,
        status: Status::Captured,
        amount: read_money(row, "amount_minor", "currency")?,
        card: Some(MaskedCard { number, brand }),
        decline_reason: None,
        receipt_number: row.try_get("number")?,
        traceparent: row.try_get("traceparent")?,
    };
    Ok(Captured { of, at: row.try_get("captured_at")? })
}

/// Parks so many dead letters about these payments, of which there is at least one: receipts that no mail server took,
/// the last of them an hour ago.
pub async fn park_letters(
    pool: &PgPool,
    payments: &[Captured],
    count: u64,
    queue: &'static str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut about = payments.iter().cycle();
    let mut parked = 0;
    while parked < count {
        let letters = (parked..count.min(parked + LETTERS)).zip(about.by_ref()).filter_map(|(_, payment)| {
            let (id, body) = payment.fact()?;
            let failures: Vec<FailedAttempt> = (0..3)
                .map(|attempt| FailedAttempt {
                    attempt,
                    at: now - Duration::from_secs(3_600 + 60 * u64::from(3 - attempt)),
                    reason: "the mail server answered 451 4.3.0: try again later".to_owned(),
                })
                .collect();
            Some(Letter {
                queue,
                message_id: id.to_string(),
                body,
                headers: vec![("tolom-attempt".to_owned(), "3".to_owned())],
                traceparent: payment.of.traceparent.clone(),
                event_type: Some(Topic::PaymentCaptured.event_type()),
                payment: Some(payment.of.payment),
                reason: "the mail server answered 550 5.1.1: no such mailbox".to_owned(),
                failures,
                attempts: 3,
                unreplayable: None,
            })
        });
        let letters: Vec<Letter> = letters.collect();
        if letters.is_empty() {
            return Err(StoreError::Unreadable("there is no captured payment to park a letter about".to_owned()));
        }
        parked += letters.len() as u64;
        dead::park(pool, &letters, now).await?;
    }
    Ok(())
}
