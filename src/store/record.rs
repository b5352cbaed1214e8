//! Recording: a batch of outcomes becomes statuses, journal, ledger, settlement entries, receipts, paid bills and the
//! facts that announce them, in one statement.
//!
//! It is read without locks, decided, and written only if payments, bills and operations are still what the decision rests
//! on; otherwise it is read anew.

mod by_hand;
mod change;
mod load;

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

pub use self::by_hand::{ByHand, Case, Settled, case, settle_by_hand};
use self::{
    change::Change,
    load::{Asked, Loaded, load},
};
use super::{
    StoreError,
    operations::open_reversals,
    outbox::{self, OutboxRow},
    sessions::Sessions,
    status::{self, StatusWrite},
    writes::{Writes, until_won},
};
use crate::{
    clock,
    contracts::{Event, OperationCompleted, SettlementEntry, Topic},
    payment::{
        Outcome, Status,
        decision::{AuthorizationEnd, Decision, Known, decide},
        ledger::Posting,
    },
};

const SOURCE: &str = "/tolom/record";

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Written, or absorbed.
    Done,
    /// Its payment has an earlier report in this batch: record it again after this one.
    Later,
    /// It contradicts its operation, or cannot happen: to the dead letters, with this reason.
    Rejected(String),
}

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Batch {
    /// A result for each report, in order.
    pub results: Vec<Recorded>,
    /// Committed messages, to be handed to the relay.
    pub announce: Vec<OutboxRow>,
    /// Statuses that payments have entered, for the metrics, with the seconds since their acceptance where those were not
    /// also the payer's, at the bank's page.
    pub entered: Vec<(Status, Option<f64>)>,
}

/// Records a batch. All or nothing: after an error nothing is written.
///
/// `unknown_until` is when `resolve` takes its first look at what is unknown.
pub async fn record(
    sessions: &Sessions,
    reports: &[OperationCompleted],
    now: OffsetDateTime,
    unknown_until: OffsetDateTime,
) -> Result<Batch, StoreError> {
    until_won(|_| attempt(sessions, reports, now, unknown_until)).await
}

async fn attempt(
    sessions: &Sessions,
    reports: &[OperationCompleted],
    now: OffsetDateTime,
    unknown_until: OffsetDateTime,
) -> Result<Batch, StoreError> {
    let mut db = sessions.take().await?;
    let asked: Vec<Asked> = reports.iter().map(Asked::by).collect();
    let loaded = load(&mut db, &asked).await?;
    let mut batch = Batch::default();
    let mut changes: Vec<Change<'_>> = Vec::new();
    let mut seen = HashSet::new();
    for report in reports {
        let result = match loaded.get(&report.operation) {
            None => Recorded::Rejected("there is no such operation".to_owned()),
            Some(known) if !seen.insert(known.payment) => Recorded::Later,
            Some(known) => match judge(known, report) {
                Ok(decision) => {
                    changes.push(Change { known, report, decision, by: None });
                    Recorded::Done
                }
                Err(reason) => Recorded::Rejected(reason),
            },
        };
        batch.results.push(result);
    }
    changes.retain(|change| change.decision != Decision::default());
    if !changes.is_empty() {
        // Whoever records some of the same waits for the others in the same order.
        changes.sort_unstable_by_key(|change| change.known.payment);
        batch.announce = write(&mut db, &changes, now, unknown_until).await?;
        batch.entered = changes.iter().filter_map(Change::entered).collect();
    }
    db.give_back();
    Ok(batch)
}

/// The record worker's own check of a report, then the decision of the pure core.
fn judge(known: &Loaded, report: &OperationCompleted) -> Result<Decision, String> {
    if report.payment != known.payment || report.kind != known.kind || report.reference != known.reference {
        return Err("payment, kind or reference differ from the operation's".to_owned());
    }
    if report.amount != known.amount {
        return Err("amount or currency differ from the operation's".to_owned());
    }
    let known = Known {
        status: known.status,
        position: known.position,
        bill_awaits: known.bill_awaits,
        reversal_exists: known.reversal_exists,
        kind: known.kind,
        amount: known.amount,
        outcome: known.outcome.as_deref(),
    };
    decide(known, &report.result).map_err(|illegal| illegal.to_string())
}

