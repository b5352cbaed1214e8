//! The simulator's rules and memory: one record for each reference, and nothing else.
//!
//! No card stays here, only what its number made the bank decide. Time-dependent states are settled when they are
//! looked at, so that a manual clock drives them and no task has to wake up.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use time::OffsetDateTime;

use super::cards::Behaviour;
use crate::{
    acquirer::http::wire::{self, State},
    payment::{
        Money, OperationKind,
        operation::{Challenge, Undone},
    },
};

/// Authentication failed, or not in time.
const NOT_AUTHENTICATED: &str = "1A";
/// Invalid transaction: captured already, not approved, or undone.
const INVALID_TRANSACTION: &str = "12";
/// Invalid amount: more than there is.
const INVALID_AMOUNT: &str = "13";
const DO_NOT_HONOR: &str = "05";

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
    refunded: i64,
    code: Option<&'static str>,
    expires_at: Option<OffsetDateTime>,
    /// Until then there is no outcome.
    due: Option<OffsetDateTime>,
    behaviour: Behaviour,
    /// None if the reference was closed before any request for it had been seen.
    fingerprint: Option<Fingerprint>,
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

/// Why a request has no operation to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An earlier request with this key is being worked on.
    InFlight,
    /// The key was used with another body.
    KeyReused,
    /// There is no such operation.
    NotFound,
    /// The card wants to be tried again.
    Busy,
    /// The memory's limit.
    Full,
}

/// An answer, and whether this request is the one that made it.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) operation: wire::Operation,
    pub(super) behaviour: Behaviour,
    pub(super) fresh: bool,
}

/// What any request carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) reference: &'a str,
    pub(super) amount: Money,
    pub(super) fingerprint: Fingerprint,
    pub(super) now: OffsetDateTime,
    /// Where this simulator's pages are reached, without a trailing slash.
    pub(super) site: &'a str,
}

/// What a card makes of an authorization.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) behaviour: Behaviour,
    pub(super) capture: bool,
    /// How long a challenge stays open.
    pub(super) open: Duration,
    /// How long until there is an outcome.
    pub(super) delay: Option<Duration>,
}

/// The memory. See [`super::SimulatorOptions::max_operations`] for its bound.
#[derive(Debug, Default)]
pub(super) struct Bank {
    entries: HashMap<String, Entry>,
    order: VecDeque<String>,
    busy: HashMap<String, u8>,
    limit: usize,
}

impl Bank {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Every entry in the order of arrival, as it stands now.
    pub(super) fn entries(&mut self, now: OffsetDateTime) -> impl Iterator<Item = (&String, &Entry)> {
        for entry in self.entries.values_mut() {
            entry.settle(now);
        }
        self.order.iter().filter_map(|reference| Some((reference, self.entries.get(reference)?)))
    }

    pub(super) fn authorize(&mut self, asked: Asked<'_>, plan: Plan) -> Result<Done, Refusal> {
        if let Some(repeat) = self.repeat(asked, OperationKind::Authorize)? {
            return Ok(repeat);
        }
        if plan.behaviour == Behaviour::Busy && self.still_busy(asked.reference)? {
            return Err(Refusal::Busy);
        }
        let mut entry = Entry::new(asked, OperationKind::Authorize, None);
        entry.behaviour = plan.behaviour;
        entry.due = plan.delay.map(|delay| asked.now + delay);
        match plan.behaviour {
            Behaviour::Decline(code) => entry.decline(code),
            Behaviour::Challenge | Behaviour::ShortChallenge => {
                entry.state = State::Challenged;
                entry.expires_at = Some(asked.now + plan.open);
            }
            Behaviour::WrongAmount => entry.amount.value -= 1,
            Behaviour::Approve
            | Behaviour::Slow
            | Behaviour::TimeoutBefore
            | Behaviour::TimeoutAfter
            | Behaviour::ErrorAfter
            | Behaviour::ResetBefore
            | Behaviour::ResetAfter
            | Behaviour::Late
            | Behaviour::Busy
            | Behaviour::CaptureDeclined
            | Behaviour::CaptureErrorAfter
            | Behaviour::ReversalErrorAfter => {}
        }
        if plan.capture && entry.state == State::Approved {
            entry.captured =
                Some(Captured { by: asked.reference.to_owned(), amount: entry.amount, at: asked.now, apart: false });
        }
        self.book(asked, entry)
    }

