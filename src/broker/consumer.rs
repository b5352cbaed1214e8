//! Consuming: batches in, verdicts out, and a supervisor that rebuilds everything after an error *or* an end.
//!
//! A message is acknowledged only when its handler says so, after the effect is committed. A handler that ends
//! without a word (a panic) sends its messages to a retry tier; a message that has failed before travels alone, so a
//! poisonous one cannot take its neighbours with it.

use std::{collections::VecDeque, future::Future, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Broker, BrokerError, Publisher, Queue, Rebuild,
    acks::Acks,
    close,
    message::{Message, Settled, parcel},
    returns::Returns,
    set_up,
    turn::{Turn, pause_after, take_away},
    watchdog::{Watchdog, looks},
};

/// Longer than any batch that is well, calls to the acquirer included.
const LONGEST_BATCH: Duration = Duration::from_secs(120);
/// A consumer that has lived as long was well: the next rebuild begins without a wait.
const WAS_WELL: Duration = Duration::from_secs(10);
/// A settled message is acknowledged at most so much later. Nobody waits for that, and each acknowledgement costs the
/// broker an entry in its log: most of them end in one for many.
const ACK_WITHIN: Duration = Duration::from_millis(20);
/// What becomes of messages, in metrics.
const RESULTS: [&str; 5] = ["done", "retry", "dead", "postponed", "left"];
const CONSUMER_TAG: &str = "tolom";

/// What handles the messages of a queue.
pub trait Handler: Send + Sync + 'static {
    /// Handles a batch. Every message is to be settled; the order does not matter. The next batch is handed out once
    /// `turn` is dropped.
    fn handle(&self, batch: Vec<Message>, turn: Turn) -> impl Future<Output = ()> + Send;
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
    /// After a batch of several messages the next one begins so long after it, unless it is full before, and so grows:
    /// statements, commits and publishes cost by the batch. A message that comes alone holds up nobody.
    pub linger: Duration,
}

/// Consumes a queue until `stop`, then drains: what the handlers hold is finished and acknowledged.
pub async fn consume<H: Handler>(
    broker: Broker,
    publisher: Publisher,
    reading: Reading,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    supervise(broker, publisher, Source { reading, dead: false }, handler, stop).await;
}

/// The same with the dead letters of a queue. There is nowhere left to send them: one that its handler does not finish
/// stays where it is, and is delivered again.
pub async fn consume_dead_letters<H: Handler>(
    broker: Broker,
    publisher: Publisher,
    reading: Reading,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    supervise(broker, publisher, Source { reading, dead: true }, handler, stop).await;
}

/// What a session reads.
#[derive(Debug, Clone, Copy)]
struct Source {
    reading: Reading,
    /// The queue's dead letters rather than the queue.
    dead: bool,
}

impl Source {
    /// The label in metrics.
    const fn name(self) -> &'static str {
        if self.dead { self.reading.queue.dead_name() } else { self.reading.queue.name() }
    }

    /// The name at the broker.
    fn queue(self, broker: &Broker) -> String {
        let names = broker.names();
        if self.dead { names.dead(self.reading.queue) } else { names.queue(self.reading.queue) }
    }
}

