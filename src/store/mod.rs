//! All SQL. Functions take slices and work on whole sets: a batch is written in one statement.

pub mod accept;
pub mod bills;
pub mod books;
pub mod cards;
pub mod ceiling;
pub mod clients;
pub mod dead;
pub mod facts;
pub mod grown;
pub mod keys;
pub mod limits;
pub mod measure;
pub mod notices;
pub mod operations;
pub mod outbox;
pub mod payments;
pub mod receipt_copies;
pub mod receipts;
pub mod reckoning;
pub mod record;
pub mod request;
pub mod resolve;
pub mod revive;
pub mod scratch;
pub mod sessions;
pub mod status;
pub mod verify;
mod writes;

use std::time::Duration;

use sqlx::{
    Connection, Row,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow},
};

use crate::{
    config,
    payment::{Money, bill::UnknownWord},
};

/// A connection that was in use so lately is used again unasked. One that broke meanwhile fails its next transaction,
/// which is [`StoreError::Unavailable`] and tried again; any other is asked first whether it still lives.
const TRUSTED_IDLE: Duration = Duration::from_millis(500);

/// The database cannot do it. Every caller must say what that means: there is no conversion into anything else.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done, and later it may work: no connection, a serialization failure, a lock time-out.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// No answer in time. Whether it was done is not known; everything here may be repeated.
    #[error("the database did not answer in time")]
    TimedOut,
    /// It will never work: a broken constraint, data of a shape this build does not know.
    #[error("the database refuses")]
    Refused(#[source] sqlx::Error),
    /// What stands in the database is not what this build writes.
    #[error("unreadable data: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut)
    }

    /// Whether somebody was faster, or in a deadlock luckier (serialization failure, deadlock).
    fn is_lost_race(&self) -> bool {
        self.has_code(&["40001", "40P01"])
    }

    /// Whether somebody is in the way: a race lost again and again, a lock time-out, a statement time-out.
    fn is_contention(&self) -> bool {
        self.is_lost_race() || self.has_code(&["55P03", "57014"])
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        let Self::Unavailable(sqlx::Error::Database(database)) = self else { return false };
        database.code().is_some_and(|code| codes.contains(&code.as_ref()))
    }
}

impl From<sqlx::Error> for StoreError {
    /// Inside this module a `?` classifies by SQLSTATE (PostgreSQL manual, appendix A).
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let transient = match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => true,
            E::Database(database) => database.code().is_some_and(|code| {
                // Class 08 connection, 40 rollback (serialization, deadlock), 53 resources, 55 lock not available,
                // 57 operator intervention (shutdown, cancel), 58 system error.
                code == "25P03" || ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        };
        if transient { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// No wait without an end, on either side: a server that is gone, or a session of a worker host that died while it held
/// locks. What runs into these is tried again (SQLSTATE 55P03, 57014, 25P03).
const LIMITS: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// The pipeline finds every row by a key, so plans must follow the indexes however small a table is or was when they were
/// made: a plan is kept for the life of its session, and statistics are a minute late, or about an empty table. Rows that
/// are to be locked in order are joined to their keys, for with an `ORDER BY` next to `= ANY` PostgreSQL may walk a whole
/// index in order; and what lives for seconds is found in memory. Then one plan serves every batch: a batch of one would
/// look cheaper than the plan for any, and be planned anew every time. What looks at whole tables asks in a [`report`].
const BY_KEY: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("random_page_cost", "0.1"),
    ("plan_cache_mode", "force_generic_plan"),
    // What is switched off counts as dear, and dear plans are compiled.
    ("jit", "off"),
];

/// Begins a look at whole tables, which is planned for them, and may take its time.
async fn report(pool: &PgPool) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, StoreError> {
    const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;
         SET LOCAL enable_mergejoin = on; SET LOCAL random_page_cost = 4; SET LOCAL plan_cache_mode = auto;
         SET LOCAL statement_timeout = '15min'";
    Ok(pool.begin_with(BEGIN).await?)
}

/// Opens a pool. Connections are made when they are needed, so that a role starts while the database is away.
pub fn connect(config: &config::Database) -> Result<PgPool, StoreError> {
    let options: PgConnectOptions = config.url.expose().parse()?;
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        // The pool's own check asks before every use: a round trip for each transaction.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options.application_name("tolom").options(LIMITS).options(BY_KEY)))
}

/// Brings the schema up to date; safe to repeat and to run from several processes at once.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!().run(pool).await
}

/// Reads a word of a closed vocabulary.
fn read_word<T: std::str::FromStr<Err = UnknownWord>>(row: &PgRow, column: &str) -> Result<T, StoreError> {
    let word: &str = row.try_get(column)?;
    word.parse().map_err(|error| StoreError::Unreadable(format!("{column}: {error}")))
}

/// Reads an amount from its two columns.
fn read_money(row: &PgRow, amount: &str, currency: &str) -> Result<Money, StoreError> {
    let code: &str = row.try_get(currency)?;
    let currency = code.parse().map_err(|error| StoreError::Unreadable(format!("{currency}: {error}")))?;
    Ok(Money::new(row.try_get(amount)?, currency))
}
