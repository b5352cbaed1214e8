//! Amounts, times, cards and foreign texts as receipts and notices show them.

use time::OffsetDateTime;

use super::{
    Locale,
    texts::{Text, say, say_with},
};
use crate::{
    clock::BISHKEK,
    config::Operator,
    payment::{Currency, Money, card::MaskedCard},
};

/// Longest name that is shown; what is longer is cut.
pub(super) const LONGEST_NAME: usize = 200;
/// Longest code or number that is shown.
pub(super) const LONGEST_CODE: usize = 64;

const NO_BREAK_SPACE: char = '\u{a0}';

/// `12 345,00 сом` in Kyrgyz and Russian, `12 345.00 KGS` in English; thousands stand apart by a no-break space.
pub fn amount(money: Money, locale: Locale) -> String {
    let (comma, currency) = match (locale, money.currency == Currency::KGS) {
        (Locale::En, true) => ('.', say(locale, Text::CurrencyKgs)),
        (Locale::Ky | Locale::Ru, true) => (',', say(locale, Text::CurrencyKgs)),
        (Locale::En, false) => ('.', money.currency.to_string()),
        (Locale::Ky | Locale::Ru, false) => (',', money.currency.to_string()),
    };
    let number = decimal(money.value, money.currency.exponent() as usize, comma);
    say_with(locale, Text::Amount, &[("amount", number.as_str()), ("currency", currency.as_str())])
}

fn decimal(value: i64, decimals: usize, comma: char) -> String {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let mut shown = String::with_capacity(digits.len() * 2);
    if value < 0 {
        shown.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            shown.push(NO_BREAK_SPACE);
        }
        shown.push(digit);
    }
    if decimals > 0 {
        shown.push(comma);
        shown.push_str(fraction);
    }
    shown
}

/// `23.11.2026 08:05 (UTC+6)`: the time in Bishkek, wherever the payer is.
pub fn moment(at: OffsetDateTime) -> String {
    let at = at.to_offset(BISHKEK);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{day:02}.{month:02}.{year:04} {:02}:{:02} (UTC+6)", at.hour(), at.minute())
}

/// Network and last four digits: mail is read over many shoulders, and the payer needs no more to know the card.
pub fn card(card: &MaskedCard, locale: Locale) -> String {
    let digits = card.number.chars().rev().take(4).collect::<Vec<_>>();
    let last_four: String = digits.into_iter().rev().filter(char::is_ascii_digit).collect();
    format!("{} **** {last_four}", say(locale, Text::brand(&card.brand)))
}

/// Whom to ask, in a sentence.
pub(super) fn questions(operator: &Operator, locale: Locale) -> String {
    let contact = [
        ("operator", one_line(&operator.name, LONGEST_NAME)),
        ("phone", one_line(&operator.phone, LONGEST_CODE)),
        ("email", one_line(&operator.email, LONGEST_NAME)),
    ];
    say_with(locale, Text::Questions, &contact.each_ref().map(|(name, value)| (*name, value.as_str())))
}

/// A text from outside as one harmless line of at most `longest` characters.
///
/// Line ends and control characters would start a new line of the receipt, and marks of direction (Unicode UAX #9)
/// would turn the words around them: the first become spaces, the second go.
pub fn one_line(text: &str, longest: usize) -> String {
    let visible: String = text.chars().filter(|letter| !is_invisible(*letter)).collect();
    let breaks = |letter: char| letter.is_control() || letter.is_whitespace();
    let words: Vec<&str> = visible.split(breaks).filter(|word| !word.is_empty()).collect();
    let clean = words.join(" ");
    if clean.chars().count() <= longest {
        return clean;
    }
    clean.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// Marks of direction, zero-width characters, and code points that are no characters.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn amounts_are_written_as_each_language_writes_them() {
        let som = |value| Money::new(value, Currency::KGS);
        assert_eq!(amount(som(51_000), Locale::Ky), "510,00 сом");
        assert_eq!(amount(som(51_000), Locale::Ru), "510,00 сом");
        assert_eq!(amount(som(51_000), Locale::En), "510.00 KGS");
        assert_eq!(amount(som(5), Locale::Ru), "0,05 сом");
        assert_eq!(amount(som(414_000), Locale::Ru), "4\u{a0}140,00 сом");
        assert_eq!(amount(som(12_345_678_901), Locale::En), "123\u{a0}456\u{a0}789.01 KGS");
        assert_eq!(amount(som(-100_000), Locale::En), "-1\u{a0}000.00 KGS");
        assert_eq!(amount(Money::new(1_500, "JPY".parse().unwrap()), Locale::Ru), "1\u{a0}500 JPY");
        assert_eq!(amount(Money::new(1_500, "KWD".parse().unwrap()), Locale::En), "1.500 KWD");
    }

    #[test]
    fn times_are_those_of_bishkek() {
        assert_eq!(moment(datetime!(2026-11-22 20:05:59 UTC)), "23.11.2026 02:05 (UTC+6)");
        assert_eq!(moment(datetime!(2026-01-01 00:00 +06:00)), "01.01.2026 00:00 (UTC+6)");
    }

    #[test]
    fn a_foreign_text_stays_one_line() {
        assert_eq!(one_line(" Асанов\r\nСумма: 1\u{2028}сом\0 ", 200), "Асанов Сумма: 1 сом");
        assert_eq!(one_line("\u{202e}volsA \u{2066}", 200), "volsA");
        assert_eq!(one_line("абвгд", 4), "абв…");
    }

    proptest! {
        #[test]
        fn every_amount_keeps_its_digits(value: i64) {
            let shown = decimal(value, 2, ',');
            let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
            prop_assert_eq!(digits.parse::<u64>().unwrap(), value.unsigned_abs());
        }

        #[test]
        fn no_text_gets_past_one_line(text: String, longest in 1_usize..50) {
            let line = one_line(&text, longest);
            prop_assert!(line.chars().count() <= longest);
            prop_assert!(!line.chars().any(|letter| letter.is_control() || is_invisible(letter)));
        }
    }
}
