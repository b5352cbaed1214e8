//! The core alone: a payment's reports in a hundred thousand random orders, each any number of times.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{
    Currency, Money, OperationKind, Outcome, Status,
    card::DeclineReason,
    decision::{AuthorizationEnd, Known, decide},
    ledger::{Account, Position, PostingKind},
    operation::{Approval, Decline, Undone},
};

const AMOUNT: Money = Money::new(51_000, Currency::KGS);
const ORDERS: u64 = 100_000;

/// A payment as the books have it, and what the acquirer did.
struct World {
    random: u64,
    status: Status,
    outcomes: HashMap<OperationKind, &'static str>,
    balances: HashMap<Account, i64>,
    position: Position,
    bill_awaits: bool,
    capture_sent: bool,
    reversal_open: bool,
    /// What the acquirer has of it: nothing, a hold, or the money.
    there: Position,
    authorized: Outcome,
    captured: Option<Outcome>,
    undone: Option<Undone>,
}

fn approval(captured: bool, undone: Option<Undone>) -> Outcome {
    Outcome::Approved(Approval {
        acquirer_reference: None,
        authorization_code: None,
        rrn: None,
        amount: AMOUNT,
        captured,
        undone,
        at: OffsetDateTime::UNIX_EPOCH,
    })
}

/// An acknowledged reversal. Of nothing the amount is zero.
fn reversed(undone: Undone) -> Outcome {
    let mut outcome = approval(false, Some(undone));
    if let (Outcome::Approved(approval), Undone::Nothing) = (&mut outcome, undone) {
        approval.amount.value = 0;
    }
    outcome
}

fn declined() -> Outcome {
    Outcome::Declined(Decline { reason: DeclineReason::Other, code: None })
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: String::new() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed,
            status: Status::Authorizing,
            outcomes: HashMap::new(),
            balances: HashMap::new(),
            position: Position::Nothing,
            bill_awaits: true,
            capture_sent: false,
            reversal_open: false,
            there: Position::Nothing,
            authorized: declined(),
            captured: None,
            undone: None,
        };
        (world.authorized, world.there) = match world.below(5) {
            0 => (declined(), Position::Nothing),
            1 => (Outcome::NotSent { why: String::new() }, Position::Nothing),
            2 => (approval(true, None), Position::Captured),
            _ => (approval(false, None), Position::Held),
        };
        world
    }

    /// SplitMix64, so that an order is found again by its number.
    fn below(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    fn report(&mut self, kind: OperationKind, report: &Outcome) {
        let known = Known {
            status: self.status,
            position: self.position,
            bill_awaits: self.bill_awaits,
            reversal_exists: self.reversal_open,
            kind,
            amount: AMOUNT,
            outcome: self.outcomes.get(&kind).copied(),
        };
        let decision = decide(known, report).unwrap_or_else(|illegal| panic!("{kind:?} {report:?}: {illegal}"));
        assert_eq!(decision.conflict, None, "{kind:?} {report:?} when {}", self.status);
        self.status = decision.steps.last().map_or(self.status, |(_, status)| *status);
        if decision.store_outcome {
            self.outcomes.insert(kind, report.as_str());
        }
        if let Some(end) = decision.authorization_ends
            && self.outcomes.get(&OperationKind::Authorize).is_none_or(|word| *word == "unknown")
        {
            let word = if end == AuthorizationEnd::NeverHappened { "not_sent" } else { "approved" };
            self.outcomes.insert(OperationKind::Authorize, word);
        }
        for posting in decision.postings {
            *self.balances.entry(posting.debit).or_default() += posting.amount.value;
            *self.balances.entry(posting.credit).or_default() -= posting.amount.value;
            self.position = match posting.kind {
                PostingKind::Hold => Position::Held,
                PostingKind::Capture => Position::Captured,
                PostingKind::Release | PostingKind::Reversal | PostingKind::Refund => Position::Nothing,
            };
        }
        self.reversal_open |= decision.reverse;
        assert_eq!(self.balances.values().sum::<i64>(), 0);
    }

    /// One thing that may happen now; with `at_last`, only what brings it to its end.
    fn step(&mut self, at_last: bool) {
        match self.below(6) {
            0 if !at_last && self.status != Status::Captured => self.bill_awaits = false,
            1 if !at_last => self.report(OperationKind::Authorize, &unknown()),
            2 if self.status == Status::Authorized && !self.capture_sent => {
                self.capture_sent = true;
                let refused = self.below(4) == 0;
                self.captured = Some(if refused { declined() } else { approval(false, None) });
                if !refused {
                    self.there = Position::Captured;
                }
            }
            3 => {
                let Some(outcome) = self.captured.clone() else { return };
                let unheard = !at_last && self.below(2) == 0;
                self.report(OperationKind::Capture, &if unheard { unknown() } else { outcome });
            }
            // A reversal waits until an open capture is definite.
            4 if self.reversal_open && (self.captured.is_none() || self.is_definite(OperationKind::Capture)) => {
                let undone = *self.undone.get_or_insert(match self.there {
                    Position::Nothing => Undone::Nothing,
                    Position::Held => Undone::Hold,
                    Position::Captured => Undone::Capture,
                });
                self.there = Position::Nothing;
                let unheard = !at_last && self.below(2) == 0;
                self.report(OperationKind::Reverse, &if unheard { unknown() } else { reversed(undone) });
            }
            _ => {
                let outcome = self.authorized.clone();
                // What a reversal has settled is only heard late if it says the same.
                self.report(OperationKind::Authorize, &outcome);
            }
        }
    }

    fn is_definite(&self, kind: OperationKind) -> bool {
        self.outcomes.get(&kind).is_some_and(|word| *word != "unknown")
    }
}

const fn has_ended(status: Status) -> bool {
    matches!(status, Status::Captured | Status::Declined | Status::Failed | Status::Reversed)
}

#[test]
fn a_hundred_thousand_orders_of_reports_all_end_with_books_that_agree() {
    let mut ends: HashMap<Status, u32> = HashMap::new();
    for seed in 0..ORDERS {
        let mut world = World::new(seed);
        (0..world.below(16)).for_each(|_| world.step(false));
        (0..80).for_each(|_| world.step(true));
        // What comes in turn may take its time in a random order.
        for _ in 0..1_000 {
            if has_ended(world.status) {
                break;
            }
            world.step(true);
        }
        *ends.entry(world.status).or_default() += 1;
        let balance = |account| world.balances.get(&account).copied().unwrap_or(0);
        let taken = if world.there == Position::Captured { AMOUNT.value } else { 0 };
        assert_eq!(balance(Account::Acquirer), taken, "order {seed}: {}", world.status);
        assert_eq!(balance(Account::Held), 0, "order {seed}: {}", world.status);
        assert_eq!(world.status == Status::Captured, taken > 0, "order {seed}: {}", world.status);
        assert!(has_ended(world.status), "order {seed} ends as {}", world.status);
    }
    assert_eq!(ends.len(), 4, "every end is reached: {ends:?}");
}
