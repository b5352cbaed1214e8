//! Sealed cards: they wait here for minutes, in slices by expiry, and leave with the claim of their payment.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, accept::Refusal, keys};
use crate::{clock::Clock, payment::PaymentCode};

/// Seconds of expiry that share a slice: the longest life of a sealed card.
const WINDOW_S: i64 = 900;
/// Clocks of different machines may differ by this much.
const SKEW_S: i64 = 60;

/// A sealed card on its way into the store; its form has been checked.
#[derive(Clone)]
pub struct NewCard {
    /// Its name, which follows from the JWE.
    pub id: Uuid,
    /// The only bill it may pay.
    pub bill: PaymentCode,
    /// The sealing key.
    pub kid: String,
    /// The compact JWE.
    pub jwe: String,
    /// Until when it may be used: at most 15 minutes ahead.
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for NewCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewCard({})", self.id)
    }
}

/// Stores a card that a payment will name later; one that is there already stays. Or tells why it is not taken.
pub async fn put(pool: &PgPool, card: &NewCard, now: OffsetDateTime) -> Result<Option<Refusal>, StoreError> {
    if card.expires_at <= now {
        return Ok(Some(Refusal::CardExpired));
    }
    let mut transaction = pool.begin().await?;
    let taken = keys::taken(&mut *transaction, std::slice::from_ref(&card.kid), now).await?;
    if !taken.iter().any(|(_, destroy_at)| *destroy_at >= card.expires_at) {
        return Ok(Some(Refusal::CardKeyUnknown));
    }
    insert(&mut *transaction, &[card]).await?;
    // Asked once the card is there: a payment that is being accepted with it has been waited for, or waits and finds it.
    let used = "SELECT EXISTS (SELECT FROM payment WHERE card_id = $1)";
    if sqlx::query_scalar(used).bind(card.id).fetch_one(&mut *transaction).await? {
        return Ok(Some(Refusal::CardUsed));
    }
    transaction.commit().await?;
    Ok(None)
}

/// Inserts cards, each into the slice of its expiry, unless they are there.
pub async fn insert(db: impl PgExecutor<'_>, cards: &[&NewCard]) -> Result<(), StoreError> {
    let each = || cards.iter();
    sqlx::query(
        "INSERT INTO sealed_card (id, slice, bill_code, kid, jwe, expires_at)
         SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
         ON CONFLICT DO NOTHING",
    )
    .bind(each().map(|card| card.id).collect::<Vec<_>>())
    .bind(each().map(|card| slice_of(card.expires_at)).collect::<Vec<_>>())
    .bind(each().map(|card| card.bill.as_str()).collect::<Vec<_>>())
    .bind(each().map(|card| card.kid.as_str()).collect::<Vec<_>>())
    .bind(each().map(|card| card.jwe.as_str()).collect::<Vec<_>>())
    .bind(each().map(|card| card.expires_at).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// The bills and expiries of stored cards, by their ids.
pub(super) async fn stored(
    db: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, (String, OffsetDateTime)>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query("SELECT id, bill_code, expires_at FROM sealed_card WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

/// The slice of a card that expires at this time.
pub fn slice_of(expires_at: OffsetDateTime) -> i16 {
    slice(window(expires_at))
}

fn window(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(WINDOW_S)
}

fn slice(window: i64) -> i16 {
    // 0 to 3, so it fits.
    window.rem_euclid(4) as i16
}

/// The window whose past may be destroyed now; none near a border, where another machine's clock may already read the
/// next window, or still the one before.
fn safe_window(now: OffsetDateTime) -> Option<i64> {
    let into = now.unix_timestamp().rem_euclid(WINDOW_S);
    (SKEW_S..=WINDOW_S - SKEW_S).contains(&into).then(|| window(now))
}

/// Empties the two slices whose cards have all expired. Returns how many were emptied.
///
/// Cards alive now expire in this window or the next one, so the other two slices are past. The window is read again
/// once the lock is held: a wait must not carry the decision over a border.
pub async fn truncate_past(pool: &PgPool, clock: &Clock) -> Result<u32, StoreError> {
    const TRUNCATE: [&str; 4] =
        ["TRUNCATE sealed_card_0", "TRUNCATE sealed_card_1", "TRUNCATE sealed_card_2", "TRUNCATE sealed_card_3"];
    const ANY: [&str; 4] = [
        "SELECT EXISTS (SELECT FROM sealed_card_0)",
        "SELECT EXISTS (SELECT FROM sealed_card_1)",
        "SELECT EXISTS (SELECT FROM sealed_card_2)",
        "SELECT EXISTS (SELECT FROM sealed_card_3)",
    ];
    let mut emptied = 0;
    let Some(current) = safe_window(clock.now()) else { return Ok(0) };
    for past in [current + 2, current + 3] {
        let index = usize::from(slice(past).unsigned_abs());
        // Without this, every idle round would lock the table against the claims.
        if !sqlx::query_scalar::<_, bool>(ANY[index]).fetch_one(pool).await? {
            continue;
        }
        let mut tx = pool.begin().await?;
        sqlx::query("SET LOCAL lock_timeout = '200ms'").execute(&mut *tx).await?;
        sqlx::query(TRUNCATE[index]).execute(&mut *tx).await?;
        if safe_window(clock.now()) == Some(current) {
            tx.commit().await?;
            emptied += 1;
        }
    }
    Ok(emptied)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_living_card_is_never_in_a_slice_that_is_emptied(now_s in 0_i64..4_000_000_000, ahead_s in 1_i64..=900, skew_s in -59_i64..=59) {
            let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            if let Some(current) = safe_window(at(now_s + skew_s)) {
                let slice_of_card = slice_of(at(now_s + ahead_s));
                prop_assert!(![slice(current + 2), slice(current + 3)].contains(&slice_of_card));
            }
        }
    }
}
