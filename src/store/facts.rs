//! Facts and commands as outbox rows, made in the transaction that makes them true.

use time::OffsetDateTime;
use uuid::Uuid;

use super::outbox::OutboxRow;
use crate::{
    clock,
    contracts::{Event, PaymentFact, PaymentRequested, Topic},
    payment::{
        Money, PaymentCode, Status,
        card::{DeclineReason, MaskedCard},
    },
};

/// The topic that announces a status, if anyone listens to it.
pub fn topic_of(status: Status) -> Option<Topic> {
    match status {
        Status::Challenged => Some(Topic::PaymentChallenged),
        Status::Authorized => Some(Topic::PaymentAuthorized),
        Status::Unknown | Status::Review => Some(Topic::PaymentUnknown),
        Status::Captured => Some(Topic::PaymentCaptured),
        Status::Declined => Some(Topic::PaymentDeclined),
        Status::Failed => Some(Topic::PaymentFailed),
        Status::Reversed => Some(Topic::PaymentReversed),
        Status::Accepted | Status::Authorizing | Status::Reversing | Status::Settled => None,
    }
}

/// What a fact says beside the status.
#[derive(Debug, Clone)]
pub struct FactOf {
    /// The payment's id.
    pub payment: Uuid,
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// The payment's version.
    pub version: i32,
    /// Where it stands.
    pub status: Status,
    /// The payment's amount.
    pub amount: Money,
    /// The card, masked.
    pub card: Option<MaskedCard>,
    /// Why it was declined.
    pub decline_reason: Option<DeclineReason>,
    /// The receipt's number, once paid.
    pub receipt_number: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// The fact of a payment's new status, if anyone listens to it.
pub fn fact(of: FactOf, source: &str, now: OffsetDateTime) -> Option<OutboxRow> {
    let topic = topic_of(of.status)?;
    let id = clock::new_id();
    let data = PaymentFact {
        payment: of.payment,
        bill: of.bill,
        version: of.version,
        status: of.status,
        public_status: of.status.public(),
        amount: of.amount,
        card: of.card,
        decline_reason: of.decline_reason,
        receipt_number: of.receipt_number,
    };
    let body = Event::new(topic, id, source, of.payment, now, data).to_bytes();
    Some(OutboxRow { id, topic, body, traceparent: of.traceparent })
}

/// The command to authorize a payment of ours.
pub fn payment_requested(payment: Uuid, source: &str, traceparent: Option<String>, now: OffsetDateTime) -> OutboxRow {
    let id = clock::new_id();
    let data = PaymentRequested { payment, request: None };
    let body = Event::new(Topic::PaymentRequested, id, source, payment, now, data).to_bytes();
    OutboxRow { id, topic: Topic::PaymentRequested, body, traceparent }
}