/// Writes everything that the changes come to, and promises their messages. All or nothing; nothing as well if a payment,
/// its bill or an operation is not what it was ([`Writes::unlocked`]).
async fn write(
    db: &mut PgConnection,
    changes: &[Change<'_>],
    now: OffsetDateTime,
    unknown_until: OffsetDateTime,
) -> Result<Vec<OutboxRow>, StoreError> {
    let statuses: Vec<StatusWrite> = changes.iter().map(Change::status_write).collect();
    let entries = settlement_entries(changes, now);
    let mut announce: Vec<OutboxRow> = changes.iter().filter_map(|change| change.message(now)).collect();
    announce.extend(entries.iter().map(|entry| entry.message.clone()));
    let mut writes = Writes::unlocked();
    hold_bills(&mut writes, changes);
    status::add(&mut writes, &statuses);
    add_outcomes(&mut writes, changes, unknown_until);
    add_paid(&mut writes, changes)?;
    add_postings(&mut writes, changes);
    add_entries(&mut writes, &entries);
    outbox::add(&mut writes, &announce);
    if !changes.iter().any(Change::touches_other_operations) {
        writes.execute(db).await?;
        return Ok(announce);
    }
    // One open operation a payment is a unique index's business, and parts of a statement have no order.
    let mut transaction = db.begin().await?;
    writes.execute(&mut *transaction).await?;
    authorization_ends(&mut transaction, changes).await?;
    let undone = changes.iter().filter(|change| change.decision.reverse).map(|change| change.known);
    let reversals: Vec<_> = undone.map(|known| (known.payment, known.original.as_str())).collect();
    open_reversals(&mut transaction, &reversals, now).await?;
    transaction.commit().await?;
    Ok(announce)
}

/// Holds each bill, so that "paid by another channel" cannot slip in between a decision and its commit, if it still awaits
/// its payment, or not, as when that was decided.
fn hold_bills(writes: &mut Writes, changes: &[Change<'_>]) {
    let each = || changes.iter().map(|change| change.known);
    writes.guard("held", changes.len());
    writes.add(
        "held",
        "SELECT b.code FROM",
        |columns| {
            columns
                .add(each().map(|known| known.payment))
                .add(each().map(|known| known.bill.as_str()))
                .add(each().map(|known| known.bill_awaits));
        },
        "AS n(payment_id, code, awaits) JOIN bill b ON b.code = n.code
             AND (b.status = 'open' OR b.paid_by IS NOT DISTINCT FROM n.payment_id) = n.awaits
         ORDER BY b.code FOR NO KEY UPDATE OF b",
    );
}

fn add_outcomes(writes: &mut Writes, changes: &[Change<'_>], unknown_until: OffsetDateTime) {
    let each = || changes.iter();
    writes.guard("completed", changes.len());
    let definite = |change: &Change<'_>| change.report.result.is_definite();
    writes.add(
        "completed",
        "UPDATE operation o SET
             outcome = CASE WHEN n.store THEN n.outcome ELSE o.outcome END,
             detail = CASE WHEN n.store THEN n.detail ELSE o.detail END,
             conflict = coalesce(n.conflict, o.conflict),
             completed_at = CASE WHEN n.store AND n.definite THEN now() ELSE o.completed_at END,
             next_attempt_at = CASE WHEN n.store AND NOT n.definite THEN n.unknown_until ELSE o.next_attempt_at END
         FROM",
        |columns| {
            columns
                .add(each().map(|change| change.known.operation))
                .add(each().map(|change| change.decision.store_outcome))
                .add(each().map(|change| change.report.result.as_str()))
                .add(each().map(|change| serde_json::json!(change.report.result)))
                .add(each().map(|change| change.decision.conflict))
                .add(each().map(definite))
                .add(each().map(|_| unknown_until))
                .add(each().map(|change| change.known.outcome.as_deref()));
        },
        "AS n(id, store, outcome, detail, conflict, definite, unknown_until, before)
         WHERE o.id = n.id AND o.outcome IS NOT DISTINCT FROM n.before RETURNING 1",
    );
}

/// An acknowledged reversal settles what was open: of its authorization, and of a capture that was never found.
async fn authorization_ends(transaction: &mut PgConnection, changes: &[Change<'_>]) -> Result<(), StoreError> {
    let (mut payments, mut outcomes, mut captures) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        if let Some(end) = change.decision.authorization_ends {
            payments.push(change.known.payment);
            let (outcome, capture) = match end {
                AuthorizationEnd::NeverHappened => ("not_sent", "not_sent"),
                AuthorizationEnd::WasHeld => ("approved", "not_sent"),
                AuthorizationEnd::WasCaptured => ("approved", "approved"),
            };
            outcomes.push(outcome);
            captures.push(capture);
        }
    }
    if payments.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE operation o SET outcome = CASE o.kind WHEN 'capture' THEN n.capture ELSE n.outcome END,
                completed_at = now()
         FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n(payment_id, outcome, capture)
         WHERE o.payment_id = n.payment_id AND o.kind IN ('authorize', 'complete_challenge', 'capture')
           AND (o.outcome IS NULL OR o.outcome = 'unknown')",
    )
    .bind(payments)
    .bind(outcomes)
    .bind(captures)
    .execute(transaction)
    .await?;
    Ok(())
}

/// The acquirer's time of a movement.
fn acquirer_time(change: &Change<'_>) -> Option<OffsetDateTime> {
    match &change.report.result {
        Outcome::Approved(approval) => Some(approval.at),
        Outcome::Challenged(_) | Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. } => None,
    }
}

fn postings<'a>(changes: &'a [Change<'_>]) -> impl Iterator<Item = (&'a Change<'a>, &'a Posting, OffsetDateTime)> {
    changes.iter().flat_map(|change| {
        let at = acquirer_time(change).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        change.decision.postings.iter().map(move |posting| (change, posting, at))
    })
}

fn add_postings(writes: &mut Writes, changes: &[Change<'_>]) {
    if postings(changes).next().is_none() {
        return;
    }
    writes.add(
        "posted",
        "INSERT INTO posting (operation_id, kind, payment_id, debit_account, credit_account, amount_minor, currency, at,
                              day)
         SELECT * FROM",
        |columns| {
            columns
                .add(postings(changes).map(|(change, ..)| change.known.operation))
                .add(postings(changes).map(|(_, posting, _)| posting.kind.as_str()))
                .add(postings(changes).map(|(change, ..)| change.known.payment))
                .add(postings(changes).map(|(_, posting, _)| posting.debit.as_str()))
                .add(postings(changes).map(|(_, posting, _)| posting.credit.as_str()))
                .add(postings(changes).map(|(_, posting, _)| posting.amount.value))
                .add(postings(changes).map(|(_, posting, _)| posting.amount.currency.to_string()))
                .add(postings(changes).map(|(.., at)| at))
                .add(postings(changes).map(|(.., at)| clock::bishkek_day(at)));
        },
        "",
    );
}

/// A bill becomes paid in the statement that records the capture, and its receipt gets its number.
fn add_paid(writes: &mut Writes, changes: &[Change<'_>]) -> Result<(), StoreError> {
    let paid: Vec<&Loaded> = changes.iter().filter(|change| change.is_paid()).map(|change| change.known).collect();
    if paid.is_empty() {
        return Ok(());
    }
    let unnumbered = || StoreError::Unreadable("a capture that nobody has expected to be one".to_owned());
    let numbers: Vec<&str> =
        paid.iter().map(|known| known.receipt.as_deref().ok_or_else(unnumbered)).collect::<Result<_, _>>()?;
    let payments = || paid.iter().map(|known| known.payment);
    writes.add(
        "paid",
        "UPDATE bill b SET status = 'paid', paid_by = n.payment_id, paid_at = now(), updated_at = now() FROM",
        |columns| {
            columns.add(payments()).add(paid.iter().map(|known| known.bill.as_str()));
        },
        "AS n(payment_id, code) WHERE b.code = n.code AND b.status = 'open'",
    );
    writes.add(
        "receipted",
        "INSERT INTO receipt (payment_id, number) SELECT * FROM",
        |columns| {
            columns.add(payments()).add(numbers);
        },
        "",
    );
    Ok(())
}

/// What finance is told of one movement of money.
struct Entry<'a> {
    change: &'a Change<'a>,
    posting: &'a Posting,
    day: Date,
    message: OutboxRow,
}

/// One entry for each movement of money.
fn settlement_entries<'a>(changes: &'a [Change<'_>], now: OffsetDateTime) -> Vec<Entry<'a>> {
    postings(changes)
        .filter(|(_, posting, _)| posting.kind.moves_money())
        .map(|(change, posting, at)| {
            let message = settlement_entry(clock::new_id(), change, posting, at, now);
            Entry { change, posting, day: clock::bishkek_day(at), message }
        })
        .collect()
}

fn add_entries(writes: &mut Writes, entries: &[Entry<'_>]) {
    if entries.is_empty() {
        return;
    }
    let each = || entries.iter();
    writes.add(
        "told",
        "INSERT INTO settlement_entry (id, operation_id, kind, payment_id, amount_minor, currency, day) SELECT * FROM",
        |columns| {
            columns
                .add(each().map(|entry| entry.message.id))
                .add(each().map(|entry| entry.change.known.operation))
                .add(each().map(|entry| entry.posting.kind.as_str()))
                .add(each().map(|entry| entry.change.known.payment))
                .add(each().map(|entry| entry.posting.amount.value))
                .add(each().map(|entry| entry.posting.amount.currency.to_string()))
                .add(each().map(|entry| entry.day));
        },
        "",
    );
}

fn settlement_entry(
    id: Uuid,
    change: &Change<'_>,
    posting: &Posting,
    at: OffsetDateTime,
    now: OffsetDateTime,
) -> OutboxRow {
    let approval = match &change.report.result {
        Outcome::Approved(approval) => Some(approval.clone()),
        Outcome::Challenged(_) | Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. } => None,
    };
    let known = change.known;
    let data = SettlementEntry {
        payment: known.payment,
        operation: known.operation,
        bill: known.bill.clone(),
        agency: known.agency.clone(),
        service: known.service.clone(),
        kind: posting.kind,
        amount: posting.amount,
        acquirer: known.acquirer.clone(),
        reference: known.reference.clone(),
        acquirer_reference: approval.as_ref().and_then(|approval| approval.acquirer_reference.clone()),
        authorization_code: approval.as_ref().and_then(|approval| approval.authorization_code.clone()),
        rrn: approval.and_then(|approval| approval.rrn),
        at,
        day: clock::bishkek_day(at).to_string(),
    };
    let topic = Topic::SettlementEntry;
    let body = Event::new(topic, id, SOURCE, known.payment, now, data).to_bytes();
    OutboxRow { id, topic, body, traceparent: known.traceparent.clone() }
}
