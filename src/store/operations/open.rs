//! Operations that nobody claims: opened for `resolve` to send.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{clock, payment::OperationKind, store::StoreError};

/// Opens reversals of the payments' authorizations, due at once; a payment has at most one.
pub(in crate::store) async fn open_reversals(
    transaction: &mut PgConnection,
    payments: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    open(transaction, OperationKind::Reverse, payments, now).await
}

/// Opens operations on the payments' authorizations, due at once; a payment has at most one of a kind. It bears on what may
/// be decided about a payment, and so moves its version.
pub(in crate::store) async fn open(
    transaction: &mut PgConnection,
    kind: OperationKind,
    payments: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if payments.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = payments.iter().map(|_| clock::new_id()).collect();
    sqlx::query(
        "WITH opened AS (
         INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                next_attempt_at)
         SELECT n.id, p.id, $4, replace(n.id::text, '-', ''), a.reference, p.acquirer, p.amount_minor,
                p.currency, $3
         FROM unnest($1::uuid[], $2::uuid[]) n(id, payment_id)
         JOIN payment p ON p.id = n.payment_id
         JOIN operation a ON a.payment_id = p.id AND a.kind = 'authorize' AND a.outcome IS DISTINCT FROM 'not_sent'
         ON CONFLICT (payment_id, kind)
             WHERE kind <> 'refund' AND NOT (kind = 'authorize' AND outcome IS NOT DISTINCT FROM 'not_sent')
             DO NOTHING RETURNING payment_id)
         UPDATE payment p SET version = p.version + 1 FROM opened WHERE p.id = opened.payment_id",
    )
    .bind(ids)
    .bind(payments)
    .bind(now)
    .bind(kind.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}
