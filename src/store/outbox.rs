//! The outbox: messages promised by a committed transaction.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::{StoreError, writes::Writes};
use crate::contracts::Topic;

/// A message to be published. It is inserted in the transaction whose effect it announces.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The event's id, and the AMQP `message_id`, for ever.
    pub id: Uuid,
    /// Where it goes.
    pub topic: Topic,
    /// The whole CloudEvent.
    pub body: Vec<u8>,
    /// `traceparent` (W3C Trace Context), if any.
    pub traceparent: Option<String>,
}

/// Inserts rows in the caller's transaction.
pub async fn insert(transaction: &mut PgConnection, rows: &[OutboxRow]) -> Result<(), StoreError> {
    let mut writes = Writes::locked();
    add(&mut writes, rows);
    writes.execute(transaction).await
}

/// Adds rows to what is written together.
pub(super) fn add(writes: &mut Writes, rows: &[OutboxRow]) {
    if rows.is_empty() {
        return;
    }
    writes.add(
        "promised",
        "INSERT INTO outbox (id, routing_key, body, traceparent) SELECT * FROM",
        |columns| {
            columns
                .add(rows.iter().map(|row| row.id))
                .add(rows.iter().map(|row| row.topic.routing_key()))
                .add(rows.iter().map(|row| row.body.as_slice()))
                .add(rows.iter().map(|row| row.traceparent.as_deref()));
        },
        "",
    );
}

/// Whether any row is due: one cheap look for all that sweep.
pub async fn any_due(pool: &PgPool) -> Result<bool, StoreError> {
    let due = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox WHERE publish_after <= now())");
    Ok(due.fetch_one(pool).await?)
}

/// Takes rows that are due, oldest first, and leases them for `lease`: no other sweep sees them meanwhile.
///
/// The lease, rather than a lock held while publishing, keeps the transaction short whatever the broker does.
///
/// Only rows of these topics are taken: those whose queue does not confirm must not stand before the others.
pub async fn take_due(
    pool: &PgPool,
    topics: &[Topic],
    limit: i64,
    lease: Duration,
) -> Result<Vec<OutboxRow>, StoreError> {
    let rows = sqlx::query(
        "UPDATE outbox SET publish_after = now() + make_interval(secs => $2)
         WHERE id IN (SELECT id FROM outbox WHERE publish_after <= now() AND routing_key = ANY($3)
                      ORDER BY publish_after, id LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING id, routing_key, body, traceparent",
    )
    .bind(limit)
    .bind(lease.as_secs_f64())
    .bind(topics.iter().map(|topic| topic.routing_key()).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let key: String = row.try_get("routing_key")?;
        let Some(topic) = Topic::from_routing_key(&key) else { continue };
        let (body, traceparent) = (row.try_get("body")?, row.try_get("traceparent")?);
        due.push(OutboxRow { id: row.try_get("id")?, topic, body, traceparent });
    }
    // The database returns them in the order of its plan; they go out in the order of their making.
    due.sort_unstable_by_key(|row| row.id);
    Ok(due)
}

/// Roughly how many rows there are, from the statistics that PostgreSQL keeps anyway: free of cost at any size, some
/// seconds old, and after a crash of the server too low until the next autovacuum.
pub async fn estimate(pool: &PgPool) -> Result<u64, StoreError> {
    let rows: i64 = sqlx::query_scalar("SELECT pg_stat_get_live_tuples('outbox'::regclass)").fetch_one(pool).await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Deletes rows that the broker has confirmed. Waits for no disk: rows that a crash of the database brings back are
/// published once more, under the same ids.
pub async fn delete(pool: &PgPool, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query(
        "WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
         DELETE FROM outbox USING soon WHERE id = ANY($1)",
    )
    .bind(ids)
    .execute(pool)
    .await?;
    Ok(())
}

/// Puts rows that the broker refused back, each with its own back-off of 1 s doubling to 1 min, so that one that
/// cannot be routed never holds up its neighbours.
pub async fn postpone(pool: &PgPool, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE outbox SET attempts = attempts + 1,
             publish_after = now() + make_interval(secs => least(60, power(2, least(attempts, 6))))
         WHERE id = ANY($1)",
    )
    .bind(ids)
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes rows due at once: the broker is back.
pub async fn hasten(pool: &PgPool, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query("UPDATE outbox SET publish_after = now() WHERE id = ANY($1)").bind(ids).execute(pool).await?;
    Ok(())
}
