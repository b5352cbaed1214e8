//! Cards: parsed once, shown only masked, zeroized when dropped.
//!
//! The types here hold what a payer typed after the sealed card has been opened. They exist in the memory of the
//! authorize worker alone (PCI DSS 4.0.1, requirement 3).

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What the payer typed, as it comes out of the sealed card. Nothing in it has been checked.
#[derive(Clone, Deserialize, Serialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct CardInput {
    /// The card's number, digits only.
    pub number: String,
    /// 1 to 12.
    pub expiry_month: u8,
    /// Four digits.
    pub expiry_year: u16,
    /// The card verification code.
    pub cvc: String,
    /// The holder's name as printed.
    pub holder: String,
}

/// A card that passed the checks that need no bank.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Card {
    number: String,
    expiry_month: u8,
    expiry_year: u16,
    cvc: String,
    holder: String,
}

/// First six and last four digits, all that PCI DSS 3.4.1 lets be shown; what is kept of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskedCard {
    /// For example `411111******1111`.
    pub number: String,
    /// `visa`, `mastercard`, `mir`, `unionpay`, `elcart` or `other`.
    pub brand: String,
}

/// Which cards are taken. Configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardRules {
    /// Allowed lengths of the number; 16 digits by default.
    pub lengths: Vec<usize>,
    /// Allowed brands; empty means every brand.
    pub networks: Vec<String>,
}

impl Default for CardRules {
    fn default() -> Self {
        Self { lengths: vec![16], networks: Vec::new() }
    }
}

/// Why a payment was declined, in words that a payer can act on. The acquirers' codes are mapped to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// The number has the wrong length or check digit (ISO/IEC 7812-1, Luhn).
    InvalidNumber,
    /// The expiry date is no date, or has passed.
    ExpiredCard,
    /// The verification code is not three digits, or the bank refused it.
    InvalidCvc,
    /// The holder's name is not in Latin letters.
    InvalidHolder,
    /// This card network is not taken here.
    UnsupportedNetwork,
    /// The sealed card could not be opened: enter the card again.
    UnreadableCard,
    /// The sealed card expired before it could be used: enter the card again.
    CardTimedOut,
    /// Not enough money on the card.
    InsufficientFunds,
    /// The bank reports the card lost or stolen.
    LostOrStolen,
    /// Amount or count limit of the card.
    LimitExceeded,
    /// The payer did not confirm with the bank, or not in time.
    AuthenticationFailed,
    /// The bank suspects fraud.
    SuspectedFraud,
    /// The bank refused without saying why.
    DoNotHonor,
    /// Too many payments with this card were declined lately: it was not sent to the bank this time.
    TooManyAttempts,
    /// Anything else the bank said.
    Other,
}

impl DeclineReason {
    /// What the limits do not count as a failure: it is ours, and no bank has seen the card. Counting a refusal by a limit
    /// would make the limit feed itself.
    pub const NOT_COUNTED: [Self; 3] = [Self::UnreadableCard, Self::CardTimedOut, Self::TooManyAttempts];

    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidNumber => "invalid_number",
            Self::ExpiredCard => "expired_card",
            Self::InvalidCvc => "invalid_cvc",
            Self::InvalidHolder => "invalid_holder",
            Self::UnsupportedNetwork => "unsupported_network",
            Self::UnreadableCard => "unreadable_card",
            Self::CardTimedOut => "card_timed_out",
            Self::InsufficientFunds => "insufficient_funds",
            Self::LostOrStolen => "lost_or_stolen",
            Self::LimitExceeded => "limit_exceeded",
            Self::AuthenticationFailed => "authentication_failed",
            Self::SuspectedFraud => "suspected_fraud",
            Self::DoNotHonor => "do_not_honor",
            Self::TooManyAttempts => "too_many_attempts",
            Self::Other => "other",
        }
    }
}

impl CardInput {
    /// Checks everything that can be known without a bank, in the order of the form.
    ///
    /// `year` and `month` are today's in Asia/Bishkek; a card is good through the last day of its month.
    pub fn check(&self, rules: &CardRules, (year, month): (u16, u8)) -> Result<Card, DeclineReason> {
        let digits = self.number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !rules.lengths.contains(&self.number.len()) || !luhn(&self.number) {
            return Err(DeclineReason::InvalidNumber);
        }
        if !rules.networks.is_empty() && !rules.networks.iter().any(|network| network == brand(&self.number)) {
            return Err(DeclineReason::UnsupportedNetwork);
        }
        let expiry = (self.expiry_year, self.expiry_month);
        if !(1..=12).contains(&self.expiry_month) || expiry < (year, month) || self.expiry_year > year + 20 {
            return Err(DeclineReason::ExpiredCard);
        }
        if self.cvc.len() != 3 || !self.cvc.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DeclineReason::InvalidCvc);
        }
        if !holder_is_latin(&self.holder) {
            return Err(DeclineReason::InvalidHolder);
        }
        Ok(Card {
            number: self.number.clone(),
            expiry_month: self.expiry_month,
            expiry_year: self.expiry_year,
            cvc: self.cvc.clone(),
            holder: self.holder.trim().to_owned(),
        })
    }

    /// What may be kept of this card, also when it is declined. A number too short to mask well is not kept at all.
    pub fn masked(&self) -> Option<MaskedCard> {
        let plausible = (13..=19).contains(&self.number.len()) && self.number.bytes().all(|byte| byte.is_ascii_digit());
        plausible.then(|| mask(&self.number))
    }
}

