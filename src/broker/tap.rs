//! A listener of its own on facts, beside those whose work they are: for who measures or watches, and owes no effect.

use futures::StreamExt;
use lapin::{
    Connection, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::Instant;

use super::{Broker, BrokerError, set_up};
use crate::contracts::Topic;

/// A fact that has come.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which one.
    pub topic: Topic,
    /// When it was taken from the connection.
    pub at: Instant,
    /// The whole CloudEvent.
    pub body: Vec<u8>,
}

/// Facts as they happen, from when it is open: an exclusive queue that ends with this value.
pub struct Tap {
    deliveries: Consumer,
    // Closes with the last handle.
    _connection: Connection,
}

impl Tap {
    /// Listens to these facts. Whatever is published once this has returned will come, as long as no more than
    /// `most_waiting` wait: then the oldest are dropped.
    pub async fn open(
        broker: &Broker,
        purpose: &str,
        topics: &[Topic],
        most_waiting: u32,
    ) -> Result<Self, BrokerError> {
        set_up(subscribe(broker, purpose, topics, most_waiting)).await
    }

    /// The next fact. After an error there are no more: a listener that must not miss any begins anew.
    pub async fn next(&mut self) -> Result<Arrival, BrokerError> {
        loop {
            let delivery = self.deliveries.next().await.ok_or(BrokerError::Ended)??;
            if let Some(topic) = Topic::from_routing_key(delivery.routing_key.as_str()) {
                return Ok(Arrival { topic, at: Instant::now(), body: delivery.data });
            }
        }
    }
}

async fn subscribe(broker: &Broker, purpose: &str, topics: &[Topic], most_waiting: u32) -> Result<Tap, BrokerError> {
    let connection = broker.connect(purpose).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(most_waiting.into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    for topic in topics {
        let (exchange, key) = (broker.names().events().into(), topic.routing_key().into());
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.name().clone(), exchange, key, options, FieldTable::default()).await?;
    }
    // Whoever owes no effect has nothing to acknowledge.
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let deliveries = channel.basic_consume(queue.name().clone(), "tap".into(), options, FieldTable::default()).await?;
    Ok(Tap { deliveries, _connection: connection })
}
