//! The acquirer port: what every acquirer's adapter promises. One file per adapter.
//!
//! An adapter turns each answer of its acquirer into an [`Outcome`] with one match without a wildcard, and never
//! guesses: `NotSent` only when provably no byte of the request reached the acquirer, `Unknown` whenever it may have.
//! Each adapter looks at `send_before` right before it writes; past it, it answers `NotSent` (rule 3).

pub mod books;
pub mod circuit;
mod codes;
pub mod http;
mod retry;

use std::sync::Arc;

pub use circuit::{Admission, Circuit};
use futures::future::BoxFuture;
pub use retry::Attempt;
use time::OffsetDateTime;

use crate::payment::{Money, OperationKind, Outcome, card::Card, operation::Inquiry};

/// What every operation carries.
#[derive(Debug, Clone)]
pub struct Call {
    /// Our reference of this operation, stored before it is sent; also the idempotency key.
    pub reference: String,
    /// The amount.
    pub amount: Money,
    /// Past this moment nothing may be sent any more.
    pub send_before: OffsetDateTime,
    /// `traceparent` (W3C Trace Context), if any.
    pub traceparent: Option<String>,
}

impl Call {
    /// Whether its bytes may leave now. Every adapter asks right before they do, and past it answers `NotSent` (rule 3).
    pub fn may_be_sent(&self, now: OffsetDateTime) -> bool {
        now < self.send_before
    }
}

/// An acquirer. Every method is idempotent by `call.reference`, at the acquirer's side.
pub trait Acquirer: Send + Sync + 'static {
    /// Holds the money; with `capture`, takes it in the same message.
    fn authorize<'a>(&'a self, call: &'a Call, card: &'a Card, capture: bool) -> BoxFuture<'a, Outcome>;

    /// Goes on with the authorization `original` after the payer came back with `response` (the ACS form's fields).
    fn complete_challenge<'a>(
        &'a self,
        call: &'a Call,
        original: &'a str,
        response: &'a [(String, String)],
        capture: bool,
    ) -> BoxFuture<'a, Outcome>;

    /// Takes what the authorization `original` holds.
    fn capture<'a>(&'a self, call: &'a Call, original: &'a str) -> BoxFuture<'a, Outcome>;

    /// Undoes the authorization `original` and closes its reference: an authorization of it that arrives later is
    /// refused. An approval tells in `undone` what there was. `repeat` flags every attempt but the first (0421).
    fn reverse<'a>(&'a self, call: &'a Call, original: &'a str, repeat: bool) -> BoxFuture<'a, Outcome>;

    /// Gives back `call.amount` of what `original` captured.
    fn refund<'a>(&'a self, call: &'a Call, original: &'a str) -> BoxFuture<'a, Outcome>;

    /// Asks what came of the operation of this kind with this reference; an answer about another kind is none.
    fn inquire<'a>(&'a self, kind: OperationKind, reference: &'a str) -> BoxFuture<'a, Inquiry>;
}

/// A shared acquirer.
pub type AcquirerRef = Arc<dyn Acquirer>;
