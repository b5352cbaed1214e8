//! What a payer typed into the card form, as it comes out of the sealed card.

use tolom::payment::card::{CardInput, CardRules, brand, luhn};

const TODAY: (u16, u8) = (2026, 11);

/// The lines are number, month, year, verification code and holder.
///
/// A card that passes is what the form asks for, a mask shows ten digits at most, and no `Debug` shows anything.
pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let input = CardInput {
        number: line().to_owned(),
        expiry_month: line().parse().unwrap_or_default(),
        expiry_year: line().parse().unwrap_or_default(),
        cvc: line().to_owned(),
        holder: line().to_owned(),
    };
    assert_eq!(luhn(&input.number), luhn_by_the_book(&input.number));
    assert!(["visa", "mastercard", "mir", "unionpay", "elcart", "other"].contains(&brand(&input.number)));
    assert_eq!(format!("{input:?}"), "CardInput(***)");
    if let Some(masked) = input.masked() {
        assert_eq!(masked.number.len(), input.number.len());
        assert_eq!(masked.number.bytes().filter(u8::is_ascii_digit).count(), 10);
    }
    for lengths in [vec![16], (0..=24).collect()] {
        let rules = CardRules { lengths, ..CardRules::default() };
        let Ok(card) = input.check(&rules, TODAY) else { continue };
        assert!(rules.lengths.contains(&card.number().len()) && luhn_by_the_book(card.number()));
        let (month, year) = card.expiry();
        assert!((1..=12).contains(&month) && (year, month) >= TODAY && year <= TODAY.0 + 20);
        assert!(card.cvc().len() == 3 && card.cvc().parse::<u16>().is_ok());
        assert!(card.holder().is_ascii() && (2..=64).contains(&card.holder().len()));
        assert_eq!(format!("{card:?}"), "Card(***)");
        assert!(card.masked().number.bytes().filter(u8::is_ascii_digit).count() <= 10);
    }
}

/// ISO/IEC 7812-1, annex B, word for word: double every second digit from the right, take 9 from what has two digits.
fn luhn_by_the_book(number: &str) -> bool {
    let digits: Option<Vec<u32>> = number.chars().map(|char| char.to_digit(10)).collect();
    let Some(digits) = digits.filter(|digits| !digits.is_empty()) else { return false };
    let doubled =
        digits.iter().rev().skip(1).step_by(2).map(|digit| if digit * 2 > 9 { digit * 2 - 9 } else { digit * 2 });
    let plain = digits.iter().rev().step_by(2);
    (doubled.sum::<u32>() + plain.sum::<u32>()).is_multiple_of(10)
}
