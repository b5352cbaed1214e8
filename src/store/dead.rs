//! Dead letters, parked: found, shown, and settled by a person.

mod park;
mod settle;

use std::fmt;

use futures::TryStreamExt;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    park::{Letter, park},
    settle::{Actor, Candidate, candidates, discard, mark_replayed},
};
use super::{StoreError, read_word};
use crate::{contracts::FailedAttempt, payment::bill::UnknownWord};

/// Rows deleted in one statement.
const SWEEP: i64 = 1_000;

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for a person.
    Parked,
    /// Put back into its queue, and not died since.
    Replayed,
    /// Not needed.
    Discarded,
}

impl State {
    /// The word used in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Parked, Self::Replayed, Self::Discarded];
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// Which letters; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// These.
    pub ids: Option<Vec<i64>>,
    /// Of this queue, named without prefix.
    pub queue: Option<String>,
    /// Whose last reason contains this, whatever its case.
    pub reason: Option<String>,
    /// Died last before.
    pub before: Option<OffsetDateTime>,
    /// Died last after.
    pub after: Option<OffsetDateTime>,
    /// Of this payment.
    pub payment: Option<Uuid>,
    /// In this state.
    pub state: Option<State>,
}

const MATCHES: &str = "($1::bigint[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR queue = $2)
    AND ($3::text IS NULL OR position(lower($3) in lower(reason)) > 0)
    AND ($4::timestamptz IS NULL OR last_at < $4) AND ($5::timestamptz IS NULL OR last_at > $5)
    AND ($6::uuid IS NULL OR payment = $6) AND ($7::text IS NULL OR state = $7)";

/// A query over the letters that match; further parameters begin at `$8`.
fn matching<'q>(
    before: &str,
    after: &str,
    filter: &'q Filter,
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(AssertSqlSafe(format!("{before} WHERE {MATCHES} {after}")))
        .bind(filter.ids.as_deref())
        .bind(filter.queue.as_deref())
        .bind(filter.reason.as_deref())
        .bind(filter.before)
        .bind(filter.after)
        .bind(filter.payment)
        .bind(filter.state.map(State::as_str))
}

/// A letter in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Its number.
    pub id: i64,
    /// The queue it died of.
    pub queue: String,
    /// The CloudEvent's type.
    pub event_type: Option<String>,
    /// The payment it is about.
    pub payment: Option<Uuid>,
    /// Why it died last.
    pub reason: String,
    /// Retries before that.
    pub attempts: i32,
    /// How often it died.
    pub times: i32,
    /// When it first failed.
    #[serde(with = "time::serde::rfc3339")]
    pub first_at: OffsetDateTime,
    /// When it died last.
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
    /// What became of it.
    pub state: State,
    /// Why it cannot be replayed, if it cannot.
    pub unreplayable: Option<String>,
}

fn line(row: &PgRow) -> Result<Line, StoreError> {
    Ok(Line {
        id: row.try_get("id")?,
        queue: row.try_get("queue")?,
        event_type: row.try_get("event_type")?,
        payment: row.try_get("payment")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
        times: row.try_get("times")?,
        first_at: row.try_get("first_at")?,
        last_at: row.try_get("last_at")?,
        state: read_word(row, "state")?,
        unreplayable: row.try_get("unreplayable")?,
    })
}

/// The letters that match, the last to die first, and how many there are in all.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<(Vec<Line>, i64), StoreError> {
    let rows = matching("SELECT * FROM dead_letter", "ORDER BY last_at DESC, id DESC LIMIT $8", filter)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let all = matching("SELECT count(*) AS letters FROM dead_letter", "", filter).fetch_one(pool).await?;
    Ok((rows.iter().map(line).collect::<Result<_, _>>()?, all.try_get("letters")?))
}

/// Letters that died of the same.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// The queue.
    pub queue: String,
    /// The reason, without the identifiers and numbers in it.
    pub reason: String,
    /// How many.
    pub letters: i64,
    /// Of these, how many cannot be replayed.
    pub unreplayable: i64,
    /// When the first of them first failed.
    #[serde(with = "time::serde::rfc3339")]
    pub first_at: OffsetDateTime,
    /// When the last of them died.
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
}

/// Counts by queue and reason, most first, at most `limit`.
pub async fn groups(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<Group>, StoreError> {
    let counted = "SELECT queue, regexp_replace(regexp_replace(reason,
            '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<id>', 'g'), '[0-9]+', '<n>', 'g') AS like_reason,
            count(*) AS letters, count(unreplayable) AS unreplayable, min(first_at) AS first_at, max(last_at) AS last_at
        FROM dead_letter";
    let rows = matching(counted, "GROUP BY queue, like_reason ORDER BY letters DESC, queue LIMIT $8", filter)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Group {
                queue: row.try_get("queue")?,
                reason: row.try_get("like_reason")?,
                letters: row.try_get("letters")?,
                unreplayable: row.try_get("unreplayable")?,
                first_at: row.try_get("first_at")?,
                last_at: row.try_get("last_at")?,
            })
        })
        .collect()
}

