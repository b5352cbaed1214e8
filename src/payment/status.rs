//! The life of a payment: one pure function decides every change of status.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::bill::UnknownWord;

/// Where a payment stands. Every status but `Declined`, `Failed` and `Reversed` is *live*: it holds its bill.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = PaymentStatus)]
pub enum Status {
    /// The intake has answered 202; nothing has been sent.
    Accepted,
    /// An operation that may hold the money has been claimed.
    Authorizing,
    /// The bank wants the payer's confirmation (3-D Secure).
    Challenged,
    /// The money is held.
    Authorized,
    /// Bytes may have reached the acquirer, and what came of them is not known.
    Unknown,
    /// What was held or taken is being given back.
    Reversing,
    /// A person has to settle it, with evidence.
    Review,
    /// The money has moved.
    Captured,
    /// The acquirer has paid it out to us.
    Settled,
    /// The acquirer, or our own check of the card, refused.
    Declined,
    /// Provably nothing was charged.
    Failed,
    /// What was held or taken has been given back.
    Reversed,
}

/// What can happen to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An authorization was claimed.
    AuthorizationClaimed,
    /// The payer has confirmed, and the completion was claimed.
    ConfirmationClaimed,
    /// The acquirer holds the money.
    Approved,
    /// The acquirer holds and has moved the money in one message.
    ApprovedAndCaptured,
    /// The bank asks the payer to confirm.
    ChallengeRequired,
    /// Refused by the acquirer or by our own checks.
    Declined,
    /// The payer gave up or let the time pass, and our reference is closed at the acquirer.
    ChallengeExpired,
    /// What came of it is not known.
    OutcomeUnknown,
    /// Proven: nothing was charged (rule 4).
    ProvenNotCharged,
    /// The acquirer has moved the money.
    Captured,
    /// What is held must be given back: bill paid elsewhere, capture refused, hold about to lapse.
    ReversalRequired,
    /// The acquirer acknowledged the reversal.
    Reversed,
    /// The reversal came too late: the acquirer had cleared it, and it stays paid.
    ReversalTooLate,
    /// Only a person can tell.
    ReviewRequired,
    /// The acquirer's settlement holds it.
    Settled,
}

/// What the payer is told. The words are the whole public vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublicStatus {
    /// Wait.
    Processing,
    /// The bank waits for the payer.
    Confirm,
    /// Paid.
    Paid,
    /// Refused; the payer may try again with another card.
    Declined,
    /// Nothing was charged, or it is given back; the payer may try again.
    NotCharged,
    /// Not known yet: do not pay again.
    Unknown,
    /// Given back in full after it had been paid.
    Refunded,
}

impl PublicStatus {
    /// The word used on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Confirm => "confirm",
            Self::Paid => "paid",
            Self::Declined => "declined",
            Self::NotCharged => "not_charged",
            Self::Unknown => "unknown",
            Self::Refunded => "refunded",
        }
    }

    /// Whether the event stream of a payment ends here.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Paid | Self::Declined | Self::NotCharged | Self::Refunded)
    }
}

/// An event that cannot happen to a payment of this status: a broken contract, never a payer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a payment that is {status}")]
pub struct IllegalTransition {
    /// Where the payment stood.
    pub status: Status,
    /// What was to happen to it.
    pub event: Event,
}

