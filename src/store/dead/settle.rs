//! Settling: what a person does with parked letters, written into the audit by the statement that does it.

use sqlx::{PgPool, Row};
use time::OffsetDateTime;

use super::{Filter, StoreError, matching};
use crate::store::writes::until_won;

/// A letter that may be put back into its queue.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its number.
    pub id: i64,
    /// The queue, without prefix.
    pub queue: String,
    /// The AMQP `message_id`.
    pub message_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// How often it has died so far.
    pub times: i32,
    /// Why it cannot be put back, if it cannot.
    pub unreplayable: Option<String>,
}

/// Letters that match, by number, from the one after `last`: a page of a longer way through them.
pub async fn candidates(pool: &PgPool, filter: &Filter, last: i64, limit: i64) -> Result<Vec<Candidate>, StoreError> {
    let rows = matching("SELECT * FROM dead_letter", "AND id > $8 ORDER BY id LIMIT $9", filter)
        .bind(last)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Candidate {
                id: row.try_get("id")?,
                queue: row.try_get("queue")?,
                message_id: row.try_get("message_id")?,
                body: row.try_get("body")?,
                traceparent: row.try_get("traceparent")?,
                times: row.try_get("times")?,
                unreplayable: row.try_get("unreplayable")?,
            })
        })
        .collect()
}

/// Who does something with letters, and why.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// Who says to do it.
    pub who: &'a str,
    /// The account of the operating system that does.
    pub os_user: &'a str,
    /// Why.
    pub why: Option<&'a str>,
}

/// Marks letters as replayed, after the broker has confirmed them, and writes it into the audit. One that has died again
/// meanwhile (its `times` tell) stays parked. How many are marked.
pub async fn mark_replayed(
    pool: &PgPool,
    letters: &[Candidate],
    actor: Actor<'_>,
    now: OffsetDateTime,
) -> Result<i64, StoreError> {
    // Letters are parked in another order than that of their numbers: of two who meet there, one begins anew.
    until_won(|_| async {
        let marked = sqlx::query_scalar(
            "WITH sent AS (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS s(id, times)),
             marked AS (
                 UPDATE dead_letter d SET state = 'replayed', settled_at = $6 FROM sent s
                 WHERE d.id = s.id AND d.times = s.times RETURNING d.id),
             audited AS (
                 INSERT INTO dead_letter_audit (letter, queue, message_id, payment, reason, action, who, os_user, why, at)
                 SELECT d.id, d.queue, d.message_id, d.payment, d.reason, 'replayed', $3, $4, $5, $6
                 FROM dead_letter d JOIN sent s ON s.id = d.id)
             SELECT count(*) FROM marked",
        )
        .bind(letters.iter().map(|letter| letter.id).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.times).collect::<Vec<_>>())
        .bind(actor.who)
        .bind(actor.os_user)
        .bind(actor.why)
        .bind(now)
        .fetch_one(pool)
        .await?;
        Ok(marked)
    })
    .await
}

/// Discards letters that match and are parked, and writes it into the audit. Which.
pub async fn discard(
    pool: &PgPool,
    filter: &Filter,
    actor: Actor<'_>,
    now: OffsetDateTime,
) -> Result<Vec<i64>, StoreError> {
    const GONE: &str = "WITH gone AS (UPDATE dead_letter SET state = 'discarded', settled_at = $11";
    const AUDITED: &str = "AND state = 'parked' RETURNING id, queue, message_id, payment, reason)
         INSERT INTO dead_letter_audit (letter, queue, message_id, payment, reason, action, who, os_user, why, at)
         SELECT id, queue, message_id, payment, reason, 'discarded', $8, $9, $10, $11 FROM gone ORDER BY id
         RETURNING letter";
    until_won(|_| async {
        let rows = matching(GONE, AUDITED, filter)
            .bind(actor.who)
            .bind(actor.os_user)
            .bind(actor.why)
            .bind(now)
            .fetch_all(pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("letter")?)).collect()
    })
    .await
}
