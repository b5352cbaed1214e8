//! Capture: takes the money that is held, once the books have the authorization.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    broker::{Handler, Message, Queue, Reading, Turn, Verdict},
    config::Config,
    contracts::{Event, PaymentFact, Topic},
    payment::Outcome,
    store::operations::{self, Claim, Claimed},
    worker::{Context, Leave, Worker, run as run_worker, unknown_if_it_panics},
};

/// How far apart batches of several messages begin; see `Reading::linger`.
const LINGER: Duration = Duration::from_millis(20);

/// The worker.
pub struct Capture {
    context: Context,
}

/// Builds the worker and runs it until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    run_worker(context.clone(), Capture::new(context)).await;
    Ok(())
}

impl Capture {
    /// The worker of this context.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Worker for Capture {
    const NAME: &'static str = "capture";

    fn reading(config: &Config) -> Reading {
        let settings = &config.capture;
        Reading { queue: Queue::Capture, batch: settings.batch, prefetch: settings.prefetch, linger: LINGER }
    }
}

impl Handler for Capture {
    async fn handle(&self, batch: Vec<Message>, turn: Turn) {
        let mut facts = Vec::with_capacity(batch.len());
        for message in batch {
            match Event::<PaymentFact>::read(Topic::PaymentAuthorized, &message.body) {
                Ok(event) => facts.push((message, event.data.payment)),
                Err(error) => message.settle(Verdict::Dead(error.to_string())),
            }
        }
        let (since, mut turn) = (Instant::now(), Some(turn));
        while !facts.is_empty() {
            let calls = match self.context.leave_to_call(since).await {
                Leave::Calls(calls) => calls,
                Leave::Later => return facts.into_iter().for_each(|(message, _)| message.leave()),
                // A hold lasts for days.
                Leave::NotYet => {
                    turn = None;
                    facts.retain(|(message, _)| !message.is_abandoned());
                    continue;
                }
            };
            let rest = facts.split_off(calls.min(facts.len()));
            self.capture_now(std::mem::replace(&mut facts, rest), turn.take()).await;
        }
    }
}

impl Capture {
    async fn capture_now(&self, facts: Vec<(Message, Uuid)>, turn: Option<Turn>) {
        let context = &self.context;
        let claim = |part: Vec<Uuid>| async move {
            operations::claim_captures(&context.sessions, &part, &context.terms()).await
        };
        let payments = facts.iter().map(|(_, payment)| *payment).collect();
        let Some(mut claims) = context.each(payments, claim).await else {
            return facts.into_iter().for_each(|(message, _)| message.leave());
        };
        drop(turn);
        let work = facts.into_iter().map(|(message, payment)| {
            let claimed = claims.remove(&payment).unwrap_or(Ok(Claimed::NotMine));
            async move {
                match claimed {
                    Ok(Claimed::Capture(claim)) => self.capture(message, &claim).await,
                    Ok(Claimed::NoSuchPayment) => message.settle(Verdict::Dead("there is no such payment".to_owned())),
                    Ok(Claimed::NotMine | Claimed::Authorize(..) | Claimed::Complete(..)) => {
                        message.settle(Verdict::Done);
                    }
                    Err(reason) => message.settle(Verdict::Dead(reason)),
                }
            }
        });
        join_all(work).await;
    }

    async fn capture(&self, message: Message, claim: &Claim) {
        let context = &self.context;
        let call = context.call(claim);
        let outcome = unknown_if_it_panics(context.acquirer.capture(&call, &claim.original)).await;
        tracing::debug!(payment.id = %claim.payment, kind = "capture", outcome = outcome.as_str(), "called");
        if let Outcome::NotSent { why } = outcome {
            let released = context.until_available(|| operations::release(&context.pool, claim)).await;
            return match released {
                Some(Ok(())) => message.settle(Verdict::Retry(why)),
                Some(Err(error)) => message.settle(Verdict::Retry(error.to_string())),
                None => message.leave(),
            };
        }
        match context.report(claim, None, outcome).await {
            true => message.settle(Verdict::Done),
            false => message.leave(),
        }
    }
}
