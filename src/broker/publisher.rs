//! Publishing: every message is confirmed within a deadline, or its fate is reported as unknown.
//!
//! Messages that wait together go out as one window on a channel that carries nothing else meanwhile, and the window
//! is settled only when all its confirms are in. That matters: lapin hands a returned message to whichever confirm
//! comes next, so returns are matched here, by `message_id`, over the whole window.
//!
//! A confirm waits for every queue that took the message. Settlement entries go to a stream too, and a stream can be
//! without a writer while everything else is well (RabbitMQ 3.10 after a crash), so they have a lane of their own: a
//! stream that is away holds up finance, never a payment.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{ATTEMPT_HEADER, Broker, BrokerError, CLOSE_TIMEOUT, REASON_HEADER, Rebuild, close, set_up, topology};
use crate::contracts::Topic;

/// Windows in flight at once, each on its own channel, beside the one of settlement entries.
const LANES: usize = 4;
const WINDOW: usize = 500;
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
    deadline: Instant,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// Publishes messages, from any task. Clones share the connection; it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    settlement: mpsc::Sender<Job>,
    connected: Arc<AtomicBool>,
    timeout: Duration,
}

impl Publisher {
    /// Starts the task that keeps the connection.
    pub fn start(broker: Broker) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (settlement, entries) = mpsc::channel(WAITING);
        let connected = Arc::new(AtomicBool::new(false));
        let timeout = Duration::from_millis(broker.settings().publish_timeout_ms);
        let waiting = Waiting { jobs: Arc::new(Mutex::new(waiting)), settlement: Arc::new(Mutex::new(entries)) };
        tokio::spawn(supervise(broker, waiting, Arc::clone(&connected)));
        Self { jobs, settlement, connected, timeout }
    }

    /// A publisher without a broker: whoever holds the other end plays its part, and decides what becomes of each
    /// message. Connected until the other end says otherwise.
    pub fn detached(timeout: Duration) -> (Self, Detached) {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let connected = Arc::new(AtomicBool::new(true));
        let detached = Detached { jobs: waiting, connected: Arc::clone(&connected) };
        (Self { settlement: jobs.clone(), jobs, connected, timeout }, detached)
    }

    /// Whether the broker is there and takes messages. A hint: it may be gone the next moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Publishes one message; it is stored at the broker when this is `Ok`.
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let deadline = Instant::now() + self.timeout;
        let (reply, answer) = oneshot::channel();
        let entry = message.routing_key == Topic::SettlementEntry.routing_key();
        let lane = if entry { &self.settlement } else { &self.jobs };
        let job = Job { message, deadline, reply };
        let publish = async {
            lane.send(job).await.map_err(|_| PublishError::Unconfirmed)?;
            answer.await.unwrap_or(Err(PublishError::Unconfirmed))
        };
        let result = tokio::time::timeout_at(deadline, publish).await.unwrap_or(Err(PublishError::Unconfirmed));
        let word = match result {
            Ok(()) => "confirmed",
            Err(PublishError::Refused) => "refused",
            Err(PublishError::Unroutable) => "unroutable",
            Err(PublishError::Unconfirmed) => "unconfirmed",
        };
        metrics::counter!("tolom_published_messages_total", "result" => word).increment(1);
        result
    }

    /// Publishes messages together; the results are in their order.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        futures::future::join_all(messages.into_iter().map(|message| self.publish(message))).await
    }
}

/// The other end of a [`Publisher::detached`].
#[derive(Debug)]
pub struct Detached {
    jobs: mpsc::Receiver<Job>,
    connected: Arc<AtomicBool>,
}

