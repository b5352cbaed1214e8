//! Consuming: batches in, verdicts out, and a supervisor that rebuilds everything after an error *or* an end.
//!
//! A message is acknowledged only when its handler says so, after the effect is committed. A handler that ends
//! without a word (a panic) sends its messages to a retry tier; a message that has failed before travels alone, so a
//! poisonous one cannot take its neighbours with it.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ATTEMPT_HEADER, Broker, BrokerError, Exchange, Outgoing, Publisher, Queue, Rebuild, acks::Acks, close, set_up,
};

/// Longer than any batch that is well, calls to the acquirer included.
const LONGEST_BATCH: Duration = Duration::from_secs(120);
const CONSUMER_TAG: &str = "tolom";
/// A version 00 `traceparent` (W3C Trace Context, 3.2).
const TRACEPARENT_BYTES: usize = 55;
/// A longer reason says no more, and headers should stay small.
const REASON_CHARS: usize = 500;

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effect is committed: acknowledge it.
    Done,
    /// Provably no effect, and later it may work: to the next retry tier, and after the last one to the dead letters.
    Retry(String),
    /// It will never work: to the dead letters, with the reason.
    Dead(String),
}

/// A message as it came.
#[derive(Debug, Clone, Default)]
pub struct Parcel {
    /// The `message_id`, or empty.
    pub id: String,
    /// The body.
    pub body: Vec<u8>,
    /// How often it has been tried before.
    pub attempt: u32,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A message in the hands of a handler.
#[derive(Debug)]
pub struct Message {
    parcel: Parcel,
    tag: u64,
    settled: Option<mpsc::Sender<Settled>>,
}

/// A verdict on its way to the session; what must be sent elsewhere comes back with it.
#[derive(Debug)]
enum Settled {
    Done(u64),
    Return(u64, Parcel, Verdict),
}

impl std::ops::Deref for Message {
    type Target = Parcel;

    fn deref(&self) -> &Parcel {
        &self.parcel
    }
}

/// What a handler has made of a message that no session watches over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    InHand,
    /// Left unacknowledged.
    Left,
    /// Settled.
    Settled(Verdict),
}

/// Tells the fate of a [`Message::detached`].
#[derive(Debug)]
pub struct Watch(mpsc::Receiver<Settled>);

impl Watch {
    /// What has become of the message; a verdict is told once.
    pub fn fate(&mut self) -> Fate {
        match self.0.try_recv() {
            Ok(Settled::Done(_)) => Fate::Settled(Verdict::Done),
            Ok(Settled::Return(_, _, verdict)) => Fate::Settled(verdict),
            Err(mpsc::error::TryRecvError::Empty) => Fate::InHand,
            Err(mpsc::error::TryRecvError::Disconnected) => Fate::Left,
        }
    }
}

impl Message {
    /// A message that came from no broker: whoever holds the other end plays its part, and sees the verdict.
    pub fn detached(parcel: Parcel) -> (Self, Watch) {
        let (settled, verdicts) = mpsc::channel(1);
        (Self { parcel, tag: 0, settled: Some(settled) }, Watch(verdicts))
    }

    /// Settles the message. The acknowledgement follows on its own.
    pub fn settle(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    /// Leaves the message unacknowledged: the broker delivers it again once this session ends.
    pub fn leave(mut self) {
        self.settled.take();
    }

    fn send(&mut self, verdict: Verdict) {
        let Some(settled) = self.settled.take() else { return };
        let parcel = std::mem::take(&mut self.parcel);
        // There is a place for every verdict of every message in hand. A session that is gone redelivers what it had
        // not acknowledged.
        let _ = settled.try_send(match verdict {
            Verdict::Done => Settled::Done(self.tag),
            other => Settled::Return(self.tag, parcel, other),
        });
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.send(Verdict::Retry("its handler ended without a word".to_owned()));
    }
}

/// What handles the messages of a queue.
pub trait Handler: Send + Sync + 'static {
    /// Handles a batch. Every message is to be settled; the order does not matter.
    fn handle(&self, batch: Vec<Message>) -> impl Future<Output = ()> + Send;
}

/// How a queue is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The queue.
    pub queue: Queue,
    /// Messages a batch at most.
    pub batch: usize,
    /// Messages unacknowledged at most.
    pub prefetch: u16,
    /// Batches handled at once.
    pub concurrency: usize,
}

