//! The envelope.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

/// Every kind of message, by its routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Work: authorize this payment.
    PaymentRequested,
    /// Work: the payer has confirmed with the bank.
    PaymentChallengeCompleted,
    /// Work: record what an operation came to.
    OperationCompleted,
    /// A foreign site's request was not admitted.
    PaymentRefused,
    /// Fact: the bank wants the payer's confirmation.
    PaymentChallenged,
    /// Fact: the money is held.
    PaymentAuthorized,
    /// Fact: refused.
    PaymentDeclined,
    /// Fact: provably nothing was charged.
    PaymentFailed,
    /// Fact: what came of it is not known yet.
    PaymentUnknown,
    /// Fact: paid.
    PaymentCaptured,
    /// Fact: given back.
    PaymentReversed,
    /// Fact for finance: money moved.
    SettlementEntry,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PaymentRequested,
        Self::PaymentChallengeCompleted,
        Self::OperationCompleted,
        Self::PaymentRefused,
        Self::PaymentChallenged,
        Self::PaymentAuthorized,
        Self::PaymentDeclined,
        Self::PaymentFailed,
        Self::PaymentUnknown,
        Self::PaymentCaptured,
        Self::PaymentReversed,
        Self::SettlementEntry,
    ];

    /// The routing key, for example `payment.requested`.
    pub const fn routing_key(self) -> &'static str {
        match self {
            Self::PaymentRequested => "payment.requested",
            Self::PaymentChallengeCompleted => "payment.challenge_completed",
            Self::OperationCompleted => "operation.completed",
            Self::PaymentRefused => "payment.refused",
            Self::PaymentChallenged => "payment.challenged",
            Self::PaymentAuthorized => "payment.authorized",
            Self::PaymentDeclined => "payment.declined",
            Self::PaymentFailed => "payment.failed",
            Self::PaymentUnknown => "payment.unknown",
            Self::PaymentCaptured => "payment.captured",
            Self::PaymentReversed => "payment.reversed",
            Self::SettlementEntry => "settlement.entry",
        }
    }

    /// The CloudEvents `type`, for example `tolom.payment.requested.v1`.
    pub fn event_type(self) -> String {
        format!("tolom.{}.v1", self.routing_key())
    }

    /// Whether it is work to do (`tolom.commands`) rather than a fact already in the books (`tolom.events`).
    pub const fn is_command(self) -> bool {
        matches!(self, Self::PaymentRequested | Self::PaymentChallengeCompleted | Self::OperationCompleted)
    }

    /// Whether a queue of ours must exist for it, so that it is published `mandatory`.
    pub const fn must_be_routed(self) -> bool {
        self.is_command() || matches!(self, Self::PaymentAuthorized | Self::PaymentCaptured | Self::SettlementEntry)
    }

    /// The topic of a routing key.
    pub fn from_routing_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.routing_key() == key)
    }
}

/// A CloudEvents 1.0 event in structured mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event<T> {
    /// Always `1.0`.
    #[schemars(regex(pattern = "^1\\.0$"))]
    pub specversion: String,
    /// Unique for ever; also the AMQP `message_id`. Consumers drop what they have seen.
    pub id: Uuid,
    /// Who says it, for example `/tolom/record`.
    #[schemars(length(min = 1), extend("format" = "uri-reference"))]
    pub source: String,
    /// `tolom.<name>.v1`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The payment's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: OffsetDateTime,
    /// Always `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// What happened.
    pub data: T,
}

/// Why bytes are no event that this build can act on. All of these are permanent.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not of the schema's shape.
    #[error("not a valid `{expected}` event: {source}")]
    Shape {
        /// The type that was expected.
        expected: String,
        /// What the reader says, with line and column.
        source: serde_json::Error,
    },
    /// Another type or version than the routing key promises.
    #[error("the event's type is `{found}`, expected `{expected}`")]
    Type {
        /// The type that was expected.
        expected: String,
        /// The type that it bears.
        found: String,
    },
    /// Not CloudEvents 1.0.
    #[error("specversion `{0}` is not 1.0")]
    SpecVersion(String),
}

impl<T> Event<T> {
    /// An event of this topic; `id` and `time` are the caller's.
    pub fn new(topic: Topic, id: Uuid, source: &str, payment: Uuid, time: OffsetDateTime, data: T) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source: source.to_owned(),
            event_type: topic.event_type(),
            subject: Some(payment.to_string()),
            time,
            datacontenttype: Some("application/json".to_owned()),
            data,
        }
    }
}

impl<T: DeserializeOwned> Event<T> {
    /// Reads an event of `topic` from foreign bytes.
    pub fn read(topic: Topic, bytes: &[u8]) -> Result<Self, ReadError> {
        let expected = topic.event_type();
        let head: Head =
            serde_json::from_slice(bytes).map_err(|source| ReadError::Shape { expected: expected.clone(), source })?;
        if head.specversion != "1.0" {
            return Err(ReadError::SpecVersion(head.specversion.chars().take(16).collect()));
        }
        if head.event_type != expected {
            return Err(ReadError::Type { expected, found: head.event_type.chars().take(80).collect() });
        }
        serde_json::from_slice(bytes).map_err(|source| ReadError::Shape { expected, source })
    }
}

impl Topic {
    /// The topic of an event, by its `type`: the routing key is lost on the way through a retry tier.
    pub fn of(bytes: &[u8]) -> Result<Self, ReadError> {
        let expected = "tolom.*.v1";
        let head: Head = serde_json::from_slice(bytes)
            .map_err(|source| ReadError::Shape { expected: expected.to_owned(), source })?;
        Self::ALL.into_iter().find(|topic| topic.event_type() == head.event_type).ok_or_else(|| ReadError::Type {
            expected: expected.to_owned(),
            found: head.event_type.chars().take(80).collect(),
        })
    }
}

impl<T: Serialize> Event<T> {
    /// The bytes that go on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event is plain data: maps with text keys, no failing serializer")
    }
}

/// Enough of an event to tell what it is, so that a newer version is told from a broken message.
#[derive(Deserialize)]
struct Head {
    specversion: String,
    #[serde(rename = "type")]
    event_type: String,
}
