//! The outbox relay: publishes what a transaction promised, right after its commit, and sweeps up what was left.
//!
//! The rows in the database are the promise; the copies in memory only make it quick. A crash between commit and
//! confirm costs a delay and perhaps a duplicate with the same event id, never a message.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    broker::{Lane, Outgoing, PublishError, Publisher},
    contracts::Topic,
    store::{
        StoreError,
        outbox::{self, OutboxRow},
    },
    supervision::Supervisor,
};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_ROWS: i64 = 500;
/// A sweep's rows come back after this, should the process die while it publishes them.
const LEASE: Duration = Duration::from_secs(30);
/// Committed batches waiting in memory, on each lane.
const WAITING: usize = 1_000;
/// Rows a publish.
const WINDOW: usize = 1_000;
/// Publishes under way at once on a lane.
const IN_FLIGHT: usize = 4;
/// Confirmed rows are deleted together, at most this late: nobody waits for that, and every statement costs.
const DELETE_EVERY: Duration = Duration::from_millis(100);
/// Confirmed rows that wait to be deleted; those beyond are published once more by the sweep.
const DELETED_AT_ONCE: usize = 10_000;

/// What has waited in memory for so long is left to the sweep, which is about to take it (5 s after the commit): a backlog
/// is not published twice.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// Hands committed outbox rows to the publisher of this process.
#[derive(Debug, Clone)]
pub struct Relay {
    committed: mpsc::Sender<Announced>,
}

/// Rows of one commit.
#[derive(Debug)]
pub struct Announced {
    /// The rows.
    pub rows: Vec<OutboxRow>,
    /// When they were committed.
    at: Instant,
}

/// A relay and the end at which its rows come out; [`run`] takes that end.
pub fn channel(capacity: usize) -> (Relay, mpsc::Receiver<Announced>) {
    let (committed, rows) = mpsc::channel(capacity);
    (Relay { committed }, rows)
}

impl Relay {
    /// Publishes these rows soon. Never waits and never fails: what does not fit is left to the sweep, for the rows
    /// are in the database.
    pub fn announce(&self, rows: Vec<OutboxRow>) {
        if !rows.is_empty() {
            let _ = self.committed.try_send(Announced { rows, at: Instant::now() });
        }
    }

    /// Starts the relay of this process. After `stop` it publishes what has been announced before it ends.
    pub fn start(
        pool: PgPool,
        publisher: Publisher,
        stop: CancellationToken,
        supervisor: Supervisor,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (relay, rows) = channel(WAITING);
        (relay, tokio::spawn(run(rows, pool, publisher, stop, supervisor)))
    }
}

type Rows = Mutex<mpsc::Receiver<Announced>>;

/// Publishes announced rows until every [`Relay`] is dropped or `stop`; sweeps meanwhile. Every lane by itself: rows
/// that the broker does not confirm hold up none but those of the same queue.
pub async fn run(
    announced: mpsc::Receiver<Announced>,
    pool: PgPool,
    publisher: Publisher,
    stop: CancellationToken,
    supervisor: Supervisor,
) {
    let tasks = TaskTracker::new();
    let mut lanes = Vec::new();
    let (something, due) = watch::channel(());
    let (confirmed, done) = mpsc::channel(DELETED_AT_ONCE);
    let (deleting, done) = (supervisor.clone(), Mutex::new(done));
    let database = pool.clone();
    tasks.spawn(async move { deleting.keep("relay", || delete(&done, &database)).await });
    for lane in Lane::all() {
        let (door, rows) = mpsc::channel(WAITING);
        lanes.push((lane, door));
        let line = Line {
            pool: pool.clone(),
            publisher: publisher.clone(),
            supervisor: supervisor.clone(),
            confirmed: confirmed.clone(),
        };
        let (sweeping, due, stop) = (line.clone(), due.clone(), stop.clone());
        tasks.spawn(async move {
            let rows = Rows::new(rows);
            line.supervisor.keep("relay", || line.announce(&rows)).await;
        });
        tasks.spawn(async move {
            let topics: Vec<Topic> = lane.topics().collect();
            sweeping.supervisor.keep("relay sweep", || sweeping.sweep(&topics, due.clone(), &stop)).await;
        });
    }
    let (looking, database, stop_looking) = (supervisor.clone(), pool.clone(), stop.clone());
    tasks.spawn(async move { looking.keep("relay sweep", || look(&database, &something, &stop_looking)).await });
    let announced = Rows::new(announced);
    supervisor.keep("relay", || sort(&announced, &lanes, &stop)).await;
    // Without its door a lane ends once it is empty, and the last lane ends the deletion.
    drop((lanes, confirmed));
    tasks.close();
    tasks.wait().await;
}

/// Hands announced rows to their lanes until every [`Relay`] is dropped, or after `stop` until none is left.
async fn sort(announced: &Rows, lanes: &[(Lane, mpsc::Sender<Announced>)], stop: &CancellationToken) {
    let mut announced = announced.lock().await;
    loop {
        let rows = tokio::select! {
            rows = announced.recv() => rows,
            () = stop.cancelled() => {
                announced.close();
                announced.recv().await
            }
        };
        let Some(Announced { mut rows, at }) = rows else { return };
        for (lane, door) in lanes {
            let (own, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| Lane::of(row.topic) == *lane);
            if !own.is_empty() {
                // What a lane has no place for is left to the sweep.
                let _ = door.try_send(Announced { rows: own, at });
            }
            rows = others;
        }
    }
}

