//! Every message that crosses the broker, and its envelope. The files in `schemas/` are generated from these types.
//!
//! Messages are CloudEvents 1.0 in structured mode (JSON format). `type` is `tolom.<name>.v1`, the routing key is
//! `<name>`, the AMQP `message_id` is the event's `id`. No message carries card data.
//!
//! A `v1` may grow by optional members, which readers ignore until they know them; whatever else changes is a `v2`. After
//! a change, `TOLOM_WRITE_SCHEMAS=1 cargo test --test it contracts` writes the files anew.

mod event;
mod failed;
pub mod mask;
mod messages;
mod read;
pub mod schemas;

pub use event::{Event, Topic};
pub use failed::FailedAttempt;
pub use messages::{
    CardRef, ChallengeCompleted, ForeignRequest, OperationCompleted, Payer, PaymentFact, PaymentRefused,
    PaymentRequested, SettlementEntry,
};
pub use read::ReadError;
pub(crate) use read::shown;
