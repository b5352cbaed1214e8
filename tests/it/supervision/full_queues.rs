//! Queues that are full, or do not answer at all: the outbox holds what is theirs, and everything else goes on.

use std::{path::Path, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tolom::{
    broker::{self, Broker, Handler, Message, PublishError, Publisher, Queue, Reading, Turn, Verdict},
    services::{Services, Wanted},
    workers::{self, Role},
};

use super::{accept_all, requests};
use crate::{
    broker::{fresh, to_queue},
    support::world::World,
};

/// Finance, which takes everything.
struct Finance;

impl Handler for Finance {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        batch.into_iter().for_each(|message| message.settle(Verdict::Done));
    }
}

fn all_but_receipt() -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| role.name != "receipt").collect()
}

#[tokio::test]
async fn a_full_queue_refuses_its_own_messages_and_no_others() {
    let mut settings = fresh().await.settings().clone();
    settings.prefix = format!("{}full.", settings.prefix);
    settings.max_queue_length = 10;
    let broker = Broker::new(&settings);
    broker::apply(&broker).await.unwrap();
    let publisher = Publisher::start(broker.clone());
    for round in 0..10 {
        // A quorum queue learns that it is full a little late, so round by round.
        let ids: Vec<String> = (0..4).map(|number| format!("{round}-{number}")).collect();
        publisher.publish_all(ids.iter().map(|id| to_queue(&broker, Queue::Receipt, id)).collect()).await;
    }
    let queues = [Queue::Receipt, Queue::Capture, Queue::Receipt, Queue::Record];
    let results = publisher.publish_all(queues.iter().map(|queue| to_queue(&broker, *queue, "last")).collect()).await;
    assert_eq!(results, [Err(PublishError::Refused), Ok(()), Err(PublishError::Refused), Ok(())]);
    broker::remove(&broker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_refuses_waits_in_the_outbox_and_holds_nobody_up() {
    let mut world = World::prepared(|config| config.broker.max_queue_length = 10).await;
    let publisher = Publisher::start(world.broker.clone());
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Settlement, batch: 10, prefetch: 10, linger: Duration::ZERO };
    let finance =
        tokio::spawn(broker::consume(world.broker.clone(), publisher, reading, Arc::new(Finance), stop.clone()));
    world.run(all_but_receipt()).await;
    let all = requests(&world, "110000", 60, "4111111111111111").await;
    accept_all(&world, &all).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 60).await;
    world.wait_until("SELECT count(*) FROM outbox WHERE routing_key <> 'payment.captured'", 0).await;
    let held = world.count("SELECT count(*) FROM outbox WHERE attempts > 0").await;
    assert!((20..=50).contains(&held), "{held} of 60 facts are held, about ten are in the queue");
    // Room again: all of them go out, each after its own back-off.
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 60).await;
    world.wait_until("SELECT count(*) FROM outbox", 0).await;
    stop.cancel();
    finance.await.unwrap();
    world.finish().await;
}

/// The process of a quorum queue is made to stand still: it takes messages and never confirms them.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_never_confirms_holds_up_nobody_else() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services");
    let mut own = Services::ensure(&Wanted::private(directory), |step| eprintln!("{step}")).await.unwrap();
    let mut world = World::on_broker(&own.amqp_url, |_| ()).await;
    let silent = |word: &str| format!("sys:{word}('%2F_{}').", world.broker.names().queue(Queue::Receipt));
    let (suspend, resume) = (silent("suspend"), silent("resume"));
    world.run(all_but_receipt()).await;
    let all = requests(&world, "110000", 30, "4111111111111111").await;
    own.rabbitmqctl(&["eval", &suspend]).await.unwrap();
    let began = tokio::time::Instant::now();
    accept_all(&world, &all).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 30).await;
    assert!(began.elapsed() < Duration::from_secs(10), "before a single publish could time out");
    own.rabbitmqctl(&["eval", &resume]).await.unwrap();
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 30).await;
    world.finish().await;
    own.stop().await;
}
