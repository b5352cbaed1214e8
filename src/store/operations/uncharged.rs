//! Ending payments whose sealed card is gone before it could be used: provably nothing was charged (rule 4).

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Terms,
    seen::{Seen, lock, look_for_cards, see},
    write::{Changes, write},
};
use crate::{
    payment::{Event, OperationKind, card::DeclineReason},
    store::{
        StoreError,
        facts::{self, FactOf},
        outbox::OutboxRow,
        writes::until_won,
    },
};

/// Fails those of the payments that still wait to be authorized and whose sealed card is gone or has expired; the others
/// are left alone. Returns which they are and their facts, committed.
pub async fn fail_without_card(
    pool: &PgPool,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<(Vec<Uuid>, Vec<OutboxRow>), StoreError> {
    until_won(|_| fail(pool, payments, terms)).await
}

async fn fail(pool: &PgPool, payments: &[Uuid], terms: &Terms<'_>) -> Result<(Vec<Uuid>, Vec<OutboxRow>), StoreError> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction, payments).await?;
    let mut seen = see(&mut transaction, payments, OperationKind::Authorize).await?;
    look_for_cards(&mut transaction, &mut seen).await?;
    let now = terms.clock.now();
    let (mut changes, mut ended) = (Changes::default(), Vec::new());
    for payment in seen.iter().filter(|payment| payment.may_be_authorized()) {
        if payment.has_card(now) {
            continue;
        }
        add(&mut changes, payment, now)?;
        ended.push(payment.id);
    }
    write(&mut transaction, &changes, terms).await?;
    transaction.commit().await?;
    Ok((ended, changes.facts))
}

/// The end of one payment whose card is gone, and the fact of it.
pub(super) fn add(changes: &mut Changes<'_>, payment: &Seen, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut write = payment.step(Event::ProvenNotCharged, "authorize")?;
    write.detail = Some("the sealed card was gone before it could be used".to_owned());
    write.learnt.decline_reason = Some(DeclineReason::CardTimedOut);
    let of = FactOf {
        payment: payment.id,
        bill: payment.bill.clone(),
        version: write.version_after(),
        status: write.to(),
        amount: payment.amount,
        card: None,
        decline_reason: write.learnt.decline_reason,
        receipt_number: None,
        traceparent: payment.traceparent.clone(),
    };
    changes.expired.extend(payment.card_expires_at.map(|_| payment.card_id));
    changes.facts.extend(facts::fact(of, "/tolom/authorize", now));
    changes.statuses.push(write);
    Ok(())
}
