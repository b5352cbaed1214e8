//! Record: outcomes of operations become the books, one statement a batch.

use std::time::Duration;

use crate::{
    broker::{Handler, Message, Queue, Reading, Turn, Verdict},
    chain::chain,
    config::Config,
    contracts::{Event, OperationCompleted, Topic},
    payment::Status,
    store::record::{Batch, Recorded, record},
    worker::{Context, Worker, run as run_worker},
};

/// How far apart batches of several messages begin; see `Reading::linger`.
const LINGER: Duration = Duration::from_millis(20);

/// The worker.
pub struct Record {
    context: Context,
}

/// Builds the worker and runs it until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    run_worker(context.clone(), Record::new(context)).await;
    Ok(())
}

impl Record {
    /// The worker of this context.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Worker for Record {
    const NAME: &'static str = "record";

    fn reading(config: &Config) -> Reading {
        let settings = &config.record;
        Reading { queue: Queue::Record, batch: settings.batch, prefetch: settings.prefetch, linger: LINGER }
    }
}

impl Handler for Record {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        let mut reports = Vec::with_capacity(batch.len());
        for message in batch {
            match Event::<OperationCompleted>::read(Topic::OperationCompleted, &message.body) {
                Ok(event) => reports.push((message, event.data)),
                Err(error) => message.settle(Verdict::Dead(error.to_string())),
            }
        }
        let mut parts = vec![reports];
        while let Some(part) = parts.pop() {
            parts.extend(self.record(part).await);
        }
    }
}

impl Record {
    /// Records a part of a batch; returns what is still to be recorded, in further parts.
    async fn record(&self, part: Vec<(Message, OperationCompleted)>) -> Vec<Vec<(Message, OperationCompleted)>> {
        if part.is_empty() {
            return Vec::new();
        }
        let (messages, reports): (Vec<_>, Vec<_>) = part.into_iter().unzip();
        let context = &self.context;
        let recorded = context
            .until_available(|| record(&context.sessions, &reports, context.clock.now(), context.unknown_until()))
            .await;
        let part = messages.into_iter().zip(reports);
        match recorded {
            Some(Ok(batch)) => vec![self.settle(batch, part)],
            Some(Err(error)) => split(&error, part.collect()),
            None => {
                part.for_each(|(message, _)| message.leave());
                Vec::new()
            }
        }
    }

    /// Acknowledges what is committed and announces its facts; what must come after it is returned.
    fn settle(
        &self,
        batch: Batch,
        part: impl Iterator<Item = (Message, OperationCompleted)>,
    ) -> Vec<(Message, OperationCompleted)> {
        self.context.relay.announce(batch.announce);
        for (status, age_s) in batch.entered {
            count(status, age_s);
        }
        let mut later = Vec::new();
        for ((message, report), result) in part.zip(batch.results) {
            match result {
                Recorded::Done => message.settle(Verdict::Done),
                Recorded::Later => later.push((message, report)),
                Recorded::Rejected(reason) => message.settle(Verdict::Dead(reason)),
            }
        }
        later
    }
}

/// The database refuses a batch: halves of it, until the poisonous one is alone.
fn split(
    error: &crate::store::StoreError,
    mut part: Vec<(Message, OperationCompleted)>,
) -> Vec<Vec<(Message, OperationCompleted)>> {
    if part.len() > 1 {
        let rest = part.split_off(part.len() / 2);
        return vec![rest, part];
    }
    for (message, _) in part {
        message.settle(Verdict::Dead(chain(error)));
    }
    Vec::new()
}

fn count(status: Status, age_s: Option<f64>) {
    metrics::counter!("tolom_payments_total", "outcome" => status.as_str()).increment(1);
    let stage = match status {
        Status::Authorized => "accept_to_authorized",
        Status::Captured => "accept_to_captured",
        _ => return,
    };
    if let Some(age_s) = age_s {
        metrics::histogram!("tolom_stage_duration_seconds", "stage" => stage).record(age_s);
    }
}
