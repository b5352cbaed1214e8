//! Claims of authorizations, completions and captures.

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Claimed, Terms,
    seen::{Seen, lock, look_for_cards, see},
    uncharged,
    write::{Changes, NewClaim, write},
};
use crate::{
    payment::{Event, OperationKind, Status},
    store::{StoreError, outbox::OutboxRow, sessions::Sessions, writes::until_won},
};

/// Claims authorizations, taking the sealed cards out of the store with them.
///
/// A payment whose card is gone (expired, or the database crashed) fails here: no operation was ever claimed, or its
/// last one is `not_sent`, so nothing was charged (rule 4). Returns the facts of those, committed.
pub async fn claim_authorizations(
    sessions: &Sessions,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<(Vec<(Uuid, Claimed)>, Vec<OutboxRow>), StoreError> {
    until_won(|round| async move {
        let mut db = sessions.take().await?;
        // A card is there unless the statement that takes it says otherwise.
        let done = if round == 0 {
            authorizations(&mut db, payments, terms, false).await?
        } else {
            let mut transaction = db.begin().await?;
            lock(&mut transaction, payments).await?;
            let done = authorizations(&mut transaction, payments, terms, true).await?;
            transaction.commit().await?;
            done
        };
        db.give_back();
        Ok(done)
    })
    .await
}

async fn authorizations(
    db: &mut PgConnection,
    payments: &[Uuid],
    terms: &Terms<'_>,
    is_missing_one: bool,
) -> Result<(Vec<(Uuid, Claimed)>, Vec<OutboxRow>), StoreError> {
    let mut seen = see(db, payments, OperationKind::Authorize).await?;
    if is_missing_one {
        look_for_cards(db, &mut seen).await?;
    }
    let now = terms.clock.now();
    let mut changes = Changes::default();
    for payment in seen.iter().filter(|payment| payment.may_be_authorized()) {
        if is_missing_one && !payment.has_card(now) {
            uncharged::add(&mut changes, payment, now)?;
            continue;
        }
        changes.statuses.push(payment.step(Event::AuthorizationClaimed, "authorize")?);
        changes.claims.push(NewClaim { payment, kind: OperationKind::Authorize, again: None });
        changes.cards.push(payment.card_id);
    }
    let (made, mut cards) = write(db, &changes, terms).await?;
    let made = made.into_iter().zip(&changes.cards).filter_map(|(claim, card)| {
        let card = cards.remove(card)?;
        Some((claim.payment, Claimed::Authorize(claim, card)))
    });
    Ok((fill(payments, &seen, made), changes.facts))
}

/// Claims completions of challenges whose payers have come back.
pub async fn claim_completions(
    sessions: &Sessions,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    until_won(|_| completions(sessions, payments, terms)).await
}

async fn completions(
    sessions: &Sessions,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    let mut db = sessions.take().await?;
    let seen = see(&mut db, payments, OperationKind::CompleteChallenge).await?;
    let (mut changes, mut responses) = (Changes::default(), Vec::new());
    for payment in &seen {
        let Some(response) = payment.response.clone() else { continue };
        let again = match &payment.existing {
            None if payment.status == Status::Challenged && !payment.open => {
                changes.statuses.push(payment.step(Event::ConfirmationClaimed, "authorize")?);
                None
            }
            Some((id, None, false)) if payment.status == Status::Authorizing => Some(*id),
            _ => continue,
        };
        changes.claims.push(NewClaim { payment, kind: OperationKind::CompleteChallenge, again });
        responses.push(response);
    }
    let made = write(&mut db, &changes, terms).await?.0.into_iter().zip(responses);
    db.give_back();
    Ok(fill(payments, &seen, made.map(|(claim, response)| (claim.payment, Claimed::Complete(claim, response)))))
}

/// Claims captures of authorizations that the books have. One whose bill was paid elsewhere meanwhile is reversed.
pub async fn claim_captures(
    sessions: &Sessions,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    until_won(|_| captures(sessions, payments, terms)).await
}

async fn captures(
    sessions: &Sessions,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    let mut db = sessions.take().await?;
    let seen = see(&mut db, payments, OperationKind::Capture).await?;
    let mut changes = Changes::default();
    for payment in seen.iter().filter(|payment| payment.status == Status::Authorized) {
        match &payment.existing {
            None if payment.open => {}
            None if !payment.bill_awaits => {
                let mut write = payment.step(Event::ReversalRequired, "capture")?;
                write.detail = Some("the bill was paid by another channel".to_owned());
                changes.statuses.push(write);
                changes.reversals.push(payment);
            }
            None => changes.claims.push(NewClaim { payment, kind: OperationKind::Capture, again: None }),
            Some((id, None, false)) => {
                changes.claims.push(NewClaim { payment, kind: OperationKind::Capture, again: Some(*id) });
            }
            Some(_) => {}
        }
    }
    let (made, _) = write(&mut db, &changes, terms).await?;
    db.give_back();
    Ok(fill(payments, &seen, made.into_iter().map(|claim| (claim.payment, Claimed::Capture(claim)))))
}

/// What was claimed, and of each other payment why not.
fn fill(payments: &[Uuid], seen: &[Seen], made: impl Iterator<Item = (Uuid, Claimed)>) -> Vec<(Uuid, Claimed)> {
    let mut results: Vec<(Uuid, Claimed)> = made.collect();
    let done: HashSet<Uuid> = results.iter().map(|(payment, _)| *payment).collect();
    let known: HashSet<Uuid> = seen.iter().map(|payment| payment.id).collect();
    let left = payments.iter().filter(|payment| !done.contains(payment));
    results.extend(left.map(|payment| match known.contains(payment) {
        true => (*payment, Claimed::NotMine),
        false => (*payment, Claimed::NoSuchPayment),
    }));
    results
}
