//! Short texts that payers, agencies and sites write: payment codes, amounts, currencies, addresses, names of keys.

use tolom::{
    payment::{Currency, Money, PaymentCode},
    sealing::Kid,
    store::request::{is_email, is_phone},
};

/// Each line by itself. What is taken is within its bounds and reads back as it is shown.
pub fn target(bytes: &[u8]) {
    String::from_utf8_lossy(bytes).lines().for_each(line);
}

fn line(text: &str) {
    if let Ok(code) = text.parse::<PaymentCode>() {
        assert!((6..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(code.to_string(), text);
    }
    if let Ok(currency) = text.parse::<Currency>() {
        assert_eq!(currency.as_str(), text);
    }
    if let Ok(kid) = text.parse::<Kid>() {
        assert!((1..=64).contains(&text.len()) && !text.contains(['/', '.', '\\', '\0']), "no path: {text}");
        assert_eq!(kid.to_string(), text);
    }
    if is_email(text) {
        assert!(text.len() <= 254 && text.is_ascii() && !text.contains(|char: char| char.is_control() || char == ' '));
        assert_eq!(text.matches('@').count(), 1);
    }
    if is_phone(text) {
        assert!((8..=16).contains(&text.len()) && text.starts_with('+'));
    }
    for currency in ["KGS", "JPY", "KWD"] {
        let currency: Currency = currency.parse().expect("a currency");
        if let Ok(money) = Money::parse_major(text, currency) {
            assert!(money.value > 0 && money.currency == currency);
            let shown = money.to_string();
            let (amount, code) = shown.split_once(' ').expect("an amount and its currency");
            assert_eq!((Money::parse_major(amount, currency), code), (Ok(money), currency.as_str()));
        }
    }
}
