//! Gauges whose figures cannot be had.

use lapin::{Connection, ConnectionProperties, options::QueueDeleteOptions};
use tolom::broker::{Publisher, Queue};

use super::{Process, metric, wait_for_metric};
use crate::{
    broker::to_queue,
    processes::free_address,
    support::world::{World, wait_for},
};

const MISSING: &str = "tolom_queue_messages{queue=\"tolom.record\"}";
const MOVES: &str = "tolom_queue_messages{queue=\"tolom.capture\"}";
const TAKEN: &str = "tolom_figures_timestamp_seconds{of=\"queues\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_is_shown_as_not_known_and_hides_no_other() {
    let world = World::prepared(|_| ()).await;
    // Opens its connection, and declares everything, before the queue is gone.
    let publisher = Publisher::start(world.broker.clone());
    publisher.publish(to_queue(&world.broker, Queue::Capture, "first")).await.unwrap();
    let admin = free_address();
    let _figures = Process::with(&world, &["worker", "resolve"], None, &[("admin.listen", admin.clone())]);
    wait_for_metric(&admin, MOVES, 1.0).await;
    wait_for_metric(&admin, MISSING, 0.0).await;
    let url = world.config.broker.url.expose();
    let operator = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = operator.create_channel().await.unwrap();
    let queue = world.broker.names().queue(Queue::Record);
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    publisher.publish(to_queue(&world.broker, Queue::Capture, "second")).await.unwrap();
    wait_for_metric(&admin, MOVES, 2.0).await;
    wait_for(async || metric(&admin, MISSING).await.filter(|now| now.is_nan())).await;
    assert!(metric(&admin, TAKEN).await.unwrap() > 0.0);
    world.finish_without_acquirer().await;
}
