//! How bad the weather of a run is: everything that may go wrong, and how often.

use std::time::Duration;

use tolom::payment::OperationKind;

use super::{
    bank::Plan,
    chance::Chance,
    gates::{Hearing, Telling, Way},
};

/// In percent.
pub(super) struct Weather {
    /// Steps that are faults; none when the weather is fine.
    pub(super) faults: u32,
    refused: u32,
    lost: u32,
    late: u32,
    unheard: u32,
    panic: u32,
    no_answer: u32,
    not_found: u32,
    /// A publish that is not confirmed: half of them are stored all the same.
    pub(super) unconfirmed: u32,
    pub(super) refused_publish: u32,
    /// An ack that does not reach the broker.
    pub(super) unacked: u32,
    /// The acquirer contradicts itself.
    lies: u32,
    decline: u32,
    challenge: u32,
    slow: u32,
    capture_declined: u32,
}

impl Weather {
    /// Each run has its own.
    pub(super) fn of(chance: &mut Chance) -> Self {
        let wild = chance.percent(25);
        let mut up_to = |most: u32| {
            let most = if wild { most * 2 } else { most };
            u32::try_from(chance.next() % u64::from(most + 1)).unwrap()
        };
        Self {
            faults: up_to(5),
            refused: up_to(10),
            lost: up_to(10),
            late: up_to(10),
            unheard: up_to(20),
            panic: up_to(3),
            no_answer: up_to(30),
            not_found: up_to(4),
            unconfirmed: up_to(15),
            refused_publish: up_to(8),
            unacked: up_to(10),
            lies: 0,
            decline: up_to(15),
            challenge: up_to(30),
            slow: up_to(15),
            capture_declined: up_to(6),
        }
        .with_lies(chance)
    }

    fn with_lies(self, chance: &mut Chance) -> Self {
        let lies = if chance.percent(8) { 10 } else { 0 };
        Self { lies, ..self }
    }

    /// What is no fault goes on: banks decline and ask also in fine weather.
    pub(super) fn fine(&self) -> Self {
        Self {
            faults: 0,
            refused: 0,
            lost: 0,
            late: 0,
            unheard: 0,
            panic: 0,
            no_answer: 0,
            not_found: 0,
            unconfirmed: 0,
            refused_publish: 0,
            unacked: 0,
            lies: 0,
            ..*self
        }
    }

    pub(super) fn plan(&self, chance: &mut Chance, kind: OperationKind) -> Plan {
        use OperationKind as Kind;
        let question = |chance: &mut Chance| Plan::Challenge(Duration::from_secs(chance.between(20, 600)));
        match kind {
            Kind::Authorize if chance.percent(self.decline) => Plan::Decline,
            Kind::Authorize if chance.percent(self.challenge) => question(chance),
            Kind::Authorize if chance.percent(self.slow) => Plan::Slow(Duration::from_secs(chance.between(1, 4_000))),
            Kind::Authorize if chance.percent(self.lies) => Plan::WrongAmount,
            // Not content with the payer's answer: it asks once more.
            Kind::CompleteChallenge if chance.percent(self.challenge) => question(chance),
            Kind::Capture if chance.percent(self.capture_declined) => Plan::Decline,
            _ => Plan::Approve,
        }
    }

    pub(super) fn way(&self, chance: &mut Chance, plan: Plan) -> Way {
        let roll = u32::try_from(chance.below(100)).unwrap();
        if roll < self.refused {
            Way::Refused
        } else if roll < self.refused + self.lost {
            Way::Lost
        } else if roll < self.refused + self.lost + self.late {
            let most = *chance.pick(&[2, 40, 120, 4_000]);
            Way::Late(Duration::from_secs(chance.between(1, most)), plan)
        } else {
            Way::Arrives(plan)
        }
    }

    pub(super) fn hearing(&self, chance: &mut Chance) -> Hearing {
        match () {
            () if chance.percent(self.unheard) => Hearing::Unheard,
            () if chance.percent(self.panic) => Hearing::Panic,
            () => Hearing::Heard,
        }
    }

    pub(super) fn telling(&self, chance: &mut Chance) -> Telling {
        match () {
            () if chance.percent(self.no_answer) => *chance.pick(&[Telling::NoAnswer, Telling::Pending]),
            () if chance.percent(self.not_found) => Telling::NotFound,
            () if chance.percent(self.lies) => Telling::Lie,
            () => Telling::Truth,
        }
    }
}

/// How far time moves at once: mostly a little, sometimes past a lease, sometimes past a card's life.
pub(super) fn passing(chance: &mut Chance) -> Duration {
    let (least, most) = chance.weighted(&[
        (40, (1, 200)),
        (30, (200, 2_000)),
        (16, (2_000, 12_000)),
        (10, (20_000, 60_000)),
        (3, (60_000, 400_000)),
        (1, (400_000, 2_000_000)),
    ]);
    Duration::from_millis(chance.between(least, most))
}
