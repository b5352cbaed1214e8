//! Consumers that believe themselves well and are not.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{Connection, ConnectionProperties, options::QueueDeleteOptions};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tolom::broker::{self, Broker, Handler, Message, Publisher, Queue, Reading, Turn, Verdict};

use super::proxy::Proxy;
use crate::broker::{fresh, to_queue};

/// Tells what came.
struct Tells(mpsc::Sender<String>);

impl Handler for Tells {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        for message in batch {
            let _ = self.0.try_send(message.id.clone());
            message.settle(Verdict::Done);
        }
    }
}

/// A consumer behind a proxy, which asks the broker every second.
struct Behind {
    proxy: Proxy,
    broker: Broker,
    publisher: Publisher,
    came: mpsc::Receiver<String>,
    stop: CancellationToken,
    consumer: JoinHandle<()>,
}

impl Behind {
    async fn start(prefetch: u16) -> Self {
        let broker = fresh().await;
        let proxy = Proxy::before(broker.settings()).await;
        let mut settings = broker.settings().clone();
        settings.url = proxy.url().into();
        settings.watchdog_s = 1;
        let publisher = Publisher::start(broker.clone());
        let (tell, came) = mpsc::channel(1_000);
        let stop = CancellationToken::new();
        let reading = Reading { queue: Queue::Capture, batch: 1, prefetch, linger: Duration::ZERO };
        let behind = Broker::new(&settings);
        let consumer =
            tokio::spawn(broker::consume(behind, publisher.clone(), reading, Arc::new(Tells(tell)), stop.clone()));
        let mut this = Self { proxy, broker, publisher, came, stop, consumer };
        this.publish("before").await;
        assert_eq!(this.next().await, "before");
        this
    }

    async fn publish(&self, id: &str) {
        self.publisher.publish(to_queue(&self.broker, Queue::Capture, id)).await.unwrap();
    }

    async fn next(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(30), self.came.recv()).await.expect("rebuilt in time").unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.consumer.await.unwrap();
        broker::remove(&self.broker).await.unwrap();
    }
}

#[tokio::test]
async fn a_consumer_whose_deliveries_do_not_arrive_is_rebuilt_and_nothing_is_lost() {
    let mut behind = Behind::start(5).await;
    behind.proxy.deafen();
    // The broker believes five of them delivered; the others wait.
    let mut lost: HashSet<String> = (0..12).map(|number| number.to_string()).collect();
    for id in &lost {
        behind.publish(id).await;
    }
    while !lost.is_empty() {
        lost.remove(&behind.next().await);
    }
    behind.end().await;
}

#[tokio::test]
async fn a_consumer_that_the_broker_has_cancelled_unheard_is_rebuilt() {
    let mut behind = Behind::start(100).await;
    let url = behind.broker.settings().url.expose();
    let operator = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = operator.create_channel().await.unwrap();
    let queue = behind.broker.names().queue(Queue::Capture);
    behind.proxy.deafen();
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    // A queue of that name that is there before the broker has cancelled would be taken for the old one.
    behind.proxy.withheld().await;
    broker::apply(&behind.broker).await.unwrap();
    behind.publish("after").await;
    assert_eq!(behind.next().await, "after");
    behind.end().await;
}

/// Is done with one message when it is told to, and works on any other until its session is gone, and a little longer.
struct Works {
    began: mpsc::Sender<()>,
    finish: CancellationToken,
    ended: AtomicBool,
}

impl Handler for Works {
    async fn handle(&self, mut batch: Vec<Message>, turn: Turn) {
        drop(turn);
        let message = batch.remove(0);
        let _ = self.began.try_send(());
        if message.id == "done" {
            self.finish.cancelled().await;
            return message.settle(Verdict::Done);
        }
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !message.is_abandoned() {
            tick.tick().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.ended.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_drain_that_loses_the_broker_waits_for_its_handlers_all_the_same() {
    let broker = fresh().await;
    let proxy = Proxy::before(broker.settings()).await;
    let mut settings = broker.settings().clone();
    settings.url = proxy.url().into();
    let publisher = Publisher::start(broker.clone());
    for id in ["done", "in hand"] {
        publisher.publish(to_queue(&broker, Queue::Capture, id)).await.unwrap();
    }
    let (began, mut beginning) = mpsc::channel(2);
    let finish = CancellationToken::new();
    let works = Arc::new(Works { began, finish: finish.clone(), ended: AtomicBool::new(false) });
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Capture, batch: 1, prefetch: 2, linger: Duration::ZERO };
    let consumer = broker::consume(Broker::new(&settings), publisher, reading, Arc::clone(&works), stop.clone());
    let consumer = tokio::spawn(consumer);
    for _ in 0..2 {
        beginning.recv().await.unwrap();
    }
    // The broker's answer to a consumer that takes its leave gets lost, then the connection, and then something is done.
    proxy.deafen();
    stop.cancel();
    proxy.withheld().await;
    proxy.cut();
    finish.cancel();
    tokio::time::timeout(Duration::from_secs(30), consumer).await.expect("ends in time").unwrap();
    assert!(works.ended.load(Ordering::SeqCst), "the drain has ended before its handler");
    broker::remove(&broker).await.unwrap();
}

/// Leaves every message the first time.
struct Leaves {
    met: Mutex<HashSet<String>>,
    again: mpsc::Sender<(String, u32)>,
}

impl Handler for Leaves {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        for message in batch {
            if self.met.lock().unwrap().insert(message.id.clone()) {
                message.leave();
            } else {
                let _ = self.again.try_send((message.id.clone(), message.attempt));
                message.settle(Verdict::Done);
            }
        }
    }
}

#[tokio::test]
async fn a_message_that_is_left_comes_again_later_and_has_lost_no_attempt() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let (again, mut came) = mpsc::channel(10);
    let leaves = Arc::new(Leaves { met: Mutex::default(), again });
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Capture, batch: 10, prefetch: 10, linger: Duration::ZERO };
    let consumer = tokio::spawn(broker::consume(broker.clone(), publisher.clone(), reading, leaves, stop.clone()));
    publisher.publish(to_queue(&broker, Queue::Capture, "left")).await.unwrap();
    let came = tokio::time::timeout(Duration::from_secs(30), came.recv()).await;
    assert_eq!(came.expect("in time").unwrap(), ("left".to_owned(), 0));
    stop.cancel();
    consumer.await.unwrap();
    broker::remove(&broker).await.unwrap();
}
