//! Postings: each moves an amount from one account to another, so that the books sum to zero by construction.

use serde::{Deserialize, Serialize};

use super::{
    money::Money,
    operation::{Approval, OperationKind, Undone},
};

/// An account of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// Money held on payers' cards, not ours yet.
    Held,
    /// The other side of `Held`: what payers have allowed.
    Allowed,
    /// What the acquirer owes us.
    Acquirer,
    /// What we owe the agencies.
    Agency,
}

impl Account {
    /// The word used in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Allowed => "allowed",
            Self::Acquirer => "acquirer",
            Self::Agency => "agency",
        }
    }
}

/// Why a posting was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PostingKind {
    /// Money was held.
    Hold,
    /// A hold ended, by capture or release.
    Release,
    /// Money moved to us.
    Capture,
    /// All of it was given back as if it had not been.
    Reversal,
    /// A part or all of it was given back.
    Refund,
}

impl PostingKind {
    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Capture => "capture",
            Self::Reversal => "reversal",
            Self::Refund => "refund",
        }
    }

    /// Whether money moved between the acquirer and us, so that finance receives a settlement entry.
    pub const fn moves_money(self) -> bool {
        matches!(self, Self::Capture | Self::Reversal | Self::Refund)
    }
}

/// A debit and a credit of the same amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Why.
    pub kind: PostingKind,
    /// The account that receives.
    pub debit: Account,
    /// The account that gives.
    pub credit: Account,
    /// Positive, minor units.
    pub amount: Money,
}

/// What the books hold of a payment before an operation is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Nothing, or nothing any more.
    Nothing,
    /// A hold that has been neither captured nor released.
    Held,
    /// A capture that has not been reversed.
    Captured,
}

/// The postings of an approved operation of this amount. What the acquirer says it acted on is the same by now, but where
/// it found nothing to undo.
///
/// A reversal may tell us of a hold or a capture that the books had not heard of; then both legs are posted, so that
/// the books show the same movements as the acquirer's.
pub fn postings(kind: OperationKind, amount: Money, approval: &Approval, position: Position) -> Vec<Posting> {
    let hold = Posting { kind: PostingKind::Hold, debit: Account::Held, credit: Account::Allowed, amount };
    let release = Posting { kind: PostingKind::Release, debit: Account::Allowed, credit: Account::Held, amount };
    let capture = Posting { kind: PostingKind::Capture, debit: Account::Acquirer, credit: Account::Agency, amount };
    let back = |kind| Posting { kind, debit: Account::Agency, credit: Account::Acquirer, amount };
    let reversal = back(PostingKind::Reversal);
    match (kind, position) {
        (OperationKind::Authorize | OperationKind::CompleteChallenge, _) => {
            vec![if approval.captured { capture } else { hold }]
        }
        (OperationKind::Capture, Position::Held) => vec![release, capture],
        (OperationKind::Capture, _) => vec![capture],
        (OperationKind::Reverse, position) => match (approval.undone.unwrap_or(Undone::Hold), position) {
            (Undone::Nothing, Position::Nothing) => Vec::new(),
            (Undone::Hold, Position::Nothing) => vec![hold, release],
            (Undone::Nothing | Undone::Hold, Position::Held) => vec![release],
            (Undone::Capture, Position::Nothing) => vec![capture, reversal],
            (Undone::Capture, Position::Held) => vec![release, capture, reversal],
            (Undone::Hold | Undone::Capture, Position::Captured) => vec![reversal],
            // The acquirer denies what we have: a person looks, and the books stay.
            (Undone::Nothing, Position::Captured) => Vec::new(),
        },
        (OperationKind::Refund, _) => vec![back(PostingKind::Refund)],
        (OperationKind::Inquire, _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;
    use crate::payment::Currency;

    fn approval(value: i64, captured: bool, undone: Option<Undone>) -> Approval {
        Approval {
            acquirer_reference: None,
            authorization_code: None,
            rrn: None,
            amount: Money::new(value, Currency::KGS),
            captured,
            undone,
            at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Balance of each account after these postings, debits positive.
    fn balances(postings: &[Posting]) -> HashMap<Account, i64> {
        let mut balances = HashMap::new();
        for posting in postings {
            *balances.entry(posting.debit).or_default() += posting.amount.value;
            *balances.entry(posting.credit).or_default() -= posting.amount.value;
        }
        balances
    }

    proptest! {
        #[test]
        fn every_way_through_a_payment_leaves_no_hold_behind(value in 1_i64..10_000_000, at_once: bool, undo: bool, cleared_early: bool) {
            let amount = Money::new(value, Currency::KGS);
            let mut all = postings(OperationKind::Authorize, amount, &approval(value, at_once, None), Position::Nothing);
            if !at_once && !undo {
                all.extend(postings(OperationKind::Capture, amount, &approval(value, false, None), Position::Held));
            }
            if undo {
                let undone = if at_once || cleared_early { Undone::Capture } else { Undone::Hold };
                let position = if at_once { Position::Captured } else { Position::Held };
                all.extend(postings(OperationKind::Reverse, amount, &approval(value, false, Some(undone)), position));
            }
            let balances = balances(&all);
            prop_assert_eq!(balances.values().sum::<i64>(), 0);
            prop_assert_eq!(balances.get(&Account::Held).copied().unwrap_or(0), 0);
            prop_assert_eq!(balances.get(&Account::Acquirer).copied().unwrap_or(0), if undo { 0 } else { value });
            prop_assert_eq!(balances.get(&Account::Agency).copied().unwrap_or(0), if undo { 0 } else { -value });
        }
    }

    #[test]
    fn closing_a_reference_that_was_never_seen_posts_nothing() {
        let closed = approval(0, false, Some(Undone::Nothing));
        let amount = Money::new(100, Currency::KGS);
        assert!(postings(OperationKind::Reverse, amount, &closed, Position::Nothing).is_empty());
        // The hold that the acquirer has forgotten ends whole.
        let released = postings(OperationKind::Reverse, amount, &closed, Position::Held);
        assert_eq!(
            released.iter().map(|posting| (posting.kind, posting.amount)).collect::<Vec<_>>(),
            [(PostingKind::Release, amount)]
        );
    }
}
