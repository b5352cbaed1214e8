//! The rules of money, as pure code: no I/O, no clock, no async.
//!
//! Everything that decides what becomes of a payment stands here, so that it can be tested by trying every order of
//! events. What talks to the broker, the database or an acquirer asks this module and does as it says.

pub mod bill;
pub mod by_hand;
pub mod card;
pub mod decision;
pub mod ledger;
pub mod limits;
pub mod money;
pub mod operation;
#[cfg(test)]
mod orders;
pub mod status;

pub use bill::{BillStatus, PaymentCode};
pub use money::{Currency, Money};
pub use operation::{OperationKind, Outcome};
pub use status::{Event, PublicStatus, Status};
