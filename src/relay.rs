//! The outbox relay: publishes what a transaction promised, right after its commit, and sweeps up what was left.
//!
//! The rows in the database are the promise; the copies in memory only make it quick. A crash between commit and
//! confirm costs a delay and perhaps a duplicate with the same event id, never a message.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::{Outgoing, PublishError, Publisher},
    contracts::Topic,
    store::{
        StoreError,
        outbox::{self, OutboxRow},
    },
};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_ROWS: i64 = 500;
/// A sweep's rows come back after this, should the process die while it publishes them.
const LEASE: Duration = Duration::from_secs(30);
/// Committed batches waiting in memory.
const WAITING: usize = 1_000;
/// Rows a publish.
const WINDOW: usize = 1_000;
/// Publishes under way at once.
const IN_FLIGHT: usize = 4;

/// Hands committed outbox rows to the publisher of this process.
#[derive(Debug, Clone)]
pub struct Relay {
    committed: mpsc::Sender<Vec<OutboxRow>>,
}

/// A relay and the end at which its rows come out; [`run`] takes that end.
pub fn channel(capacity: usize) -> (Relay, mpsc::Receiver<Vec<OutboxRow>>) {
    let (committed, rows) = mpsc::channel(capacity);
    (Relay { committed }, rows)
}

impl Relay {
    /// Publishes these rows soon. Never waits and never fails: what does not fit is left to the sweep, for the rows
    /// are in the database.
    pub fn announce(&self, rows: Vec<OutboxRow>) {
        if !rows.is_empty() {
            let _ = self.committed.try_send(rows);
        }
    }

    /// Starts the relay of this process. After `stop` it publishes what has been announced before it ends.
    pub fn start(pool: PgPool, publisher: Publisher, stop: CancellationToken) -> (Self, tokio::task::JoinHandle<()>) {
        let (relay, rows) = channel(WAITING);
        (relay, tokio::spawn(run(rows, pool, publisher, stop)))
    }
}

/// Publishes announced rows until every [`Relay`] is dropped or `stop`; sweeps meanwhile.
pub async fn run(
    mut announced: mpsc::Receiver<Vec<OutboxRow>>,
    pool: PgPool,
    publisher: Publisher,
    stop: CancellationToken,
) {
    // Settlement entries wait for a stream that may be away; nothing else waits with them.
    let (places, entry_places) = (Arc::new(Semaphore::new(IN_FLIGHT)), Arc::new(Semaphore::new(IN_FLIGHT)));
    let sweepers =
        [true, false].map(|entries| tokio::spawn(sweep(pool.clone(), publisher.clone(), entries, stop.clone())));
    loop {
        let rows = tokio::select! {
            rows = announced.recv() => rows,
            () = stop.cancelled() => {
                announced.close();
                announced.recv().await
            }
        };
        let Some(mut rows) = rows else { break };
        while rows.len() < WINDOW
            && let Ok(more) = announced.try_recv()
        {
            rows.extend(more);
        }
        // With the broker away the sweep takes them once it is back.
        if !publisher.is_connected() {
            continue;
        }
        let (entries, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.topic == Topic::SettlementEntry);
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        start(&pool, &publisher, rest, place);
        // Entries that find no place are left to the sweep.
        if let Ok(place) = Arc::clone(&entry_places).try_acquire_owned() {
            start(&pool, &publisher, entries, place);
        }
    }
    // All places free: every publish has ended.
    let all = u32::try_from(IN_FLIGHT).unwrap_or(1);
    let _ = futures::join!(places.acquire_many(all), entry_places.acquire_many(all));
    for sweeper in sweepers {
        let _ = sweeper.await;
    }
}

fn start(pool: &PgPool, publisher: &Publisher, rows: Vec<OutboxRow>, place: OwnedSemaphorePermit) {
    if rows.is_empty() {
        return;
    }
    let (pool, publisher) = (pool.clone(), publisher.clone());
    tokio::spawn(async move {
        publish(&pool, &publisher, rows).await;
        drop(place);
    });
}

/// Publishes what no process has published in time, at most [`SWEEP_EVERY`] late: settlement entries, or the rest.
async fn sweep(pool: PgPool, publisher: Publisher, entries: bool, stop: CancellationToken) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        while publisher.is_connected() && !stop.is_cancelled() {
            match sweep_once(&pool, &publisher, entries).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be swept");
                    break;
                }
            }
        }
    }
}

/// Publishes what is due, settlement entries or the rest, at most 500 rows; returns how many were taken.
pub async fn sweep_once(pool: &PgPool, publisher: &Publisher, entries: bool) -> Result<usize, StoreError> {
    let due = outbox::take_due(pool, entries, SWEEP_ROWS, LEASE);
    let rows = tokio::time::timeout(LEASE, due).await.unwrap_or(Err(StoreError::TimedOut))?;
    let taken = rows.len();
    if taken > 0 {
        publish(pool, publisher, rows).await;
    }
    Ok(taken)
}

/// Publishes committed rows once and settles each: deleted when confirmed, else put back with its own back-off.
pub async fn publish(pool: &PgPool, publisher: &Publisher, rows: Vec<OutboxRow>) {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let outgoing = rows.into_iter().map(|row| Outgoing::event(row.topic, row.id, row.body, row.traceparent));
    let results = publisher.publish_all(outgoing.collect()).await;
    let (mut confirmed, mut refused, mut unconfirmed) = (Vec::new(), Vec::new(), Vec::new());
    for (id, result) in ids.into_iter().zip(results) {
        match result {
            Ok(()) => confirmed.push(id),
            Err(PublishError::Refused | PublishError::Unroutable) => refused.push(id),
            // The broker is there and does not confirm: a queue behind the exchange is away. Back off.
            Err(PublishError::Unconfirmed) if publisher.is_connected() => refused.push(id),
            Err(PublishError::Unconfirmed) => unconfirmed.push(id),
        }
    }
    let settled = tokio::time::timeout(LEASE, settle(pool, &confirmed, &refused, &unconfirmed)).await;
    if let Err(error) = settled.unwrap_or(Err(StoreError::TimedOut)) {
        // They will be published once more, with the same ids; consumers drop duplicates.
        tracing::warn!(error = &error as &dyn std::error::Error, "published outbox rows could not be settled");
    }
}

async fn settle(pool: &PgPool, confirmed: &[Uuid], refused: &[Uuid], unconfirmed: &[Uuid]) -> Result<(), StoreError> {
    if !confirmed.is_empty() {
        outbox::delete(pool, confirmed).await?;
    }
    if !refused.is_empty() {
        tracing::warn!(rows = refused.len(), "the broker refused outbox rows; they are tried again");
        outbox::postpone(pool, refused).await?;
    }
    if !unconfirmed.is_empty() {
        outbox::hasten(pool, unconfirmed).await?;
    }
    Ok(())
}
