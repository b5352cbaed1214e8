//! By what payments were tried, and how often that failed lately.
//!
//! Every count is over payments as they stand, so that it cannot drift from them, and over at most [`MOST_COUNTED`] of
//! them, so that it costs the same whatever somebody does. Addresses, cookies and cards are here only as keyed hashes,
//! and no longer than a limit looks back.

use std::collections::HashMap;

use sqlx::{PgPool, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, sessions::Sessions};
use crate::{
    config,
    payment::{
        card::DeclineReason,
        limits::{By, MOST_COUNTED},
    },
};

/// A keyed hash (HMAC-SHA256).
pub type KeyedHash = [u8; 32];

/// From where a payer of the public site submits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The address.
    pub address: KeyedHash,
    /// The browser's cookie, if it sent one.
    pub device: Option<KeyedHash>,
    /// Too many unknown codes came from the address: nothing more is taken until then.
    pub shut_until: Option<OffsetDateTime>,
}

/// Failures within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// How many, up to [`MOST_COUNTED`].
    pub count: u32,
    /// When the last one was.
    pub last: Option<OffsetDateTime>,
}

impl Failures {
    /// From columns for how many there were and when the last one was.
    pub(super) fn read(row: &PgRow, count: &str, last: &str) -> Result<Self, StoreError> {
        Ok(Self { count: read_count(row, count)?, last: row.try_get(last)? })
    }
}

pub(super) fn read_count(row: &PgRow, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
}

fn read_hash(row: &PgRow, column: &str) -> Result<KeyedHash, StoreError> {
    let hash = row.try_get::<&[u8], _>(column)?.try_into();
    hash.map_err(|_| StoreError::Unreadable(format!("{column}: a keyed hash")))
}

/// Remembers with which card each of these payments is about to be authorized, and counts the failures of each card, in
/// one statement. Nothing of it is logged by the database, so that no call to an acquirer waits for a disk.
pub async fn use_cards(
    sessions: &Sessions,
    uses: &[(Uuid, KeyedHash)],
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Result<HashMap<KeyedHash, Failures>, StoreError> {
    let mut db = sessions.take().await?;
    let rows = sqlx::query(
        "WITH n AS (SELECT * FROM unnest($1::uuid[], $2::bytea[]) AS n (payment_id, card)),
              kept AS (INSERT INTO card_use (payment_id, card, at) SELECT payment_id, card, $3 FROM n
                       ON CONFLICT (payment_id) DO UPDATE SET card = EXCLUDED.card, at = EXCLUDED.at)
         SELECT c.card, f.* FROM (SELECT DISTINCT card FROM n) c
         CROSS JOIN LATERAL (
             SELECT count(*) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($5)) AS failures,
                    max(p.updated_at) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($5)) AS last
             FROM (SELECT payment_id FROM card_use WHERE card = c.card AND at > $4 ORDER BY at DESC LIMIT $6) u
             JOIN payment p ON p.id = u.payment_id) f",
    )
    .bind(uses.iter().map(|(payment, _)| *payment).collect::<Vec<_>>())
    .bind(uses.iter().map(|(_, card)| &card[..]).collect::<Vec<_>>())
    .bind(now)
    .bind(now - limits.card.window())
    .bind(not_counted())
    .bind(i64::from(MOST_COUNTED))
    .fetch_all(&mut *db)
    .await?;
    db.give_back();
    rows.iter().map(|row| Ok((read_hash(row, "card")?, Failures::read(row, "failures", "last")?))).collect()
}

/// The key of the hashes of addresses and cookies.
pub async fn origin_key(pool: &PgPool) -> Result<KeyedHash, StoreError> {
    let key: Vec<u8> = sqlx::query_scalar("SELECT key FROM origin_key").fetch_one(pool).await?;
    key.try_into().map_err(|_| StoreError::Unreadable("origin_key".to_owned()))
}

/// Forgets what no limit looks at any more, at most `limit` rows of each kind; returns how many.
pub async fn forget(
    pool: &PgPool,
    limits: &config::Limits,
    now: OffsetDateTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let origins = sqlx::query(
        "DELETE FROM payment_origin WHERE ctid = ANY (ARRAY(SELECT ctid FROM payment_origin WHERE at <= $1 LIMIT $2))",
    )
    .bind(now - limits.origin_window())
    .bind(limit)
    .execute(pool)
    .await?;
    let cards =
        sqlx::query("DELETE FROM card_use WHERE ctid = ANY (ARRAY(SELECT ctid FROM card_use WHERE at <= $1 LIMIT $2))")
            .bind(now - limits.card.window())
            .bind(limit)
            .execute(pool)
            .await?;
    Ok(origins.rows_affected().max(cards.rows_affected()))
}

/// How many bills, devices and cards have to wait now.
pub async fn shut(pool: &PgPool, limits: &config::Limits, now: OffsetDateTime) -> Result<[(By, u64); 3], StoreError> {
    let rows = sqlx::query(
        "WITH failed AS (SELECT id, bill_code, updated_at FROM payment
                         WHERE status = 'declined' AND decline_reason <> ALL ($1) AND updated_at > least($2, $3, $4))
         SELECT 1 AS by, count(*) AS failures, max(updated_at) AS last FROM failed
             WHERE updated_at > $2 GROUP BY bill_code HAVING count(*) >= $5
         UNION ALL
         SELECT 2, count(*), max(updated_at) FROM failed JOIN payment_origin o ON o.payment_id = failed.id
             WHERE o.at > $3 AND o.device IS NOT NULL GROUP BY o.device HAVING count(*) >= $6
         UNION ALL
         SELECT 3, count(*), max(updated_at) FROM failed JOIN card_use u ON u.payment_id = failed.id
             WHERE u.at > $4 GROUP BY u.card HAVING count(*) >= $7",
    )
    .bind(not_counted())
    .bind(now - limits.bill.window())
    .bind(now - limits.device.window())
    .bind(now - limits.card.window())
    .bind(i64::from(limits.bill.free))
    .bind(i64::from(limits.device.free))
    .bind(i64::from(limits.card.free))
    .fetch_all(pool)
    .await?;
    let mut shut = [(By::Bill, 0), (By::Device, 0), (By::Card, 0)];
    for row in &rows {
        let failures = u32::try_from(row.try_get::<i64, _>("failures")?).unwrap_or(u32::MAX);
        let last = row.try_get("last")?;
        let (rule, place) = match row.try_get::<i32, _>("by")? {
            1 => (&limits.bill, 0),
            2 => (&limits.device, 1),
            _ => (&limits.card, 2),
        };
        if rule.shut_until(failures, last, now).is_some() {
            shut[place].1 += 1;
        }
    }
    Ok(shut)
}

pub(super) fn not_counted() -> Vec<&'static str> {
    DeclineReason::NOT_COUNTED.iter().map(|reason| reason.as_str()).collect()
}
