//! Claims: an operation is stored with our reference, its owner and `send_before` before any byte leaves (rule 3).

mod insert;
mod release;
mod uncharged;

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use self::insert::NewClaim;
pub(super) use self::insert::{open, open_reversals};
pub use self::{
    release::{release, release_authorization},
    uncharged::fail_without_card,
};
use super::{
    StoreError,
    outbox::{self, OutboxRow},
    status::{self, Learnt, StatusWrite},
    writes::Writes,
};
use crate::{
    clock::Clock,
    payment::{Event, Money, OperationKind, PaymentCode, Status},
};

/// A claim: leave to send one operation until `send_before`.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The operation's id.
    pub operation: Uuid,
    /// Its payment.
    pub payment: Uuid,
    /// What is asked.
    pub kind: OperationKind,
    /// Our reference, the acquirer's idempotency key.
    pub reference: String,
    /// The reference of the authorization it is about (its own, for an authorization).
    pub original: String,
    /// The amount.
    pub amount: Money,
    /// Past this nothing may be sent.
    pub send_before: OffsetDateTime,
    /// Whether the authorization is to take the money in the same message.
    pub capture_at_once: bool,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A sealed card, taken out of the store by the claim.
#[derive(Clone)]
pub struct SealedCard {
    /// Its id.
    pub id: Uuid,
    /// Which key seals it.
    pub kid: String,
    /// The bill it is for.
    pub bill: String,
    /// The JWE.
    pub jwe: String,
    /// When it stops being usable.
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for SealedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedCard({})", self.id)
    }
}

/// What a claim for a payment came to.
#[derive(Debug)]
pub enum Claimed {
    /// Authorize with this card.
    Authorize(Claim, SealedCard),
    /// Complete the challenge with what the payer came back with.
    Complete(Claim, Vec<(String, String)>),
    /// Capture.
    Capture(Claim),
    /// Somebody has it, or it is past this: acknowledge and forget.
    NotMine,
    /// There is no such payment.
    NoSuchPayment,
}

/// Who claims, and for how long. The times begin when the locks are held: a claim that waited for them is as fresh as any.
#[derive(Debug, Clone)]
pub struct Terms<'a> {
    /// The process.
    pub owner: &'a str,
    /// Time.
    pub clock: &'a Clock,
    /// Leave to send ends after this.
    pub send_within: Duration,
    /// `resolve` may touch it after this.
    pub lease: Duration,
}

/// The times of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: OffsetDateTime,
    pub(super) send_before: OffsetDateTime,
    pub(super) lease_until: OffsetDateTime,
}

impl Terms<'_> {
    /// The times of a claim that is made now.
    pub(super) fn begin(&self) -> Times {
        let now = self.clock.now();
        Times { now, send_before: now + self.send_within, lease_until: now + self.lease }
    }
}

/// A payment, locked, with what a claim must know of it.
struct Locked {
    id: Uuid,
    status: Status,
    version: i32,
    bill: PaymentCode,
    amount: Money,
    acquirer: String,
    capture_at_once: bool,
    card_id: Uuid,
    response: Option<Vec<(String, String)>>,
    traceparent: Option<String>,
    bill_awaits: bool,
    /// The newest operation of the kind that is claimed: (id, outcome, owned).
    existing: Option<(Uuid, Option<String>, bool)>,
    authorization: Option<String>,
    open: bool,
}

fn read(row: &PgRow) -> Result<Locked, StoreError> {
    let unreadable = |what: &str| StoreError::Unreadable(format!("payment: {what}"));
    let status: String = row.try_get("status")?;
    let currency: String = row.try_get("currency")?;
    let bill: String = row.try_get("bill_code")?;
    let existing: Option<Uuid> = row.try_get("existing")?;
    let outcome: Option<String> = row.try_get("existing_outcome")?;
    let owned: Option<bool> = row.try_get("existing_owned")?;
    let response: Option<serde_json::Value> = row.try_get("challenge_response")?;
    Ok(Locked {
        id: row.try_get("id")?,
        status: status.parse().map_err(|_| unreadable(&status))?,
        version: row.try_get("version")?,
        bill: bill.parse().map_err(|_| unreadable(&bill))?,
        amount: Money::new(row.try_get("amount_minor")?, currency.parse().map_err(|_| unreadable(&currency))?),
        acquirer: row.try_get("acquirer")?,
        capture_at_once: row.try_get("capture_at_once")?,
        card_id: row.try_get("card_id")?,
        response: response.map(serde_json::from_value).transpose().map_err(|_| unreadable("challenge_response"))?,
        traceparent: row.try_get("traceparent")?,
        bill_awaits: row.try_get("bill_awaits")?,
        existing: existing.map(|id| (id, outcome, owned.unwrap_or(false))),
        authorization: row.try_get("authorization_reference")?,
        open: row.try_get("open")?,
    })
}

