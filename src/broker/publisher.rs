//! Publishing: every message is confirmed within a deadline, or its fate is reported as unknown.
//!
//! Messages that wait together go out as one window on a channel that carries nothing else meanwhile, and the window
//! is settled only when all its confirms are in. That matters: lapin hands a returned message to whichever confirm
//! comes next, so returns are matched here, by `message_id`, over the whole window.
//!
//! A confirm waits for every queue that took the message, and a queue can be away while everything else is well (a
//! stream without a writer, a quorum queue without its quorum). So each queue has a [`Lane`] of its own: one that is
//! away holds up finance, say, and never a payment.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{
    ATTEMPT_HEADER, Broker, BrokerError, CLOSE_TIMEOUT, Lane, PUBLISHED_FRAME, REASON_HEADER, Rebuild, close, set_up,
    topology,
};
use crate::contracts::Topic;

/// Windows in flight at once on a lane, each on its own channel: while one is confirmed, the next one goes out.
const WINDOWS: usize = 2;
const WINDOW: usize = 500;
/// Messages waiting on a lane.
const WAITING: usize = 20_000;

/// Where a message is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// Work to do.
    Commands,
    /// Facts.
    Events,
    /// Dead letters; the routing key is the queue.
    Dead,
    /// A queue by its name.
    Direct,
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub exchange: Exchange,
    /// The routing key.
    pub routing_key: String,
    /// The event's id, or what the message came with.
    pub message_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// How often it has been tried before.
    pub attempt: u32,
    /// Why it is retried or dead.
    pub reason: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Whether a queue must take it.
    pub mandatory: bool,
}

impl Outgoing {
    /// An event on the exchange of its topic.
    pub fn event(topic: Topic, id: Uuid, body: Vec<u8>, traceparent: Option<String>) -> Self {
        Self {
            exchange: if topic.is_command() { Exchange::Commands } else { Exchange::Events },
            routing_key: topic.routing_key().to_owned(),
            message_id: id.to_string(),
            body,
            attempt: 0,
            reason: None,
            traceparent,
            mandatory: topic.must_be_routed(),
        }
    }
}

/// Why a message cannot be counted as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker refused it: a queue is full, or a quorum is missing.
    #[error("the broker refused the message")]
    Refused,
    /// No queue is bound for it.
    #[error("no queue takes the message")]
    Unroutable,
    /// Not known: no confirm came. It may have been stored; publish it again with the same id.
    #[error("the broker did not confirm the message")]
    Unconfirmed,
}

#[derive(Debug)]
struct Job {
    message: Outgoing,
    /// Beside those that every message has.
    headers: FieldTable,
    deadline: Instant,
    reply: oneshot::Sender<Result<(), PublishError>>,
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

type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

/// Keeps a connection until every publisher is dropped.
async fn supervise(broker: &Broker, waiting: &[Jobs], link: &watch::Sender<Link>) {
    let mut rebuild = Rebuild::new();
    loop {
        // Also what a panic has left behind.
        show(link, Link::Away);
        match session(broker, waiting, link, &mut rebuild).await {
            Ok(()) => return show(link, Link::Away),
            Err(error) => {
                show(link, Link::Away);
                tracing::warn!(error = &error as &dyn std::error::Error, "publisher lost the broker, rebuilding");
            }
        }
        rebuild.wait().await;
        if link.is_closed() {
            return;
        }
    }
}

fn show(link: &watch::Sender<Link>, now: Link) {
    metrics::gauge!("tolom_broker_blocked").set(if now == Link::Blocked { 1.0 } else { 0.0 });
    link.send_replace(now);
}

async fn session(
    broker: &Broker,
    waiting: &[Jobs],
    link: &watch::Sender<Link>,
    rebuild: &mut Rebuild,
) -> Result<(), BrokerError> {
    let connection = set_up(open(broker)).await?;
    show(link, Link::Up);
    rebuild.reset();
    let windows = Lane::all().zip(waiting).flat_map(|lane| [lane; WINDOWS]);
    let lanes = windows.map(|(lane, jobs)| work(broker, &connection, lane, jobs, link.subscribe()));
    tokio::select! {
        ended = try_join_all(lanes) => ended.map(drop)?,
        error = watch(&connection, link) => return Err(error),
    }
    close(&connection).await;
    Ok(())
}

/// A connection to a broker that has everything we publish to.
async fn open(broker: &Broker) -> Result<Connection, BrokerError> {
    let connection = broker.connect_with("publisher", PUBLISHED_FRAME).await?;
    topology::declare_what_can_be(&connection, broker, None).await?;
    Ok(connection)
}

/// Ends when the connection breaks; shows `connection.blocked` (a memory or disk alarm at the broker) meanwhile.
async fn watch(connection: &Connection, link: &watch::Sender<Link>) -> BrokerError {
    let mut events = Box::pin(connection.events_listener());
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishing");
                show(link, Link::Blocked);
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker takes messages again");
                show(link, Link::Up);
            }
            Event::Error(error) => return BrokerError::Amqp(error),
            _ => {}
        }
    }
    BrokerError::Ended
}

