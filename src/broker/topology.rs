//! Exchanges, queues, retry tiers and dead letters.
//!
//! Queue arguments cannot be changed once declared (406 PRECONDITION_FAILED), so they hold what safety needs: type,
//! dead-letter route and strategy, overflow, delivery limit, and a generous length. A policy may lower the length at
//! run time; the broker takes the smaller of the two.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde::Serialize;

use super::{Broker, BrokerError, Queue, close, set_up};
use crate::contracts::Topic;

/// Deliveries of one message before the broker itself dead-letters it. Generous: messages that were merely prefetched
/// when a consumer closed count too.
const DELIVERY_LIMIT: i64 = 20;
/// Deliveries of a dead letter before the broker sets it aside as unreadable. A database that is away, and everybody who
/// looks without taking, count too; a letter that ends the connection of whoever reads it gets there within a minute.
const DEAD_DELIVERY_LIMIT: i64 = 100;
/// What is set aside stays until a person takes it. (RabbitMQ 4 has a limit of its own where none is set.)
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;
/// The stream beside finance's queue is kept this long.
const STREAM_MAX_AGE: &str = "30D";
const STREAM_MAX_BYTES: i64 = 20_000_000_000;
/// A stream with a writer confirms in milliseconds; without one, never.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(5);

struct Declaration {
    name: String,
    arguments: FieldTable,
    /// (exchange, routing key)
    bindings: Vec<(String, String)>,
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert((*key).into(), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Every queue with its arguments and bindings, dead ends first so that nothing is ever routed to a missing queue.
fn declarations(broker: &Broker) -> Vec<Declaration> {
    let names = broker.names();
    let limit = AMQPValue::LongLongInt(i64::from(broker.settings().max_queue_length));
    let quorum = ("x-queue-type", text("quorum"));
    let refuse = ("x-overflow", text("reject-publish"));
    let at_least_once = ("x-dead-letter-strategy", text("at-least-once"));
    let mut all = vec![Declaration {
        name: names.unreadable(),
        arguments: table(&[
            quorum.clone(),
            refuse.clone(),
            ("x-delivery-limit", AMQPValue::LongLongInt(NO_DELIVERY_LIMIT)),
            ("x-max-length", limit.clone()),
        ]),
        bindings: Vec::new(),
    }];
    for queue in Queue::ALL {
        let (name, dead) = (names.queue(queue), names.dead(queue));
        all.push(Declaration {
            name: dead,
            arguments: table(&[
                quorum.clone(),
                refuse.clone(),
                at_least_once.clone(),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&names.unreadable())),
                ("x-delivery-limit", AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT)),
                ("x-max-length", limit.clone()),
            ]),
            bindings: vec![(names.dead_exchange(), name.clone())],
        });
        all.push(Declaration {
            name: name.clone(),
            arguments: table(&[
                quorum.clone(),
                refuse.clone(),
                at_least_once.clone(),
                ("x-dead-letter-exchange", text(&names.dead_exchange())),
                ("x-dead-letter-routing-key", text(&name)),
                ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                ("x-max-length", limit.clone()),
            ]),
            bindings: queue.topics().iter().map(|topic| binding(broker, *topic)).collect(),
        });
        let delays = broker.settings().retry_delays_ms.iter().filter(|_| queue.has_tiers());
        all.extend(delays.map(|delay| Declaration {
            name: names.tier(queue, *delay),
            arguments: table(&[
                quorum.clone(),
                refuse.clone(),
                at_least_once.clone(),
                ("x-message-ttl", AMQPValue::LongLongInt(i64::from(*delay))),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&name)),
                ("x-max-length", limit.clone()),
            ]),
            bindings: Vec::new(),
        }));
    }
    all.push(Declaration {
        name: names.stream(),
        arguments: table(&[
            ("x-queue-type", text("stream")),
            ("x-max-age", text(STREAM_MAX_AGE)),
            ("x-max-length-bytes", AMQPValue::LongLongInt(STREAM_MAX_BYTES)),
        ]),
        bindings: vec![binding(broker, Topic::SettlementEntry)],
    });
    all
}

