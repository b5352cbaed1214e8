//! What the resolve worker looks for: operations whose outcome is unknown, or whose claimer fell silent.

use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    facts::{self, FactOf},
    operations::{Claim, Terms, open_reversals},
    outbox::{self, OutboxRow},
    read_money, read_word,
    status::{self, Learnt, StatusWrite},
};
use crate::payment::Status;

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
    /// Whether the bill is still to be paid by this payment, as far as could be seen when it was taken.
    pub bill_awaits: bool,
}

/// Takes operations that are due, oldest first; any number of workers may do so at once.
pub async fn take_due(pool: &PgPool, terms: &Terms<'_>, limit: i64) -> Result<Vec<Due>, StoreError> {
    let mut connection = pool.acquire().await?;
    let times = terms.begin();
    let rows = sqlx::query(
        // Materialized: as a subselect it may be run again for rows that changed meanwhile, and take more than the limit.
        "WITH due AS MATERIALIZED (
             SELECT id FROM operation
             WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing AND next_attempt_at <= $2
             ORDER BY next_attempt_at, id LIMIT $5 FOR UPDATE SKIP LOCKED)
         UPDATE operation o SET owner = $1, send_before = $3, next_attempt_at = $4, attempts = o.attempts + 1
         FROM due, payment p, bill b
         WHERE o.id = due.id AND p.id = o.payment_id AND b.code = p.bill_code
         RETURNING o.id, o.payment_id, o.kind, o.reference, o.original_reference, o.amount_minor, o.currency,
                   o.attempts, o.created_at, o.outcome IS NOT NULL AS known_unknown, p.capture_at_once, p.traceparent,
                   (b.status = 'open' OR b.paid_by IS NOT DISTINCT FROM p.id) AS bill_awaits",
    )
    .bind(terms.owner)
    .bind(times.now)
    .bind(times.send_before)
    .bind(times.lease_until)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let mut due = rows
        .iter()
        .map(|row| {
            Ok(Due {
                claim: Claim {
                    operation: row.try_get("id")?,
                    payment: row.try_get("payment_id")?,
                    kind: read_word(row, "kind")?,
                    reference: row.try_get("reference")?,
                    original: row.try_get("original_reference")?,
                    amount: read_money(row, "amount_minor", "currency")?,
                    send_before: times.send_before,
                    capture_at_once: row.try_get("capture_at_once")?,
                    traceparent: row.try_get("traceparent")?,
                },
                attempts: row.try_get("attempts")?,
                created_at: row.try_get("created_at")?,
                known_unknown: row.try_get("known_unknown")?,
                bill_awaits: row.try_get("bill_awaits")?,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    // The database returns them in the order of its plan.
    due.sort_unstable_by_key(|due| due.claim.operation);
    Ok(due)
}

/// New leave to send an operation that this worker has taken, and a new lease with it; `None` if it was settled, or taken by
/// another, meanwhile.
pub async fn renew(pool: &PgPool, claim: &Claim, terms: &Terms<'_>) -> Result<Option<Claim>, StoreError> {
    let times = terms.begin();
    let renewed = sqlx::query(
        "UPDATE operation SET send_before = $3, next_attempt_at = $4
         WHERE id = $1 AND owner = $2 AND send_before = $5
           AND (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
    )
    .bind(claim.operation)
    .bind(terms.owner)
    .bind(times.send_before)
    .bind(times.lease_until)
    .bind(claim.send_before)
    .execute(pool)
    .await?;
    Ok((renewed.rows_affected() == 1).then(|| Claim { send_before: times.send_before, ..claim.clone() }))
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

/// Hands an operation that was not found over to a reversal, which closes the authorization's reference at the acquirer:
/// only then does "not found" prove that nothing came of it, nor ever will (rule 4).
pub async fn close(pool: &PgPool, claim: &Claim, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query("SELECT status, version FROM payment WHERE id = $1 FOR NO KEY UPDATE")
        .bind(claim.payment)
        .fetch_one(&mut *transaction)
        .await?;
    let closing = sqlx::query(
        "UPDATE operation SET closing = true
         WHERE id = $1 AND (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
    )
    .bind(claim.operation)
    .execute(&mut *transaction)
    .await?;
    if closing.rows_affected() == 1 {
        // What was held goes back: the payer is told so at once. What was never known waits for the acknowledgement.
        if read_word::<Status>(&row, "status")? == Status::Authorized {
            let why = "the capture never arrived, and the bill was paid by another channel";
            let write = StatusWrite::give_back(claim.payment, row.try_get("version")?, why);
            status::write(&mut transaction, &[write]).await?;
        }
        open_reversals(&mut transaction, &[(claim.payment, &claim.original)], now).await?;
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
    let from: Status = read_word(&row, "status")?;
    let bill: String = row.try_get("bill_code")?;
    let mut announce = Vec::new();
    let (mut to, mut steps) = (from, Vec::new());
    for event in from.to_review() {
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
            actor: "resolve".to_owned(),
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
