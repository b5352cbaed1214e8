//! What a worker is, and what all of them share.
//!
//! A worker is a file in `workers/` and a line in its registry. It reads one queue in batches and settles every
//! message; how it waits for a database that is away, reports outcomes and calls the acquirer is the same for all.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    acquirer::{AcquirerRef, Admission, Call, Circuit},
    broker::{self, Broker, Handler, Outgoing, Publisher, Reading},
    chain::chain,
    clock::{self, Clock},
    config::Config,
    contracts::{Event, OperationCompleted, Topic},
    payment::{Outcome, card::MaskedCard},
    relay::Relay,
    store::{
        StoreError,
        operations::{Claim, Terms},
        sessions::Sessions,
    },
    supervision::Supervisor,
};

const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longer than a batch takes whose every statement runs into its own limit.
const LONGEST_WORK: Duration = Duration::from_secs(60);
/// A message waits here for the database, or for the acquirer, at most so long; then it waits in a retry tier. The broker closes the channel
/// of a consumer that holds a message for 30 minutes (`consumer_timeout`), and counts that as a delivery.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// Longest wait for an open circuit in one go: what waits looks around then.
const CIRCUIT_LOOK: Duration = Duration::from_secs(2);

/// Leave to call the acquirer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// This many calls may be started.
    Calls(usize),
    /// Its circuit is open: look around and ask again.
    NotYet,
    /// Leave the messages for later: the process is to stop, or they have been in hand for long.
    Later,
}

/// Everything a worker may use. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The settings.
    pub config: Arc<Config>,
    /// PostgreSQL.
    pub pool: PgPool,
    /// Its sessions for what comes batch after batch.
    pub sessions: Sessions,
    /// RabbitMQ.
    pub broker: Broker,
    /// Publishes commands.
    pub publisher: Publisher,
    /// Publishes committed facts.
    pub relay: Relay,
    /// The acquirer.
    pub acquirer: AcquirerRef,
    /// Whether the acquirer is there to be called.
    pub circuit: Circuit,
    /// Time.
    pub clock: Clock,
    /// This process, in claims.
    pub owner: Arc<str>,
    /// Drain when this is cancelled.
    pub stop: CancellationToken,
}

/// A worker that reads a queue.
pub trait Worker: Handler + Sized {
    /// The name on the command line.
    const NAME: &'static str;

    /// How it reads its queue.
    fn reading(config: &Config) -> Reading;
}

/// Runs a worker until its context stops, and drains it.
pub async fn run<W: Worker>(context: Context, worker: W) {
    let reading = W::reading(&context.config);
    tracing::info!(worker = W::NAME, "started");
    broker::consume(context.broker, context.publisher, reading, Arc::new(worker), context.stop).await;
    tracing::info!(worker = W::NAME, "drained");
}

impl Context {
    /// Who watches over the tasks of this process.
    pub const fn supervisor(&self) -> &Supervisor {
        self.broker.supervisor()
    }

