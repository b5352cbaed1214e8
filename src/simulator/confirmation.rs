//! The bank's rules for confirming a payer: which code, how often it may be wrong, and until when.

use time::OffsetDateTime;

use super::{
    acs::{self, Protocol},
    bank::Bank,
    cards::ONE_TIME_CODE,
};
use crate::{acquirer::http::wire::State, payment::Money};

/// How often a code may be wrong.
const TRIES: u8 = 3;

/// What a bank's confirmation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was the payer.
    Confirmed,
    /// The code was wrong too often.
    WrongCodes,
    /// The payer gave up.
    Cancelled,
    /// There was no right code in time.
    TimedOut,
}

/// Of an authorization: how far the payer has come on the bank's page.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Confirmation {
    wrong: u8,
    verdict: Option<Verdict>,
}

impl Confirmation {
    /// Whether the form that came back confirms the payment: the answer that the bank's page gave to it when it did, or
    /// the right one-time code itself, from a client that shows no page of the bank's.
    pub(super) fn is_in(self, protocol: Protocol, reference: &str, response: &[(String, String)]) -> bool {
        response.iter().any(|(name, value)| match self.verdict {
            None => name == "otp" && value == ONE_TIME_CODE,
            Some(Verdict::Confirmed) if name == "otp" => value == ONE_TIME_CODE,
            Some(Verdict::Confirmed) => name == protocol.answer_field() && acs::is_answer(protocol, reference, value),
            Some(Verdict::WrongCodes | Verdict::Cancelled | Verdict::TimedOut) => false,
        })
    }
}

/// What the payer did on the page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    Code(&'a str),
    Cancel,
}

/// What the page says of the code that was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing was typed yet.
    Nothing,
    /// Not six digits; no try is lost.
    NoCode,
    /// Wrong.
    Wrong,
}

/// What the page shows.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) protocol: Protocol,
    pub(super) amount: Money,
    pub(super) last_four: String,
    pub(super) expires_at: OffsetDateTime,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The code is asked for.
    Open { tries_left: u8, said: Said },
    /// The payer goes back.
    Over(Verdict),
}

impl Bank {
    /// How a payer's confirmation stands; none if none was ever asked for under this reference.
    pub(super) fn asking(&mut self, reference: &str, now: OffsetDateTime) -> Option<Asking> {
        let entry = self.settled(reference, now)?;
        let (protocol, expires_at) = (entry.behaviour.protocol()?, entry.expires_at?);
        let Confirmation { wrong, verdict } = entry.confirmation;
        let stage = match (verdict, entry.state) {
            (Some(verdict), _) => Stage::Over(verdict),
            (None, State::Challenged) => Stage::Open { tries_left: TRIES - wrong, said: Said::Nothing },
            (None, State::Approved) => Stage::Over(Verdict::Confirmed),
            (None, State::Declined | State::Pending | State::Closed) => Stage::Over(Verdict::TimedOut),
        };
        Some(Asking { protocol, amount: entry.amount, last_four: entry.last_four.clone(), expires_at, stage })
    }

    /// Takes what the payer did; how the confirmation stands after it.
    pub(super) fn answer(&mut self, reference: &str, given: Given<'_>, now: OffsetDateTime) -> Option<Asking> {
        let before = self.asking(reference, now)?;
        if matches!(before.stage, Stage::Over(_)) {
            return Some(before);
        }
        let confirmation = &mut self.settled(reference, now)?.confirmation;
        let said = match given {
            Given::Cancel => {
                confirmation.verdict = Some(Verdict::Cancelled);
                Said::Nothing
            }
            Given::Code(text) => confirmation.try_code(text),
        };
        let mut after = self.asking(reference, now)?;
        if let Stage::Open { said: now_said, .. } = &mut after.stage {
            *now_said = said;
        }
        Some(after)
    }
}

impl Confirmation {
    fn try_code(&mut self, typed: &str) -> Said {
        let code: String = typed.chars().filter(|char| !char.is_whitespace()).take(ONE_TIME_CODE.len() + 1).collect();
        if code.len() != ONE_TIME_CODE.len() || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Said::NoCode;
        }
        if code == ONE_TIME_CODE {
            self.verdict = Some(Verdict::Confirmed);
            return Said::Nothing;
        }
        self.wrong += 1;
        if self.wrong >= TRIES {
            self.verdict = Some(Verdict::WrongCodes);
        }
        Said::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_wrong_code_ends_it_and_what_is_no_code_costs_nothing() {
        let mut confirmation = Confirmation::default();
        for no_code in ["", "12345", "1234567", "12345a", "١٢٣٤٥٦"] {
            assert_eq!(confirmation.try_code(no_code), Said::NoCode);
        }
        for tries_used in 1..=TRIES {
            assert_eq!(confirmation.verdict, None);
            assert_eq!(confirmation.try_code("000000"), Said::Wrong);
            assert_eq!(confirmation.wrong, tries_used);
        }
        assert_eq!(confirmation.verdict, Some(Verdict::WrongCodes));
    }

    #[test]
    fn a_code_is_taken_as_people_type_it() {
        let mut confirmation = Confirmation::default();
        assert_eq!(confirmation.try_code(" 123 456 "), Said::Nothing);
        assert_eq!(confirmation.verdict, Some(Verdict::Confirmed));
    }

    #[test]
    fn only_the_right_code_or_the_banks_own_answer_after_a_right_code_confirms() {
        let confirms = |verdict, name: &str, value: &str| {
            let response = [(name.to_owned(), value.to_owned())];
            Confirmation { wrong: 0, verdict }.is_in(Protocol::V2, "ref", &response)
        };
        let confirmed = acs::answer(Protocol::V2, "ref", true);
        assert!(confirms(None, "otp", "123456") && confirms(Some(Verdict::Confirmed), "otp", "123456"));
        assert!(!confirms(None, "otp", "000000") && !confirms(None, "MD", "123456"));
        assert!(confirms(Some(Verdict::Confirmed), "cres", &confirmed));
        assert!(!confirms(Some(Verdict::Confirmed), "PaRes", &confirmed), "the other protocol's name");
        for not in [None, Some(Verdict::WrongCodes), Some(Verdict::Cancelled), Some(Verdict::TimedOut)] {
            assert!(!confirms(not, "cres", &confirmed), "made by somebody else: {not:?}");
        }
        assert!(!confirms(Some(Verdict::WrongCodes), "otp", "123456"), "the tries are used up");
    }
}
