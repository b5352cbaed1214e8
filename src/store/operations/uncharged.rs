//! Ending payments whose sealed card is gone before it could be used: provably nothing was charged (rule 4).

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Locked, OutboxRow, StatusWrite, Terms, lock, may_authorize, outbox, status, step};
use crate::{
    payment::{Event, OperationKind, card::DeclineReason},
    store::{
        StoreError,
        facts::{self, FactOf},
    },
};

/// Fails those of the payments that still wait to be authorized and whose sealed card is gone or has expired; the others
/// are left alone. Returns which they are and their facts, committed.
pub async fn fail_without_card(
    pool: &PgPool,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<(Vec<Uuid>, Vec<OutboxRow>), StoreError> {
    let mut transaction = pool.begin().await?;
    let rows = lock(&mut transaction, payments, OperationKind::Authorize).await?;
    let now = terms.begin().now;
    let waiting: Vec<&Locked> = rows.iter().filter(|row| may_authorize(row)).collect();
    let cards: Vec<Uuid> = waiting.iter().map(|row| row.card_id).collect();
    let usable: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM sealed_card WHERE id = ANY($1) AND expires_at > $2")
        .bind(&cards)
        .bind(now)
        .fetch_all(&mut *transaction)
        .await?;
    let (mut ended, mut gone, mut writes, mut announce) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in waiting.into_iter().filter(|row| !usable.contains(&row.card_id)) {
        let (write, fact) = write(row, now)?;
        announce.extend(fact);
        writes.push(write);
        ended.push(row.id);
        gone.push(row.card_id);
    }
    if !ended.is_empty() {
        sqlx::query("DELETE FROM sealed_card WHERE id = ANY($1)").bind(&gone).execute(&mut *transaction).await?;
        status::write(&mut transaction, &writes).await?;
        outbox::insert(&mut transaction, &announce).await?;
    }
    transaction.commit().await?;
    Ok((ended, announce))
}

/// The end of one payment whose card is gone, and the fact of it.
pub(super) fn write(row: &Locked, now: OffsetDateTime) -> Result<(StatusWrite, Option<OutboxRow>), StoreError> {
    let mut write = step(row, Event::ProvenNotCharged, "authorize")?;
    write.detail = Some("the sealed card was gone before it could be used".to_owned());
    write.learnt.decline_reason = Some(DeclineReason::CardTimedOut);
    let of = FactOf {
        payment: row.id,
        bill: row.bill.clone(),
        version: write.version_after(),
        status: write.to(),
        amount: row.amount,
        card: None,
        decline_reason: write.learnt.decline_reason,
        receipt_number: None,
        traceparent: row.traceparent.clone(),
    };
    let fact = facts::fact(of, "/tolom/authorize", now);
    Ok((write, fact))
}