    /// Repeats `work` while the database is away, so that a message waits here rather than burn deliveries; `None`
    /// once the process is to stop, or after so long that the message had better be left for later.
    pub async fn until_available<T, F>(&self, mut work: impl FnMut() -> F) -> Option<Result<T, StoreError>>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = PAUSE;
        let began = Instant::now();
        loop {
            // A server that is gone without a word answers nothing, not even an error.
            let worked = tokio::time::timeout(LONGEST_WORK, work()).await;
            match worked.unwrap_or(Err(StoreError::TimedOut)) {
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the database");
                }
                done => return Some(done),
            }
            if began.elapsed() >= LONGEST_HOLD || !self.pause(&mut pause).await {
                return None;
            }
        }
    }

    /// Does `work` for all of these payments at once, or, when the database refuses that, for halves of them, until
    /// what it refuses is alone: its reason stands in its place. `None` as for [`Self::until_available`]; what was done
    /// by then is found by its lease.
    pub async fn each<T, F>(
        &self,
        mut payments: Vec<Uuid>,
        work: impl Fn(Vec<Uuid>) -> F,
    ) -> Option<HashMap<Uuid, Result<T, String>>>
    where
        F: Future<Output = Result<Vec<(Uuid, T)>, StoreError>>,
    {
        payments.sort_unstable();
        payments.dedup();
        let mut done = HashMap::with_capacity(payments.len());
        let mut parts = vec![payments];
        while let Some(mut part) = parts.pop() {
            match self.until_available(|| work(part.clone())).await? {
                Ok(results) => done.extend(results.into_iter().map(|(payment, result)| (payment, Ok(result)))),
                Err(_) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => done.extend(part.into_iter().map(|payment| (payment, Err(chain(&error))))),
            }
        }
        Some(done)
    }

    /// Waits, longer each time; false once the process is to stop.
    async fn pause(&self, pause: &mut Duration) -> bool {
        let wait = *pause;
        *pause = (wait * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = self.clock.sleep(wait) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Asks leave to call the acquirer for messages that have been in hand `since`; waits a little while its circuit is
    /// open.
    pub async fn leave_to_call(&self, since: Instant) -> Leave {
        match self.circuit.admit() {
            Admission::All => Leave::Calls(usize::MAX),
            Admission::Probe => Leave::Calls(1),
            Admission::Not(_) if since.elapsed() >= LONGEST_HOLD => Leave::Later,
            Admission::Not(until) => {
                tokio::select! {
                    () = self.circuit.changed(until, CIRCUIT_LOOK) => Leave::NotYet,
                    () = self.stop.cancelled() => Leave::Later,
                }
            }
        }
    }

    /// The terms of this process's claims.
    pub fn terms(&self) -> Terms<'_> {
        let acquirer = &self.config.acquirer;
        let send_within = Duration::from_millis(acquirer.send_within_ms);
        Terms { owner: &self.owner, clock: &self.clock, send_within, lease: acquirer.lease() }
    }

    /// When `resolve` takes its first look at an operation that is unknown from now on.
    pub fn unknown_until(&self) -> OffsetDateTime {
        self.clock.now() + Duration::from_millis(self.config.acquirer.grace_ms)
    }

    /// What a call of this claim carries.
    pub fn call(&self, claim: &Claim) -> Call {
        Call {
            reference: claim.reference.clone(),
            amount: claim.amount,
            send_before: claim.send_before,
            traceparent: claim.traceparent.clone(),
        }
    }

    /// Publishes what a claimed operation came to, for as long as it takes. False once the process is to stop: then
    /// the claim's lease brings the operation to `resolve`.
    pub async fn report(&self, claim: &Claim, card: Option<MaskedCard>, result: Outcome) -> bool {
        let id = clock::new_id();
        let data = OperationCompleted {
            payment: claim.payment,
            operation: claim.operation,
            kind: claim.kind,
            reference: claim.reference.clone(),
            amount: claim.amount,
            card,
            result,
        };
        let topic = Topic::OperationCompleted;
        let body = Event::new(topic, id, "/tolom/worker", claim.payment, self.clock.now(), data).to_bytes();
        let message = Outgoing::event(topic, id, body, claim.traceparent.clone());
        let mut pause = PAUSE;
        while let Err(error) = self.publisher.publish(message.clone()).await {
            tracing::warn!(%error, payment.id = %claim.payment, "an outcome is not published yet");
            if !self.pause(&mut pause).await {
                return false;
            }
        }
        true
    }
}

/// Awaits a call to the acquirer; a panic in it is an unknown outcome, for bytes may have left.
pub async fn unknown_if_it_panics(call: impl Future<Output = Outcome>) -> Outcome {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| {
        metrics::counter!("tolom_worker_panics_total", "worker" => "acquirer").increment(1);
        tracing::error!("a call to the acquirer panicked");
        Outcome::Unknown { why: "the call panicked".to_owned() }
    })
}
