//! What the resolve worker looks for: operations whose outcome is unknown or whose claimer fell silent, and payments
//! whose message was lost.

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    facts::{self, FactOf},
    operations::{Claim, Terms, open_reversals},
    outbox::{self, OutboxRow},
    status::{self, Learnt, StatusWrite},
};
use crate::{
    clock,
    contracts::{ChallengeCompleted, Event as Message, Topic},
    payment::{Event, Money, Status},
};

const SOURCE: &str = "/tolom/resolve";

/// An operation to look into. Taking it has claimed it until the terms' lease ends.
#[derive(Debug, Clone)]
pub struct Due {
    /// Leave to send it again, where that is the way.
    pub claim: Claim,
    /// Attempts so far, this one included.
    pub attempts: i32,
    /// When it was first claimed or opened.
    pub created_at: OffsetDateTime,
    /// Whether a report has said `unknown` already.
    pub known_unknown: bool,
}

/// Takes operations that are due, oldest first; any number of workers may do so at once.
pub async fn take_due(pool: &PgPool, terms: &Terms<'_>, limit: i64) -> Result<Vec<Due>, StoreError> {
    let rows = sqlx::query(
        "UPDATE operation o SET owner = $1, send_before = $3, next_attempt_at = $4, attempts = o.attempts + 1
         FROM payment p
         WHERE p.id = o.payment_id AND o.id IN (
             SELECT id FROM operation
             WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing AND next_attempt_at <= $2
             ORDER BY next_attempt_at, id LIMIT $5 FOR UPDATE SKIP LOCKED)
         RETURNING o.id, o.payment_id, o.kind, o.reference, o.original_reference, o.amount_minor, o.currency,
                   o.attempts, o.created_at, o.outcome IS NOT NULL AS known_unknown, p.capture_at_once, p.traceparent",
    )
    .bind(terms.owner)
    .bind(terms.now)
    .bind(terms.send_before)
    .bind(terms.lease_until)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut due = rows
        .iter()
        .map(|row| {
            let (kind, currency): (String, String) = (row.try_get("kind")?, row.try_get("currency")?);
            let unreadable = |word: &str| StoreError::Unreadable(format!("operation: {word}"));
            let currency = currency.parse().map_err(|_| unreadable(&currency))?;
            Ok(Due {
                claim: Claim {
                    operation: row.try_get("id")?,
                    payment: row.try_get("payment_id")?,
                    kind: kind.parse().map_err(|_| unreadable(&kind))?,
                    reference: row.try_get("reference")?,
                    original: row.try_get("original_reference")?,
                    amount: Money::new(row.try_get("amount_minor")?, currency),
                    send_before: terms.send_before,
                    capture_at_once: row.try_get("capture_at_once")?,
                    traceparent: row.try_get("traceparent")?,
                },
                attempts: row.try_get("attempts")?,
                created_at: row.try_get("created_at")?,
                known_unknown: row.try_get("known_unknown")?,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    // The database returns them in the order of its plan.
    due.sort_unstable_by_key(|due| due.claim.operation);
    Ok(due)
}

/// Sets the next rung of operations that this worker has taken; one that was settled meanwhile is left alone.
pub async fn reschedule(pool: &PgPool, operations: &[Uuid], at: &[OffsetDateTime]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operation o SET next_attempt_at = n.at
         FROM unnest($1::uuid[], $2::timestamptz[]) AS n(id, at)
         WHERE o.id = n.id AND (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing",
    )
    .bind(operations)
    .bind(at)
    .execute(pool)
    .await?;
    Ok(())
}

/// Hands an authorization over to a reversal, which closes our reference at the acquirer: only then does "not found"
/// prove that nothing was charged (rule 4).
pub async fn close(pool: &PgPool, claim: &Claim, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT FROM payment WHERE id = $1 FOR NO KEY UPDATE")
        .bind(claim.payment)
        .execute(&mut *transaction)
        .await?;
    let closing = sqlx::query(
        "UPDATE operation SET closing = true
         WHERE id = $1 AND (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
    )
    .bind(claim.operation)
    .execute(&mut *transaction)
    .await?;
    if closing.rows_affected() == 1 {
        open_reversals(&mut transaction, &[claim.payment], now).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The ladder is exhausted: a person has to look. Returns the fact for the payer's page, committed.
pub async fn give_up(pool: &PgPool, due: &Due, why: &str, now: OffsetDateTime) -> Result<Vec<OutboxRow>, StoreError> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query("SELECT status, version, bill_code FROM payment WHERE id = $1 FOR NO KEY UPDATE")
        .bind(due.claim.payment)
        .fetch_one(&mut *transaction)
        .await?;
    // Asked after the lock: an outcome that was recorded meanwhile needs no person.
    let open: bool = sqlx::query_scalar(
        "SELECT (outcome IS NULL OR outcome = 'unknown') AND NOT closing FROM operation WHERE id = $1",
    )
    .bind(due.claim.operation)
    .fetch_one(&mut *transaction)
    .await?;
    if !open {
        return Ok(Vec::new());
    }
    let (word, bill): (String, String) = (row.try_get("status")?, row.try_get("bill_code")?);
    let from: Status = word.parse().map_err(|_| StoreError::Unreadable(format!("payment: {word}")))?;
    let mut announce = Vec::new();
    // What was never reported as unknown is unknown now.
    let events: &[Event] = match from {
        Status::Authorizing | Status::Challenged => &[Event::OutcomeUnknown, Event::ReviewRequired],
        _ => &[Event::ReviewRequired],
    };
    let (mut to, mut steps) = (from, Vec::new());
    for event in events {
        let Ok(after) = to.after(event) else { break };
        to = after;
        steps.push((*event, after));
    }
    if to == Status::Review && from != to {
        let write = StatusWrite {
            payment: due.claim.payment,
            from,
            version: row.try_get("version")?,
            steps,
            learnt: Learnt::default(),
            operation: Some(due.claim.operation),
            actor: "resolve",
            detail: Some(why.to_owned()),
        };
        let of = FactOf {
            payment: due.claim.payment,
            bill: bill.parse().map_err(|_| StoreError::Unreadable(format!("payment: {bill}")))?,
            version: write.version_after(),
            status: to,
            amount: due.claim.amount,
            card: None,
            decline_reason: None,
            receipt_number: None,
            traceparent: due.claim.traceparent.clone(),
        };
        announce.extend(facts::fact(of, SOURCE, now));
        status::write(&mut transaction, &[write]).await?;
        outbox::insert(&mut transaction, &announce).await?;
    }
    transaction.commit().await?;
    Ok(announce)
}

/// Puts payments back on their way whose message was lost by someone's hand, or whose challenge ran out of time.
///
/// Stalled means: nothing happened since `before`, and no operation is open that would be looked into anyway.
/// Repeating a message is harmless, so a payment whose message is merely slow loses nothing.
pub async fn revive(
    pool: &PgPool,
    before: OffsetDateTime,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<OutboxRow>, StoreError> {
    let mut transaction = pool.begin().await?;
    let rows = sqlx::query(
        "SELECT p.id, p.status, p.version, p.bill_code, p.amount_minor, p.currency, p.traceparent,
                p.challenge_response IS NOT NULL AS answered, (p.challenge_until < $3 OR p.updated_at < $3 - interval '1 hour') AS challenge_over
         FROM payment p
         WHERE p.status IN ('accepted', 'authorizing', 'challenged', 'authorized')
           AND (p.updated_at < $1 OR p.status = 'challenged' AND p.challenge_until < $3)
           AND (p.status <> 'challenged'
                OR (p.challenge_until < $3 OR p.updated_at < $3 - interval '1 hour') AND p.challenge_response IS NULL
                OR p.challenge_response IS NOT NULL AND p.updated_at < $1)
           AND NOT EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id
                           AND (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing)
         ORDER BY p.updated_at, p.id LIMIT $2 FOR NO KEY UPDATE OF p SKIP LOCKED",
    )
    .bind(before)
    .bind(limit)
    .bind(now)
    .fetch_all(&mut *transaction)
    .await?;
    let (mut announce, mut expired, mut touched) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let payment: Uuid = row.try_get("id")?;
        let (word, bill): (String, String) = (row.try_get("status")?, row.try_get("bill_code")?);
        let currency: String = row.try_get("currency")?;
        let traceparent: Option<String> = row.try_get("traceparent")?;
        let unreadable = |word: &str| StoreError::Unreadable(format!("payment: {word}"));
        let status: Status = word.parse().map_err(|_| unreadable(&word))?;
        let over = row.try_get::<Option<bool>, _>("challenge_over")?.unwrap_or(false);
        match status {
            // The payer came back: the bank decides whether that was in time.
            Status::Challenged if row.try_get("answered")? => {
                announce.push(challenge_completed(payment, traceparent, now));
            }
            Status::Challenged if over => expired.push(payment),
            Status::Challenged => continue,
            Status::Authorized => {
                let of = FactOf {
                    payment,
                    bill: bill.parse().map_err(|_| unreadable(&bill))?,
                    version: row.try_get("version")?,
                    status,
                    amount: Money::new(
                        row.try_get("amount_minor")?,
                        currency.parse().map_err(|_| unreadable(&currency))?,
                    ),
                    card: None,
                    decline_reason: None,
                    receipt_number: None,
                    traceparent,
                };
                announce.extend(facts::fact(of, SOURCE, now));
            }
            _ => announce.push(facts::payment_requested(payment, SOURCE, traceparent, now)),
        }
        touched.push(payment);
    }
    // Closing our reference at the acquirer comes first; its acknowledgement says `declined`.
    open_reversals(&mut transaction, &expired, now).await?;
    outbox::insert(&mut transaction, &announce).await?;
    sqlx::query("UPDATE payment SET updated_at = now() WHERE id = ANY($1)")
        .bind(&touched)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(announce)
}

fn challenge_completed(payment: Uuid, traceparent: Option<String>, now: OffsetDateTime) -> OutboxRow {
    let (id, topic) = (clock::new_id(), Topic::PaymentChallengeCompleted);
    let body = Message::new(topic, id, SOURCE, payment, now, ChallengeCompleted { payment }).to_bytes();
    OutboxRow { id, topic, body, traceparent }
}
