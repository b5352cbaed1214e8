//! The simulated acquirer's own books: pure, idempotent by reference, and strict about what a closed reference means.

use std::{collections::BTreeMap, time::Duration};

use time::OffsetDateTime;
use tolom::payment::{
    Money, OperationKind, Outcome,
    card::DeclineReason,
    operation::{Approval, Challenge, Decline, Inquiry, Undone},
};

/// What the bank makes of a request that it has not seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Approve,
    Decline,
    /// Asks the payer, who has this long.
    Challenge(Duration),
    /// Approves another amount than it was asked for.
    WrongAmount,
    /// Is at work on it for this long, and then approves.
    Slow(Duration),
}

/// A request as it arrives.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: OperationKind,
    pub(super) reference: String,
    pub(super) original: String,
    pub(super) amount: Money,
    pub(super) capture: bool,
    /// Of a completion: whether the payer gave the right code.
    pub(super) confirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending(OffsetDateTime),
    Challenged(OffsetDateTime),
    Held,
    /// Held for as long as the bank holds anything: it still says that it approved it, and has nothing of it.
    Lapsed,
    Captured,
    Declined,
    Closed(Undone),
}

/// An authorization and everything that has been done to it.
#[derive(Debug)]
pub(super) struct Authorization {
    state: State,
    amount: Money,
    capture: bool,
    at: OffsetDateTime,
    /// How often money was taken, and given back: the truth that our books are held against.
    pub(super) captures: u32,
    pub(super) given_back: u32,
}

impl Authorization {
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    fn approve(&mut self, now: OffsetDateTime) {
        self.state = State::Held;
        if self.capture {
            self.take(now);
        }
    }

    fn take(&mut self, now: OffsetDateTime) {
        (self.state, self.at) = (State::Captured, now);
        self.captures += 1;
    }
}

/// A request that has been answered, and how; an authorization's answer is read off its state.
#[derive(Debug)]
struct Booked {
    kind: OperationKind,
    root: String,
    outcome: Option<Outcome>,
}

#[derive(Debug, Default)]
pub(super) struct Bank {
    authorizations: BTreeMap<String, Authorization>,
    booked: BTreeMap<String, Booked>,
    /// On their way, with the time of their arrival.
    pub(super) inbox: Vec<(OffsetDateTime, Request, Plan)>,
    /// References of which it has said two things that cannot both be true.
    pub(super) contradicted: Vec<String>,
    /// The booking days of captures and reversals: what was taken or given back, by the reference that did it.
    pub(super) moved: Vec<(String, i64, OffsetDateTime)>,
}

impl Bank {
    /// Takes a request, now or again, and says what stands.
    pub(super) fn take(&mut self, request: &Request, plan: Plan, now: OffsetDateTime) -> Outcome {
        self.settle(now);
        if !self.booked.contains_key(&request.reference) {
            let outcome = match request.kind {
                OperationKind::Authorize => self.authorize(request, plan, now),
                OperationKind::CompleteChallenge => Some(self.complete(request, plan, now)),
                OperationKind::Capture => Some(self.capture(request, plan, now)),
                OperationKind::Reverse => Some(self.reverse(request, now)),
                OperationKind::Refund | OperationKind::Inquire => unreachable!("nothing here sends these"),
            };
            let booked = Booked { kind: request.kind, root: request.original.clone(), outcome };
            self.booked.insert(request.reference.clone(), booked);
        }
        self.stands(&request.reference)
    }

    fn authorize(&mut self, request: &Request, plan: Plan, now: OffsetDateTime) -> Option<Outcome> {
        // Closed before it came: refused.
        if self.authorizations.contains_key(&request.reference) {
            return None;
        }
        let mut authorization = Authorization {
            state: State::Declined,
            amount: request.amount,
            capture: request.capture,
            at: now,
            captures: 0,
            given_back: 0,
        };
        match plan {
            Plan::Approve => authorization.approve(now),
            Plan::Decline => {}
            Plan::Challenge(open) => authorization.state = State::Challenged(now + open),
            Plan::Slow(work) => authorization.state = State::Pending(now + work),
            Plan::WrongAmount => {
                authorization.amount.value -= 1;
                authorization.approve(now);
                self.contradicted.push(request.reference.clone());
            }
        }
        if authorization.captures > 0 {
            self.moved.push((request.reference.clone(), authorization.amount.value, now));
        }
        self.authorizations.insert(request.reference.clone(), authorization);
        None
    }