/// Locks the payments, in one order, and reads them with the newest operation of `kind` of each.
///
/// Two statements: what is read must be read *after* the wait for the locks. Within one, PostgreSQL would see the
/// locked rows as they are now, and the operations as they were before the wait (manual, 13.2.1).
async fn lock(
    transaction: &mut PgConnection,
    payments: &[Uuid],
    kind: OperationKind,
) -> Result<Vec<Locked>, StoreError> {
    sqlx::query(
        "SELECT FROM unnest($1::uuid[]) AS n (id) JOIN payment p ON p.id = n.id ORDER BY p.id FOR NO KEY UPDATE OF p",
    )
    .bind(payments)
    .execute(&mut *transaction)
    .await?;
    let rows = sqlx::query(
        "SELECT p.id, p.status, p.version, p.bill_code, p.amount_minor, p.currency, p.acquirer, p.capture_at_once,
                p.card_id, p.challenge_response, p.traceparent,
                (b.status = 'open' OR b.paid_by IS NOT DISTINCT FROM p.id) AS bill_awaits,
                e.id AS existing, e.outcome AS existing_outcome, e.owner IS NOT NULL AS existing_owned,
                a.reference AS authorization_reference,
                EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id AND (o.outcome IS NULL
                        OR o.outcome = 'unknown') AND NOT o.closing) AS open
         FROM unnest($1::uuid[]) AS n (id)
         JOIN payment p ON p.id = n.id
         JOIN bill b ON b.code = p.bill_code
         LEFT JOIN LATERAL (SELECT id, outcome, owner FROM operation
                            WHERE payment_id = p.id AND kind = $2 ORDER BY created_at DESC, id DESC LIMIT 1) e ON true
         LEFT JOIN LATERAL (SELECT reference FROM operation
                            WHERE payment_id = p.id AND kind = 'authorize' AND outcome IS DISTINCT FROM 'not_sent'
                            LIMIT 1) a ON true
         ORDER BY p.id",
    )
    .bind(payments)
    .bind(kind.as_str())
    .fetch_all(transaction)
    .await?;
    rows.iter().map(read).collect()
}

/// Writes claims with the statuses and the facts that go with them.
async fn write(
    transaction: &mut PgConnection,
    claims: &[NewClaim<'_>],
    statuses: &[StatusWrite],
    facts: &[OutboxRow],
    owner: &str,
    times: Times,
) -> Result<Vec<Claim>, StoreError> {
    let mut writes = Writes::new();
    let made = insert::add(&mut writes, claims, owner, times)?;
    status::add(&mut writes, statuses);
    outbox::add(&mut writes, facts);
    writes.execute(transaction).await?;
    Ok(made)
}

fn step(payment: &Locked, event: Event, actor: &'static str) -> Result<StatusWrite, StoreError> {
    let to = payment.status.after(&event).map_err(|illegal| StoreError::Unreadable(illegal.to_string()))?;
    Ok(StatusWrite {
        payment: payment.id,
        from: payment.status,
        version: payment.version,
        steps: vec![(event, to)],
        learnt: Learnt::default(),
        operation: None,
        actor: actor.to_owned(),
        detail: None,
    })
}

/// Claims authorizations, taking the sealed cards out of the store, in one transaction.
///
/// A payment whose card is gone (expired, or the database crashed) fails here: no operation was ever claimed, or its
/// last one is `not_sent`, so nothing was charged (rule 4). Returns the facts of those, committed.
pub async fn claim_authorizations(
    pool: &PgPool,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<(Vec<(Uuid, Claimed)>, Vec<OutboxRow>), StoreError> {
    let mut transaction = pool.begin().await?;
    let rows = lock(&mut transaction, payments, OperationKind::Authorize).await?;
    let times = terms.begin();
    let (mut results, mut claims, mut statuses, mut facts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let claimable: Vec<&Locked> = rows.iter().filter(|row| may_authorize(row)).collect();
    let mut cards = take_cards(&mut transaction, &claimable).await?;
    let mut taken = Vec::new();
    for row in &claimable {
        let card = cards.iter().position(|card| card.id == row.card_id).map(|index| cards.swap_remove(index));
        match card.filter(|card| card.expires_at > times.now) {
            Some(card) => {
                statuses.push(step(row, Event::AuthorizationClaimed, "authorize")?);
                claims.push(NewClaim { payment: row, kind: OperationKind::Authorize, again: None });
                taken.push(card);
            }
            None => {
                let (write, fact) = uncharged::write(row, times.now)?;
                facts.extend(fact);
                statuses.push(write);
                results.push((row.id, Claimed::NotMine));
            }
        }
    }
    let made = write(&mut transaction, &claims, &statuses, &facts, terms.owner, times).await?;
    transaction.commit().await?;
    results.extend(made.into_iter().zip(taken).map(|(claim, card)| (claim.payment, Claimed::Authorize(claim, card))));
    results.extend(rows.iter().filter(|row| !may_authorize(row)).map(|row| (row.id, Claimed::NotMine)));
    let known: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let missing = payments.iter().filter(|id| !known.contains(id));
    results.extend(missing.map(|id| (*id, Claimed::NoSuchPayment)));
    Ok((results, facts))
}

fn may_authorize(row: &Locked) -> bool {
    let released = row.existing.as_ref().is_some_and(|(_, outcome, _)| outcome.as_deref() == Some("not_sent"));
    let first = row.status == Status::Accepted && row.existing.is_none();
    first || (row.status == Status::Authorizing && released && !row.open)
}

/// `DELETE ... RETURNING`: whoever gets a card is the only one that can ever use it.
async fn take_cards(transaction: &mut PgConnection, payments: &[&Locked]) -> Result<Vec<SealedCard>, StoreError> {
    if payments.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("DELETE FROM sealed_card WHERE id = ANY($1) RETURNING id, kid, bill_code, jwe, expires_at")
        .bind(payments.iter().map(|payment| payment.card_id).collect::<Vec<_>>())
        .fetch_all(transaction)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SealedCard {
                id: row.try_get("id")?,
                kid: row.try_get("kid")?,
                bill: row.try_get("bill_code")?,
                jwe: row.try_get("jwe")?,
                expires_at: row.try_get("expires_at")?,
            })
        })
        .collect()
}

