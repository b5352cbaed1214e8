//! Dead letters: parked once each, nothing of a card in them, and replayed as often as anybody likes.

mod commands;
mod parking;
mod poison;
mod unreadable;

use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tolom::{
    broker::{Broker, Exchange, Outgoing, Publisher, Queue},
    contracts::{Topic, schemas},
    workers::{self, Role},
};
use uuid::Uuid;

use crate::support::world::World;

const NUMBER: &str = "4111111111111111";

/// The workers but these.
fn all_but(names: &[&str]) -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| !names.contains(&role.name)).collect()
}

/// A message straight to a queue.
fn to_queue(broker: &Broker, queue: Queue, id: &str, body: &[u8]) -> Outgoing {
    Outgoing {
        exchange: Exchange::Direct,
        routing_key: broker.names().queue(queue),
        message_id: id.to_owned(),
        body: body.to_vec(),
        attempt: 0,
        reason: None,
        traceparent: None,
        mandatory: true,
    }
}

/// Publishes messages and sees them confirmed.
async fn publish(broker: &Broker, messages: Vec<Outgoing>) {
    let results = Publisher::start(broker.clone()).publish_all(messages).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Publishes as a foreign client does, with headers of its own.
async fn publish_foreign(broker: &Broker, queue: &str, id: &str, headers: &[(&str, &str)], body: &[u8]) {
    let connection = broker.connect("a foreign client").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2).with_headers(table);
    let confirm =
        channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties).await;
    assert!(matches!(confirm.unwrap().await.unwrap(), lapin::Confirmation::Ack(_)));
    connection.close(200, "done".into()).await.unwrap();
}

/// The example of a topic as bytes, for another payment, and changed.
fn example(topic: Topic, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = schemas::example(topic);
    let payment = Uuid::new_v4().to_string();
    event["id"] = Uuid::new_v4().to_string().into();
    event["subject"] = payment.clone().into();
    event["data"]["payment"] = payment.into();
    change(&mut event);
    serde_json::to_vec(&event).unwrap()
}

/// A letter's column as text.
async fn column(world: &World, id: &str, column: &str) -> String {
    let question = format!("SELECT coalesce(({column})::text, 'null') FROM dead_letter WHERE message_id = $1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(question)).bind(id).fetch_one(&world.pool).await.unwrap()
}
