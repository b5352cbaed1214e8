//! The simulator's rules: what each request does to the entries, one for each reference.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use time::OffsetDateTime;

use super::{
    cards::Behaviour,
    entry::{Captured, Entry, Fingerprint, NOT_AUTHENTICATED},
};
use crate::{
    acquirer::http::wire::{self, State},
    payment::{Money, OperationKind, operation::Undone},
};

/// Invalid transaction: captured already, not approved, or undone.
const INVALID_TRANSACTION: &str = "12";
/// Invalid amount: more than there is.
const INVALID_AMOUNT: &str = "13";
const DO_NOT_HONOR: &str = "05";

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
pub(super) struct Plan<'a> {
    pub(super) behaviour: Behaviour,
    pub(super) capture: bool,
    /// How long a challenge stays open.
    pub(super) open: Duration,
    /// How long until there is an outcome.
    pub(super) delay: Option<Duration>,
    /// Of the card's number, for the bank's page.
    pub(super) last_four: &'a str,
}

/// The memory. See [`super::SimulatorOptions::max_operations`] for its bound.
#[derive(Debug, Default)]
pub(super) struct Bank {
    entries: HashMap<String, Entry>,
    order: VecDeque<String>,
    busy: HashMap<String, u8>,
    limit: usize,
    /// Requests under a reference that had come before.
    repeats: u64,
}

impl Bank {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) const fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Every entry in the order of arrival, as it stands now.
    pub(super) fn entries(&mut self, now: OffsetDateTime) -> impl Iterator<Item = (&String, &Entry)> {
        for entry in self.entries.values_mut() {
            entry.settle(now);
        }
        self.order.iter().filter_map(|reference| Some((reference, self.entries.get(reference)?)))
    }

    pub(super) fn authorize(&mut self, asked: Asked<'_>, plan: Plan<'_>) -> Result<Done, Refusal> {
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
            Behaviour::Challenge | Behaviour::LegacyChallenge | Behaviour::ShortChallenge => {
                entry.last_four = plan.last_four.to_owned();
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
        response: &[(String, String)],
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
        let protocol = authorization.behaviour.protocol();
        let confirmed = protocol.is_some_and(|protocol| authorization.confirmation.is_in(protocol, &root, response));
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
        let fresh = entry.fingerprint.is_none();
        match entry.fingerprint {
            // Closed before it came: of whatever kind it is, it is refused.
            None => entry.kind = kind,
            Some(seen) if seen != asked.fingerprint || entry.kind != kind => return Err(Refusal::KeyReused),
            Some(_) if entry.due.is_some() => return Err(Refusal::InFlight),
            Some(_) => {}
        }
        self.repeats += u64::from(!fresh);
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

    pub(super) fn settled(&mut self, reference: &str, now: OffsetDateTime) -> Option<&mut Entry> {
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