fn binding(broker: &Broker, topic: Topic) -> (String, String) {
    let names = broker.names();
    (if topic.is_command() { names.commands() } else { names.events() }, topic.routing_key().to_owned())
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// Declares everything. Safe to repeat; an existing queue with other arguments is an error that names it.
pub async fn apply(broker: &Broker) -> Result<(), BrokerError> {
    let connection = broker.connect("topology").await?;
    let channel = connection.create_channel().await?;
    declare(&channel, broker).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn declare(channel: &Channel, broker: &Broker) -> Result<(), BrokerError> {
    declare_exchanges(channel, broker).await?;
    for queue in declarations(broker) {
        declare_queue(channel, &queue).await?;
    }
    Ok(())
}

/// Declares what it can of everything, or of one queue with its tiers and dead letters, and says what it cannot. Each
/// publishing connection does so when it is opened, so that a broker that was wiped is whole again. One queue that is
/// away or differs (a stream without a writer) stops nothing but itself.
pub(super) async fn declare_what_can_be(
    connection: &Connection,
    broker: &Broker,
    only: Option<Queue>,
) -> Result<(), BrokerError> {
    let mut channel = connection.create_channel().await?;
    declare_exchanges(&channel, broker).await?;
    let of = only.map_or_else(String::new, |queue| broker.names().queue(queue));
    for queue in declarations(broker).into_iter().filter(|queue| queue.name.starts_with(&of)) {
        if let Err(error) = declare_queue(&channel, &queue).await {
            tracing::error!(
                queue = queue.name,
                error = &error as &dyn std::error::Error,
                "a queue is not as it should be"
            );
            // An error closes its channel.
            channel = connection.create_channel().await?;
        }
    }
    Ok(())
}

async fn declare_exchanges(channel: &Channel, broker: &Broker) -> Result<(), BrokerError> {
    let names = broker.names();
    for exchange in [names.commands(), names.events(), names.dead_exchange()] {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
    }
    Ok(())
}

async fn declare_queue(channel: &Channel, queue: &Declaration) -> Result<(), BrokerError> {
    channel.queue_declare(queue.name.as_str().into(), durable(), queue.arguments.clone()).await?;
    bind(channel, &queue.name, &queue.bindings).await
}

/// Binds a queue to its facts once more. Whoever wants facts binds a queue of his own (the stream and the live pages do),
/// and any one of them satisfies `mandatory`: that finance's queue is among them has to be made sure of before each
/// publish. Work to do goes to our own queues alone.
pub(super) async fn make_sure_of_facts(channel: &Channel, broker: &Broker, queue: Queue) -> Result<(), BrokerError> {
    let facts = queue.topics().iter().filter(|topic| !topic.is_command());
    let bindings: Vec<_> = facts.map(|topic| binding(broker, *topic)).collect();
    bind(channel, &broker.names().queue(queue), &bindings).await
}

async fn bind(channel: &Channel, queue: &str, bindings: &[(String, String)]) -> Result<(), BrokerError> {
    for (exchange, key) in bindings {
        let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
        channel.queue_bind(queue.into(), exchange, key, QueueBindOptions::default(), FieldTable::default()).await?;
    }
    Ok(())
}

/// Deletes everything that [`apply`] declares, messages included: for worlds that end, of tests and the demo.
pub async fn remove(broker: &Broker) -> Result<(), BrokerError> {
    let connection = broker.connect("topology").await?;
    let channel = connection.create_channel().await?;
    for queue in declarations(broker) {
        channel.queue_delete(queue.name.into(), QueueDeleteOptions::default()).await?;
    }
    let names = broker.names();
    for exchange in [names.commands(), names.events(), names.dead_exchange()] {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// One line of `topology verify`.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The exchange or queue.
    pub name: String,
    /// Whether it is as declared by this build.
    pub ok: bool,
    /// What is wrong.
    pub detail: String,
}

/// Compares what exists with what this build would declare. Creates and changes nothing but missing bindings: those it
/// restores without a word, for AMQP cannot be asked about a binding.
pub async fn verify(broker: &Broker) -> Result<Vec<Finding>, BrokerError> {
    let connection = broker.connect("topology").await?;
    let mut channel = connection.create_channel().await?;
    let mut findings = Vec::new();
    let names = broker.names();
    for exchange in [names.commands(), names.events(), names.dead_exchange()] {
        let answer = set_up(exchange_is_there(&channel, &exchange)).await;
        // An error closes its channel.
        if answer.is_err() {
            channel = connection.create_channel().await?;
        }
        findings.push(finding(exchange, answer.err()));
    }
    for queue in declarations(broker) {
        let answer = set_up(queue_is_as_declared(&channel, &queue)).await;
        if answer.is_err() {
            channel = connection.create_channel().await?;
        }
        findings.push(finding(queue.name, answer.err()));
    }
    // The findings are in; channels that ended in an error may still be closing.
    let _ = channel.close(200, "done".into()).await;
    close(&connection).await;
    Ok(findings)
}

async fn exchange_is_there(channel: &Channel, exchange: &str) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions { durable: true, passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
    Ok(())
}

async fn queue_is_as_declared(channel: &Channel, queue: &Declaration) -> Result<(), BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..durable() };
    channel.queue_declare(queue.name.as_str().into(), passive, FieldTable::default()).await?;
    // It exists, so declaring it again creates nothing and fails if an argument differs.
    declare_queue(channel, queue).await
}

fn finding(name: String, error: Option<BrokerError>) -> Finding {
    let detail = error.as_ref().map_or_else(String::new, |error| match error {
        BrokerError::Amqp(error) => error.to_string(),
        other => other.to_string(),
    });
    Finding { name, ok: error.is_none(), detail }
}

/// Deletes finance's stream and declares it anew: what an operator does for a stream that a crash has left without a
/// writer. What it held stands in finance's queue; what is not confirmed yet is in the outbox, and comes.
pub async fn renew_stream(broker: &Broker) -> Result<(), BrokerError> {
    let connection = broker.connect("topology").await?;
    let channel = connection.create_channel().await?;
    channel.queue_delete(broker.names().stream().into(), QueueDeleteOptions::default()).await?;
    declare(&channel, broker).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Whether finance's stream confirms what it is sent. Leaves an empty message there: for worlds that end.
pub async fn stream_has_writer(broker: &Broker) -> Result<bool, BrokerError> {
    let connection = broker.connect("topology").await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (stream, properties) = (broker.names().stream().into(), BasicProperties::default());
    let confirm = channel.basic_publish("".into(), stream, BasicPublishOptions::default(), b"", properties).await?;
    let confirmed = tokio::time::timeout(CONFIRMS_WITHIN, confirm).await;
    close(&connection).await;
    Ok(matches!(confirmed, Ok(Ok(Confirmation::Ack(_)))))
}
