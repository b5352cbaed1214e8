//! Accepts that arrive together share one statement; one that comes alone waits for nobody.
//!
//! A task takes from a bounded queue whatever is in it right now. While its batch is written the queue grows, and so does
//! the next batch: the batch size follows the load by itself. A batch that takes long (somebody holds one of its bills)
//! holds up only itself: another task goes on meanwhile. A request in the queue proceeds although its client may have
//! gone.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    limits::{count_limited, shed},
    problem::Problem,
};
use crate::{
    clock::Clock,
    config::Config,
    relay::Relay,
    store::{
        accept::{Acceptance, NewPayment, Refusal, accept},
        sessions::Sessions,
    },
    supervision::Supervisor,
};

/// Members of one statement at most.
const MAX_BATCH: usize = 200;
/// Batches at the same time.
const TASKS: usize = 4;
/// So long the next batch waits for the one before it.
const PATIENCE: Duration = Duration::from_millis(100);
/// A client is answered within this, whatever happens.
const DEADLINE: Duration = Duration::from_secs(10);

struct Waiting {
    request: NewPayment,
    deadline: Instant,
    answer: oneshot::Sender<Acceptance>,
}

/// The queue's end at which requests enter.
pub(super) struct Batcher {
    queue: mpsc::Sender<Waiting>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Batcher {
    /// Starts the tasks. At most `capacity` requests wait.
    pub(super) fn start(
        sessions: Sessions,
        config: Arc<Config>,
        clock: Clock,
        relay: Relay,
        capacity: usize,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, taken) = mpsc::channel(capacity);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..TASKS {
            let worker = Worker {
                sessions: sessions.clone(),
                config: Arc::clone(&config),
                clock: clock.clone(),
                relay: relay.clone(),
                supervisor: supervisor.clone(),
            };
            let (taken, stop) = (Arc::clone(&taken), stop.clone());
            tasks.spawn(async move { worker.supervisor.keep("intake batches", || worker.run(&taken, &stop)).await });
        }
        tasks.close();
        Self { queue, stop, tasks }
    }

    /// Hands a request in and waits for what comes of it. An error means that nobody may have looked at it, or that it
    /// is not known: a repetition with the same key tells.
    pub(super) async fn submit(&self, request: NewPayment) -> Result<Acceptance, Problem> {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + DEADLINE;
        self.queue.try_send(Waiting { request, deadline, answer }).map_err(|_| shed("batches"))?;
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(acceptance)) => Ok(acceptance),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable()),
        }
    }

    /// Accepts what is queued, then ends the tasks.
    pub(super) async fn drain(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

struct Worker {
    sessions: Sessions,
    config: Arc<Config>,
    clock: Clock,
    relay: Relay,
    supervisor: Supervisor,
}

impl Worker {
    async fn run(&self, queue: &Mutex<mpsc::Receiver<Waiting>>, stop: &CancellationToken) {
        loop {
            let mut batch = Vec::new();
            let mut turn = queue.lock().await;
            tokio::select! {
                biased;
                _ = turn.recv_many(&mut batch, MAX_BATCH) => {}
                () = stop.cancelled() => {}
            }
            if batch.is_empty() {
                return;
            }
            let mut accepting = pin!(self.accept(batch));
            if tokio::time::timeout(PATIENCE, &mut accepting).await.is_err() {
                drop(turn);
                accepting.await;
            }
        }
    }

    async fn accept(&self, mut batch: Vec<Waiting>) {
        // Their clients have been answered already; they will come again with the same key.
        let now = Instant::now();
        batch.retain(|waiting| waiting.deadline > now);
        if batch.is_empty() {
            return;
        }
        metrics::histogram!("tolom_intake_batch_size").record(batch.len() as f64);
        let (requests, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
        // A panic must cost one batch, not the task that takes from the queue.
        let accepting = accept(&self.sessions, self.clock.now(), &self.config, &requests);
        let results = match self.supervisor.attempt("intake batches", accepting).await {
            Some(Ok(accepted)) => {
                self.relay.announce(accepted.outbox);
                accepted.results
            }
            Some(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    batch = answers.len(),
                    "no payment can be accepted"
                );
                vec![Acceptance::Refused(Refusal::Unavailable); answers.len()]
            }
            None => vec![Acceptance::Refused(Refusal::Internal); answers.len()],
        };
        for (answer, result) in answers.into_iter().zip(results) {
            metrics::counter!("tolom_payments_submitted_total", "result" => word(&result)).increment(1);
            if let Acceptance::Refused(Refusal::TooManyAttempts { by, .. }) = result {
                count_limited(by, "payment", 1);
            }
            // The client may have gone.
            let _ = answer.send(result);
        }
    }
}

const fn word(result: &Acceptance) -> &'static str {
    match result {
        Acceptance::New => "accepted",
        Acceptance::Replayed { .. } => "replayed",
        Acceptance::Refused(refusal) => refusal.problem(),
    }
}
