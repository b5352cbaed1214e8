//! The outbox relay: publishes what a transaction promised, right after its commit, and sweeps up what was left.
//!
//! The rows in the database are the promise; the copies in memory only make it quick. A crash between commit and
//! confirm costs a delay and perhaps a duplicate with the same event id, never a message.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::{Outgoing, PublishError, Publisher},
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
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let sweeper = tokio::spawn(sweep(pool.clone(), publisher.clone(), stop.clone()));
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
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let (pool, publisher) = (pool.clone(), publisher.clone());
        tokio::spawn(async move {
            publish(&pool, &publisher, rows).await;
            drop(place);
        });
    }
    // All places free: every publish has ended.
    let _ = places.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(1)).await;
    let _ = sweeper.await;
}

/// Publishes what no process has published in time, at most [`SWEEP_EVERY`] late.
async fn sweep(pool: PgPool, publisher: Publisher, stop: CancellationToken) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        while publisher.is_connected() && !stop.is_cancelled() {
            match outbox::take_due(&pool, SWEEP_ROWS, LEASE).await {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => publish(&pool, &publisher, rows).await,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be swept");
                    break;
                }
            }
        }
    }
}

async fn publish(pool: &PgPool, publisher: &Publisher, rows: Vec<OutboxRow>) {
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
    if let Err(error) = settle(pool, &confirmed, &refused, &unconfirmed).await {
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