    /// The wait of a slow authorization is over: it has its outcome, unless it was closed meanwhile.
    pub(super) fn mature(&mut self, reference: &str, now: OffsetDateTime, site: &str) -> Result<Done, Refusal> {
        let entry = self.entries.get_mut(reference).ok_or(Refusal::NotFound)?;
        entry.due = None;
        self.show(reference, now, site).ok_or(Refusal::NotFound)
    }

    pub(super) fn complete(
        &mut self,
        asked: Asked<'_>,
        original: &str,
        confirmed: bool,
        capture: bool,
    ) -> Result<Done, Refusal> {
        if let Some(repeat) = self.repeat(asked, OperationKind::CompleteChallenge)? {
            return Ok(repeat);
        }
        let root = self.root(original).ok_or(Refusal::NotFound)?;
        self.room()?;
        let authorization = self.settled(&root, asked.now).ok_or(Refusal::NotFound)?;
        let mut entry = Entry::new(asked, OperationKind::CompleteChallenge, Some(root.clone()));
        entry.amount = authorization.amount;
        match authorization.state {
            State::Challenged if confirmed => {
                authorization.state = State::Approved;
                if capture {
                    let (by, amount) = (asked.reference.to_owned(), authorization.amount);
                    authorization.captured = Some(Captured { by, amount, at: asked.now, apart: false });
                }
            }
            State::Challenged => {
                authorization.decline(NOT_AUTHENTICATED);
                entry.decline(NOT_AUTHENTICATED);
            }
            State::Declined => entry.decline(NOT_AUTHENTICATED),
            State::Closed => (entry.state, entry.undone) = (State::Closed, Some(Undone::Nothing)),
            State::Approved | State::Pending => entry.decline(INVALID_TRANSACTION),
        }
        self.book(asked, entry)
    }

    pub(super) fn capture(&mut self, asked: Asked<'_>, original: &str) -> Result<Done, Refusal> {
        if let Some(repeat) = self.repeat(asked, OperationKind::Capture)? {
            return Ok(repeat);
        }
        let root = self.root(original).ok_or(Refusal::NotFound)?;
        self.room()?;
        let authorization = self.settled(&root, asked.now).ok_or(Refusal::NotFound)?;
        let mut entry = Entry::new(asked, OperationKind::Capture, Some(root.clone()));
        entry.behaviour = authorization.behaviour;
        let more =
            asked.amount.currency != authorization.amount.currency || asked.amount.value > authorization.amount.value;
        if authorization.state != State::Approved || authorization.captured.is_some() {
            entry.decline(INVALID_TRANSACTION);
        } else if authorization.behaviour == Behaviour::CaptureDeclined {
            entry.decline(DO_NOT_HONOR);
        } else if more {
            entry.decline(INVALID_AMOUNT);
        } else {
            let by = asked.reference.to_owned();
            authorization.captured = Some(Captured { by, amount: asked.amount, at: asked.now, apart: true });
        }
        self.book(asked, entry)
    }

    /// Undoes whatever the reference holds, and closes it also if it was never seen.
    pub(super) fn reverse(&mut self, asked: Asked<'_>, original: &str) -> Result<Done, Refusal> {
        if let Some(repeat) = self.repeat(asked, OperationKind::Reverse)? {
            return Ok(repeat);
        }
        self.room()?;
        let root = self.root(original).unwrap_or_else(|| original.to_owned());
        if !self.entries.contains_key(&root) {
            let mut unseen = Entry::new(asked, OperationKind::Authorize, None);
            (unseen.state, unseen.undone, unseen.fingerprint) = (State::Closed, Some(Undone::Nothing), None);
            self.insert(root.clone(), unseen);
        }
        let authorization = self.settled(&root, asked.now).ok_or(Refusal::NotFound)?;
        let (undone, amount) = authorization.undo();
        let mut entry = Entry::new(asked, OperationKind::Reverse, Some(root.clone()));
        (entry.undone, entry.amount, entry.behaviour) = (Some(undone), amount, authorization.behaviour);
        self.book(asked, entry)
    }

    pub(super) fn refund(&mut self, asked: Asked<'_>, original: &str) -> Result<Done, Refusal> {
        if let Some(repeat) = self.repeat(asked, OperationKind::Refund)? {
            return Ok(repeat);
        }
        let root = self.root(original).ok_or(Refusal::NotFound)?;
        self.room()?;
        let authorization = self.settled(&root, asked.now).ok_or(Refusal::NotFound)?;
        let mut entry = Entry::new(asked, OperationKind::Refund, Some(root.clone()));
        match &authorization.captured {
            Some(captured) if authorization.state == State::Approved => {
                let left = captured.amount.value - authorization.refunded;
                if asked.amount.currency == captured.amount.currency && asked.amount.value <= left {
                    authorization.refunded += asked.amount.value;
                } else {
                    entry.decline(INVALID_AMOUNT);
                }
            }
            _ => entry.decline(INVALID_TRANSACTION),
        }
        self.book(asked, entry)
    }

