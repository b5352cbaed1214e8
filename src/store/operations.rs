//! Claims: an operation is stored with our reference, its owner and `send_before` before any byte leaves (rule 3).
//!
//! A claim reads without locks, decides, and writes in one statement that counts on nothing it has read: the payment still
//! has its version, the card is still there to be taken, the unique indexes take the operation. Where one of them does not
//! hold somebody was faster, nothing is written, and the caller begins again. Who ends a payment because nobody has claimed
//! it and nobody can takes its lock before he looks: what is not there guards nothing.

mod claim;
mod open;
mod release;
mod seen;
mod uncharged;
mod write;

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::open::{AuthorizationOf, open, open_reversals};
pub use self::{
    claim::{claim_authorizations, claim_captures, claim_completions},
    release::{release, release_authorization},
    uncharged::fail_without_card,
};
use crate::{
    clock::Clock,
    payment::{Money, OperationKind},
};

/// A claim: leave to send one operation until `send_before`.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The operation's id.
    pub operation: Uuid,
    /// Its payment.
    pub payment: Uuid,
    /// What is asked.
    pub kind: OperationKind,
    /// Our reference, the acquirer's idempotency key.
    pub reference: String,
    /// The reference of the authorization it is about (its own, for an authorization).
    pub original: String,
    /// The amount.
    pub amount: Money,
    /// Past this nothing may be sent.
    pub send_before: OffsetDateTime,
    /// Whether the authorization is to take the money in the same message.
    pub capture_at_once: bool,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A sealed card, taken out of the store by the claim.
#[derive(Clone)]
pub struct SealedCard {
    /// Its id.
    pub id: Uuid,
    /// Which key seals it.
    pub kid: String,
    /// The bill it is for.
    pub bill: String,
    /// The JWE.
    pub jwe: String,
    /// When it stops being usable.
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for SealedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedCard({})", self.id)
    }
}

/// What a claim for a payment came to.
#[derive(Debug)]
pub enum Claimed {
    /// Authorize with this card.
    Authorize(Claim, SealedCard),
    /// Complete the challenge with what the payer came back with.
    Complete(Claim, Vec<(String, String)>),
    /// Capture.
    Capture(Claim),
    /// Somebody has it, or it is past this: acknowledge and forget.
    NotMine,
    /// There is no such payment.
    NoSuchPayment,
}

/// Who claims, and for how long. The times begin with the statement that writes: a claim that waited for its connection is
/// as fresh as any.
#[derive(Debug, Clone)]
pub struct Terms<'a> {
    /// The process.
    pub owner: &'a str,
    /// Time.
    pub clock: &'a Clock,
    /// Leave to send ends after this.
    pub send_within: Duration,
    /// `resolve` may touch it after this.
    pub lease: Duration,
}

/// The times of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: OffsetDateTime,
    pub(super) send_before: OffsetDateTime,
    pub(super) lease_until: OffsetDateTime,
}

impl Terms<'_> {
    /// The times of a claim that is made now.
    pub(super) fn begin(&self) -> Times {
        let now = self.clock.now();
        Times { now, send_before: now + self.send_within, lease_until: now + self.lease }
    }
}
