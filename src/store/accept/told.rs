//! Foreign messages that were refused: what their senders were told stands, as an acceptance does.
//!
//! Both are rows of one table under one key, the message's source and id, so that of two copies of a message one cannot be
//! accepted while the other is refused.

use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{contracts::PaymentRefused, store::StoreError};

/// The key of a foreign message; its scope is the source. No key that came over HTTP reads like it, for those are digests.
pub(super) fn key_of_event(event: Uuid) -> String {
    format!("event:{event}")
}

/// What the sender of this message was told, if it was refused.
pub async fn told(pool: &PgPool, source: &str, event: Uuid) -> Result<Option<PaymentRefused>, StoreError> {
    let row = sqlx::query(
        "SELECT payment_id, refusal, answer FROM idempotency_key WHERE caller = $1 AND key = $2 AND refusal IS NOT NULL",
    )
    .bind(source)
    .bind(key_of_event(event))
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        Ok(PaymentRefused {
            payment: row.try_get("payment_id")?,
            request: event,
            reason: row.try_get("refusal")?,
            detail: row.try_get("answer")?,
        })
    })
    .transpose()
}

/// Notes a refusal before its sender is told. False, and nothing noted, if the message was accepted or refused meanwhile.
pub async fn refuse(pool: &PgPool, source: &str, refused: &PaymentRefused) -> Result<bool, StoreError> {
    let noted = sqlx::query(
        "INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer, refusal)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(source)
    .bind(key_of_event(refused.request))
    .bind(&[0_u8; 32][..])
    .bind(refused.payment)
    .bind(&refused.detail)
    .bind(&refused.reason)
    .execute(pool)
    .await?;
    Ok(noted.rows_affected() == 1)
}
