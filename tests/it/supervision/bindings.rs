//! Facts that somebody else listens to too, while the queue they are for is unbound or deleted behind a publisher's back.

use lapin::{Channel, Connection, ConnectionProperties, options::QueueDeleteOptions, types::FieldTable};
use tolom::{
    broker::{self, Broker, Outgoing, Publisher, Queue, Tap},
    contracts::Topic,
};
use uuid::Uuid;

use crate::{broker::fresh, support::world::wait_for};

const FACTS: [(Queue, Topic); 3] = [
    (Queue::Capture, Topic::PaymentAuthorized),
    (Queue::Receipt, Topic::PaymentCaptured),
    (Queue::Settlement, Topic::SettlementEntry),
];

struct Operator {
    broker: Broker,
    channel: Channel,
    _connection: Connection,
}

impl Operator {
    async fn of(broker: &Broker) -> Self {
        let url = broker.settings().url.expose();
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        Self { broker: broker.clone(), channel: connection.create_channel().await.unwrap(), _connection: connection }
    }

    async fn unbind(&self, queue: Queue, topic: Topic) {
        let (queue, exchange) = (self.broker.names().queue(queue).into(), self.broker.names().events().into());
        self.channel.queue_unbind(queue, exchange, topic.routing_key().into(), FieldTable::default()).await.unwrap();
    }

    async fn delete(&self, queue: Queue) {
        let queue = self.broker.names().queue(queue).into();
        self.channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    }
}

/// Publishes a fact until that is `Ok`, as the outbox does, and sees that its queue has it then.
async fn reaches_its_queue(publisher: &Publisher, broker: &Broker, (queue, topic): (Queue, Topic)) {
    let id = Uuid::new_v4();
    let fact = Outgoing::event(topic, id, id.to_string().into_bytes(), None);
    wait_for(async || publisher.publish(fact.clone()).await.ok()).await;
    let has = broker::peek(broker, queue, 10).await.unwrap();
    assert!(has.contains(&fact.body), "{topic:?} is counted as published, and {queue:?} does not have it");
}

#[tokio::test]
async fn a_fact_that_counts_as_published_is_in_its_queue_whoever_else_listens() {
    let broker = fresh().await;
    let publisher = Publisher::start(broker.clone());
    let operator = Operator::of(&broker).await;
    let _listener = Tap::open(&broker, "listener", &FACTS.map(|(_, topic)| topic), 100).await.unwrap();
    for (queue, topic) in FACTS {
        reaches_its_queue(&publisher, &broker, (queue, topic)).await;
        operator.unbind(queue, topic).await;
        reaches_its_queue(&publisher, &broker, (queue, topic)).await;
        operator.delete(queue).await;
        reaches_its_queue(&publisher, &broker, (queue, topic)).await;
    }
    let findings = broker::verify(&broker).await.unwrap();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    broker::remove(&broker).await.unwrap();
}
