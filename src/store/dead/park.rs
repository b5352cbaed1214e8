//! Parking: letters become rows, one statement a batch, and a letter that comes again finds its row.

use std::collections::HashMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::StoreError;
use crate::contracts::FailedAttempt;

/// Failures that a row remembers: the first one and the last ones.
const MOST_REASONS: i32 = 50;

/// A dead letter to park, masked already.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The queue it died of, without prefix.
    pub queue: &'static str,
    /// The AMQP `message_id`, or empty.
    pub message_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// The headers, as text.
    pub headers: Vec<(String, String)>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// The CloudEvent's type, if it can be read.
    pub event_type: Option<String>,
    /// The payment it is about, if it can be read.
    pub payment: Option<Uuid>,
    /// Why it died.
    pub reason: String,
    /// Its failures, oldest first. The last one tells one death of the same message from another.
    pub failures: Vec<FailedAttempt>,
    /// Retries before it died.
    pub attempts: u32,
    /// Why it cannot be replayed, if it cannot.
    pub unreplayable: Option<String>,
}

/// A letter as its row.
struct New<'a> {
    letter: &'a Letter,
    sha256: Vec<u8>,
}

impl New<'_> {
    /// What makes it the same letter.
    fn key(&self) -> (&str, &str, &[u8]) {
        (self.letter.queue, &self.letter.message_id, &self.sha256)
    }
}

/// Parks letters, all or none. A letter that is there already has died again: it is parked again, and `times` counts;
/// but the same death delivered twice changes nothing.
pub async fn park(pool: &PgPool, letters: &[Letter], now: OffsetDateTime) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    for round in rounds(letters) {
        upsert(&mut transaction, &round, now).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// A statement may touch a row once only, so the same letter twice takes two rounds. Sorted, for two parkers at the same
/// letters must lock them in one order.
fn rounds(letters: &[Letter]) -> Vec<Vec<New<'_>>> {
    let mut seen: HashMap<(&str, &str, Vec<u8>), usize> = HashMap::new();
    let mut rounds: Vec<Vec<New<'_>>> = Vec::new();
    for letter in letters {
        let sha256 = Sha256::digest(&letter.body).to_vec();
        let round = seen.entry((letter.queue, &letter.message_id, sha256.clone())).or_default();
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(New { letter, sha256 });
        *round += 1;
    }
    for round in &mut rounds {
        round.sort_by(|a, b| a.key().cmp(&b.key()));
    }
    rounds
}

async fn upsert(transaction: &mut PgConnection, round: &[New<'_>], now: OffsetDateTime) -> Result<(), StoreError> {
    fn each<T>(round: &[New<'_>], column: impl Fn(&Letter) -> T) -> Vec<T> {
        round.iter().map(|new| column(new.letter)).collect()
    }
    let statement = format!(
        "INSERT INTO dead_letter AS d (queue, message_id, body_sha256, body, headers, traceparent, event_type, payment,
                                       reason, reasons, attempts, first_at, last_at, unreplayable, parked_at)
         SELECT *, $15 FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::jsonb[], $6::text[], $7::text[],
                $8::uuid[], $9::text[], $10::jsonb[], $11::integer[], $12::timestamptz[], $13::timestamptz[], $14::text[])
         ON CONFLICT (queue, message_id, body_sha256) DO UPDATE SET
             times = d.times + 1, state = 'parked', settled_at = NULL, reason = excluded.reason,
             headers = excluded.headers, attempts = excluded.attempts, last_at = greatest(d.last_at, excluded.last_at),
             unreplayable = coalesce(d.unreplayable, excluded.unreplayable),
             reasons = (SELECT coalesce(jsonb_agg(reason ORDER BY place), '[]') FROM
                        jsonb_array_elements(d.reasons || excluded.reasons) WITH ORDINALITY AS all_of_them(reason, place)
                        WHERE place = 1 OR place > jsonb_array_length(d.reasons || excluded.reasons) - {MOST_REASONS})
         WHERE CASE jsonb_array_length(excluded.reasons)
               WHEN 0 THEN d.state <> 'parked'
               ELSE NOT d.reasons @> jsonb_build_array(excluded.reasons -> -1) END"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(each(round, |letter| letter.queue))
        .bind(each(round, |letter| storable(&letter.message_id)))
        .bind(round.iter().map(|new| new.sha256.as_slice()).collect::<Vec<_>>())
        .bind(round.iter().map(|new| new.letter.body.as_slice()).collect::<Vec<_>>())
        .bind(each(round, headers))
        .bind(each(round, |letter| letter.traceparent.as_deref().map(storable)))
        .bind(each(round, |letter| letter.event_type.as_deref().map(storable)))
        .bind(each(round, |letter| letter.payment))
        .bind(each(round, |letter| storable(&letter.reason)))
        .bind(each(round, reasons))
        .bind(each(round, |letter| i32::try_from(letter.attempts).unwrap_or(i32::MAX)))
        .bind(each(round, |letter| letter.failures.first().map_or(now, |failure| failure.at)))
        .bind(each(round, |letter| letter.failures.last().map_or(now, |failure| failure.at)))
        .bind(each(round, |letter| letter.unreplayable.clone()))
        .bind(now)
        .execute(transaction)
        .await?;
    Ok(())
}

/// PostgreSQL's texts hold everything but NUL (manual, 8.3 and 8.14).
fn storable(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn headers(letter: &Letter) -> Value {
    letter.headers.iter().map(|(name, value)| (storable(name), Value::from(storable(value)))).collect()
}

fn reasons(letter: &Letter) -> Value {
    let storable =
        letter.failures.iter().map(|failure| FailedAttempt { reason: storable(&failure.reason), ..failure.clone() });
    json!(storable.collect::<Vec<_>>())
}