    /// What stands under the reference; none if it is not known *now*.
    pub(super) fn inquire(&mut self, reference: &str, now: OffsetDateTime, site: &str) -> Option<wire::Operation> {
        let entry = self.settled(reference, now)?;
        if entry.is_pending() && entry.is_late() {
            return None;
        }
        self.show(reference, now, site).map(|done| done.operation)
    }

    /// The answer to a request seen before, refusals included; none for a new reference.
    fn repeat(&mut self, asked: Asked<'_>, kind: OperationKind) -> Result<Option<Done>, Refusal> {
        let Some(entry) = self.settled(asked.reference, asked.now) else {
            return Ok(None);
        };
        match entry.fingerprint {
            // Closed before it came: of whatever kind it is, it is refused.
            None => entry.kind = kind,
            Some(seen) if seen != asked.fingerprint || entry.kind != kind => return Err(Refusal::KeyReused),
            Some(_) if entry.due.is_some() => return Err(Refusal::InFlight),
            Some(_) => {}
        }
        Ok(self.show(asked.reference, asked.now, asked.site))
    }

    fn show(&mut self, reference: &str, now: OffsetDateTime, site: &str) -> Option<Done> {
        let entry = self.settled(reference, now)?.clone();
        // A completion approved what its authorization holds, so it shares its fate.
        let completion = entry.kind == OperationKind::CompleteChallenge && entry.state == State::Approved;
        let root = entry.root.as_deref().filter(|_| completion).and_then(|root| self.entries.get(root));
        Some(Done {
            operation: entry.show(reference, root.unwrap_or(&entry), site),
            behaviour: entry.behaviour,
            fresh: false,
        })
    }

    fn book(&mut self, asked: Asked<'_>, entry: Entry) -> Result<Done, Refusal> {
        self.room()?;
        self.insert(asked.reference.to_owned(), entry);
        let done = self.show(asked.reference, asked.now, asked.site).ok_or(Refusal::NotFound)?;
        Ok(Done { fresh: true, ..done })
    }

    fn insert(&mut self, reference: String, mut entry: Entry) {
        entry.number = self.order.len() as u64 + 1;
        self.order.push_back(reference.clone());
        self.entries.insert(reference, entry);
    }

    fn room(&self) -> Result<(), Refusal> {
        if self.order.len() + self.busy.len() < self.limit { Ok(()) } else { Err(Refusal::Full) }
    }

    fn still_busy(&mut self, reference: &str) -> Result<bool, Refusal> {
        self.room()?;
        let refused = self.busy.entry(reference.to_owned()).or_default();
        *refused += 1;
        let still = *refused <= 2;
        if !still {
            self.busy.remove(reference);
        }
        Ok(still)
    }

    fn settled(&mut self, reference: &str, now: OffsetDateTime) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(reference)?;
        entry.settle(now);
        Some(entry)
    }

    /// The authorization that a reference belongs to.
    fn root(&self, reference: &str) -> Option<String> {
        let entry = self.entries.get(reference)?;
        Some(entry.root.clone().unwrap_or_else(|| reference.to_owned()))
    }
}

impl Entry {
    fn new(asked: Asked<'_>, kind: OperationKind, root: Option<String>) -> Self {
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
            due: None,
            behaviour: Behaviour::Approve,
            fingerprint: Some(asked.fingerprint),
        }
    }

    fn decline(&mut self, code: &'static str) {
        (self.state, self.code) = (State::Declined, Some(code));
    }

    fn settle(&mut self, now: OffsetDateTime) {
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
    fn undo(&mut self) -> (Undone, Money) {
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
    fn show(&self, reference: &str, fate: &Self, site: &str) -> wire::Operation {
        let state = if fate.is_pending() { State::Pending } else { fate.state };
        let approved = state == State::Approved;
        let challenge = self.expires_at.filter(|_| state == State::Challenged).map(|expires_at| Challenge {
            url: format!("{site}/acs/{reference}"),
            fields: vec![("creq".to_owned(), super::acs::creq(reference))],
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