/// Claims completions of challenges whose payers have come back.
pub async fn claim_completions(
    pool: &PgPool,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    let mut transaction = pool.begin().await?;
    let rows = lock(&mut transaction, payments, OperationKind::CompleteChallenge).await?;
    let times = terms.begin();
    let (mut claims, mut statuses, mut responses) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let Some(response) = row.response.clone() else { continue };
        match &row.existing {
            None if row.status == Status::Challenged && !row.open => {
                statuses.push(step(row, Event::ConfirmationClaimed, "authorize")?);
                claims.push(NewClaim { payment: row, kind: OperationKind::CompleteChallenge, again: None });
            }
            Some((id, None, false)) if row.status == Status::Authorizing => {
                claims.push(NewClaim { payment: row, kind: OperationKind::CompleteChallenge, again: Some(*id) });
            }
            _ => continue,
        }
        responses.push(response);
    }
    let made = write(&mut transaction, &claims, &statuses, &[], terms.owner, times).await?;
    transaction.commit().await?;
    let made = made.into_iter().zip(responses);
    Ok(fill(payments, &rows, made.map(|(claim, response)| (claim.payment, Claimed::Complete(claim, response)))))
}

/// Claims captures of authorizations that the books have. One whose bill was paid elsewhere meanwhile is reversed.
pub async fn claim_captures(
    pool: &PgPool,
    payments: &[Uuid],
    terms: &Terms<'_>,
) -> Result<Vec<(Uuid, Claimed)>, StoreError> {
    let mut transaction = pool.begin().await?;
    let rows = lock(&mut transaction, payments, OperationKind::Capture).await?;
    let times = terms.begin();
    let (mut claims, mut statuses, mut reversals) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| row.status == Status::Authorized) {
        match &row.existing {
            None if row.open => {}
            None if !row.bill_awaits => {
                let mut write = step(row, Event::ReversalRequired, "capture")?;
                write.detail = Some("the bill was paid by another channel".to_owned());
                statuses.push(write);
                reversals.push(row.id);
            }
            None => claims.push(NewClaim { payment: row, kind: OperationKind::Capture, again: None }),
            Some((id, None, false)) => {
                claims.push(NewClaim { payment: row, kind: OperationKind::Capture, again: Some(*id) });
            }
            Some(_) => {}
        }
    }
    let made = write(&mut transaction, &claims, &statuses, &[], terms.owner, times).await?;
    open_reversals(&mut transaction, &reversals, times.now).await?;
    transaction.commit().await?;
    Ok(fill(payments, &rows, made.into_iter().map(|claim| (claim.payment, Claimed::Capture(claim)))))
}

fn fill(payments: &[Uuid], rows: &[Locked], made: impl Iterator<Item = (Uuid, Claimed)>) -> Vec<(Uuid, Claimed)> {
    let mut results: Vec<(Uuid, Claimed)> = made.collect();
    for id in payments {
        if !results.iter().any(|(done, _)| done == id) {
            let known = rows.iter().any(|row| row.id == *id);
            results.push((*id, if known { Claimed::NotMine } else { Claimed::NoSuchPayment }));
        }
    }
    results
}
