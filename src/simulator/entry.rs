//! What the simulator remembers of a reference.
//!
//! No card stays here, only what its number made the bank decide, and of a challenged one its last four digits. Time-dependent states are settled when they are
//! looked at, so that a manual clock drives them and no task has to wake up.

use time::OffsetDateTime;

use super::{acs, bank::Asked, cards::Behaviour, confirmation::Confirmation};
use crate::{
    acquirer::http::wire::{self, State},
    payment::{
        Money, OperationKind,
        operation::{Challenge, Undone},
    },
};

/// Response code: authentication failed, or not in time.
pub(super) const NOT_AUTHENTICATED: &str = "1A";

/// The hash of a request without what may differ between repeats.
pub(super) type Fingerprint = [u8; 32];

/// What a reference stands for.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) kind: OperationKind,
    /// The authorization that this belongs to; none for an authorization.
    pub(super) root: Option<String>,
    pub(super) amount: Money,
    pub(super) state: State,
    pub(super) at: OffsetDateTime,
    /// Of an authorization: which operation took the money, how much and when.
    pub(super) captured: Option<Captured>,
    /// Of an authorization or a reversal.
    pub(super) undone: Option<Undone>,
    /// Of an authorization: the sum of its refunds, in minor units.
    pub(super) refunded: i64,
    pub(super) code: Option<&'static str>,
    pub(super) expires_at: Option<OffsetDateTime>,
    /// Of a challenged authorization: what its payer did about it.
    pub(super) confirmation: Confirmation,
    /// Of a challenged authorization's card.
    pub(super) last_four: String,
    /// Until then there is no outcome.
    pub(super) due: Option<OffsetDateTime>,
    pub(super) behaviour: Behaviour,
    /// None if the reference was closed before any request for it had been seen.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// A capture of an authorization.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    pub(super) by: String,
    pub(super) amount: Money,
    pub(super) at: OffsetDateTime,
    /// Whether it came as an operation of its own, not in an authorization's message.
    pub(super) apart: bool,
}

impl Entry {
    pub(super) fn new(asked: Asked<'_>, kind: OperationKind, root: Option<String>) -> Self {
        Self {
            number: 0,
            kind,
            root,
            amount: asked.amount,
            state: State::Approved,
            at: asked.now,
            captured: None,
            undone: None,
            refunded: 0,
            code: None,
            expires_at: None,
            confirmation: Confirmation::default(),
            last_four: String::new(),
            due: None,
            behaviour: Behaviour::Approve,
            fingerprint: Some(asked.fingerprint),
        }
    }

    pub(super) fn decline(&mut self, code: &'static str) {
        (self.state, self.code) = (State::Declined, Some(code));
    }

    pub(super) fn settle(&mut self, now: OffsetDateTime) {
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
        }
        if self.state == State::Challenged && self.expires_at.is_some_and(|end| now >= end) {
            self.decline(NOT_AUTHENTICATED);
        }
    }

    /// Whether there is an outcome yet.
    pub(super) fn is_pending(&self) -> bool {
        self.due.is_some()
    }

    /// Whether inquiries do not find it while it is pending.
    pub(super) fn is_late(&self) -> bool {
        self.behaviour == Behaviour::Late
    }

    /// Closes an authorization; tells what there was and how much of it is given back now.
    pub(super) fn undo(&mut self) -> (Undone, Money) {
        let amount = |value| Money { value, currency: self.amount.currency };
        let (undone, given) = match (self.state, self.due, &self.captured) {
            (State::Approved, None, Some(captured)) => (Undone::Capture, amount(captured.amount.value - self.refunded)),
            (State::Approved, None, None) => (Undone::Hold, self.amount),
            // Undone before, by a reversal with another reference: nothing is given back twice.
            (State::Closed, _, _) => return (self.undone.unwrap_or(Undone::Nothing), amount(0)),
            // A refusal is as good as closed.
            (State::Declined, _, _) => return (Undone::Nothing, amount(0)),
            (State::Approved | State::Challenged | State::Pending, _, _) => (Undone::Nothing, amount(0)),
        };
        if undone == Undone::Nothing {
            self.captured = None;
        }
        (self.state, self.undone, self.due) = (State::Closed, Some(undone), None);
        (undone, given)
    }

    /// The operation object. `fate` is the entry whose state counts: the authorization's, for a completion.
    pub(super) fn show(&self, reference: &str, fate: &Self, site: &str) -> wire::Operation {
        let state = if fate.is_pending() { State::Pending } else { fate.state };
        let approved = state == State::Approved;
        let open = self.expires_at.filter(|_| state == State::Challenged);
        let challenge = open.zip(self.behaviour.protocol()).map(|(expires_at, protocol)| Challenge {
            url: format!("{site}/acs/{reference}"),
            fields: acs::fields(protocol, reference),
            expires_at,
        });
        wire::Operation {
            reference: reference.to_owned(),
            kind: self.kind,
            state,
            id: Some(format!("sim-{}", self.number)),
            amount: self.amount,
            authorization_code: approved.then(|| format!("{:06}", self.number % 1_000_000)),
            rrn: approved.then(|| format!("{:012}", self.number)),
            captured: approved && (fate.captured.is_some() || self.kind == OperationKind::Capture),
            undone: fate.undone,
            decline: self.code.map(|code| wire::Refusal { code: code.to_owned(), message: String::new() }),
            challenge,
            at: self.at,
        }
    }
}
