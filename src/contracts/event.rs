//! The envelope.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
    #[schemars(extend("const" = "1.0"))]
    pub specversion: String,
    /// Unique for ever; also the AMQP `message_id`. Consumers drop what they have seen.
    pub id: Uuid,
    /// Who says it, for example `/tolom/record`; at most 255 bytes. Together with `id` it is what makes a repeat a repeat.
    #[schemars(length(min = 1, max = 255), extend("format" = "uri-reference"))]
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
    #[schemars(extend("const" = "application/json"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// What happened.
    pub data: T,
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

impl<T: Serialize> Event<T> {
    /// The bytes that go on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("keys are text, and times come from clocks and RFC 3339 texts: years 0 to 9999")
    }
}