    fn complete(&mut self, request: &Request, plan: Plan, now: OffsetDateTime) -> Outcome {
        let Some(authorization) = self.authorizations.get_mut(&request.original) else {
            return declined("25");
        };
        match (authorization.state, plan) {
            (State::Challenged(until), Plan::Challenge(open)) if now < until && request.confirmed => {
                authorization.state = State::Challenged(now + open);
                challenged(now + open)
            }
            (State::Challenged(until), _) if now < until && request.confirmed => {
                authorization.approve(now);
                if authorization.captures > 0 {
                    self.moved.push((request.reference.clone(), authorization.amount.value, now));
                }
                approved(authorization.amount, authorization.captures > 0, None, now)
            }
            (State::Challenged(_), _) => {
                authorization.state = State::Declined;
                declined("1A")
            }
            (State::Closed(_), _) => closed(),
            (State::Declined | State::Pending(_) | State::Held | State::Lapsed | State::Captured, _) => declined("12"),
        }
    }

    fn capture(&mut self, request: &Request, plan: Plan, now: OffsetDateTime) -> Outcome {
        match self.authorizations.get_mut(&request.original) {
            Some(authorization) if authorization.state == State::Held && plan != Plan::Decline => {
                authorization.take(now);
                self.moved.push((request.reference.clone(), authorization.amount.value, now));
                approved(authorization.amount, false, None, now)
            }
            // Cleared early, before it was asked for: the money has moved, once.
            Some(authorization) if authorization.state == State::Captured && !authorization.capture => {
                approved(authorization.amount, false, None, authorization.at)
            }
            _ => declined("12"),
        }
    }

    /// Undoes whatever the reference holds, and closes it also if it was never seen.
    fn reverse(&mut self, request: &Request, now: OffsetDateTime) -> Outcome {
        let unseen = Authorization {
            state: State::Closed(Undone::Nothing),
            amount: request.amount,
            capture: false,
            at: now,
            captures: 0,
            given_back: 0,
        };
        let authorization = self.authorizations.entry(request.original.clone()).or_insert(unseen);
        let undone = match authorization.state {
            State::Pending(_) | State::Challenged(_) | State::Lapsed | State::Declined | State::Closed(_) => {
                Undone::Nothing
            }
            State::Held => Undone::Hold,
            State::Captured => Undone::Capture,
        };
        if !matches!(authorization.state, State::Closed(_)) {
            authorization.state = State::Closed(undone);
        }
        if undone == Undone::Capture {
            authorization.given_back += 1;
            self.moved.push((request.reference.clone(), -authorization.amount.value, now));
        }
        // As its contract says: zero for nothing.
        let value = if undone == Undone::Nothing { 0 } else { authorization.amount.value };
        approved(Money { value, ..authorization.amount }, false, Some(undone), now)
    }

    /// Gives up a hold that nobody has captured yet, as a bank does after some days.
    pub(super) fn lapse(&mut self) -> Option<String> {
        let (reference, authorization) = self.authorizations.iter_mut().find(|(_, it)| it.is_held())?;
        authorization.state = State::Lapsed;
        Some(reference.clone())
    }

    /// Clears a hold that nobody has captured yet, as an acquirer may.
    pub(super) fn clear_early(&mut self, now: OffsetDateTime) -> Option<String> {
        let (reference, authorization) = self.authorizations.iter_mut().find(|(_, it)| it.is_held() && !it.capture)?;
        authorization.take(now);
        self.moved.push((reference.clone(), authorization.amount.value, now));
        Some(reference.clone())
    }

