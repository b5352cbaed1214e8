//! Giving claims back: what provably was not sent may be tried again.

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{Claim, SealedCard};
use crate::store::StoreError;

/// Releases an authorization that provably was not sent: in one transaction its outcome is `not_sent` and the sealed
/// card is back, while it has not expired. Only then can it be claimed anew, as a new operation.
pub async fn release_authorization(
    pool: &PgPool,
    claim: &Claim,
    card: &SealedCard,
    why: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    let released = sqlx::query(
        "UPDATE operation SET outcome = 'not_sent', completed_at = now(), owner = NULL, detail = $2
         WHERE id = $1 AND outcome IS NULL AND NOT closing AND send_before = $3",
    )
    .bind(claim.operation)
    .bind(serde_json::json!({ "outcome": "not_sent", "why": why }))
    .bind(claim.send_before)
    .execute(&mut *transaction)
    .await?;
    if released.rows_affected() == 1 && card.expires_at > now {
        put_back(&mut transaction, card).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Gives up a claim whose request provably was not sent; the same operation may be claimed again.
pub async fn release(pool: &PgPool, claim: &Claim) -> Result<(), StoreError> {
    sqlx::query(
        // Later than the next retry tier, so that `resolve` does not give up what is about to be tried again.
        "UPDATE operation SET owner = NULL, send_before = NULL, next_attempt_at = now() + interval '10 minutes'
         WHERE id = $1 AND outcome IS NULL AND send_before = $2",
    )
    .bind(claim.operation)
    .bind(claim.send_before)
    .execute(pool)
    .await?;
    Ok(())
}

async fn put_back(transaction: &mut PgConnection, card: &SealedCard) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sealed_card (id, slice, bill_code, kid, jwe, expires_at)
         VALUES ($1, (floor(extract(epoch FROM $5) / 900)::bigint % 4)::smallint, $2, $3, $4, $5)",
    )
    .bind(card.id)
    .bind(&card.bill)
    .bind(&card.kid)
    .bind(&card.jwe)
    .bind(card.expires_at)
    .execute(transaction)
    .await?;
    Ok(())
}
