//! Sessions in hand, for work that comes batch after batch.
//!
//! The pool asks every session that is given back whether it still lives, and hands its sessions out in turn: each batch
//! would cost a round trip more, and meet a server process whose caches have gone cold. What is kept here is used again as
//! it is, the last one first.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};

use super::{StoreError, TRUSTED_IDLE};

/// Sessions are kept for so many who work at the same time.
const MOST_KEPT: usize = 4;
/// After so long a session goes to its pool between two batches, which replaces it when its life is over.
const LONGEST_KEPT: Duration = Duration::from_secs(60);

/// Hands out sessions, and takes them back. Cheap to clone; the sessions in hand go back to their pool with the last clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    places: usize,
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    connection: PoolConnection<Postgres>,
    /// From the pool.
    taken: Instant,
    idle_since: Instant,
}

/// A session. One that is dropped goes to the pool, which looks after it.
#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    home: Arc<Inner>,
}

impl Sessions {
    /// Keeps a quarter of the pool's sessions at most: the rest is for everybody.
    pub fn new(pool: PgPool) -> Self {
        let quarter = pool.options().get_max_connections() / 4;
        let places = usize::try_from(quarter).unwrap_or(MOST_KEPT).min(MOST_KEPT);
        Self::with_places(pool, places)
    }

    /// Keeps none: every session is the pool's.
    pub fn passing(pool: PgPool) -> Self {
        Self::with_places(pool, 0)
    }

    fn with_places(pool: PgPool, places: usize) -> Self {
        Self(Arc::new(Inner { pool, places, kept: Mutex::default() }))
    }

    /// A session that was in use a moment ago, or one of the pool's.
    pub(super) async fn take(&self) -> Result<Session, StoreError> {
        let (kept, stale) = {
            let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.pop() {
                Some(last) if last.idle_since.elapsed() < TRUSTED_IDLE => (Some(last), Vec::new()),
                // The others have waited even longer.
                Some(last) => (None, std::iter::once(last).chain(kept.drain(..)).collect()),
                None => (None, Vec::new()),
            }
        };
        drop(stale);
        let (connection, taken) = match kept {
            Some(Kept { connection, taken, .. }) => (connection, taken),
            None => (self.0.pool.acquire().await?, Instant::now()),
        };
        Ok(Session { connection, taken, home: Arc::clone(&self.0) })
    }
}

impl Session {
    /// Gives it back after work that has come to its end. After anything else it is dropped.
    pub(super) fn give_back(self) {
        let Self { connection, taken, home } = self;
        let mut kept = home.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < home.places && taken.elapsed() < LONGEST_KEPT {
            kept.push(Kept { connection, taken, idle_since: Instant::now() });
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
