//! What a person may say of a payment that the ladder could not settle, and what follows from it.
//!
//! A person speaks with evidence: the acquirer's statement, its word about our reference. The word becomes a report of
//! one operation, and goes the way of every report; what cannot be true, or would leave money where it must not stay,
//! is refused with the reason.

use super::{
    ledger::Position,
    money::Money,
    operation::{OperationKind, Undone},
    status::Status,
};

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The acquirer has approved it: what it holds is to be taken, and what it took in the same message to be kept.
    Approved,
    /// The acquirer has taken the payer's money for this payment, and it is to be kept.
    Captured,
    /// Nothing was charged, nor will it be.
    Declined,
    /// What was held or taken has been given back.
    Reversed,
}

impl Word {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Approved, Self::Captured, Self::Declined, Self::Reversed];

    /// As it stands on the command line and in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Reversed => "reversed",
        }
    }
}

/// How far the payment's reversal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversal {
    /// There is none.
    None,
    /// It is being sent until it is acknowledged.
    Open,
    /// The acquirer refused it.
    Refused,
    /// The acquirer acknowledged it.
    Acknowledged,
}

/// What is known of the payment.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Where it stands.
    pub status: Status,
    /// What the books hold of it.
    pub position: Position,
    /// Whether its bill is still to be paid by it.
    pub bill_awaits: bool,
    /// Its reversal.
    pub reversal: Reversal,
    /// Whether its authorization takes the money in the same message.
    pub capture_at_once: bool,
    /// What the acquirer says it acted on, where that is another amount than ours.
    pub acted_on: Option<Money>,
}

/// What the word says, as a report of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The authorization was approved; with `captured`, the money was taken in the same message.
    Authorized {
        /// Whether the money was taken too.
        captured: bool,
    },
    /// The hold that the books have stands, and is to be captured.
    StaysHeld,
    /// The capture was approved.
    Captured,
    /// The books have the capture already; the payment stays paid after all.
    StaysCaptured,
    /// The authorization was declined.
    Declined,
    /// The reversal was acknowledged.
    Reversed(Undone),
}

impl Report {
    /// Which operation it is a report of.
    pub const fn kind(self) -> OperationKind {
        match self {
            Self::Authorized { .. } | Self::StaysHeld | Self::Declined => OperationKind::Authorize,
            Self::Captured | Self::StaysCaptured => OperationKind::Capture,
            Self::Reversed(_) => OperationKind::Reverse,
        }
    }
}

/// What follows from a person's word; an error says, for that person, why it cannot be.
pub fn settle(case: Case, word: Word) -> Result<Report, &'static str> {
    let waits = matches!(case.status, Status::Unknown | Status::Reversing | Status::Review);
    let undone_late = word == Word::Reversed && matches!(case.reversal, Reversal::Open | Reversal::Refused);
    let settles = waits || case.status.is_terminal() && undone_late;
    if !settles {
        return Err("nothing of it waits for a person");
    }
    match word {
        Word::Approved | Word::Captured => kept(case, word == Word::Captured),
        Word::Declined if case.position == Position::Nothing => Ok(Report::Declined),
        Word::Declined => Err("the books have money of it: it can only have been approved, or reversed"),
        Word::Reversed => Ok(Report::Reversed(match case.position {
            Position::Captured => Undone::Capture,
            Position::Held => Undone::Hold,
            // Dead, with nothing in the books: its reference is closed, and that is all.
            Position::Nothing if case.status.is_terminal() => Undone::Nothing,
            // What was given back had been taken or held: the books show the same movements as the acquirer's.
            Position::Nothing if case.capture_at_once => Undone::Capture,
            Position::Nothing => Undone::Hold,
        })),
    }
}

fn kept(case: Case, taken: bool) -> Result<Report, &'static str> {
    match (case.reversal, case.position) {
        _ if case.acted_on.is_some() => Err("the acquirer acted on another amount: that has to be given back"),
        (Reversal::Open, _) => Err("its reversal is being sent until it is acknowledged, so it cannot be kept"),
        (Reversal::Acknowledged, _) => Err("its reversal was acknowledged, so it cannot be kept"),
        // An approval of a bill that does not await it opens a reversal, as any late approval does.
        (Reversal::None, Position::Nothing) => Ok(Report::Authorized { captured: taken || case.capture_at_once }),
        (_, _) if !case.bill_awaits => Err("its bill was paid by another channel, so the money has to go back"),
        (_, Position::Captured) => Ok(Report::StaysCaptured),
        (_, Position::Held) if taken => Ok(Report::Captured),
        // Only a review can go on from here; of the others the ladder has not ended.
        (_, Position::Held) if case.status != Status::Review => Err("its capture is still being asked about"),
        (_, Position::Held) => Ok(Report::StaysHeld),
        (Reversal::Refused, Position::Nothing) => Err("the books have no money of it that could be kept"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payment::Currency;

    fn cases() -> impl Strategy<Value = Case> {
        let position = prop::sample::select(vec![Position::Nothing, Position::Held, Position::Captured]);
        let reversal =
            prop::sample::select(vec![Reversal::None, Reversal::Open, Reversal::Refused, Reversal::Acknowledged]);
        let acted_on = prop::option::of(Just(Money::new(1, Currency::KGS)));
        let status = prop::sample::select(Status::ALL.to_vec());
        (status, position, any::<bool>(), reversal, any::<bool>(), acted_on).prop_map(
            |(status, position, bill_awaits, reversal, capture_at_once, acted_on)| Case {
                status,
                position,
                bill_awaits,
                reversal,
                capture_at_once,
                acted_on,
            },
        )
    }

    proptest! {
        #[test]
        fn a_persons_word_never_leaves_money_where_it_must_not_stay(case in cases()) {
            for word in Word::ALL {
                let Ok(report) = settle(case, word) else { continue };
                prop_assert!(!matches!(word, Word::Approved | Word::Captured) || case.acted_on.is_none());
                match report {
                    Report::Declined => prop_assert_eq!(case.position, Position::Nothing),
                    Report::Captured => prop_assert!(case.bill_awaits && word == Word::Captured),
                    Report::StaysCaptured => prop_assert!(case.bill_awaits),
                    Report::StaysHeld => prop_assert!(case.bill_awaits && case.position == Position::Held),
                    Report::Authorized { .. } => prop_assert_eq!(case.position, Position::Nothing),
                    Report::Reversed(undone) => {
                        let nothing = case.position == Position::Nothing;
                        let taken = nothing && case.capture_at_once && !case.status.is_terminal();
                        prop_assert_eq!(undone == Undone::Capture, case.position == Position::Captured || taken);
                    }
                }
            }
        }

        #[test]
        fn a_payment_in_review_can_always_be_settled(case in cases()) {
            let case = Case { status: Status::Review, ..case };
            prop_assert!(Word::ALL.into_iter().any(|word| settle(case, word).is_ok()));
        }

        #[test]
        fn what_is_on_its_way_or_over_is_left_alone(case in cases()) {
            let waits = matches!(case.status, Status::Unknown | Status::Reversing | Status::Review);
            let dead = matches!(case.status, Status::Declined | Status::Failed | Status::Reversed | Status::Settled);
            for word in Word::ALL {
                if !waits && (word != Word::Reversed || !dead) {
                    prop_assert!(settle(case, word).is_err());
                }
            }
        }
    }
}