impl Status {
    /// All of them, in the order of a payment's life.
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::Authorizing,
        Self::Challenged,
        Self::Authorized,
        Self::Unknown,
        Self::Reversing,
        Self::Review,
        Self::Captured,
        Self::Settled,
        Self::Declined,
        Self::Failed,
        Self::Reversed,
    ];

    /// The status after `event`. The same status means that the event is absorbed: it changes nothing (rule 5).
    ///
    /// What an absorbed approval of a dead payment *opens* (a reversal) is decided in [`super::decision`].
    pub const fn after(self, event: &Event) -> Result<Self, IllegalTransition> {
        use Event as E;
        let to = match (self, event) {
            // Terminal states absorb whatever is heard late.
            (Self::Declined | Self::Failed | Self::Reversed | Self::Settled, _) => self,
            (Self::Captured, E::Settled) => Self::Settled,
            (Self::Captured, _) => Self::Captured,

            (Self::Accepted | Self::Authorizing, E::AuthorizationClaimed) => Self::Authorizing,
            (Self::Accepted, E::ProvenNotCharged) => Self::Failed,

            (Self::Challenged, E::ConfirmationClaimed) => Self::Authorizing,
            (Self::Challenged, E::ChallengeRequired) => Self::Challenged,
            (Self::Challenged, E::Declined | E::ChallengeExpired) => Self::Declined,
            (Self::Challenged, E::OutcomeUnknown) => Self::Unknown,
            (Self::Challenged, E::ProvenNotCharged) => Self::Failed,

            (Self::Authorizing | Self::Unknown, E::Approved) => Self::Authorized,
            (Self::Authorizing | Self::Unknown, E::ApprovedAndCaptured) => Self::Captured,
            (Self::Authorizing | Self::Unknown, E::ChallengeRequired) => Self::Challenged,
            (Self::Authorizing | Self::Unknown, E::Declined) => Self::Declined,
            (Self::Authorizing | Self::Unknown, E::OutcomeUnknown) => Self::Unknown,
            (Self::Authorizing | Self::Unknown, E::ProvenNotCharged) => Self::Failed,
            (Self::Unknown, E::Captured) => Self::Captured,
            (Self::Unknown, E::ReversalRequired) => Self::Reversing,

            (Self::Authorized, E::Captured | E::ApprovedAndCaptured) => Self::Captured,
            (Self::Authorized, E::ReversalRequired) => Self::Reversing,
            (Self::Authorized, E::Approved | E::OutcomeUnknown) => Self::Authorized,

            (Self::Reversing, E::Reversed) => Self::Reversed,
            (Self::Reversing, E::ReversalTooLate) => Self::Captured,
            (Self::Reversing, E::Approved | E::OutcomeUnknown | E::ReversalRequired | E::Captured) => Self::Reversing,

            (Self::Unknown | Self::Authorized | Self::Reversing, E::ReviewRequired) => Self::Review,

            // A person's word, given with evidence.
            (Self::Review, E::Approved) => Self::Authorized,
            (Self::Review, E::Captured | E::ApprovedAndCaptured) => Self::Captured,
            (Self::Review, E::Declined) => Self::Declined,
            (Self::Review, E::Reversed) => Self::Reversed,
            (Self::Review, E::ProvenNotCharged) => Self::Failed,
            (Self::Review, E::ReviewRequired | E::OutcomeUnknown) => Self::Review,

            _ => return Err(IllegalTransition { status: self, event: *event }),
        };
        Ok(to)
    }

    /// What happens to a payment that a person has to look at: one that was never reported as unknown is unknown now.
    pub const fn to_review(self) -> &'static [Event] {
        match self {
            Self::Authorizing | Self::Challenged => &[Event::OutcomeUnknown, Event::ReviewRequired],
            _ => &[Event::ReviewRequired],
        }
    }

    /// Whether this payment holds its bill: no other may be accepted for it.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Declined | Self::Failed | Self::Reversed)
    }

    /// Whether nothing more will change it.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Declined | Self::Failed | Self::Reversed | Self::Settled)
    }

    /// What the payer is told.
    pub const fn public(self) -> PublicStatus {
        match self {
            Self::Accepted | Self::Authorizing | Self::Authorized => PublicStatus::Processing,
            Self::Challenged => PublicStatus::Confirm,
            Self::Captured | Self::Settled => PublicStatus::Paid,
            Self::Declined => PublicStatus::Declined,
            Self::Failed | Self::Reversing | Self::Reversed => PublicStatus::NotCharged,
            Self::Unknown | Self::Review => PublicStatus::Unknown,
        }
    }

    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Authorizing => "authorizing",
            Self::Challenged => "challenged",
            Self::Authorized => "authorized",
            Self::Unknown => "unknown",
            Self::Reversing => "reversing",
            Self::Review => "review",
            Self::Captured => "captured",
            Self::Settled => "settled",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::Reversed => "reversed",
        }
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::AuthorizationClaimed,
        Self::ConfirmationClaimed,
        Self::Approved,
        Self::ApprovedAndCaptured,
        Self::ChallengeRequired,
        Self::Declined,
        Self::ChallengeExpired,
        Self::OutcomeUnknown,
        Self::ProvenNotCharged,
        Self::Captured,
        Self::ReversalRequired,
        Self::Reversed,
        Self::ReversalTooLate,
        Self::ReviewRequired,
        Self::Settled,
    ];

    /// The word used in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationClaimed => "authorization_claimed",
            Self::ConfirmationClaimed => "confirmation_claimed",
            Self::Approved => "approved",
            Self::ApprovedAndCaptured => "approved_and_captured",
            Self::ChallengeRequired => "challenge_required",
            Self::Declined => "declined",
            Self::ChallengeExpired => "challenge_expired",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ProvenNotCharged => "proven_not_charged",
            Self::Captured => "captured",
            Self::ReversalRequired => "reversal_required",
            Self::Reversed => "reversed",
            Self::ReversalTooLate => "reversal_too_late",
            Self::ReviewRequired => "review_required",
            Self::Settled => "settled",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// Every change of status that [`Status::after`] allows. The `transition` table of the database holds the same pairs.
