//! The broker's traps: unroutable messages among good ones, retry tiers, dead letters, poison, drain.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tolom::{
    broker::{
        self, Broker, Exchange, Handler, Message, Outgoing, PublishError, Publisher, Queue, Reading, Turn, Verdict,
    },
    config::{self, Config},
};

use crate::support::services::services;

/// A broker of this test's own: a prefix, and short tiers.
pub(crate) async fn fresh() -> Broker {
    let mut settings: config::Broker = Config::defaults().broker;
    settings.url = services().await.amqp_url.clone().into();
    settings.prefix = format!("test-{}.", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    settings.retry_delays_ms = vec![50];
    settings.max_attempts = 2;
    let broker = Broker::new(&settings);
    broker::apply(&broker).await.unwrap();
    broker
}

pub(crate) fn to_queue(broker: &Broker, queue: Queue, id: &str) -> Outgoing {
    Outgoing {
        exchange: Exchange::Direct,
        routing_key: broker.names().queue(queue),
        message_id: id.to_owned(),
        body: id.as_bytes().to_vec(),
        attempt: 0,
        reason: None,
        traceparent: None,
        mandatory: true,
    }
}

const fn reading(batch: usize) -> Reading {
    Reading { queue: Queue::Capture, batch, prefetch: 500, linger: Duration::ZERO }
}

#[tokio::test]
async fn every_unroutable_message_is_told_apart_from_its_confirmed_neighbours() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let messages: Vec<Outgoing> = (0..600)
        .map(|number| {
            let message = to_queue(&broker, Queue::Capture, &number.to_string());
            if number % 3 == 0 { Outgoing { routing_key: "nowhere".to_owned(), ..message } } else { message }
        })
        .collect();
    let results = publisher.publish_all(messages).await;
    for (number, result) in results.into_iter().enumerate() {
        let expected = if number % 3 == 0 { Err(PublishError::Unroutable) } else { Ok(()) };
        assert_eq!(result, expected, "message {number}");
    }
    broker::remove(&broker).await.unwrap();
}

/// Settles by a rule and tells what it saw.
struct Judge<F> {
    rule: F,
    seen: mpsc::Sender<(String, u32, usize)>,
}

impl<F: Fn(&str, u32) -> Verdict + Send + Sync + 'static> Handler for Judge<F> {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        let size = batch.len();
        for message in batch {
            let _ = self.seen.try_send((message.id.clone(), message.attempt, size));
            let verdict = (self.rule)(&message.id, message.attempt);
            message.settle(verdict);
        }
    }
}

#[tokio::test]
async fn a_retried_message_comes_back_through_its_tier_alone_and_ends_dead_with_its_reason() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let (seen, mut saw) = mpsc::channel(1_000);
    let rule = |id: &str, _: u32| match id {
        "bad" => Verdict::Retry("no luck".to_owned()),
        _ => Verdict::Done,
    };
    let stop = CancellationToken::new();
    let judge = Arc::new(Judge { rule, seen });
    let consumer = tokio::spawn(broker::consume(broker.clone(), publisher.clone(), reading(100), judge, stop.clone()));
    let ids = ["a", "bad", "b", "c"];
    publisher.publish_all(ids.iter().map(|id| to_queue(&broker, Queue::Capture, id)).collect()).await;
    let mut attempts = Vec::new();
    let mut others = HashSet::new();
    while attempts.len() < 3 || others.len() < 3 {
        let (id, attempt, size) = saw.recv().await.unwrap();
        if id == "bad" {
            assert!(attempt == 0 || size == 1, "a message that has failed travels alone");
            attempts.push(attempt);
        } else {
            others.insert(id);
        }
    }
    assert_eq!(attempts, [0, 1, 2]);
    let dead = dead_letters(&broker, 1).await;
    assert_eq!(dead, [b"bad".to_vec()]);
    stop.cancel();
    consumer.await.unwrap();
    broker::remove(&broker).await.unwrap();
}

