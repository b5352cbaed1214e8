//! A person's word, recorded: the same books, journal and messages as an acquirer's answer, with who said it and why.

use sqlx::{PgConnection, PgPool, Row, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Change,
    load::{Asked, Loaded, load, lock},
    write,
};
use crate::{
    contracts::OperationCompleted,
    payment::{
        Event, Money, OperationKind, Outcome, Status,
        by_hand::{self, Report, Reversal, Word},
        card::DeclineReason,
        decision::{Decision, Known, decide},
        ledger::Position,
        operation::{Approval, Decline},
    },
    store::{StoreError, operations::open, outbox::OutboxRow},
};

pub use crate::payment::by_hand::Case;

/// What a person says of a payment.
#[derive(Debug, Clone, Copy)]
pub struct ByHand<'a> {
    /// Which payment.
    pub payment: Uuid,
    /// What.
    pub word: Word,
    /// When the acquirer did so, by its own time: the books bear its day. Nothing was done where it was declined.
    pub at: OffsetDateTime,
    /// Who.
    pub by: &'a str,
    /// Why it is so: stands in the journal.
    pub evidence: &'a str,
    /// Now.
    pub now: OffsetDateTime,
}

/// What came of it.
#[derive(Debug)]
pub enum Settled {
    /// Recorded; announce these messages.
    Done(Status, Vec<OutboxRow>),
    /// It cannot be so, for this reason. Nothing was written.
    Refused(String),
    /// There is no such payment, or nothing of it was ever sent to the acquirer.
    Unknown,
}

/// What is known of a payment that may have to be settled by hand; `None` if nothing of it was ever sent.
pub async fn case(pool: &PgPool, payment: Uuid) -> Result<Option<Case>, StoreError> {
    let mut transaction = pool.begin().await?;
    Ok(read(&mut transaction, payment).await?.map(|sent| sent.case))
}

/// Records what a person says. Repeating it changes nothing: the payment does not wait any more.
pub async fn settle_by_hand(pool: &PgPool, hand: &ByHand<'_>) -> Result<Settled, StoreError> {
    let mut transaction = pool.begin().await?;
    let Some(Sent { authorization, original, case }) = read(&mut transaction, hand.payment).await? else {
        return Ok(Settled::Unknown);
    };
    let report = match by_hand::settle(case, hand.word) {
        Ok(report) => report,
        Err(why) => return Ok(Settled::Refused(why.to_owned())),
    };
    let operation = match report.kind() {
        OperationKind::Authorize => authorization,
        kind => {
            if kind == OperationKind::Reverse {
                close_open(&mut transaction, hand.payment).await?;
            }
            // A report needs an operation to be about; one that is opened here is settled before anybody sees it.
            open(&mut transaction, kind, &[(hand.payment, &original)], hand.now).await?;
            newest(&mut transaction, hand.payment, kind).await?
        }
    };
    let may_pay = matches!(report, Report::Authorized { captured: true } | Report::Captured | Report::StaysCaptured);
    let loaded = load(&mut transaction, &[Asked { operation, may_pay }]).await?;
    let known = loaded.get(&operation).ok_or_else(|| StoreError::Unreadable("the operation vanished".to_owned()))?;
    if report == Report::StaysHeld {
        ask_now(&mut transaction, hand).await?;
    }
    let said = said(known, report, case.acted_on, hand.at);
    let decision = match judge(known, report, &said.result) {
        Ok(decision) => decision,
        Err(why) => return Ok(Settled::Refused(why)),
    };
    let by = Some((format!("{} by hand", hand.by), format!("{}: {}", hand.word.as_str(), hand.evidence)));
    let change = Change { known, report: &said, decision, by };
    let announce = write(&mut transaction, std::slice::from_ref(&change), hand.now, hand.now).await?;
    let status = change.to();
    transaction.commit().await?;
    Ok(Settled::Done(status, announce))
}

/// A payment of which something was sent to the acquirer.
struct Sent {
    /// Its authorization: the newest operation that is one, sent rather than not.
    authorization: Uuid,
    /// The reference of that.
    original: String,
    case: Case,
}