async fn supervise<H: Handler>(
    broker: Broker,
    publisher: Publisher,
    source: Source,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let queue = source.name();
    let mut rebuild = Rebuild::new();
    // Shown as none rather than not at all while the broker has not been reached yet.
    metrics::gauge!("tolom_consumers_alive", "queue" => queue).increment(0.0);
    metrics::counter!("tolom_worker_panics_total", "worker" => queue).increment(0);
    // From zero on, or the first of a kind would be no growth to anybody who asks for a rate.
    for result in RESULTS {
        messages(queue, result).increment(0);
    }
    for reason in BrokerError::WORDS {
        rebuilds(queue, reason).increment(0);
    }
    // Whether somewhere in the queue there is a message that ends the connection of whoever reads it.
    let mut wary = false;
    while !stop.is_cancelled() {
        let result = match set_up(Session::open(&broker, &publisher, source, wary)).await {
            Ok(session) => session.live(&handler, &stop, &mut rebuild).await,
            Err(error) => Err(error),
        };
        wary = result.as_ref().is_err_and(BrokerError::is_unreadable);
        if wary {
            // Each round costs it one of its deliveries, until the broker takes it away.
            rebuild.reset();
        }
        if let Err(error) = result {
            rebuilds(queue, error.word()).increment(1);
            tracing::warn!(queue, error = &error as &dyn std::error::Error, "consumer ended, rebuilding");
            tokio::select! {
                () = rebuild.wait() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

fn rebuilds(queue: &'static str, reason: &'static str) -> metrics::Counter {
    metrics::counter!("tolom_consumer_rebuilds_total", &[("queue", queue), ("reason", reason)])
}

fn messages(queue: &'static str, result: &'static str) -> metrics::Counter {
    metrics::counter!("tolom_worker_messages_total", &[("queue", queue), ("result", result)])
}

/// Counts a consumer for as long as it lives, however it ends.
struct Alive(metrics::Gauge);

impl Alive {
    fn new(queue: &'static str) -> Self {
        let gauge = metrics::gauge!("tolom_consumers_alive", "queue" => queue);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// One life of a consumer: a connection, a channel, and everything that is lost with them.
struct Session {
    source: Source,
    connection: lapin::Connection,
    channel: Channel,
    /// A channel of the watchdog's own.
    watched: Channel,
    deliveries: lapin::Consumer,
    /// Deliveries ever.
    delivered: u64,
    /// Received, not handed out yet.
    waiting: VecDeque<Message>,
    /// One permit, for the batch that holds its [`Turn`].
    places: Arc<Semaphore>,
    /// Before this the next batch grows, unless it is full.
    not_before: Instant,
    batches: TaskTracker,
    /// Reads one message at a time, so that one that cannot be read costs no other any of its deliveries; and not for
    /// long, for that is slow.
    wary: bool,
    /// Cuts the batches that hang when the session has ended.
    cut: CancellationToken,
    /// Whether what is left goes back to the broker with the session.
    ending: bool,
    settled: mpsc::Sender<Settled>,
    verdicts: mpsc::Receiver<Settled>,
    acks: Acks,
    /// When what is settled is acknowledged, if anything is.
    ack_at: Option<Instant>,
    returns: Returns,
}

impl Session {
    async fn open(broker: &Broker, publisher: &Publisher, source: Source, wary: bool) -> Result<Self, BrokerError> {
        let reading = source.reading;
        let connection = broker.connect(&format!("consumer {}", source.name())).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(if wary { 1 } else { reading.prefetch }, BasicQosOptions::default()).await?;
        let watched = connection.create_channel().await?;
        // Last: what comes now may end the connection, and whoever waited for an answer on it then would not be told.
        let queue = source.queue(broker);
        let deliveries = channel
            .basic_consume(queue.into(), CONSUMER_TAG.into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        // A message is settled at most twice: once by its handler, and once when it has been sent elsewhere.
        let (settled, verdicts) = mpsc::channel(2 * usize::from(reading.prefetch));
        Ok(Self {
            source,
            connection,
            channel,
            watched,
            deliveries,
            delivered: 0,
            waiting: VecDeque::new(),
            places: Arc::new(Semaphore::new(1)),
            not_before: Instant::now(),
            batches: TaskTracker::new(),
            wary,
            cut: CancellationToken::new(),
            ending: false,
            settled,
            verdicts,
            acks: Acks::default(),
            ack_at: None,
            returns: Returns { broker: broker.clone(), publisher: publisher.clone(), queue: reading.queue },
        })
    }

    /// Works until `stop`, or for long enough if it is wary (`Ok`), or until it is to be rebuilt, and ends in order.
    async fn live<H: Handler>(
        mut self,
        handler: &Arc<H>,
        stop: &CancellationToken,
        rebuild: &mut Rebuild,
    ) -> Result<(), BrokerError> {
        let alive = Alive::new(self.source.name());
        let began = Instant::now();
        let result = self.run(handler, stop).await;
        drop(alive);
        if began.elapsed() >= WAS_WELL {
            rebuild.reset();
        }
        self.end(result).await
    }

    /// Works until `stop`, or for long enough if it is wary (`Ok`), until the broker ends it, or until the watchdog finds
    /// it dead.
    async fn run<H: Handler>(&mut self, handler: &Arc<H>, stop: &CancellationToken) -> Result<(), BrokerError> {
        let in_flight = metrics::gauge!("tolom_worker_in_flight", "queue" => self.source.name());
        let broker = &self.returns.broker;
        let every = Duration::from_secs(broker.settings().watchdog_s);
        let mut looks = pin!(looks(self.watched.clone(), self.source.queue(broker), every));
        let mut watchdog = Watchdog::default();
        let mut enough = pin!(tokio::time::sleep(WAS_WELL));
        loop {
            in_flight.set(self.acks.outstanding() as f64);
            let is_full = self.waiting.len() >= self.source.reading.batch;
            let place = self.place(self.not_before.duration_since(Instant::now()), is_full);
            let due = self.ack_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = &mut enough, if self.wary => return Ok(()),
                () = tokio::time::sleep_until(due), if self.ack_at.is_some() => self.acknowledge().await?,
                Some(verdict) = self.verdicts.recv() => self.settle(verdict)?,
                delivery = self.deliveries.next() => {
                    self.receive(delivery.ok_or(BrokerError::Ended)??)?;
                }
                Some(look) = looks.next() => watchdog.judge(look?, self.acks.outstanding(), self.delivered)?,
                Some(place) = place, if !self.waiting.is_empty() => self.dispatch(handler, place),
            }
        }
    }

    /// Takes a delivery and all that has come with it.
    fn receive(&mut self, first: Delivery) -> Result<(), BrokerError> {
        let mut next = Some(first);
        while let Some(delivery) = next {
            self.acks.delivered(delivery.delivery_tag);
            self.delivered += 1;
            let settled = Some(self.settled.clone());
            let tag = delivery.delivery_tag;
            let parcel = parcel(&delivery.properties, delivery.data, self.source.dead);
            self.waiting.push_back(Message { parcel, tag, settled });
            next = self.deliveries.next().now_or_never().flatten().transpose()?;
        }
        Ok(())
    }

    /// A place for the next batch, once it may begin.
    fn place(&self, wait: Duration, is_full: bool) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
        let places = Arc::clone(&self.places);
        async move {
            let place = places.acquire_owned().await.ok();
            // A timer goes off a millisecond late: none where nothing is to be waited for.
            if !wait.is_zero() && !is_full {
                tokio::time::sleep(wait).await;
            }
            place
        }
    }

    /// Hands out one batch.
    fn dispatch<H: Handler>(&mut self, handler: &Arc<H>, place: OwnedSemaphorePermit) {
        // A message that has failed before travels alone.
        let alone = |message: &Message| message.attempt > 0 && !self.source.dead;
        let batch = self.source.reading.batch;
        let fresh = self.waiting.iter().take(batch).take_while(|message| !alone(message)).count();
        let batch: Vec<_> = self.waiting.drain(..fresh.max(1)).collect();
        self.not_before = Instant::now() + pause_after(batch.len(), self.source.reading.linger);
        let (handler, cut) = (Arc::clone(handler), self.cut.clone());
        let supervisor = self.returns.broker.supervisor().clone();
        let queue = self.source.name();
        let (turn, held) = Turn::new(place);
        self.batches.spawn(async move {
            let started = Instant::now();
            // After a panic its messages are retried one by one.
            cut.run_until_cancelled(async {
                tokio::select! {
                    _ = supervisor.attempt(queue, handler.handle(batch, turn)) => {}
                    () = take_away(held) => {}
                }
            })
            .await;
            let seconds = started.elapsed().as_secs_f64();
            metrics::histogram!("tolom_worker_duration_seconds", "queue" => queue).record(seconds);
        });
    }

    /// Acts on a verdict and on all that came with it.
    fn settle(&mut self, first: Settled) -> Result<(), BrokerError> {
        let mut next = Some(first);
        while let Some(settled) = next {
            let word = match settled {
                Settled::Done(tag) => {
                    self.acks.done(tag);
                    Some("done")
                }
                Settled::Sent(tag, word) => {
                    self.acks.done(tag);
                    Some(word)
                }
                // Everything that is not acknowledged comes back once this session has ended.
                Settled::Return(..) if self.source.dead => return Err(BrokerError::Unparked),
                Settled::Left(..) if self.source.dead && !self.ending => return Err(BrokerError::Unparked),
                Settled::Left(..) if self.ending => Some("left"),
                // Counted once the broker has them.
                Settled::Return(tag, parcel, verdict) => {
                    self.returns.send(tag, parcel, verdict, self.settled.clone());
                    None
                }
                Settled::Left(tag, parcel) => {
                    self.returns.postpone(tag, parcel, self.settled.clone());
                    None
                }
            };
            if let Some(word) = word {
                messages(self.source.name(), word).increment(1);
            }
            next = self.verdicts.try_recv().ok();
        }
        self.ack_at.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
        Ok(())
    }

    /// Acknowledges what is settled, as much as possible in one frame.
    async fn acknowledge(&mut self) -> Result<(), BrokerError> {
        self.ack_at = None;
        for (tag, multiple) in self.acks.flush() {
            self.channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    /// Ends the session, and never before its handlers. After a `stop`, what they hold is finished and acknowledged first;
    /// after a failure, also one meanwhile, there is no channel left to do that on, and the broker redelivers.
    async fn end(mut self, mut result: Result<(), BrokerError>) -> Result<(), BrokerError> {
        self.ending = true;
        self.waiting.drain(..).for_each(Message::leave);
        self.batches.close();
        if result.is_ok() {
            result = self.drain().await;
        }
        if result.is_err() {
            self.abandon().await;
        }
        // Closing puts back whatever is not acknowledged.
        close(&self.connection).await;
        result
    }

    /// Waits for the handlers, which hold what cannot be acknowledged any more.
    async fn abandon(&mut self) {
        // Those that wait for something learn that they need not.
        self.verdicts.close();
        // What hangs is delivered again, so it is cut rather than left to pile up with what the next sessions take.
        // That costs no more than the end of the process at the same place would.
        let finished = tokio::time::timeout(LONGEST_BATCH, self.batches.wait()).await.is_ok();
        self.cut.cancel();
        if !finished {
            tracing::warn!(queue = self.source.name(), "cut batches that did not end");
        }
    }

    /// Takes nothing more, and acknowledges what the handlers finish.
    async fn drain(&mut self) -> Result<(), BrokerError> {
        self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default()).await?;
        let batches = self.batches.clone();
        loop {
            tokio::select! {
                biased;
                Some(verdict) = self.verdicts.recv() => {
                    self.settle(verdict)?;
                    // At once: a drain that is cut must not have what was done delivered again.
                    self.acknowledge().await?;
                }
                () = batches.wait() => break,
            }
        }
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.settle(verdict)?;
        }
        self.acknowledge().await
    }
}
