//! What is acknowledged must be true: in the moment of each verdict *done*, the effect of its message is in the books.

use sqlx::Row;
use tolom::{
    broker::Queue,
    contracts::{ChallengeCompleted, Event, OperationCompleted, PaymentFact, PaymentRefused, PaymentRequested, Topic},
};
use uuid::Uuid;

use super::scheduler::Scheduler;

/// Checks the effect of a message that an actor says it is done with (rule 8: no ack before the effect is committed).
pub(super) async fn check(scheduler: &mut Scheduler<'_>, actor: u32, queue: Queue, body: &[u8]) {
    let broken = match Topic::of(body) {
        Ok(Topic::PaymentRequested) => requested(scheduler, actor, body).await,
        Ok(Topic::PaymentChallengeCompleted) => {
            let payment = read::<ChallengeCompleted>(Topic::PaymentChallengeCompleted, body).payment;
            let waits = "p.status = 'challenged' AND p.challenge_response IS NOT NULL";
            waits_still(scheduler, payment, waits).await.or(unreported(scheduler, actor, payment).await)
        }
        Ok(Topic::PaymentAuthorized) => {
            let payment = read::<PaymentFact>(Topic::PaymentAuthorized, body).payment;
            let waits = "p.status = 'authorized' AND NOT EXISTS (
                SELECT FROM operation c WHERE c.payment_id = p.id AND c.kind = 'capture')";
            waits_still(scheduler, payment, waits).await.or(unreported(scheduler, actor, payment).await)
        }
        Ok(Topic::OperationCompleted) => completed(scheduler, body).await,
        _ => Some("it was unreadable".to_owned()),
    };
    if let Some(why) = broken {
        let what = format!("rule 8: #{actor} is done with a message of {}, and {why}", queue.name());
        scheduler.ground.stage.broken(what);
    }
}

fn read<T: serde::de::DeserializeOwned>(topic: Topic, body: &[u8]) -> T {
    Event::<T>::read(topic, body).expect("what a handler is done with is readable").data
}

async fn requested(scheduler: &mut Scheduler<'_>, actor: u32, body: &[u8]) -> Option<String> {
    let event = Event::<PaymentRequested>::read(Topic::PaymentRequested, body).expect("a request");
    let payment = event.data.payment;
    let mut refusals = scheduler.rabbit.facts.iter().filter(|(topic, _)| *topic == Topic::PaymentRefused);
    let refused = refusals.any(|(topic, body)| read::<PaymentRefused>(*topic, body).request == event.id);
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM payment WHERE id = $1")
        .bind(payment)
        .fetch_optional(scheduler.database.own())
        .await
        .unwrap();
    match status.as_deref() {
        // Another copy of the same message may have been accepted meanwhile, and is in hand.
        Some("accepted") | None if refused => None,
        Some("accepted") => Some(format!("{payment} is not claimed")),
        Some(_) => unreported(scheduler, actor, payment).await,
        None => Some(format!("{payment} is neither stored nor refused")),
    }
}

/// An actor that has called the acquirer for a payment is done only once its report is confirmed.
async fn unreported(scheduler: &mut Scheduler<'_>, actor: u32, payment: Uuid) -> Option<String> {
    let called = scheduler.called.get(&actor).cloned().unwrap_or_default();
    if called.is_empty() {
        return None;
    }
    let references: Vec<String> = sqlx::query_scalar("SELECT reference FROM operation WHERE payment_id = $1")
        .bind(payment)
        .fetch_all(scheduler.database.own())
        .await
        .unwrap();
    let missing = called.iter().find(|call| references.contains(call) && !scheduler.reported.contains(*call))?;
    Some(format!("what came of {missing} is not reported"))
}

async fn waits_still(scheduler: &mut Scheduler<'_>, payment: Uuid, waits: &'static str) -> Option<String> {
    let question = format!(
        "SELECT EXISTS (SELECT FROM payment p WHERE p.id = $1 AND {waits} AND NOT EXISTS (
             SELECT FROM operation o WHERE o.payment_id = p.id AND (o.outcome IS NULL OR o.outcome = 'unknown')
             AND NOT o.closing))"
    );
    let waits: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(question))
        .bind(payment)
        .fetch_one(scheduler.database.own())
        .await
        .unwrap();
    waits.then(|| format!("{payment} still waits for it"))
}

/// A report that would still be news is not recorded.
async fn completed(scheduler: &mut Scheduler<'_>, body: &[u8]) -> Option<String> {
    let report = read::<OperationCompleted>(Topic::OperationCompleted, body);
    let row = sqlx::query("SELECT outcome, conflict FROM operation WHERE id = $1")
        .bind(report.operation)
        .fetch_optional(scheduler.database.own())
        .await
        .unwrap()?;
    let (known, conflict): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    let word = report.result.as_str();
    // In words of its own: `Outcome::merge` may be what is broken.
    let absorbed = match (known.as_deref(), word) {
        (Some(known), word) if known == word => true,
        (Some(_), "unknown") => true,
        // Neither had an effect.
        (Some("not_sent"), "declined") | (Some("declined"), "not_sent") => true,
        // A challenge is settled by its completion or its reversal, whatever else is heard of it.
        (Some("challenged"), _) | (Some("approved" | "declined" | "not_sent"), "challenged") => true,
        _ => conflict.is_some(),
    };
    (!absorbed).then(|| format!("the books have {known:?} where it says {word}"))
}