    /// Work whose time has come is done.
    fn settle(&mut self, now: OffsetDateTime) {
        for (reference, authorization) in &mut self.authorizations {
            if let State::Pending(until) = authorization.state
                && until <= now
            {
                authorization.approve(now);
                if authorization.captures > 0 {
                    self.moved.push((reference.clone(), authorization.amount.value, now));
                }
            }
        }
    }

    /// What it says of a reference that it knows.
    fn stands(&self, reference: &str) -> Outcome {
        let booked = &self.booked[reference];
        if let Some(outcome) = &booked.outcome {
            // A completion shares the fate of what it approved.
            let undone =
                matches!(self.authorizations.get(&booked.root), Some(it) if matches!(it.state, State::Closed(_)));
            return match (booked.kind, outcome) {
                (OperationKind::CompleteChallenge, Outcome::Approved(_)) if undone => {
                    Outcome::Unknown { why: "it was approved and has been undone".to_owned() }
                }
                _ => outcome.clone(),
            };
        }
        let authorization = &self.authorizations[reference];
        let Authorization { state, amount, capture, at, .. } = authorization;
        match state {
            State::Pending(_) => Outcome::Unknown { why: "the acquirer is still at work on it".to_owned() },
            State::Challenged(until) => challenged(*until),
            State::Held | State::Lapsed => approved(*amount, false, None, *at),
            State::Captured => approved(*amount, *capture, None, *at),
            State::Declined => declined("05"),
            State::Closed(Undone::Nothing) => closed(),
            State::Closed(_) => Outcome::Unknown { why: "it was approved and has been undone".to_owned() },
        }
    }

    pub(super) fn inquire(&mut self, kind: OperationKind, reference: &str, now: OffsetDateTime) -> Inquiry {
        self.settle(now);
        let known = self.booked.get(reference).is_some_and(|booked| booked.kind == kind);
        let closed_unseen = kind == OperationKind::Authorize && self.authorizations.contains_key(reference);
        match known {
            true => match self.authorizations.get(reference) {
                Some(Authorization { state: State::Pending(_), .. }) => Inquiry::Pending,
                _ => Inquiry::Found(self.stands(reference)),
            },
            false if closed_unseen => Inquiry::Found(closed()),
            false => Inquiry::NotFound,
        }
    }

    pub(super) fn knows(&self, reference: &str) -> bool {
        self.booked.contains_key(reference)
    }

    /// Whether money is held or taken under this authorization's reference now.
    pub(super) fn has_approved(&self, reference: &str) -> bool {
        self.authorizations.get(reference).is_some_and(|it| matches!(it.state, State::Held | State::Captured))
    }

    pub(super) fn authorizations(&self) -> impl Iterator<Item = (&String, &Authorization)> {
        self.authorizations.iter()
    }

    /// When something happens here by itself next.
    pub(super) fn next(&self) -> Option<OffsetDateTime> {
        let pending = self.authorizations.values().filter_map(|it| match it.state {
            State::Pending(until) => Some(until),
            _ => None,
        });
        self.inbox.iter().map(|(at, ..)| *at).chain(pending).min()
    }
}

fn approved(amount: Money, captured: bool, undone: Option<Undone>, at: OffsetDateTime) -> Outcome {
    Outcome::Approved(Approval {
        acquirer_reference: Some("bank-1".to_owned()),
        authorization_code: Some("A1B2C3".to_owned()),
        rrn: None,
        amount,
        captured,
        undone,
        at,
    })
}

fn challenged(expires_at: OffsetDateTime) -> Outcome {
    Outcome::Challenged(Challenge {
        url: "https://bank.example/acs".to_owned(),
        fields: vec![("creq".to_owned(), "q".to_owned())],
        expires_at,
    })
}

fn declined(code: &str) -> Outcome {
    Outcome::Declined(Decline { reason: DeclineReason::Other, code: Some(code.to_owned()) })
}

fn closed() -> Outcome {
    Outcome::NotSent { why: "our reference was closed before anything came of it".to_owned() }
}
