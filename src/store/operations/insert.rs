//! Operations come into being: claimed, or opened for `resolve` to send.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Claim, Locked, Times};
use crate::{
    clock,
    payment::OperationKind,
    store::{StoreError, writes::Writes},
};

/// An operation to insert or to claim again.
pub(super) struct NewClaim<'a> {
    pub(super) payment: &'a Locked,
    pub(super) kind: OperationKind,
    /// An existing row that may be claimed again: the same reference, so the acquirer knows it for the same.
    pub(super) again: Option<Uuid>,
}

/// Adds claims to what is written together.
pub(super) fn add(
    writes: &mut Writes,
    claims: &[NewClaim<'_>],
    owner: &str,
    times: Times,
) -> Result<Vec<Claim>, StoreError> {
    let made: Vec<Claim> = claims.iter().map(|new| claim(new, times)).collect::<Result<_, _>>()?;
    if made.is_empty() {
        return Ok(made);
    }
    let each = || made.iter();
    writes.add(
        "claimed",
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                owner, send_before, next_attempt_at, attempts)
         SELECT n.*, 1 FROM",
        |columns| {
            columns
                .add(each().map(|claim| claim.operation))
                .add(each().map(|claim| claim.payment))
                .add(each().map(|claim| claim.kind.as_str()))
                .add(each().map(|claim| claim.reference.as_str()))
                .add(each().map(|claim| claim.original.as_str()))
                .add(claims.iter().map(|new| new.payment.acquirer.as_str()))
                .add(each().map(|claim| claim.amount.value))
                .add(each().map(|claim| claim.amount.currency.to_string()))
                .add(each().map(|_| owner))
                .add(each().map(|_| times.send_before))
                .add(each().map(|_| times.lease_until));
        },
        "AS n ON CONFLICT (id) DO UPDATE SET owner = EXCLUDED.owner, send_before = EXCLUDED.send_before,
             attempts = operation.attempts + 1, next_attempt_at = EXCLUDED.next_attempt_at",
    );
    Ok(made)
}

fn claim(new: &NewClaim<'_>, times: Times) -> Result<Claim, StoreError> {
    let operation = new.again.unwrap_or_else(clock::new_id);
    let reference = operation.simple().to_string();
    let original = match new.kind {
        OperationKind::Authorize => Some(reference.clone()),
        _ => new.payment.authorization.clone(),
    };
    Ok(Claim {
        operation,
        payment: new.payment.id,
        kind: new.kind,
        original: original.ok_or_else(|| StoreError::Unreadable("no authorization to act on".to_owned()))?,
        reference,
        amount: new.payment.amount,
        send_before: times.send_before,
        capture_at_once: new.payment.capture_at_once,
        traceparent: new.payment.traceparent.clone(),
    })
}

/// Opens reversals of the payments' authorizations, due at once; a payment has at most one.
pub(in crate::store) async fn open_reversals(
    transaction: &mut PgConnection,
    payments: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    open(transaction, OperationKind::Reverse, payments, now).await
}

/// Opens operations on the payments' authorizations, due at once; a payment has at most one of a kind.
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
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                next_attempt_at)
         SELECT n.id, p.id, $4, replace(n.id::text, '-', ''), a.reference, p.acquirer, p.amount_minor,
                p.currency, $3
         FROM unnest($1::uuid[], $2::uuid[]) n(id, payment_id)
         JOIN payment p ON p.id = n.payment_id
         JOIN operation a ON a.payment_id = p.id AND a.kind = 'authorize' AND a.outcome IS DISTINCT FROM 'not_sent'
         ON CONFLICT (payment_id, kind)
             WHERE kind <> 'refund' AND NOT (kind = 'authorize' AND outcome IS NOT DISTINCT FROM 'not_sent')
             DO NOTHING",
    )
    .bind(ids)
    .bind(payments)
    .bind(now)
    .bind(kind.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}