impl Card {
    /// The number. For the acquirer's adapter alone.
    pub fn number(&self) -> &str {
        &self.number
    }

    /// Month and four-digit year. For the acquirer's adapter alone.
    pub fn expiry(&self) -> (u8, u16) {
        (self.expiry_month, self.expiry_year)
    }

    /// The verification code. For the acquirer's adapter alone; never kept after authorization (PCI DSS 3.3.1).
    pub fn cvc(&self) -> &str {
        &self.cvc
    }

    /// The holder's name.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// What may be kept.
    pub fn masked(&self) -> MaskedCard {
        mask(&self.number)
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Card(***)")
    }
}

impl fmt::Debug for CardInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardInput(***)")
    }
}

fn mask(number: &str) -> MaskedCard {
    let stars = "*".repeat(number.len() - 10);
    MaskedCard {
        number: format!("{}{stars}{}", &number[..6], &number[number.len() - 4..]),
        brand: brand(number).to_owned(),
    }
}

/// The check digit of ISO/IEC 7812-1, annex B. False for anything but digits.
pub fn luhn(number: &str) -> bool {
    let mut sum = 0;
    for (index, byte) in number.bytes().rev().enumerate() {
        if !byte.is_ascii_digit() {
            return false;
        }
        let digit = u32::from(byte - b'0') << (index % 2);
        sum += digit / 10 + digit % 10;
    }
    !number.is_empty() && sum % 10 == 0
}

/// The network by the first digits of the number (ISO/IEC 7812 issuer identification).
pub fn brand(number: &str) -> &'static str {
    let prefix = |length: usize| number.get(..length).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    match (prefix(1), prefix(2), prefix(4)) {
        (_, _, 9417) => "elcart",
        (_, _, 2200..=2204) => "mir",
        (_, _, 2221..=2720) | (_, 51..=55, _) => "mastercard",
        (4, _, _) => "visa",
        (_, 62 | 81, _) => "unionpay",
        _ => "other",
    }
}

fn holder_is_latin(holder: &str) -> bool {
    let holder = holder.trim();
    (2..=64).contains(&holder.len())
        && holder.bytes().any(|byte| byte.is_ascii_alphabetic())
        && holder.bytes().all(|byte| byte.is_ascii_alphabetic() || b" .'-/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn card() -> CardInput {
        CardInput {
            number: "4111111111111111".into(),
            expiry_month: 12,
            expiry_year: 2030,
            cvc: "123".into(),
            holder: "AIBEK ASANOV".into(),
        }
    }

    fn check(change: impl FnOnce(&mut CardInput)) -> Result<(), DeclineReason> {
        let mut input = card();
        change(&mut input);
        input.check(&CardRules::default(), (2026, 11)).map(drop)
    }

    #[test]
    fn each_field_is_answered_with_its_own_reason() {
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|card| card.number = "4111111111111112".into()), Err(DeclineReason::InvalidNumber));
        assert_eq!(check(|card| card.number = "4222222222222".into()), Err(DeclineReason::InvalidNumber));
        assert_eq!(check(|card| card.number = "４111111111111111".into()), Err(DeclineReason::InvalidNumber));
        assert_eq!(check(|card| (card.expiry_year, card.expiry_month) = (2026, 10)), Err(DeclineReason::ExpiredCard));
        assert_eq!(check(|card| (card.expiry_year, card.expiry_month) = (2026, 11)), Ok(()));
        assert_eq!(check(|card| card.expiry_month = 13), Err(DeclineReason::ExpiredCard));
        assert_eq!(check(|card| card.cvc = "12".into()), Err(DeclineReason::InvalidCvc));
        assert_eq!(check(|card| card.holder = "АЙБЕК АСАНОВ".into()), Err(DeclineReason::InvalidHolder));
    }

    #[test]
    fn networks_can_be_limited() {
        let rules = CardRules { networks: vec!["mastercard".into()], ..CardRules::default() };
        assert_eq!(card().check(&rules, (2026, 11)).map(drop), Err(DeclineReason::UnsupportedNetwork));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_checks_panic_and_a_mask_shows_ten_digits_at_most(
            number in ".{0,24}", cvc in ".{0,5}", holder in ".{0,80}", month: u8, year: u16,
        ) {
            let input = CardInput { number, expiry_month: month, expiry_year: year, cvc, holder };
            let _ = input.check(&CardRules::default(), (2026, 11));
            if let Some(masked) = input.masked() {
                prop_assert_eq!(masked.number.bytes().filter(u8::is_ascii_digit).count(), 10);
            }
        }

        #[test]
        fn one_wrong_digit_never_passes_luhn(index in 0_usize..16, by in 1_u8..10) {
            let mut digits = card().number.clone().into_bytes();
            digits[index] = b'0' + (digits[index] - b'0' + by) % 10;
            prop_assert!(!luhn(std::str::from_utf8(&digits).unwrap()));
        }
    }
}
