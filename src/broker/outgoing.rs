//! A message to publish: where to, what it says of itself, and what may become of it.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use super::{ATTEMPT_HEADER, Names, REASON_HEADER};
use crate::contracts::Topic;

/// Where a message is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// Work to do.
    Commands,
    /// Facts.
    Events,
    /// Dead letters; the routing key is the queue.
    Dead,
    /// A queue by its name.
    Direct,
}

impl Exchange {
    /// The name at the broker.
    pub(super) fn name(self, names: &Names) -> String {
        match self {
            Self::Commands => names.commands(),
            Self::Events => names.events(),
            Self::Dead => names.dead_exchange(),
            Self::Direct => String::new(),
        }
    }
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub exchange: Exchange,
    /// The routing key.
    pub routing_key: String,
    /// The event's id, or what the message came with.
    pub message_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// How often it has been tried before.
    pub attempt: u32,
    /// Why it is retried or dead.
    pub reason: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Whether a queue must take it.
    pub mandatory: bool,
}

impl Outgoing {
    /// An event on the exchange of its topic.
    pub fn event(topic: Topic, id: Uuid, body: Vec<u8>, traceparent: Option<String>) -> Self {
        Self {
            exchange: if topic.is_command() { Exchange::Commands } else { Exchange::Events },
            routing_key: topic.routing_key().to_owned(),
            message_id: id.to_string(),
            body,
            attempt: 0,
            reason: None,
            traceparent,
            mandatory: topic.must_be_routed(),
        }
    }

    /// Its properties, with further headers.
    pub(super) fn properties(&self, headers: &FieldTable) -> BasicProperties {
        let mut headers = headers.clone();
        if self.attempt > 0 {
            headers.insert(ATTEMPT_HEADER.into(), AMQPValue::LongUInt(self.attempt));
        }
        if let Some(reason) = &self.reason {
            headers.insert(REASON_HEADER.into(), AMQPValue::LongString(reason.as_str().into()));
        }
        if let Some(traceparent) = &self.traceparent {
            headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.as_str().into()));
        }
        BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into())
            .with_message_id(self.message_id.as_str().into())
            .with_headers(headers)
    }
}

/// Why a message cannot be counted as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker refused it: a queue is full, or a quorum is missing.
    #[error("the broker refused the message")]
    Refused,
    /// No queue is bound for it.
    #[error("no queue takes the message")]
    Unroutable,
    /// Not known: no confirm came. It may have been stored; publish it again with the same id.
    #[error("the broker did not confirm the message")]
    Unconfirmed,
}
