//! Publishing: every message is confirmed within a deadline, or its fate is reported as unknown.
//!
//! A confirm waits for every queue that took the message, and a queue can be away while everything else is well (a
//! stream without a writer, a quorum queue without its quorum). So each queue has a [`Lane`] of its own: one that is
//! away holds up finance, say, and never a payment.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use lapin::types::FieldTable;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::Instant,
};

use super::{Broker, Lane, Outgoing, PublishError, windows::supervise};

/// Messages waiting on a lane.
const WAITING: usize = 20_000;

/// A message that waits to be published.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) message: Outgoing,
    /// Beside those that every message has.
    pub(super) headers: FieldTable,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<(), PublishError>>,
}

/// How it stands with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There is no connection.
    Away,
    /// It is there and takes messages.
    Up,
    /// It is there and takes none: a memory or disk alarm (`connection.blocked`).
    Blocked,
}

/// Publishes messages, from any task. Clones share the connection; it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Publisher {
    lanes: Arc<[mpsc::Sender<Job>]>,
    link: watch::Receiver<Link>,
    timeout: Duration,
}

impl Publisher {
    /// Starts the task that keeps the connection.
    pub fn start(broker: Broker) -> Self {
        let (lanes, waiting): (Vec<_>, Vec<_>) = (0..Lane::COUNT)
            .map(|_| mpsc::channel(WAITING))
            .map(|(jobs, waiting)| (jobs, Arc::new(Mutex::new(waiting))))
            .unzip();
        let (shown, link) = watch::channel(Link::Away);
        let timeout = Duration::from_millis(broker.settings().publish_timeout_ms);
        tokio::spawn(async move {
            let supervisor = broker.supervisor().clone();
            supervisor.keep("publisher", || supervise(&broker, &waiting, &shown)).await;
        });
        Self { lanes: lanes.into(), link, timeout }
    }

    /// A publisher without a broker: whoever holds the other end plays its part, and decides what becomes of each
    /// message. Connected until the other end says otherwise.
    pub fn detached(timeout: Duration) -> (Self, Detached) {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (shown, link) = watch::channel(Link::Up);
        let lanes: Vec<_> = Lane::all().map(|_| jobs.clone()).collect();
        (Self { lanes: lanes.into(), link, timeout }, Detached { jobs: waiting, shown })
    }

    /// Whether the broker is there and takes messages. A hint: it may be gone the next moment.
    pub fn is_connected(&self) -> bool {
        self.link() == Link::Up
    }

    /// How it stands with the broker.
    pub fn link(&self) -> Link {
        *self.link.borrow()
    }

    /// Publishes one message; it is stored at the broker when this is `Ok`.
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        self.publish_with(message, FieldTable::default()).await
    }

    /// The same with further headers.
    pub(super) async fn publish_with(&self, message: Outgoing, headers: FieldTable) -> Result<(), PublishError> {
        let results = self.publish_within([(message, headers)]).await;
        results.into_iter().next().unwrap_or(Err(PublishError::Unconfirmed))
    }

    /// Publishes messages together; the results are in their order.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        self.publish_within(messages.into_iter().map(|message| (message, FieldTable::default()))).await
    }

    /// Publishes messages within one deadline. What waits behind a lane that is full is not published.
    async fn publish_within(
        &self,
        messages: impl IntoIterator<Item = (Outgoing, FieldTable), IntoIter: ExactSizeIterator>,
    ) -> Vec<Result<(), PublishError>> {
        let deadline = Instant::now() + self.timeout;
        let messages = messages.into_iter();
        let mut results = vec![Err(PublishError::Unconfirmed); messages.len()];
        let (mut answers, mut answered) = (VecDeque::with_capacity(messages.len()), 0);
        let published = async {
            for (message, headers) in messages {
                let (reply, answer) = oneshot::channel();
                answers.push_back(answer);
                let lane = Lane::of_message(&message).index();
                // A lane that is gone drops the reply.
                let _ = self.lanes[lane].send(Job { message, headers, deadline, reply }).await;
            }
            while let Some(answer) = answers.front_mut() {
                results[answered] = answer.await.unwrap_or(Err(PublishError::Unconfirmed));
                answered += 1;
                answers.pop_front();
            }
        };
        // Those behind one that is not answered in time may have been.
        if tokio::time::timeout_at(deadline, published).await.is_err() {
            for (mut answer, result) in answers.into_iter().zip(&mut results[answered..]) {
                *result = answer.try_recv().unwrap_or(Err(PublishError::Unconfirmed));
            }
        }
        count(&results);
        results
    }
}

fn count(results: &[Result<(), PublishError>]) {
    const WORDS: [(Result<(), PublishError>, &str); 4] = [
        (Ok(()), "confirmed"),
        (Err(PublishError::Refused), "refused"),
        (Err(PublishError::Unroutable), "unroutable"),
        (Err(PublishError::Unconfirmed), "unconfirmed"),
    ];
    for (result, word) in WORDS {
        let count = results.iter().filter(|other| **other == result).count();
        if count > 0 {
            metrics::counter!("tolom_published_messages_total", "result" => word).increment(count as u64);
        }
    }
}

/// The other end of a [`Publisher::detached`].
#[derive(Debug)]
pub struct Detached {
    jobs: mpsc::Receiver<Job>,
    shown: watch::Sender<Link>,
}

/// A message that waits for its confirm.
#[derive(Debug)]
pub struct Unanswered {
    /// The message.
    pub message: Outgoing,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Detached {
    /// The next message that somebody wants to publish, if one waits. There is one lane here for all of them.
    pub fn take(&mut self) -> Option<Unanswered> {
        self.jobs.try_recv().ok().map(|Job { message, reply, .. }| Unanswered { message, reply })
    }

    /// What [`Publisher::is_connected`] says from now on.
    pub fn set_connected(&self, connected: bool) {
        self.shown.send_replace(if connected { Link::Up } else { Link::Away });
    }
}

impl Unanswered {
    /// Tells the publisher what became of its message.
    pub fn answer(self, result: Result<(), PublishError>) {
        // Whoever has gone away meanwhile has no use for it.
        let _ = self.reply.send(result);
    }
}
