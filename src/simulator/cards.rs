//! The test cards: one table that the simulator obeys and the documents print.

use std::time::Duration;

use super::acs::Protocol;

/// A card number and what the simulator does when it sees it.
#[derive(Debug, Clone, Copy)]
pub struct TestCard {
    /// 16 digits with a valid check digit.
    pub number: &'static str,
    /// A few words, for a list to choose from.
    pub title: &'static str,
    /// What happens, for people.
    pub what: &'static str,
    /// What happens, for the simulator.
    pub behaviour: Behaviour,
}

/// What the simulator does with an authorization. A repeat of a request that was booked is answered with what stands
/// in the books, whatever happened to the first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Approves.
    Approve,
    /// Declines with this code (ISO 8583 field 39).
    Decline(&'static str),
    /// Asks for the payer's confirmation (EMV 3-D Secure), which stays open for `SimulatorOptions::challenge`.
    Challenge,
    /// The same in the shape of 3-D Secure 1.0.2.
    LegacyChallenge,
    /// As `Challenge`, but open for `SimulatorOptions::short_challenge` only.
    ShortChallenge,
    /// Approves after `SimulatorOptions::slow`; `pending` until then.
    Slow,
    /// Does nothing and never answers.
    TimeoutBefore,
    /// Approves and never answers.
    TimeoutAfter,
    /// Approves and answers 500.
    ErrorAfter,
    /// Resets the connection, having done nothing.
    ResetBefore,
    /// Approves and resets the connection.
    ResetAfter,
    /// Approves an amount one minor unit too small.
    WrongAmount,
    /// Never answers; unknown to inquiries for `SimulatorOptions::late`, then approved, unless it was closed.
    Late,
    /// Answers 503 with `Retry-After` twice, then approves.
    Busy,
    /// Approves, and declines the capture with 05.
    CaptureDeclined,
    /// Approves, captures, and answers the first capture with 500.
    CaptureErrorAfter,
    /// Approves, reverses, and answers the first reversal with 500.
    ReversalErrorAfter,
}

impl Behaviour {
    /// How long until the authorization's outcome exists, if it takes any time.
    pub(super) fn delay(self, slow: Duration, late: Duration) -> Option<Duration> {
        match self {
            Self::Slow => Some(slow),
            Self::Late => Some(late),
            _ => None,
        }
    }

    /// What the bank's page speaks, if there is one.
    pub(super) const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Challenge | Self::ShortChallenge => Some(Protocol::V2),
            Self::LegacyChallenge => Some(Protocol::V1),
            _ => None,
        }
    }
}

/// What the bank wants to hear in a challenge.
pub const ONE_TIME_CODE: &str = "123456";

const fn card(number: &'static str, title: &'static str, behaviour: Behaviour, what: &'static str) -> TestCard {
    TestCard { number, title, what, behaviour }
}

/// Every test card. Any other number is approved. Where Stripe's test mode has a card of the same meaning, it is the
/// same number.
pub const CARDS: &[TestCard] = &[
    card("4111111111111111", "approved", Behaviour::Approve, "Approved (Visa)."),
    card("5555555555554444", "approved", Behaviour::Approve, "Approved (Mastercard)."),
    card("4000000000009995", "insufficient funds", Behaviour::Decline("51"), "Declined with 51."),
    card("4000000000000002", "do not honor", Behaviour::Decline("05"), "Declined with 05."),
    card("4000000000000069", "expired", Behaviour::Decline("54"), "Declined with 54."),
    card("4000000000009987", "lost", Behaviour::Decline("41"), "Declined with 41."),
    card("4000000000006975", "limit exceeded", Behaviour::Decline("61"), "Declined with 61."),
    card("4000000000000127", "wrong cvc", Behaviour::Decline("N7"), "Declined with N7."),
    card("4100000000000019", "suspected fraud", Behaviour::Decline("59"), "Declined with 59."),
    card(
        "4000000000003220",
        "3-D Secure",
        Behaviour::Challenge,
        "Challenged (EMV 3-D Secure 2.2): the one-time code 123456 approves; three wrong ones, or *Cancel*, decline with 1A.",
    ),
    card(
        "4000000000003063",
        "3-D Secure 1.0",
        Behaviour::LegacyChallenge,
        "The same in the shape of 3-D Secure 1.0.2: `PaReq`, `MD`, `TermUrl`.",
    ),
    card(
        "4000000000050007",
        "3-D Secure, expires fast",
        Behaviour::ShortChallenge,
        "Challenged, but the challenge is open for 2 s only; then declined with 1A.",
    ),
    card("4000000000050015", "slow", Behaviour::Slow, "Approved after 2 s; pending to inquiries until then."),
    card(
        "4000000000050023",
        "time-out before processing",
        Behaviour::TimeoutBefore,
        "Never answered and never booked; inquiries find nothing.",
    ),
    card(
        "4000000000050031",
        "time-out after approval",
        Behaviour::TimeoutAfter,
        "Booked as approved, never answered; an inquiry tells the truth.",
    ),
    card("4000000000050049", "error after approval", Behaviour::ErrorAfter, "Booked as approved, answered 500."),
    card(
        "4000000000050056",
        "reset before processing",
        Behaviour::ResetBefore,
        "The connection is reset (RST); nothing is booked.",
    ),
    card(
        "4000000000050064",
        "reset after approval",
        Behaviour::ResetAfter,
        "Booked as approved, then the connection is reset (RST).",
    ),
    card(
        "4000000000050072",
        "wrong amount",
        Behaviour::WrongAmount,
        "Approved, but for one minor unit less than asked.",
    ),
    card(
        "4000000000050080",
        "late",
        Behaviour::Late,
        "Never answered; inquiries do not find it for 5 s, then it is approved, unless a reversal closed it before.",
    ),
    card("4000000000050098", "busy", Behaviour::Busy, "503 with Retry-After twice, then approved."),
    card(
        "4000000000050106",
        "capture declined",
        Behaviour::CaptureDeclined,
        "Approved; a capture of its own is declined with 05.",
    ),
    card(
        "4000000000050114",
        "error after capture",
        Behaviour::CaptureErrorAfter,
        "Approved; its capture is booked and answered 500 the first time.",
    ),
    card(
        "4000000000050122",
        "error after reversal",
        Behaviour::ReversalErrorAfter,
        "Approved; its reversal is booked and answered 500 the first time.",
    ),
];

/// What happens to this number.
pub(super) fn behaviour(number: &str) -> Behaviour {
    CARDS.iter().find(|card| card.number == number).map_or(Behaviour::Approve, |card| card.behaviour)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::payment::card::luhn;

    #[test]
    fn every_number_can_be_typed_into_the_card_form_and_means_one_thing() {
        let mut seen = HashSet::new();
        for card in CARDS {
            assert!(card.number.len() == 16 && luhn(card.number), "{}", card.number);
            assert!(seen.insert(card.number), "{} is there twice", card.number);
        }
    }
}
