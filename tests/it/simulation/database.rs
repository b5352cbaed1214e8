//! A real PostgreSQL whose `now()` is the simulation's.
//!
//! The schema `sim` stands before `pg_catalog` in the search path, and has a function `now()` of its own; the migrations
//! run behind it, so that it is also what column defaults call.

use std::{
    mem,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use time::OffsetDateTime;

use super::gates::{At, SPARE, Stage};
use crate::support::database::TestDatabase;

/// Actors park while they hold a connection, so there must be one for each of their branches.
pub(super) const PLACES: u32 = 10;
/// With fewer, somebody might have to wait for one to be made.
const LEAST: u32 = PLACES + SPARE as u32;
/// Crashes break connections: some may, before new ones are made.
const MOST: u32 = LEAST + 6;

const CLOCK: &str = "
    CREATE SCHEMA sim;
    CREATE TABLE sim.clock (at timestamptz NOT NULL);
    INSERT INTO sim.clock VALUES ('2026-11-23 00:00+00');
    -- PL/pgSQL keeps its plan; a function in SQL would be planned again in every statement.
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
        'BEGIN RETURN (SELECT at FROM sim.clock); END';
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = sim, public, pg_catalog', current_database()); END $$";

/// The connection that does the work of all actors.
///
/// They hold connections of the pool while they wait at gates, and exactly one of them uses its own at a time: so whoever
/// passes a gate gets this one instead, for as long. Statements are parsed and planned once, and not on each of the
/// pool's connections, of which every crash breaks some.
struct Line {
    free: Option<PgConnection>,
    /// The pool's own, meanwhile.
    instead_of: Option<PgConnection>,
}

impl Line {
    fn lend(&mut self, place: &mut PgConnection) {
        let line = self.free.take().expect("one actor uses the database at a time");
        self.instead_of = Some(mem::replace(place, line));
    }

    fn give_back(&mut self, place: &mut PgConnection) {
        if let Some(own) = self.instead_of.take() {
            self.free = Some(mem::replace(place, own));
        }
    }
}

pub(super) struct Database {
    pub(super) pool: PgPool,
    /// For what is asked about the books between two steps.
    pub(super) asking: PgPool,
    /// The scheduler's own: no gates, and no round trips to give it back.
    own: PgConnection,
    clear: String,
    cleared: u32,
    _database: TestDatabase,
}

impl Database {
    pub(super) async fn open(stage: &Arc<Stage>) -> Self {
        let database = TestDatabase::bare().await;
        sqlx::raw_sql(CLOCK).execute(&database.pool).await.unwrap();
        database.pool.close().await;
        // What a crash of the server would lose is not simulated.
        let options = PgConnectOptions::from_str(&database.url)
            .unwrap()
            .disable_statement_logging()
            .options([("synchronous_commit", "off")]);
        let line = PgConnection::connect_with(&options).await.unwrap();
        let line = Arc::new(Mutex::new(Line { free: Some(line), instead_of: None }));
        let (lending, taking) = (Arc::clone(&line), line);
        let (connecting, acquiring, releasing) = (Arc::clone(stage), Arc::clone(stage), Arc::clone(stage));
        let pool = PgPoolOptions::new()
            .max_connections(MOST)
            .acquire_timeout(Duration::from_secs(3_600))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .before_acquire(move |connection, _| {
                let (stage, line) = (Arc::clone(&acquiring), Arc::clone(&lending));
                Box::pin(async move {
                    stage.pass(At::Database).await;
                    if stage.taken() {
                        line.lock().unwrap().lend(connection);
                    }
                    Ok(true)
                })
            })
            .after_connect(move |_, _| {
                connecting.made();
                Box::pin(async { Ok(()) })
            })
            .after_release(move |connection, _| {
                let (stage, line) = (Arc::clone(&releasing), Arc::clone(&taking));
                Box::pin(async move {
                    // A transaction that was dropped is rolled back only now.
                    if connection.should_flush() {
                        connection.ping().await?;
                    }
                    line.lock().unwrap().give_back(connection);
                    stage.returned();
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone());
        tolom::store::migrate(&pool).await.expect("the migrations run behind the simulated clock");
        let own = PgConnection::connect_with(&options).await.unwrap();
        let asking = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_lazy_with(options);
        Self { pool, asking, own, clear: String::new(), cleared: 0, _database: database }
    }

    /// What stands in the database from now on is there for every run.
    pub(super) async fn keep(&mut self) {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'sim' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1",
        )
        .fetch_all(&mut self.own)
        .await
        .unwrap();
        // Foreign keys hold at the end of a run whatever the order of its removal.
        let mut clear = "SET session_replication_role = replica;".to_owned();
        for table in tables {
            let question = format!("SELECT EXISTS (SELECT FROM {table})");
            if !sqlx::query_scalar::<_, bool>(AssertSqlSafe(question)).fetch_one(&mut self.own).await.unwrap() {
                clear.push_str(&format!("DELETE FROM {table};"));
            }
        }
        self.clear = clear;
    }

    /// Ready for the next run.
    pub(super) async fn clear(&mut self) {
        sqlx::raw_sql(AssertSqlSafe(self.clear.clone())).execute(&mut self.own).await.unwrap();
        if self.cleared.is_multiple_of(20) {
            sqlx::raw_sql("VACUUM").execute(&mut self.own).await.unwrap();
        }
        self.cleared += 1;
    }

    pub(super) async fn set_time(&mut self, now: OffsetDateTime) {
        sqlx::query("UPDATE sim.clock SET at = $1").bind(now).execute(&mut self.own).await.unwrap();
    }

    pub(super) fn own(&mut self) -> &mut PgConnection {
        &mut self.own
    }

    /// Opens connections, so that no actor ever waits for one to be made: how long that takes would be chance.
    pub(super) async fn fill(&self, stage: &Stage) {
        if self.pool.size() < LEAST {
            let missing = (MOST - self.pool.size()) as usize + self.pool.num_idle();
            let mut held = Vec::with_capacity(missing);
            for _ in 0..missing {
                held.push(self.pool.acquire().await.expect("PostgreSQL gives connections"));
            }
            drop(held);
            stage.settle(&self.pool).await;
        }
    }
}