/// Looks every [`SWEEP_EVERY`] whether any row is due, once for all lanes, and tells them.
async fn look(pool: &PgPool, due: &watch::Sender<()>, stop: &CancellationToken) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // A database that is away, or slow, is asked again.
        if let Ok(Ok(true)) = tokio::time::timeout(LEASE, outbox::any_due(pool)).await {
            due.send_replace(());
        }
    }
}

/// What one lane publishes with.
#[derive(Clone)]
struct Line {
    pool: PgPool,
    publisher: Publisher,
    supervisor: Supervisor,
    confirmed: mpsc::Sender<Uuid>,
}

impl Line {
    /// Publishes the rows of this lane until its door is gone.
    async fn announce(&self, rows: &Rows) {
        let mut announced = rows.lock().await;
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        while let Some(first) = announced.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let (mut rows, mut next) = (Vec::new(), Some(first));
            while let Some(Announced { rows: more, at }) = next {
                if at.elapsed() < STALE_AFTER {
                    rows.extend(more);
                }
                next = if rows.len() < WINDOW { announced.try_recv().ok() } else { None };
            }
            // With the broker away the sweep takes them once it is back.
            if self.publisher.is_connected() && !rows.is_empty() {
                self.start(rows, place);
            }
        }
        // All places free: every publish has ended.
        let _ = places.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(1)).await;
    }

    fn start(&self, rows: Vec<OutboxRow>, place: OwnedSemaphorePermit) {
        let line = self.clone();
        tokio::spawn(async move {
            // After a panic the sweep takes them.
            line.supervisor.attempt("relay", line.publish(rows)).await;
            drop(place);
        });
    }

    /// Publishes rows once; what is confirmed is deleted soon, and what is not, settled now.
    async fn publish(&self, rows: Vec<OutboxRow>) {
        let sent = send(&self.publisher, rows).await;
        for id in sent.confirmed {
            let _ = self.confirmed.try_send(id);
        }
        settle(&self.pool, &[], &sent.refused, &sent.unconfirmed).await;
    }

    /// Publishes what no process has published in time, whenever there is something, until `stop`.
    async fn sweep(&self, topics: &[Topic], mut due: watch::Receiver<()>, stop: &CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(due.changed()).await {
            while self.publisher.is_connected() && !stop.is_cancelled() {
                match sweep_once(&self.pool, &self.publisher, topics).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.is_transient() => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "the outbox waits for the database");
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be swept");
                        break;
                    }
                }
            }
        }
    }
}

/// Publishes what is due of these topics, at most 500 rows; returns how many were taken.
pub async fn sweep_once(pool: &PgPool, publisher: &Publisher, topics: &[Topic]) -> Result<usize, StoreError> {
    let due = outbox::take_due(pool, topics, SWEEP_ROWS, LEASE);
    let rows = tokio::time::timeout(LEASE, due).await.unwrap_or(Err(StoreError::TimedOut))?;
    let taken = rows.len();
    if taken > 0 {
        publish(pool, publisher, rows).await;
    }
    Ok(taken)
}

/// Publishes committed rows once and settles each: deleted when confirmed, else put back with its own back-off.
pub async fn publish(pool: &PgPool, publisher: &Publisher, rows: Vec<OutboxRow>) {
    let sent = send(publisher, rows).await;
    settle(pool, &sent.confirmed, &sent.refused, &sent.unconfirmed).await;
}

/// Deletes confirmed rows, many at once, until no lane is left.
async fn delete(confirmed: &Mutex<mpsc::Receiver<Uuid>>, pool: &PgPool) {
    let (mut confirmed, mut ids) = (confirmed.lock().await, Vec::new());
    while confirmed.recv_many(&mut ids, DELETED_AT_ONCE).await > 0 {
        settle(pool, &ids, &[], &[]).await;
        ids.clear();
        // A lane that has ended hurries nobody: the wait is short.
        tokio::time::sleep(DELETE_EVERY).await;
    }
}

/// What became of published rows.
#[derive(Default)]
struct Sent {
    confirmed: Vec<Uuid>,
    /// Not to be tried again at once.
    refused: Vec<Uuid>,
    unconfirmed: Vec<Uuid>,
}

async fn send(publisher: &Publisher, rows: Vec<OutboxRow>) -> Sent {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let outgoing = rows.into_iter().map(|row| Outgoing::event(row.topic, row.id, row.body, row.traceparent));
    let results = publisher.publish_all(outgoing.collect()).await;
    let mut sent = Sent::default();
    for (id, result) in ids.into_iter().zip(results) {
        match result {
            Ok(()) => sent.confirmed.push(id),
            Err(PublishError::Refused | PublishError::Unroutable) => sent.refused.push(id),
            // The broker is there and does not confirm: a queue behind the exchange is away. Back off.
            Err(PublishError::Unconfirmed) if publisher.is_connected() => sent.refused.push(id),
            Err(PublishError::Unconfirmed) => sent.unconfirmed.push(id),
        }
    }
    sent
}

async fn settle(pool: &PgPool, confirmed: &[Uuid], refused: &[Uuid], unconfirmed: &[Uuid]) {
    let settled = tokio::time::timeout(LEASE, write(pool, confirmed, refused, unconfirmed)).await;
    if let Err(error) = settled.unwrap_or(Err(StoreError::TimedOut)) {
        // They will be published once more, with the same ids; consumers drop duplicates.
        tracing::warn!(error = &error as &dyn std::error::Error, "published outbox rows could not be settled");
    }
}

async fn write(pool: &PgPool, confirmed: &[Uuid], refused: &[Uuid], unconfirmed: &[Uuid]) -> Result<(), StoreError> {
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
