//! Operations: requests to the acquirer, what they came to, and how two reports of one operation merge.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{bill::UnknownWord, card::DeclineReason, money::Money};

/// What is asked of the acquirer. `Inquire` moves no money and is never stored as an operation of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Hold the money (or take it at once, with `capture`).
    Authorize,
    /// Go on with an authorization after the payer confirmed it with the bank.
    CompleteChallenge,
    /// Take the money that is held.
    Capture,
    /// Undo: release the hold before clearing, give back in full after it, or close a reference that was never seen.
    Reverse,
    /// Give back a part or all of what was captured.
    Refund,
    /// Ask what came of an operation.
    Inquire,
}

impl OperationKind {
    /// Those that are stored and may move money.
    pub const MONEY_MOVING: [Self; 5] =
        [Self::Authorize, Self::CompleteChallenge, Self::Capture, Self::Reverse, Self::Refund];

    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::CompleteChallenge => "complete_challenge",
            Self::Capture => "capture",
            Self::Reverse => "reverse",
            Self::Refund => "refund",
            Self::Inquire => "inquire",
        }
    }
}

impl FromStr for OperationKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::MONEY_MOVING
            .into_iter()
            .chain([Self::Inquire])
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The acquirer did it.
    Approved(Approval),
    /// The bank wants the payer's confirmation first; nothing is charged yet.
    Challenged(Challenge),
    /// The acquirer, or our own check before the call, refused; nothing is charged.
    Declined(Decline),
    /// Provably no effect: the bytes never left, or our reference was closed before anything came of it.
    NotSent {
        /// Why, for people.
        why: String,
    },
    /// Bytes may have arrived, and what came of them is not known.
    Unknown {
        /// Why, for people.
        why: String,
    },
}

/// An acquirer's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Approval {
    /// The acquirer's own identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquirer_reference: Option<String>,
    /// The issuer's approval code (ISO 8583 field 38).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_code: Option<String>,
    /// Retrieval reference number (ISO 8583 field 37).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rrn: Option<String>,
    /// The amount the acquirer says it acted on; checked against ours.
    pub amount: Money,
    /// For an authorization: whether the money has been moved in the same message.
    #[serde(default)]
    pub captured: bool,
    /// For a reversal: what it undid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// The acquirer's time of the operation.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
}

/// What a reversal undid. In each case the reference is closed: an authorization of it that arrives later is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Undone {
    /// There was nothing: the acquirer had never approved it.
    Nothing,
    /// A hold was released.
    Hold,
    /// Captured money was given back.
    Capture,
}

/// A confirmation the bank asks of the payer (EMV 3-D Secure).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
pub struct Challenge {
    /// Where the payer's browser posts the form to.
    pub url: String,
    /// The form's hidden fields, in order.
    pub fields: Vec<(String, String)>,
    /// Until when the bank waits.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Decline {
    /// In words that a payer can act on.
    pub reason: DeclineReason,
    /// The acquirer's own code; empty when our own checks refused before any call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What a further report of an operation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// It says more than was known: act on it.
    News,
    /// Known already, or weaker: nothing changes.
    Absorbed,
    /// Two different definite outcomes: a person must look.
    Conflict,
}

impl Outcome {
    /// The word used in the database, in metrics and on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Approved(_) => "approved",
            Self::Challenged(_) => "challenged",
            Self::Declined(_) => "declined",
            Self::NotSent { .. } => "not_sent",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether it settles the operation for good.
    pub const fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// Merges a report into what is known of the operation by word: `none < unknown < challenged < other definite ones`.
    ///
    /// A challenge is what an authorization comes to until the payer answers or its time is over. That it was declined
    /// for good is news; that it was approved is told by the completion, or by the reversal that closes it, each of
    /// which has a report of its own. `known` is the word stored, if any; replay safety rests on this function.
    pub fn merge(known: Option<&str>, report: &Self) -> Merge {
        match (known, report) {
            (None, _) => Merge::News,
            (Some("unknown"), Self::Unknown { .. }) => Merge::Absorbed,
            (Some("unknown"), _) => Merge::News,
            (Some(_), Self::Unknown { .. }) => Merge::Absorbed,
            (Some(known), report) if known == report.as_str() => Merge::Absorbed,
            (Some(_), Self::Challenged(_)) => Merge::Absorbed,
            (Some("challenged"), Self::Declined(_)) => Merge::News,
            (Some("challenged"), _) => Merge::Absorbed,
            // Neither had any effect: our own check refused a card whose reference was closed meanwhile.
            (Some("declined"), Self::NotSent { .. }) | (Some("not_sent"), Self::Declined(_)) => Merge::Absorbed,
            (Some(_), _) => Merge::Conflict,
        }
    }
}

/// What an inquiry by our reference found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inquiry {
    /// The acquirer knows the reference, and this is how it stands.
    Found(Outcome),
    /// The acquirer is still working on it.
    Pending,
    /// The acquirer does not know the reference *now*; it may still arrive (rule 4).
    NotFound,
    /// No answer, or none that can be read.
    NoAnswer {
        /// Why, for people.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reports() -> impl Strategy<Value = Outcome> {
        let at = OffsetDateTime::UNIX_EPOCH;
        let amount = Money::new(1, super::super::Currency::KGS);
        prop_oneof![
            Just(Outcome::Approved(Approval {
                acquirer_reference: None,
                authorization_code: None,
                rrn: None,
                amount,
                captured: false,
                undone: None,
                at
            })),
            Just(Outcome::Challenged(Challenge { url: String::new(), fields: Vec::new(), expires_at: at })),
            Just(Outcome::Declined(Decline { reason: DeclineReason::Other, code: None })),
            Just(Outcome::NotSent { why: String::new() }),
            Just(Outcome::Unknown { why: String::new() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_known_only_grows_and_every_report_may_be_repeated(reports in prop::collection::vec(reports(), 0..12)) {
            let rank = |known: Option<&str>| match known { None => 0, Some("unknown") => 1, Some("challenged") => 2, Some(_) => 3 };
            let mut known: Option<&str> = None;
            for report in &reports {
                let before = known;
                if Outcome::merge(known, report) == Merge::News {
                    known = Some(report.as_str());
                }
                prop_assert!(rank(known) >= rank(before));
                if rank(before) == 3 {
                    prop_assert_eq!(known, before);
                }
                prop_assert_ne!(Outcome::merge(known, report), Merge::News);
            }
        }

        #[test]
        fn the_definite_outcome_does_not_depend_on_unknowns_around_it(reports in prop::collection::vec(reports(), 0..12)) {
            let settle = |reports: &mut dyn Iterator<Item = &Outcome>| {
                let mut known: Option<&'static str> = None;
                for report in reports {
                    if Outcome::merge(known, report) == Merge::News {
                        known = Some(report.as_str());
                    }
                }
                known.filter(|word| *word != "unknown")
            };
            let all = settle(&mut reports.iter());
            let definite = settle(&mut reports.iter().filter(|report| report.is_definite()));
            prop_assert_eq!(all, definite);
        }
    }
}
