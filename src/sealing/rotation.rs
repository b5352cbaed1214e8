//! Making, retiring and destroying sealing keys: a key seals for a day and is destroyed a day after.

use std::time::{Duration, SystemTime};

use sqlx::{PgExecutor, PgPool};
use time::OffsetDateTime;

use super::{
    jwe::{Kid, public_jwk},
    keys::{KeyDir, KeyDirError},
};
use crate::{
    config,
    store::{
        StoreError,
        keys::{self, SealingKey},
    },
};

/// Why keys could not be kept in order. Nothing is lost: the next round tries again.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The folder of private keys.
    #[error("the folder of sealing keys cannot be used")]
    Dir(#[from] KeyDirError),
    /// The table of public keys.
    #[error("the table of sealing keys cannot be used")]
    Store(#[from] StoreError),
}

/// What a round of [`ensure_current`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotated {
    /// The key that was made, if the newest one was near its end.
    pub made: Option<Kid>,
    /// The keys that were destroyed.
    pub destroyed: Vec<Kid>,
}

/// Makes a key and offers it for sealing.
pub async fn create(
    db: impl PgExecutor<'_>,
    dir: &KeyDir,
    settings: &config::Sealing,
    now: OffsetDateTime,
) -> Result<Kid, RotationError> {
    let (kid, public) = dir.create()?;
    let seal_until = now + hours(settings.seal_hours);
    let key = SealingKey {
        kid: kid.to_string(),
        jwk: public_jwk(&kid, &public),
        created_at: now,
        seal_until,
        destroy_at: seal_until + hours(settings.keep_hours),
    };
    // Should this fail, the file stays, for the row may be there all the same; without one it is destroyed by its age.
    keys::insert(db, &key).await?;
    Ok(kid)
}

/// Stops the use of a key at once; it is destroyed once the last card sealed with it has expired.
/// False if there is no such key.
pub async fn retire(pool: &PgPool, kid: &Kid, now: OffsetDateTime) -> Result<bool, RotationError> {
    Ok(keys::retire(pool, kid.as_str(), now).await?)
}

/// Makes a key when the newest one *whose private half is here* has less than a quarter of its life left, and destroys
/// those past their time. Safe to repeat, and to run from several processes: one of them at a time does it.
pub async fn ensure_current(
    pool: &PgPool,
    dir: &KeyDir,
    settings: &config::Sealing,
    now: OffsetDateTime,
) -> Result<Rotated, RotationError> {
    let mut turn = pool.begin().await.map_err(StoreError::from)?;
    let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('tolom sealing keys', 0))")
        .fetch_one(&mut *turn)
        .await
        .map_err(StoreError::from)?;
    let mut rotated = Rotated::default();
    if !mine {
        return Ok(rotated);
    }
    let known = keys::all(&mut *turn).await?;
    let files = dir.list()?;
    let held = |key: &SealingKey| files.iter().any(|(kid, _)| kid.as_str() == key.kid);
    let left = known.iter().filter(|key| held(key)).map(|key| key.seal_until - now).max();
    if left.is_none_or(|left| left < hours(settings.seal_hours) / 4) {
        rotated.made = Some(create(&mut *turn, dir, settings, now).await?);
    }
    rotated.destroyed = destroy_past(dir, settings, &known, &files, now)?;
    // The files first: a row that is left over is destroyed again, a file that is left over would open cards.
    let rows: Vec<String> = known.iter().filter(|key| key.destroy_at <= now).map(|key| key.kid.clone()).collect();
    keys::delete(&mut *turn, &rows).await?;
    turn.commit().await.map_err(StoreError::from)?;
    Ok(rotated)
}

/// Destroys the files past their time. A file without a row (another process deleted it, or died before inserting it)
/// goes once it is older than any key may become.
fn destroy_past(
    dir: &KeyDir,
    settings: &config::Sealing,
    known: &[SealingKey],
    files: &[(Kid, SystemTime)],
    now: OffsetDateTime,
) -> Result<Vec<Kid>, KeyDirError> {
    let longest = Duration::from_secs(3600 * u64::from(settings.seal_hours + settings.keep_hours));
    let mut destroyed = Vec::new();
    for (kid, made) in files {
        let past = match known.iter().find(|key| key.kid == kid.as_str()) {
            Some(key) => key.destroy_at <= now,
            None => SystemTime::from(now).duration_since(*made).is_ok_and(|age| age > longest),
        };
        if past {
            dir.destroy(kid)?;
            destroyed.push(kid.clone());
        }
    }
    Ok(destroyed)
}

fn hours(count: u32) -> time::Duration {
    time::Duration::hours(i64::from(count))
}