/// Consumes a queue until `stop`, then drains: what the handlers hold is finished and acknowledged.
pub async fn consume<H: Handler>(
    broker: Broker,
    publisher: Publisher,
    reading: Reading,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let queue = reading.queue.name();
    let mut rebuild = Rebuild::new();
    let alive = metrics::gauge!("tolom_consumers_alive", "queue" => queue);
    alive.set(0.0);
    metrics::counter!("tolom_worker_panics_total", "worker" => queue).increment(0);
    while !stop.is_cancelled() {
        let result = match set_up(Session::open(&broker, &publisher, reading)).await {
            Ok(mut session) => {
                alive.increment(1.0);
                rebuild.reset();
                let result = session.run(&handler, &stop).await;
                alive.decrement(1.0);
                session.end(result).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(queue, error = &error as &dyn std::error::Error, "consumer ended, rebuilding");
            tokio::select! {
                () = rebuild.wait() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// One life of a consumer: a connection, a channel, and everything that is lost with them.
struct Session {
    reading: Reading,
    connection: lapin::Connection,
    channel: Channel,
    deliveries: lapin::Consumer,
    /// Received, not handed out yet.
    waiting: VecDeque<Message>,
    /// One permit a batch.
    places: Arc<Semaphore>,
    batches: TaskTracker,
    settled: mpsc::Sender<Settled>,
    verdicts: mpsc::Receiver<Settled>,
    acks: Acks,
    returns: Returns,
}

impl Session {
    async fn open(broker: &Broker, publisher: &Publisher, reading: Reading) -> Result<Self, BrokerError> {
        let connection = broker.connect(&format!("consumer {}", reading.queue.name())).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(reading.prefetch, BasicQosOptions::default()).await?;
        let queue = broker.names().queue(reading.queue);
        let deliveries = channel
            .basic_consume(queue.into(), CONSUMER_TAG.into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        // A message is settled at most twice: once by its handler, and once when it has been sent elsewhere.
        let (settled, verdicts) = mpsc::channel(2 * usize::from(reading.prefetch));
        Ok(Self {
            reading,
            connection,
            channel,
            deliveries,
            waiting: VecDeque::new(),
            places: Arc::new(Semaphore::new(reading.concurrency)),
            batches: TaskTracker::new(),
            settled,
            verdicts,
            acks: Acks::default(),
            returns: Returns { broker: broker.clone(), publisher: publisher.clone(), queue: reading.queue },
        })
    }

    /// Works until `stop` (`Ok`) or until the broker ends it.
    async fn run<H: Handler>(&mut self, handler: &Arc<H>, stop: &CancellationToken) -> Result<(), BrokerError> {
        let in_flight = metrics::gauge!("tolom_worker_in_flight", "queue" => self.reading.queue.name());
        loop {
            in_flight.set(self.acks.outstanding() as f64);
            let place = Arc::clone(&self.places).acquire_owned();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(verdict) = self.verdicts.recv() => self.settle(verdict).await?,
                delivery = self.deliveries.next() => {
                    self.receive(delivery.ok_or(BrokerError::Ended)??)?;
                }
                Ok(place) = place, if !self.waiting.is_empty() => self.dispatch(handler, place),
            }
        }
    }

    /// Takes a delivery and all that has come with it: a batch is what is there, never what is waited for.
    fn receive(&mut self, first: Delivery) -> Result<(), BrokerError> {
        let mut next = Some(first);
        while let Some(delivery) = next {
            self.acks.delivered(delivery.delivery_tag);
            let settled = Some(self.settled.clone());
            let tag = delivery.delivery_tag;
            self.waiting.push_back(Message { parcel: parcel(delivery), tag, settled });
            next = self.deliveries.next().now_or_never().flatten().transpose()?;
        }
        Ok(())
    }

    /// Hands out one batch.
    fn dispatch<H: Handler>(&mut self, handler: &Arc<H>, place: OwnedSemaphorePermit) {
        // A message that has failed before travels alone.
        let fresh = self.waiting.iter().take(self.reading.batch).take_while(|message| message.attempt == 0).count();
        let batch: Vec<_> = self.waiting.drain(..fresh.max(1)).collect();
        let handler = Arc::clone(handler);
        let queue = self.reading.queue.name();
        self.batches.spawn(async move {
            let started = tokio::time::Instant::now();
            if std::panic::AssertUnwindSafe(handler.handle(batch)).catch_unwind().await.is_err() {
                metrics::counter!("tolom_worker_panics_total", "worker" => queue).increment(1);
                tracing::error!(queue, "a handler panicked; its messages are retried one by one");
            }
            let seconds = started.elapsed().as_secs_f64();
            metrics::histogram!("tolom_worker_duration_seconds", "queue" => queue).record(seconds);
            drop(place);
        });
    }

    /// Acts on a verdict and on all that came with it, then acknowledges as much as possible in one frame.
    async fn settle(&mut self, first: Settled) -> Result<(), BrokerError> {
        let mut next = Some(first);
        while let Some(settled) = next {
            let word = match settled {
                Settled::Done(tag) => {
                    self.acks.done(tag);
                    "done"
                }
                Settled::Return(tag, parcel, verdict) => self.returns.send(tag, parcel, verdict, self.settled.clone()),
            };
            let queue = self.reading.queue.name();
            metrics::counter!("tolom_worker_messages_total", "queue" => queue, "result" => word).increment(1);
            next = self.verdicts.try_recv().ok();
        }
        for (tag, multiple) in self.acks.flush() {
            self.channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    /// Ends the session. After a `stop`, what the handlers hold is finished and acknowledged first, and the rest is
    /// put back; after a failure there is no channel left to do that on, and the broker redelivers.
    async fn end(mut self, result: Result<(), BrokerError>) -> Result<(), BrokerError> {
        self.waiting.drain(..).for_each(Message::leave);
        self.batches.close();
        if result.is_err() {
            // What hangs holds nothing of this session any more; its messages are delivered again.
            let _ = tokio::time::timeout(LONGEST_BATCH, self.batches.wait()).await;
            close(&self.connection).await;
            return result;
        }
        self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default()).await?;
        let batches = self.batches.clone();
        loop {
            tokio::select! {
                biased;
                Some(verdict) = self.verdicts.recv() => self.settle(verdict).await?,
                () = batches.wait() => break,
            }
        }
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.settle(verdict).await?;
        }
        // Closing puts back whatever is not acknowledged.
        close(&self.connection).await;
        Ok(())
    }
}

fn parcel(delivery: Delivery) -> Parcel {
    let properties = &delivery.properties;
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let attempt = match header(ATTEMPT_HEADER) {
        Some(AMQPValue::LongUInt(attempt)) => *attempt,
        Some(AMQPValue::LongInt(attempt)) => u32::try_from(*attempt).unwrap_or(0),
        _ => 0,
    };
    let traceparent = match header("traceparent") {
        // It is put back on what is published on: nothing that a foreign sender could make too large for a frame.
        Some(AMQPValue::LongString(text))
            if text.as_bytes().len() == TRACEPARENT_BYTES && text.as_bytes().is_ascii() =>
        {
            Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
        }
        _ => None,
    };
    let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    Parcel { id, body: delivery.data, attempt, traceparent }
}

/// Sends messages to retry tiers and dead letters.
#[derive(Clone)]
struct Returns {
    broker: Broker,
    publisher: Publisher,
    queue: Queue,
}

impl Returns {
    /// Publishes the message elsewhere, for as long as it takes, and acknowledges it here only then.
    fn send(&self, tag: u64, parcel: Parcel, verdict: Verdict, settled: mpsc::Sender<Settled>) -> &'static str {
        let (message, word) = onward(&self.broker, self.queue, parcel, verdict);
        tracing::warn!(
            queue = self.queue.name(),
            message_id = message.message_id,
            attempt = message.attempt,
            reason = message.reason,
            "{word}"
        );
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            let mut pause = Rebuild::new();
            // Once the session is gone the broker redelivers the message, and it is judged anew.
            while !settled.is_closed() {
                if publisher.publish(message.clone()).await.is_ok() {
                    let _ = settled.send(Settled::Done(tag)).await;
                    return;
                }
                pause.wait().await;
            }
        });
        word
    }
}

/// Where a message that is not done with goes, and the word for it: to its next retry tier, or to the dead letters.
pub fn onward(broker: &Broker, queue: Queue, parcel: Parcel, verdict: Verdict) -> (Outgoing, &'static str) {
    let settings = broker.settings();
    let (why, retry) = match verdict {
        Verdict::Retry(why) => (why, parcel.attempt < settings.max_attempts),
        Verdict::Dead(why) => (why, false),
        Verdict::Done => (String::new(), false),
    };
    let last = settings.retry_delays_ms.len().saturating_sub(1);
    let tier = usize::try_from(parcel.attempt).unwrap_or(last).min(last);
    let (exchange, routing_key, attempt, word) = match settings.retry_delays_ms.get(tier) {
        Some(delay) if retry => (Exchange::Direct, broker.names().tier(queue, *delay), parcel.attempt + 1, "retry"),
        _ => (Exchange::Dead, broker.names().queue(queue), parcel.attempt, "dead"),
    };
    let message = Outgoing {
        exchange,
        routing_key,
        message_id: parcel.id,
        body: parcel.body,
        attempt,
        reason: Some(why.chars().take(REASON_CHARS).collect()),
        traceparent: parcel.traceparent,
        mandatory: true,
    };
    (message, word)
}
