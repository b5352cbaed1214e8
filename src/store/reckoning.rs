//! What became of everything: for who has broken what could be broken, and has to answer for it.

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use crate::contracts::Topic;

/// Where a payment stands.
#[derive(Debug, Clone)]
pub struct Stand {
    /// The payment.
    pub id: Uuid,
    /// Its status.
    pub status: String,
    /// Why it failed or is in review, if that was noted.
    pub note: Option<String>,
    /// When the intake took it.
    pub accepted_at: OffsetDateTime,
    /// When the books had its capture.
    pub captured_at: Option<OffsetDateTime>,
}

/// Every payment.
pub async fn payments(pool: &PgPool) -> Result<Vec<Stand>, StoreError> {
    let rows = sqlx::query("SELECT id, status, note, accepted_at, captured_at FROM payment ORDER BY accepted_at, id")
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Stand {
                id: row.try_get("id")?,
                status: row.try_get("status")?,
                note: row.try_get("note")?,
                accepted_at: row.try_get("accepted_at")?,
                captured_at: row.try_get("captured_at")?,
            })
        })
        .collect()
}

/// The ids of all settlement entries.
pub async fn settlement_entries(pool: &PgPool) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar("SELECT id FROM settlement_entry").fetch_all(pool).await?)
}

/// The numbers of all receipts that count as sent.
pub async fn receipts_sent(pool: &PgPool) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT number FROM receipt WHERE sent_at IS NOT NULL").fetch_all(pool).await?)
}

/// News in the journal that changed no status.
pub async fn absorbed_news(pool: &PgPool) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM journal WHERE from_status = to_status").fetch_one(pool).await?)
}

/// Operations that were asked about, or sent, more than once.
pub async fn repeated_operations(pool: &PgPool) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM operation WHERE attempts > 1").fetch_one(pool).await?)
}

/// The numbers of all receipts, each with the id of its short message, if one was planned.
pub async fn short_messages(pool: &PgPool) -> Result<Vec<(String, Option<Uuid>)>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT r.number, c.id FROM receipt r
         LEFT JOIN receipt_copy c ON c.payment_id = r.payment_id AND c.kind = 'sms'",
    );
    Ok(rows.fetch_all(pool).await?)
}

/// What the outbox holds: settlement entries, and the rest.
pub async fn outbox(pool: &PgPool) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE routing_key = $1) AS entries, count(*) FILTER (WHERE routing_key <> $1) AS rest
         FROM outbox",
    )
    .bind(Topic::SettlementEntry.routing_key())
    .fetch_one(pool)
    .await?;
    Ok((row.try_get("entries")?, row.try_get("rest")?))
}

/// What is still on its way, in words: for the report of a drain that took too long.
pub async fn on_their_way(pool: &PgPool) -> Result<Vec<String>, StoreError> {
    let lines = sqlx::query_scalar(
        "SELECT format('payment %s %s, updated %s ago, %s of its card stored', p.id, p.status,
                date_trunc('second', now() - p.updated_at), (SELECT count(*) FROM sealed_card c WHERE c.id = p.card_id))
         FROM payment p WHERE p.status IN ('accepted', 'authorizing', 'challenged', 'authorized', 'unknown', 'reversing')
         UNION ALL SELECT format('operation %s of %s %s: %s, attempts %s, next in %s', kind, payment_id, reference,
                coalesce(outcome, 'open'), attempts, date_trunc('second', next_attempt_at - now()))
         FROM operation WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing
         UNION ALL SELECT format('outbox %s %s, attempts %s, due in %s', id, routing_key, attempts,
                date_trunc('second', publish_after - now())) FROM outbox
         UNION ALL SELECT format('receipt %s of %s is not sent, claimed for %s', number, payment_id,
                date_trunc('second', sending_until - now())) FROM receipt WHERE sent_at IS NULL
         UNION ALL SELECT format('%s %s of %s is not sent, claimed for %s, attempts %s, next in %s', kind, id, payment_id,
                date_trunc('second', sending_until - now()), attempts, date_trunc('second', next_try_at - now()))
         FROM receipt_copy WHERE sent_at IS NULL AND given_up_at IS NULL",
    );
    Ok(lines.fetch_all(pool).await?)
}

/// Dead letters that were parked.
pub async fn parked(pool: &PgPool) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM dead_letter").fetch_one(pool).await?)
}