/// A message that waits for its confirm.
#[derive(Debug)]
pub struct Unanswered {
    /// The message.
    pub message: Outgoing,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Detached {
    /// The next message that somebody wants to publish, if one waits. Settlement entries have no lane of their own here.
    pub fn take(&mut self) -> Option<Unanswered> {
        self.jobs.try_recv().ok().map(|Job { message, reply, .. }| Unanswered { message, reply })
    }

    /// What [`Publisher::is_connected`] says from now on.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
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

/// What waits to be published.
struct Waiting {
    jobs: Jobs,
    settlement: Jobs,
}

/// Keeps a connection until every publisher is dropped.
async fn supervise(broker: Broker, waiting: Waiting, connected: Arc<AtomicBool>) {
    let mut rebuild = Rebuild::new();
    loop {
        match session(&broker, &waiting, &connected, &mut rebuild).await {
            Ok(()) => return,
            Err(error) => {
                connected.store(false, Ordering::Relaxed);
                tracing::warn!(error = &error as &dyn std::error::Error, "publisher lost the broker, rebuilding");
            }
        }
        rebuild.wait().await;
        if waiting.jobs.lock().await.is_closed() {
            return;
        }
    }
}

async fn session(
    broker: &Broker,
    waiting: &Waiting,
    connected: &Arc<AtomicBool>,
    rebuild: &mut Rebuild,
) -> Result<(), BrokerError> {
    let connection = set_up(open(broker)).await?;
    connected.store(true, Ordering::Relaxed);
    rebuild.reset();
    let entries = lane(broker, &connection, &waiting.settlement);
    let lanes = (0..LANES).map(|_| lane(broker, &connection, &waiting.jobs));
    let all = async { tokio::try_join!(try_join_all(lanes), entries) };
    tokio::select! {
        ended = all => ended.map(drop)?,
        error = watch(&connection, connected) => return Err(error),
    }
    connected.store(false, Ordering::Relaxed);
    close(&connection).await;
    Ok(())
}

/// A connection to a broker that has everything we publish to.
async fn open(broker: &Broker) -> Result<Connection, BrokerError> {
    let connection = broker.connect("publisher").await?;
    topology::declare_what_can_be(&connection, broker).await?;
    Ok(connection)
}

/// Ends when the connection breaks; shows `connection.blocked` (a memory or disk alarm at the broker) meanwhile.
async fn watch(connection: &Connection, connected: &AtomicBool) -> BrokerError {
    let blocked = metrics::gauge!("tolom_broker_blocked");
    blocked.set(0.0);
    let mut events = Box::pin(connection.events_listener());
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishing");
                blocked.set(1.0);
                connected.store(false, Ordering::Relaxed);
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker takes messages again");
                blocked.set(0.0);
                connected.store(true, Ordering::Relaxed);
            }
            Event::Error(error) => return BrokerError::Amqp(error),
            _ => {}
        }
    }
    BrokerError::Ended
}

/// Publishes window after window; `Ok` once every publisher is dropped.
async fn lane(broker: &Broker, connection: &Connection, waiting: &Jobs) -> Result<(), BrokerError> {
    loop {
        let channel = set_up(async { Ok(connection.create_channel().await?) }).await?;
        set_up(async { Ok(channel.confirm_select(ConfirmSelectOptions::default()).await?) }).await?;
        // A channel with a window that broke is done for: late confirms must not meet a new window.
        match windows(broker, &channel, waiting).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a window was not confirmed");
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "unconfirmed".into())).await;
            }
        }
        if !connection.status().connected() {
            return Err(BrokerError::Ended);
        }
    }
}

async fn windows(broker: &Broker, channel: &Channel, waiting: &Jobs) -> Result<(), BrokerError> {
    let mut window = Vec::with_capacity(WINDOW);
    loop {
        if waiting.lock().await.recv_many(&mut window, WINDOW).await == 0 {
            return Ok(());
        }
        // Whoever gave up will publish again with the same id: sending now would only make a duplicate.
        window.retain(|job| !job.reply.is_closed());
        let Some(deadline) = window.iter().map(|job| job.deadline).max() else { continue };
        let published = tokio::time::timeout_at(deadline, publish_window(broker, channel, &window)).await;
        let error = match published {
            Ok(Ok(results)) => {
                for (job, result) in window.drain(..).zip(results) {
                    let _ = job.reply.send(result);
                }
                continue;
            }
            Ok(Err(error)) => BrokerError::Amqp(error),
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
) -> Result<Vec<Result<(), PublishError>>, lapin::Error> {
    let names = broker.names();
    let mut confirms = Vec::with_capacity(window.len());
    for Job { message, .. } in window {
        let exchange = match message.exchange {
            Exchange::Commands => names.commands(),
            Exchange::Events => names.events(),
            Exchange::Dead => names.dead_exchange(),
            Exchange::Direct => String::new(),
        };
        let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
        let key = message.routing_key.as_str().into();
        let confirm = channel.basic_publish(exchange.into(), key, options, &message.body, properties(message)).await?;
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

fn properties(message: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
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