/// What a person did with a letter.
#[derive(Debug, Clone, Serialize)]
pub struct Audited {
    /// `replayed` or `discarded`.
    pub action: String,
    /// Who says to have done it.
    pub who: String,
    /// The account of the operating system that did.
    pub os_user: String,
    /// Why.
    pub why: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// Everything about a letter.
#[derive(Debug, Clone)]
pub struct Whole {
    /// As in a list.
    pub line: Line,
    /// The AMQP `message_id`.
    pub message_id: String,
    /// Its headers.
    pub headers: serde_json::Value,
    /// Its failures, oldest first.
    pub reasons: Vec<FailedAttempt>,
    /// Its body.
    pub body: Vec<u8>,
    /// What was done with it.
    pub audit: Vec<Audited>,
}

/// One letter, whole.
pub async fn show(pool: &PgPool, id: i64) -> Result<Option<Whole>, StoreError> {
    let Some(row) = sqlx::query("SELECT * FROM dead_letter WHERE id = $1").bind(id).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let audit =
        sqlx::query("SELECT action, who, os_user, why, at FROM dead_letter_audit WHERE letter = $1 ORDER BY id")
            .bind(id)
            .fetch_all(pool)
            .await?;
    let audit = audit.iter().map(|row| {
        Ok(Audited {
            action: row.try_get("action")?,
            who: row.try_get("who")?,
            os_user: row.try_get("os_user")?,
            why: row.try_get("why")?,
            at: row.try_get("at")?,
        })
    });
    let reasons: sqlx::types::Json<Vec<FailedAttempt>> = row.try_get("reasons")?;
    Ok(Some(Whole {
        line: line(&row)?,
        message_id: row.try_get("message_id")?,
        headers: row.try_get("headers")?,
        reasons: reasons.0,
        body: row.try_get("body")?,
        audit: audit.collect::<Result<_, StoreError>>()?,
    }))
}

/// How many letters wait for a person, by queue.
pub async fn waiting(pool: &PgPool) -> Result<Vec<(String, i64)>, StoreError> {
    let counted = "SELECT queue, count(*) FROM dead_letter WHERE state = 'parked' GROUP BY queue ORDER BY queue";
    Ok(sqlx::query_as(counted).fetch_all(pool).await?)
}

/// Letters that wait, of payments that are still on their way: (letter, payment, its status), at most `limit`.
pub async fn of_payments_on_their_way(
    pool: &PgPool,
    before: OffsetDateTime,
    limit: i64,
) -> Result<Vec<(i64, Uuid, String)>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT d.id, p.id, p.status FROM dead_letter d JOIN payment p ON p.id = d.payment
         WHERE d.state = 'parked' AND d.last_at <= $1
           AND p.status NOT IN ('captured', 'settled', 'declined', 'failed', 'reversed')
         ORDER BY d.id LIMIT $2",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Shows every letter, in whatever state, to `look`: its number, its texts and its body. How many there are.
pub async fn look_through(pool: &PgPool, mut look: impl FnMut(i64, String, Vec<u8>)) -> Result<i64, StoreError> {
    let mut rows = sqlx::query(
        "SELECT id, concat_ws(E'\\n', message_id, event_type, reason, traceparent, headers, reasons) AS texts, body
         FROM dead_letter ORDER BY id",
    )
    .fetch(pool);
    let mut letters = 0;
    while let Some(row) = rows.try_next().await? {
        look(row.try_get("id")?, row.try_get("texts")?, row.try_get("body")?);
        letters += 1;
    }
    Ok(letters)
}

/// Deletes letters that were settled, and audit rows that were written, before these moments.
pub async fn forget(pool: &PgPool, settled: OffsetDateTime, audited: OffsetDateTime) -> Result<(), StoreError> {
    for (statement, before) in [
        (
            "DELETE FROM dead_letter WHERE id IN (
              SELECT id FROM dead_letter WHERE state <> 'parked' AND settled_at < $1 LIMIT $2)",
            settled,
        ),
        (
            "DELETE FROM dead_letter_audit WHERE id IN (
              SELECT id FROM dead_letter_audit WHERE at < $1 LIMIT $2)",
            audited,
        ),
    ] {
        let mut gone = SWEEP as u64;
        while gone == SWEEP as u64 {
            gone = sqlx::query(statement).bind(before).bind(SWEEP).execute(pool).await?.rows_affected();
        }
    }
    Ok(())
}
