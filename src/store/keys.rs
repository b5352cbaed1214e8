//! Public halves of the sealing keys.

use sqlx::{PgExecutor, Row};
use time::OffsetDateTime;

use super::StoreError;

/// The public half of a sealing key.
#[derive(Debug, Clone, PartialEq)]
pub struct SealingKey {
    /// Its name.
    pub kid: String,
    /// What browsers seal with (RFC 7517).
    pub jwk: serde_json::Value,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// Offered until then.
    pub seal_until: OffsetDateTime,
    /// Both halves are destroyed after this.
    pub destroy_at: OffsetDateTime,
}

/// How long after `seal_until` a card sealed with the key is still taken: a page that got the key in its last moment
/// may take as long as a sealed card may live.
pub const SEAL_GRACE: time::Duration = time::Duration::minutes(15);

/// Offers a key for sealing. Its private half must exist before.
pub async fn insert(db: impl PgExecutor<'_>, key: &SealingKey) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO sealing_key (kid, jwk, created_at, seal_until, destroy_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(&key.kid)
        .bind(&key.jwk)
        .bind(key.created_at)
        .bind(key.seal_until)
        .bind(key.destroy_at)
        .execute(db)
        .await?;
    Ok(())
}

/// The keys offered for sealing, the newest first.
pub async fn offered(db: impl PgExecutor<'_>, now: OffsetDateTime) -> Result<Vec<SealingKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT kid, jwk, created_at, seal_until, destroy_at FROM sealing_key
         WHERE seal_until > $1 ORDER BY created_at DESC, kid DESC LIMIT 20",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// Which of these keys a card may be sealed with now, and when each of those is destroyed.
pub async fn taken(
    db: impl PgExecutor<'_>,
    kids: &[String],
    now: OffsetDateTime,
) -> Result<Vec<(String, OffsetDateTime)>, StoreError> {
    let rows = sqlx::query("SELECT kid, destroy_at FROM sealing_key WHERE kid = ANY($1) AND seal_until > $2")
        .bind(kids)
        .bind(now - SEAL_GRACE)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Stops offering and taking a key at once, and lets it be destroyed once the last card sealed with it has expired.
/// False if there is no such key.
pub async fn retire(db: impl PgExecutor<'_>, kid: &str, now: OffsetDateTime) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE sealing_key SET seal_until = least(seal_until, $2), destroy_at = least(destroy_at, $3) WHERE kid = $1",
    )
    .bind(kid)
    .bind(now - SEAL_GRACE)
    .bind(now + SEAL_GRACE)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Every key that is not destroyed yet, retired ones included.
pub async fn all(db: impl PgExecutor<'_>) -> Result<Vec<SealingKey>, StoreError> {
    let rows = sqlx::query("SELECT kid, jwk, created_at, seal_until, destroy_at FROM sealing_key ORDER BY created_at")
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// Forgets keys whose private halves have been destroyed.
pub async fn delete(db: impl PgExecutor<'_>, kids: &[String]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sealing_key WHERE kid = ANY($1)").bind(kids).execute(db).await?;
    Ok(())
}

fn read(row: &sqlx::postgres::PgRow) -> Result<SealingKey, StoreError> {
    Ok(SealingKey {
        kid: row.try_get("kid")?,
        jwk: row.try_get("jwk")?,
        created_at: row.try_get("created_at")?,
        seal_until: row.try_get("seal_until")?,
        destroy_at: row.try_get("destroy_at")?,
    })
}