pub fn transitions() -> impl Iterator<Item = (Status, Status)> {
    let mut pairs: Vec<_> = Status::ALL
        .into_iter()
        .flat_map(|from| Event::ALL.iter().filter_map(move |event| Some((from, from.after(event).ok()?))))
        .filter(|(from, to)| from != to)
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Section 2 of the design, line by line.
    const DESIGN: &[(Status, &[Status])] = &[
        (Status::Accepted, &[Status::Authorizing, Status::Failed]),
        (
            Status::Authorizing,
            &[
                Status::Authorized,
                Status::Captured,
                Status::Challenged,
                Status::Declined,
                Status::Unknown,
                Status::Failed,
            ],
        ),
        (Status::Challenged, &[Status::Authorizing, Status::Declined, Status::Unknown, Status::Failed]),
        (Status::Authorized, &[Status::Captured, Status::Reversing, Status::Review]),
        (
            Status::Unknown,
            &[
                Status::Authorized,
                Status::Captured,
                Status::Challenged,
                Status::Declined,
                Status::Reversing,
                Status::Failed,
                Status::Review,
            ],
        ),
        (Status::Reversing, &[Status::Reversed, Status::Captured, Status::Review]),
        (Status::Review, &[Status::Authorized, Status::Captured, Status::Declined, Status::Reversed, Status::Failed]),
        (Status::Captured, &[Status::Settled]),
    ];

    #[test]
    fn the_transitions_are_those_of_the_design() {
        let mut expected: Vec<_> = DESIGN.iter().flat_map(|(from, to)| to.iter().map(|to| (*from, *to))).collect();
        expected.sort_unstable();
        assert_eq!(transitions().collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn a_dead_payment_never_comes_back(events in prop::collection::vec(prop::sample::select(&Event::ALL[..]), 0..40)) {
            let mut status = Status::Accepted;
            let mut ended = None;
            for event in events {
                status = status.after(&event).unwrap_or(status);
                if let Some(end) = ended {
                    prop_assert_eq!(status, end);
                }
                if status.is_terminal() {
                    ended = Some(status);
                }
            }
        }

        #[test]
        fn money_that_has_moved_is_never_called_not_charged(events in prop::collection::vec(prop::sample::select(&Event::ALL[..]), 0..40)) {
            let mut status = Status::Accepted;
            let mut captured = false;
            for event in events {
                status = status.after(&event).unwrap_or(status);
                captured |= status == Status::Captured;
                if captured {
                    prop_assert!(matches!(status, Status::Captured | Status::Settled));
                }
            }
        }
    }
}
