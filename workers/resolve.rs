//! Resolve: finds out what came of operations whose outcome is unknown, or whose claimer fell silent.
//!
//! It inquires by our own reference. "Not found" proves nothing while the request may still arrive: the reference is
//! closed at the acquirer by a reversal first, or the adapter's finality horizon must have passed (rule 4).

use std::time::Duration;

use crate::{
    payment::{OperationKind, Outcome, operation::Inquiry},
    store::{
        StoreError,
        operations::fail_without_card,
        resolve::{self, Due},
        revive::{self, Patience},
    },
    worker::{Context, unknown_if_it_panics},
};
use futures::future::join_all;

/// A round that takes longer, beside the calls to the acquirer, hangs on a server that is gone.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// What an attempt came to.
enum Step {
    /// Tell the record worker.
    Report(Outcome),
    /// Hand over to a reversal that closes our reference.
    Close,
    /// Nothing new: try again later.
    Wait(String),
}

/// Runs until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    tracing::info!(worker = "resolve", "started");
    let mut tick = tokio::time::interval(Duration::from_millis(context.config.resolve.poll_ms));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = context.stop.cancelled() => break,
        }
        let limit = ROUND_LIMIT + context.config.acquirer.lease();
        if let Err(error) = tokio::time::timeout(limit, round(&context)).await.unwrap_or(Err(StoreError::TimedOut)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "resolve waits for the database");
        }
    }
    tracing::info!(worker = "resolve", "drained");
    Ok(())
}

