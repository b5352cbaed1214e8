//! The outbox: messages promised by a committed transaction.

use uuid::Uuid;

use crate::contracts::Topic;

/// A message to be published. It is inserted in the transaction whose effect it announces.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The event's id, and the AMQP `message_id`, for ever.
    pub id: Uuid,
    /// Where it goes.
    pub topic: Topic,
    /// The whole CloudEvent.
    pub body: Vec<u8>,
    /// `traceparent` (W3C Trace Context), if any.
    pub traceparent: Option<String>,
}
