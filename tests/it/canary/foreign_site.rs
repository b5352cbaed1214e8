//! A foreign site that publishes a card in clear: it goes no further than the message that the site itself sent.
//!
//! That message lies in the queue until it is taken, and in the broker's files until these are written anew; nobody but
//! its sender can prevent that, so the broker's files are not searched here. Everything that we write is: dead letters,
//! parked or not, the database with its write-ahead log, logs and metrics.

use lapin::{
    BasicProperties, Channel,
    options::{BasicGetOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tolom::{
    broker::{Broker, Queue},
    payment::card::CardInput,
};
use uuid::Uuid;

use super::{House, Needles, canary};
use crate::support::world::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_a_foreign_site_publishes_in_clear_goes_no_further() {
    let card = canary();
    let house = House::open(Vec::new()).await;
    let broker = Broker::new(&house.config.broker);
    let connection = broker.connect("foreign site").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let bodies = poisoned(&card);
    for body in &bodies {
        publish(&channel, &broker, &card, body).await;
    }
    let dead = broker.names().dead(Queue::Authorize);
    let letters = wait_for(async || {
        let letters = house.parked().await;
        (letters + waiting(&channel, &dead).await >= bodies.len()).then_some(letters)
    })
    .await;
    let needles = Needles::of([&card]);
    let mut found = Vec::new();
    let mut look =
        |place: String, bytes: &[u8]| found.extend(needles.find(bytes).map(|what| format!("{place}: {what}")));
    for number in letters..bodies.len() {
        let Some(letter) = channel.basic_get(dead.clone().into(), BasicGetOptions { no_ack: true }).await.unwrap()
        else {
            continue;
        };
        let properties = &letter.delivery.properties;
        look(format!("the body of dead letter {number}"), &letter.delivery.data);
        look(format!("the properties of dead letter {number}"), format!("{properties:?}").as_bytes());
        let headers = properties.headers().iter().flat_map(|headers| headers.inner().iter());
        for (name, value) in headers {
            let AMQPValue::LongString(value) = value else { continue };
            look(format!("the header {name} of dead letter {number}"), value.as_bytes());
        }
    }
    for (table, row) in house.rows().await {
        // A `bytea` is shown in hexadecimal.
        look(format!("a row of {table}"), row.as_bytes());
    }
    for (role, text) in house.metrics().await {
        look(format!("metrics of {role}"), text.as_bytes());
    }
    house.checkpoint().await;
    for folder in [house.path("logs"), house.path("tmp"), house.servers().join("postgres")] {
        found.extend(needles.find_in_files(&folder));
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    let log = std::fs::read(house.path("logs").join("authorize.log")).unwrap();
    assert!(Needles::text("not a valid").find(&log).is_some(), "the search finds the reasons of the dead letters");
    house.close().await;
}

/// What no worker can act on, with the card wherever there is room.
fn poisoned(card: &CardInput) -> Vec<Vec<u8>> {
    let clear = serde_json::to_value(card).unwrap();
    let number = &card.number;
    let event = |kind: &str, data: Value| {
        json!({
            "specversion": "1.0", "id": Uuid::new_v4(), "source": "/site-a", "type": kind, "subject": number,
            "time": "2026-11-23T10:00:00Z", "data": data,
        })
        .to_string()
        .into_bytes()
    };
    let requested = "tolom.payment.requested.v1";
    let request = |card: Value| {
        json!({
            "payment": Uuid::new_v4(), "bill": "1100000001", "amount": { "value": 51_000, "currency": "KGS" }, "card": card,
            "payer": { "email": "payer@mail.example", "phone": "+996555123456" }, "locale": "en", "terms": "2026-01-01",
        })
    };
    let spaced = format!("{} {} {} {}", &number[..4], &number[4..8], &number[8..12], &number[12..]);
    vec![
        event(requested, request(clear.clone())),
        event(requested, request(number.clone().into())),
        event(requested, json!({ "payment": Uuid::new_v4(), "note": clear })),
        event(requested, json!({ "payment": number })),
        event(&format!("tolom.{number}.v1"), clear.clone()),
        clear.to_string().into_bytes(),
        spaced.into_bytes(),
        format!("number={number}&cvc={}", card.cvc).into_bytes(),
    ]
}

async fn publish(channel: &Channel, broker: &Broker, card: &CardInput, body: &[u8]) {
    let mut headers = FieldTable::default();
    for name in ["card", "traceparent", "tolom-reason", "x-note"] {
        headers.insert(name.into(), AMQPValue::LongString(card.number.clone().into()));
    }
    headers.insert("cvc".into(), AMQPValue::LongString(card.cvc.clone().into()));
    let properties = BasicProperties::default()
        .with_message_id(card.number.clone().into())
        .with_correlation_id(card.number.clone().into())
        .with_delivery_mode(2)
        .with_headers(headers);
    let (exchange, key) = (broker.names().commands().into(), "payment.requested".into());
    channel
        .basic_publish(exchange, key, BasicPublishOptions::default(), body, properties)
        .await
        .unwrap()
        .await
        .unwrap();
}

/// Messages that wait in a queue.
async fn waiting(channel: &Channel, queue: &str) -> usize {
    let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    usize::try_from(queue.message_count()).unwrap()
}