/// One round over everything that is due.
pub async fn round(context: &Context) -> Result<(), StoreError> {
    revive(context).await?;
    let limit = context.config.resolve.batch;
    loop {
        let due = resolve::take_due(&context.pool, &context.terms(), limit).await?;
        if due.is_empty() {
            return Ok(());
        }
        for result in join_all(due.iter().map(|due| attempt(context, due))).await {
            result?;
        }
        if context.stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Looks after payments that stand still.
async fn revive(context: &Context) -> Result<(), StoreError> {
    let (now, limit) = (context.clock.now(), context.config.resolve.batch);
    let patience = Patience {
        stalled: Duration::from_secs(u64::from(context.config.resolve.stalled_after_s)),
        hold: Duration::from_secs(3_600 * u64::from(context.config.acquirer.hold_hours)),
    };
    let waiting = revive::waiting_to_be_authorized(&context.pool, patience, now, limit).await?;
    if !waiting.is_empty() {
        let (ended, facts) = fail_without_card(&context.pool, &waiting, &context.terms()).await?;
        tracing::warn!(payments = ended.len(), "payments ended whose sealed cards were gone");
        context.relay.announce(facts);
    }
    // With the broker away nothing is lost, only late: repeating messages would but add to the backlog.
    if context.publisher.is_connected() {
        let revived = revive::revive(&context.pool, patience, now, limit).await?;
        if !revived.is_empty() {
            tracing::warn!(payments = revived.len(), "put stalled payments back on their way");
        }
        context.relay.announce(revived);
    }
    Ok(())
}

async fn attempt(context: &Context, due: &Due) -> Result<(), StoreError> {
    let claim = &due.claim;
    let step = match claim.kind {
        OperationKind::Reverse => reverse(context, due).await,
        OperationKind::Authorize | OperationKind::CompleteChallenge => inquire(context, due).await,
        OperationKind::Capture => capture(context, due).await?,
        // Refunds come with their own ladder; an inquiry answers for them as for any reference.
        OperationKind::Refund | OperationKind::Inquire => inquire(context, due).await,
    };
    match step {
        Step::Report(outcome) => {
            tracing::info!(payment.id = %claim.payment, kind = claim.kind.as_str(), outcome = outcome.as_str(), "resolved");
            let why = format!("{} is not recorded", outcome.as_str());
            context.report(claim, None, outcome).await;
            // Should the record worker not get it, or the books not take it.
            climb(context, due, context.config.acquirer.lease(), &why).await
        }
        Step::Close => {
            tracing::info!(payment.id = %claim.payment, "not found: closing our reference");
            resolve::close(&context.pool, claim, context.clock.now()).await
        }
        Step::Wait(why) => wait(context, due, why).await,
    }
}

/// Asks what came of an authorization.
async fn inquire(context: &Context, due: &Due) -> Step {
    let age = context.clock.now() - due.created_at;
    let finality = Duration::from_secs(3_600 * u64::from(context.config.acquirer.finality_hours));
    match context.acquirer.inquire(due.claim.kind, &due.claim.reference).await {
        Inquiry::Found(outcome) => definite(outcome),
        Inquiry::NotFound if age > finality => {
            Step::Report(Outcome::NotSent { why: "not found after the acquirer's finality horizon".to_owned() })
        }
        Inquiry::NotFound => Step::Close,
        Inquiry::Pending => Step::Wait("the acquirer is still working on it".to_owned()),
        Inquiry::NoAnswer { why } => Step::Wait(why),
    }
}

/// Asks what came of a capture; one that never arrived is sent again, with the same key, if the bill still awaits it.
async fn capture(context: &Context, due: &Due) -> Result<Step, StoreError> {
    let step = match context.acquirer.inquire(due.claim.kind, &due.claim.reference).await {
        Inquiry::Found(outcome) => definite(outcome),
        // The money goes back instead; closing the authorization also stops a capture that is still on its way.
        Inquiry::NotFound if !due.bill_awaits => Step::Close,
        // The inquiry may have taken longer than the leave to send lasts.
        Inquiry::NotFound => match resolve::renew(&context.pool, &due.claim, &context.terms()).await? {
            Some(claim) => {
                let call = context.call(&claim);
                sent(unknown_if_it_panics(context.acquirer.capture(&call, &claim.original)).await)
            }
            None => Step::Wait("it was settled or taken over meanwhile".to_owned()),
        },
        Inquiry::Pending => Step::Wait("the acquirer is still working on it".to_owned()),
        Inquiry::NoAnswer { why } => Step::Wait(why),
    };
    Ok(step)
}

/// Sends a reversal, again and again until it is acknowledged; every attempt but the first is flagged as a repeat.
async fn reverse(context: &Context, due: &Due) -> Step {
    let call = context.call(&due.claim);
    let repeat = due.attempts > 1;
    sent(unknown_if_it_panics(context.acquirer.reverse(&call, &due.claim.original, repeat)).await)
}

/// What a call or an inquiry of this worker said; what is not definite is tried again.
fn sent(outcome: Outcome) -> Step {
    match outcome {
        Outcome::NotSent { why } => Step::Wait(why),
        other => definite(other),
    }
}

/// What the acquirer's books say.
fn definite(outcome: Outcome) -> Step {
    match outcome {
        Outcome::Unknown { why } => Step::Wait(why),
        Outcome::Approved(_) | Outcome::Challenged(_) | Outcome::Declined(_) | Outcome::NotSent { .. } => {
            Step::Report(outcome)
        }
    }
}

/// Nothing definite is known yet.
async fn wait(context: &Context, due: &Due, why: String) -> Result<(), StoreError> {
    tracing::warn!(payment.id = %due.claim.payment, kind = due.claim.kind.as_str(), attempts = due.attempts, why, "still unknown");
    climb(context, due, Duration::ZERO, &why).await?;
    // The payer is told the truth meanwhile: do not pay again.
    if !due.known_unknown && due.claim.kind != OperationKind::Reverse {
        context.report(&due.claim, None, Outcome::Unknown { why }).await;
    }
    Ok(())
}

/// Sets the next rung, `at_least` so long from now; at the ladder's end a person has to look.
async fn climb(context: &Context, due: &Due, at_least: Duration, why: &str) -> Result<(), StoreError> {
    let (now, settings) = (context.clock.now(), &context.config.resolve);
    let next = now + rung(settings, due.attempts).max(at_least);
    resolve::reschedule(&context.pool, &[due.claim.operation], &[next]).await?;
    if now > due.created_at + Duration::from_secs(3_600 * u64::from(settings.give_up_hours)) {
        let why = format!("unknown after {} attempts: {why}", due.attempts);
        let facts = resolve::give_up(&context.pool, due, &why, now).await?;
        context.relay.announce(facts);
    }
    Ok(())
}

fn rung(settings: &crate::config::Resolve, attempts: i32) -> Duration {
    let last = settings.schedule_s.len() - 1;
    let rung = usize::try_from(attempts - 1).unwrap_or(0).min(last);
    Duration::from_secs(u64::from(settings.schedule_s[rung]))
}
