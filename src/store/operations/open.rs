//! Operations that nobody claims: opened for `resolve` to send.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{clock, payment::OperationKind, store::StoreError};

/// An authorization, by its payment and its own reference at the acquirer.
pub(in crate::store) type AuthorizationOf<'a> = (Uuid, &'a str);

/// Opens reversals of authorizations, due at once; a payment has at most one.
pub(in crate::store) async fn open_reversals(
    transaction: &mut PgConnection,
    authorizations: &[AuthorizationOf<'_>],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    open(transaction, OperationKind::Reverse, authorizations, now).await
}

/// Opens operations on authorizations, due at once; a payment has at most one of a kind. It bears on what may be decided
/// about a payment, and so moves its version.
pub(in crate::store) async fn open(
    transaction: &mut PgConnection,
    kind: OperationKind,
    authorizations: &[AuthorizationOf<'_>],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if authorizations.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = authorizations.iter().map(|_| clock::new_id()).collect();
    let (payments, references): (Vec<Uuid>, Vec<&str>) = authorizations.iter().copied().unzip();
    sqlx::query(
        "WITH opened AS (
         INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                next_attempt_at)
         SELECT n.id, p.id, $5, replace(n.id::text, '-', ''), n.original, p.acquirer, p.amount_minor, p.currency, $4
         FROM unnest($1::uuid[], $2::uuid[], $3::text[]) n(id, payment_id, original)
         JOIN payment p ON p.id = n.payment_id
         ON CONFLICT (payment_id, kind)
             WHERE kind <> 'refund' AND NOT (kind = 'authorize' AND outcome IS NOT DISTINCT FROM 'not_sent')
             DO NOTHING RETURNING payment_id)
         UPDATE payment p SET version = p.version + 1 FROM opened WHERE p.id = opened.payment_id",
    )
    .bind(ids)
    .bind(payments)
    .bind(references)
    .bind(now)
    .bind(kind.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}
