//! What a benchmark asks the database: what it has done, how it is set, and when each payment came where.

use futures::TryStreamExt;
use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;

/// What the server has done so far; of two such looks, the difference counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    /// Statements in this database, `BEGIN` and `COMMIT` among them; none where nobody counts them.
    pub statements: Option<i64>,
    /// Transactions that wrote something, in the whole server.
    pub commits: i64,
    /// Bytes of WAL, of the whole server.
    pub wal_bytes: i64,
}

/// How the server is set, as far as it matters for speed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Name and value.
    pub settings: Vec<(String, String)>,
}

impl Server {
    /// A setting's value.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

const SETTINGS: [&str; 8] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "max_wal_size",
    "track_commit_timestamp",
    "shared_preload_libraries",
];

/// Asks how the server is set.
pub async fn server(pool: &PgPool) -> Result<Server, StoreError> {
    let version = sqlx::query_scalar("SELECT current_setting('server_version')").fetch_one(pool).await?;
    let settings = sqlx::query_as("SELECT name, current_setting(name) FROM unnest($1::text[]) AS name")
        .bind(SETTINGS.as_slice())
        .fetch_all(pool)
        .await?;
    Ok(Server { version, settings })
}

/// Has statements counted, where the server can.
pub async fn count_statements(pool: &PgPool) -> bool {
    let created = sqlx::raw_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(pool).await;
    created.is_ok() && statements(pool).await.is_some()
}

async fn statements(pool: &PgPool) -> Option<i64> {
    sqlx::query_scalar(
        "SELECT sum(calls)::bigint FROM pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_one(pool)
    .await
    .ok()
    .flatten()
}

/// What the server has done so far.
pub async fn done(pool: &PgPool, count_statements: bool) -> Result<Done, StoreError> {
    let wal_bytes = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint");
    let wal_bytes = wal_bytes.fetch_one(pool).await?;
    // Who writes is given the next transaction id; who only reads is given none (manual, "Transaction ID and Snapshot
    // Information Functions").
    let commits = sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint");
    let commits = commits.fetch_one(pool).await?;
    Ok(Done { statements: if count_statements { statements(pool).await } else { None }, commits, wal_bytes })
}

/// Gathers the statistics that plans are made by, as a database in use has them: a fresh one has none for a minute, and
/// would be measured by plans for empty tables. A large one takes longer than any statement of the pipeline may.
pub async fn analyze(pool: &PgPool) -> Result<(), StoreError> {
    sqlx::raw_sql("BEGIN; SET LOCAL statement_timeout = '15min'; ANALYZE; COMMIT").execute(pool).await?;
    Ok(())
}

/// Statements in this database that have run for some seconds: looks at whole tables, as each role takes one when it
/// starts. Their servers go on even when nobody waits for them any more.
pub async fn long_looks(pool: &PgPool) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
           AND state = 'active' AND query_start < now() - interval '2 s'",
    );
    Ok(count.fetch_one(pool).await?)
}

/// When a payment came where.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    /// The payment.
    pub payment: Uuid,
    /// When the acquirer approved it, by the acquirer's clock.
    pub authorized: Option<OffsetDateTime>,
    /// When the outcome of its authorization was in the books.
    pub recorded: Option<OffsetDateTime>,
}

/// Payments asked about in one statement.
const TOGETHER: usize = 10_000;

/// The passages of these payments, one at a time. With `by_commit` a record's time is that of its commit, which the server
/// must keep; else that of its transaction's beginning.
pub async fn passages(
    pool: &PgPool,
    payments: &[Uuid],
    by_commit: bool,
    mut take: impl FnMut(Passage),
) -> Result<(), StoreError> {
    let recorded = if by_commit { "pg_xact_commit_timestamp(j.xmin)" } else { "j.at" };
    // By their keys: the books may hold many others.
    let query = format!(
        "SELECT n.id,
                (SELECT min(t.at) FROM posting t JOIN operation o ON o.id = t.operation_id
                 WHERE t.payment_id = n.id AND o.kind IN ('authorize', 'complete_challenge')
                   AND t.kind IN ('hold', 'capture')) AS authorized,
                (SELECT min({recorded}) FROM journal j
                 WHERE j.payment_id = n.id AND j.from_status = 'authorizing') AS recorded
         FROM unnest($1::uuid[]) AS n (id)"
    );
    for payments in payments.chunks(TOGETHER) {
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(query.as_str())).bind(payments).fetch(pool);
        while let Some(row) = rows.try_next().await? {
            take(Passage {
                payment: row.try_get("id")?,
                authorized: row.try_get("authorized")?,
                recorded: row.try_get("recorded")?,
            });
        }
    }
    Ok(())
}

/// How many of these payments have come to an end.
pub async fn ended(pool: &PgPool, payments: &[Uuid]) -> Result<usize, StoreError> {
    let mut ended = 0;
    for payments in payments.chunks(TOGETHER) {
        let count = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM unnest($1::uuid[]) AS n (id) JOIN payment p ON p.id = n.id
             WHERE p.status IN ('captured', 'settled', 'declined', 'failed', 'reversed')",
        );
        ended += count.bind(payments).fetch_one(pool).await?.unsigned_abs();
    }
    Ok(usize::try_from(ended).unwrap_or(usize::MAX))
}