/// Waits until so many dead letters are there; the broker tells, and the test's own time-out bounds it.
pub(crate) async fn dead_letters(broker: &Broker, count: usize) -> Vec<Vec<u8>> {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        loop {
            tick.tick().await;
            let letters = broker::peek_dead_letters(broker, 100).await.unwrap();
            if letters.len() >= count {
                return letters.into_iter().map(|(_, letter)| letter.body).collect();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("dead letters within 30 s")
}

/// Panics on one message.
struct Panics(mpsc::Sender<String>);

impl Handler for Panics {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        assert!(batch.iter().all(|message| message.id != "poison"), "poison");
        for message in batch {
            let _ = self.0.try_send(message.id.clone());
            message.settle(Verdict::Done);
        }
    }
}

#[tokio::test]
async fn a_panic_takes_no_neighbour_with_it_and_the_poison_is_dead_lettered() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    // All of them wait before the consumer starts, so that they come as one batch.
    let mut ids: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    ids.insert(7, "poison".to_owned());
    publisher.publish_all(ids.iter().map(|id| to_queue(&broker, Queue::Capture, id)).collect()).await;
    let (done, mut doing) = mpsc::channel(1_000);
    let stop = CancellationToken::new();
    let handler = Arc::new(Panics(done));
    let consumer =
        tokio::spawn(broker::consume(broker.clone(), publisher.clone(), reading(100), handler, stop.clone()));
    let mut finished = HashSet::new();
    while finished.len() < 20 {
        finished.insert(doing.recv().await.unwrap());
    }
    assert_eq!(dead_letters(&broker, 1).await, [b"poison".to_vec()]);
    // In its batch, and then twice alone.
    assert_eq!(broker.supervisor().unwell(), [Queue::Capture.name()]);
    stop.cancel();
    consumer.await.unwrap();
    broker::remove(&broker).await.unwrap();
}

/// Holds every message until it is told to finish.
struct Holds {
    started: mpsc::Sender<usize>,
    finish: CancellationToken,
    finished: Mutex<Vec<String>>,
}

impl Handler for Holds {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        let _ = self.started.try_send(batch.len());
        self.finish.cancelled().await;
        for message in batch {
            self.finished.lock().unwrap().push(message.id.clone());
            message.settle(Verdict::Done);
        }
    }
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_hand_and_puts_the_rest_back() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let ids: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    publisher.publish_all(ids.iter().map(|id| to_queue(&broker, Queue::Capture, id)).collect()).await;
    let (started, mut starting) = mpsc::channel(1_000);
    let finish = CancellationToken::new();
    let holds = Arc::new(Holds { started, finish: finish.clone(), finished: Mutex::default() });
    let stop = CancellationToken::new();
    let consume =
        |handler, stop| tokio::spawn(broker::consume(broker.clone(), publisher.clone(), reading(10), handler, stop));
    let consumer = consume(Arc::clone(&holds), stop.clone());
    let in_hand = starting.recv().await.unwrap();
    stop.cancel();
    finish.cancel();
    consumer.await.unwrap();
    let first = holds.finished.lock().unwrap().clone();
    assert_eq!(first.len(), in_hand, "one batch was in hand, and no other was begun");
    // The rest is delivered again, and nothing twice.
    let stop = CancellationToken::new();
    let consumer = consume(Arc::clone(&holds), stop.clone());
    let all = async {
        while holds.finished.lock().unwrap().len() < 30 {
            starting.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the rest within 30 s");
    stop.cancel();
    consumer.await.unwrap();
    let mut finished = holds.finished.lock().unwrap().clone();
    finished.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert_eq!(finished, ids);
    broker::remove(&broker).await.unwrap();
}

#[tokio::test]
async fn a_consumer_is_rebuilt_when_its_queue_is_deleted_and_declared_again() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let (seen, mut saw) = mpsc::channel(1_000);
    let judge = Arc::new(Judge { rule: |_: &str, _: u32| Verdict::Done, seen });
    let stop = CancellationToken::new();
    let consumer = tokio::spawn(broker::consume(broker.clone(), publisher.clone(), reading(10), judge, stop.clone()));
    publisher.publish(to_queue(&broker, Queue::Capture, "before")).await.unwrap();
    assert_eq!(saw.recv().await.unwrap().0, "before");
    broker::remove(&broker).await.unwrap();
    broker::apply(&broker).await.unwrap();
    publisher.publish(to_queue(&broker, Queue::Capture, "after")).await.unwrap();
    let after = tokio::time::timeout(Duration::from_secs(30), saw.recv()).await;
    assert_eq!(after.expect("rebuilt within 30 s").unwrap().0, "after");
    stop.cancel();
    consumer.await.unwrap();
    broker::remove(&broker).await.unwrap();
}

#[tokio::test]
async fn topology_verify_names_what_is_missing_and_what_differs() {
    let broker = fresh().await;
    assert!(broker::verify(&broker).await.unwrap().iter().all(|finding| finding.ok));
    let mut other = broker.settings().clone();
    other.max_queue_length += 1;
    let findings = broker::verify(&Broker::new(&other)).await.unwrap();
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    assert!(wrong.iter().any(|finding| finding.name == broker.names().queue(Queue::Record)), "{wrong:?}");
    broker::remove(&broker).await.unwrap();
    let findings = broker::verify(&broker).await.unwrap();
    assert!(findings.iter().all(|finding| !finding.ok), "{findings:?}");
}
