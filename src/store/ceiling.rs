//! What the database gives at most: the measure beside which a pipeline's own figures mean something.
//!
//! A table of its own, as durable as the books; rows of half a kilobyte.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::StoreError;
use crate::config;

/// Rows of a batch.
const BATCH: usize = 500;
const BATCHING: usize = 2;
const SINGLE: usize = 12;

/// The figures.
#[derive(Debug, Clone)]
pub struct Ceiling {
    /// Rows a second in batches of 500, each committed, on two connections.
    pub batched_rows_per_s: f64,
    /// Commits of one row a second, on twelve connections.
    pub single_commits_per_s: f64,
    /// How long each of some commits of one row took, one at a time.
    pub single: Vec<Duration>,
}

/// Measures each for so long, and leaves nothing behind.
pub async fn measure(pool: &PgPool, settings: &config::Database, lasts: Duration) -> Result<Ceiling, StoreError> {
    sqlx::raw_sql("CREATE TABLE ceiling (id uuid PRIMARY KEY, body bytea NOT NULL)").execute(pool).await?;
    let measured = async {
        let batched = inserts(settings, BATCHING, BATCH, lasts).await?;
        let single = inserts(settings, SINGLE, 1, lasts).await?;
        let alone = inserts(settings, 1, 1, lasts / 2).await?;
        Ok(Ceiling {
            batched_rows_per_s: batched.rate(BATCH),
            single_commits_per_s: single.rate(1),
            single: alone.took,
        })
    }
    .await;
    sqlx::raw_sql("DROP TABLE ceiling").execute(pool).await?;
    measured
}

struct Inserts {
    took: Vec<Duration>,
    lasted: Duration,
}

impl Inserts {
    fn rate(&self, rows: usize) -> f64 {
        (self.took.len() * rows) as f64 / self.lasted.as_secs_f64()
    }
}

/// Inserts so many rows at a time on so many connections for so long.
async fn inserts(
    settings: &config::Database,
    connections: usize,
    rows: usize,
    lasts: Duration,
) -> Result<Inserts, StoreError> {
    let connect = (0..connections).map(|_| PgConnection::connect(settings.url.expose()));
    let mut connections = try_join_all(connect).await?;
    let began = Instant::now();
    let until = began + lasts;
    let all = try_join_all(connections.iter_mut().map(|connection| insert(connection, rows, until))).await?;
    let lasted = began.elapsed();
    for connection in connections {
        // The server notices a closed socket anyway.
        let _ = connection.close().await;
    }
    Ok(Inserts { took: all.into_iter().flatten().collect(), lasted })
}

async fn insert(connection: &mut PgConnection, rows: usize, until: Instant) -> Result<Vec<Duration>, StoreError> {
    let (body, mut took) = (vec![b'x'; 500], Vec::new());
    let bodies: Vec<&[u8]> = vec![&body; rows];
    while Instant::now() < until {
        let ids: Vec<Uuid> = (0..rows).map(|_| Uuid::now_v7()).collect();
        let began = Instant::now();
        sqlx::query("INSERT INTO ceiling SELECT * FROM unnest($1::uuid[], $2::bytea[])")
            .bind(ids)
            .bind(&bodies)
            .execute(&mut *connection)
            .await?;
        took.push(began.elapsed());
    }
    Ok(took)
}
