//! Facts for the pages that are open: an exclusive queue of this process, bounded, dropping the oldest.

use std::sync::Arc;

use futures::StreamExt;
use lapin::{
    Connection, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio_util::sync::CancellationToken;

use super::{Broker, BrokerError, Rebuild, set_up};
use crate::{
    contracts::{Event, PaymentFact, Topic},
    live::{LiveFeed, LiveNews},
};

const MAX_LENGTH: i64 = 10_000;

/// What the live pages are bound to.
pub const TOPICS: [Topic; 6] = [
    Topic::PaymentChallenged,
    Topic::PaymentUnknown,
    Topic::PaymentCaptured,
    Topic::PaymentDeclined,
    Topic::PaymentFailed,
    Topic::PaymentReversed,
];

/// Feeds facts to `feed` until `stop`. After each rebuild it says [`LiveNews::Resync`]: something may have been missed.
pub async fn follow(broker: Broker, feed: LiveFeed, stop: CancellationToken) {
    let mut rebuild = Rebuild::new();
    while !stop.is_cancelled() {
        let result = tokio::select! {
            result = session(&broker, &feed, &mut rebuild) => result,
            () = stop.cancelled() => return,
        };
        if let Err(error) = result {
            tracing::warn!(error = &error as &dyn std::error::Error, "live facts ended, rebuilding");
        }
        tokio::select! {
            () = rebuild.wait() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn session(broker: &Broker, feed: &LiveFeed, rebuild: &mut Rebuild) -> Result<(), BrokerError> {
    // The connection closes with its last handle.
    let (_connection, mut facts) = set_up(open(broker)).await?;
    rebuild.reset();
    let _ = feed.send(LiveNews::Resync);
    while let Some(delivery) = facts.next().await {
        let delivery = delivery?;
        let topic = Topic::from_routing_key(delivery.routing_key.as_str());
        let Some(event) = topic.and_then(|topic| Event::<PaymentFact>::read(topic, &delivery.data).ok()) else {
            continue;
        };
        // Nobody listening is no error.
        let _ = feed.send(LiveNews::Fact(Arc::new(event.data)));
    }
    Err(BrokerError::Ended)
}

async fn open(broker: &Broker) -> Result<(Connection, Consumer), BrokerError> {
    let connection = broker.connect("live facts").await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_LENGTH));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    for topic in TOPICS {
        let (exchange, key) = (broker.names().events().into(), topic.routing_key().into());
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.name().clone(), exchange, key, options, FieldTable::default()).await?;
    }
    // A page that misses a fact reads the database at the next one, so these need no acknowledgement.
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let facts = channel.basic_consume(queue.name().clone(), "live".into(), options, FieldTable::default()).await?;
    Ok((connection, facts))
}