/// Publishes window after window of a lane; `Ok` once every publisher is dropped.
async fn work(
    broker: &Broker,
    connection: &Connection,
    lane: Lane,
    waiting: &Jobs,
    mut link: watch::Receiver<Link>,
) -> Result<(), BrokerError> {
    loop {
        let channel = set_up(async { Ok(connection.create_channel().await?) }).await?;
        set_up(async { Ok(channel.confirm_select(ConfirmSelectOptions::default()).await?) }).await?;
        // A channel with a window that broke is done for: late confirms must not meet a new window.
        match windows(broker, &channel, lane, waiting, &mut link).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a window was not confirmed");
                // While the broker blocks, nothing is written: neither this nor a new channel would get through. A
                // connection that is torn down for that would only come back to be blocked again.
                unblocked(&mut link).await;
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "unconfirmed".into())).await;
                // Should it fail, the next window meets the same error.
                if error.is_missing() {
                    let _ = set_up(topology::declare_what_can_be(connection, broker, lane.queue())).await;
                }
            }
        }
        if !connection.status().connected() {
            return Err(BrokerError::Ended);
        }
    }
}

/// Waits while the broker blocks.
async fn unblocked(link: &mut watch::Receiver<Link>) {
    // An error means that nobody shows it any more, and then this lane ends too.
    let _ = link.wait_for(|link| *link != Link::Blocked).await;
}

async fn windows(
    broker: &Broker,
    channel: &Channel,
    lane: Lane,
    waiting: &Jobs,
    link: &mut watch::Receiver<Link>,
) -> Result<(), BrokerError> {
    let mut window = Vec::with_capacity(WINDOW);
    loop {
        unblocked(link).await;
        if waiting.lock().await.recv_many(&mut window, WINDOW).await == 0 {
            return Ok(());
        }
        // Whoever gave up will publish again with the same id: sending now would only make a duplicate.
        window.retain(|job| !job.reply.is_closed());
        let Some(deadline) = window.iter().map(|job| job.deadline).max() else { continue };
        let published = tokio::time::timeout_at(deadline, async {
            if let Some(queue) = lane.queue() {
                topology::make_sure_of_facts(channel, broker, queue).await?;
            }
            publish_window(broker, channel, &window).await
        });
        let error = match published.await {
            Ok(Ok(results)) => {
                for (job, result) in window.drain(..).zip(results) {
                    let _ = job.reply.send(result);
                }
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => BrokerError::TimedOut(Duration::from_millis(broker.settings().publish_timeout_ms)),
        };
        // Some of the window may be stored.
        for job in window.drain(..) {
            let _ = job.reply.send(Err(PublishError::Unconfirmed));
        }
        return Err(error);
    }
}

async fn publish_window(
    broker: &Broker,
    channel: &Channel,
    window: &[Job],
) -> Result<Vec<Result<(), PublishError>>, BrokerError> {
    let names = broker.names();
    let mut confirms = Vec::with_capacity(window.len());
    for Job { message, headers, .. } in window {
        let exchange = match message.exchange {
            Exchange::Commands => names.commands(),
            Exchange::Events => names.events(),
            Exchange::Dead => names.dead_exchange(),
            Exchange::Direct => String::new(),
        };
        let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
        let key = message.routing_key.as_str().into();
        let confirm =
            channel.basic_publish(exchange.into(), key, options, &message.body, properties(message, headers)).await?;
        confirms.push(confirm);
    }
    let mut acked = Vec::with_capacity(window.len());
    let mut returned = HashSet::new();
    for confirm in confirms {
        let confirmation = confirm.await?;
        acked.push(matches!(confirmation, Confirmation::Ack(_)));
        if let Some(message) = confirmation.take_message()
            && let Some(id) = message.delivery.properties.message_id()
        {
            returned.insert(id.as_str().to_owned());
        }
    }
    let result = |(job, acked): (&Job, bool)| match acked {
        _ if returned.contains(&job.message.message_id) => Err(PublishError::Unroutable),
        true => Ok(()),
        false => Err(PublishError::Refused),
    };
    Ok(window.iter().zip(acked).map(result).collect())
}

fn properties(message: &Outgoing, headers: &FieldTable) -> BasicProperties {
    let mut headers = headers.clone();
    if message.attempt > 0 {
        headers.insert(ATTEMPT_HEADER.into(), AMQPValue::LongUInt(message.attempt));
    }
    if let Some(reason) = &message.reason {
        headers.insert(REASON_HEADER.into(), AMQPValue::LongString(reason.as_str().into()));
    }
    if let Some(traceparent) = &message.traceparent {
        headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.as_str().into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/cloudevents+json".into())
        .with_message_id(message.message_id.as_str().into())
        .with_headers(headers)
}