/// What is known of a payment. Locks the bill and the payment.
async fn read(transaction: &mut PgConnection, payment: Uuid) -> Result<Option<Sent>, StoreError> {
    let authorization: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM operation WHERE payment_id = $1 AND kind IN ('authorize', 'complete_challenge')
         ORDER BY outcome IS NOT DISTINCT FROM 'not_sent', created_at DESC, id DESC LIMIT 1",
    )
    .bind(payment)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(authorization) = authorization else { return Ok(None) };
    lock(transaction, &[authorization]).await?;
    let loaded = load(transaction, &[Asked { operation: authorization, may_pay: false }]).await?;
    let Some(known) = loaded.get(&authorization) else { return Ok(None) };
    let row = sqlx::query(
        "SELECT p.capture_at_once, r.id IS NOT NULL AS reversal, r.outcome
         FROM payment p LEFT JOIN operation r ON r.payment_id = p.id AND r.kind = 'reverse' WHERE p.id = $1",
    )
    .bind(payment)
    .fetch_one(&mut *transaction)
    .await?;
    let acted_on: Option<Json<Money>> = sqlx::query_scalar(
        "SELECT detail -> 'amount' FROM operation
         WHERE payment_id = $1 AND outcome = 'approved' AND detail ->> 'undone' IS DISTINCT FROM 'nothing'
           AND detail -> 'amount' <> jsonb_build_object('value', amount_minor, 'currency', currency)
         ORDER BY created_at, id LIMIT 1",
    )
    .bind(payment)
    .fetch_optional(transaction)
    .await?;
    let outcome: Option<String> = row.try_get("outcome")?;
    let reversal = match outcome.as_deref() {
        _ if !row.try_get::<bool, _>("reversal")? => Reversal::None,
        None | Some("unknown") => Reversal::Open,
        Some("approved") => Reversal::Acknowledged,
        Some(_) => Reversal::Refused,
    };
    let case = Case {
        status: known.status,
        position: known.position,
        bill_awaits: known.bill_awaits,
        reversal,
        capture_at_once: row.try_get("capture_at_once")?,
        acted_on: acted_on.map(|Json(amount)| amount),
    };
    Ok(Some(Sent { authorization, original: known.original.clone(), case }))
}

/// A reversal takes over what is open, as when `resolve` closes a reference.
async fn close_open(transaction: &mut PgConnection, payment: Uuid) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operation SET closing = true
         WHERE payment_id = $1 AND kind <> 'reverse' AND (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
    )
    .bind(payment)
    .execute(transaction)
    .await?;
    Ok(())
}

/// What is open is asked about, or sent again, at once and not at the ladder's next rung.
async fn ask_now(transaction: &mut PgConnection, hand: &ByHand<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operation SET next_attempt_at = least(next_attempt_at, $2)
         WHERE payment_id = $1 AND (outcome IS NULL OR outcome = 'unknown') AND NOT closing",
    )
    .bind(hand.payment)
    .bind(hand.now)
    .execute(transaction)
    .await?;
    Ok(())
}

async fn newest(transaction: &mut PgConnection, payment: Uuid, kind: OperationKind) -> Result<Uuid, StoreError> {
    let id = sqlx::query_scalar(
        "SELECT id FROM operation WHERE payment_id = $1 AND kind = $2 ORDER BY created_at DESC, id DESC LIMIT 1",
    )
    .bind(payment)
    .bind(kind.as_str())
    .fetch_one(transaction)
    .await?;
    Ok(id)
}

/// The person's word as a report of the operation. What the books have not heard of moved as the acquirer says.
fn said(known: &Loaded, report: Report, acted_on: Option<Money>, at: OffsetDateTime) -> OperationCompleted {
    let amount = acted_on.filter(|_| known.position == Position::Nothing).unwrap_or(known.amount);
    let approval = |captured, undone| {
        Outcome::Approved(Approval {
            acquirer_reference: None,
            authorization_code: None,
            rrn: None,
            amount,
            captured,
            undone,
            at,
        })
    };
    let result = match report {
        Report::Authorized { captured } => approval(captured, None),
        Report::StaysHeld | Report::Captured | Report::StaysCaptured => approval(false, None),
        Report::Declined => Outcome::Declined(Decline { reason: DeclineReason::Other, code: None }),
        Report::Reversed(undone) => approval(false, Some(undone)),
    };
    OperationCompleted {
        payment: known.payment,
        operation: known.operation,
        kind: known.kind,
        reference: known.reference.clone(),
        amount: known.amount,
        card: None,
        result,
    }
}

/// Decides as for any report, but that evidence outweighs what was known of the operation.
fn judge(known: &Loaded, report: Report, result: &Outcome) -> Result<Decision, String> {
    let stays = match report {
        Report::StaysHeld => Some(Event::Approved),
        Report::StaysCaptured => Some(Event::Captured),
        Report::Authorized { .. } | Report::Captured | Report::Declined | Report::Reversed(_) => None,
    };
    if let Some(event) = stays {
        let status = known.status.after(&event).map_err(|illegal| illegal.to_string())?;
        return Ok(Decision { steps: vec![(event, status)], ..Decision::default() });
    }
    let known = Known {
        status: known.status,
        position: known.position,
        bill_awaits: known.bill_awaits,
        // One that was refused stands in nobody's way: by hand only a reversal itself, or a capture, is said then.
        reversal_exists: known.reversal_exists,
        kind: known.kind,
        amount: match result {
            Outcome::Approved(approval) => approval.amount,
            _ => known.amount,
        },
        outcome: Some("unknown"),
    };
    decide(known, result).map_err(|illegal| illegal.to_string())
}
