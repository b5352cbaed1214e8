//! What has to hold for every parser of bytes from outside, whatever the bytes: one file for each kind of bytes, with
//! one function `target`. cargo-fuzz calls it with bytes of its own making, `tests/it/foreign_bytes.rs` with those in
//! `corpus/` and with changed ones.

pub mod acquirer_answers;
pub mod acquirer_books;
pub mod amounts_and_codes;
pub mod amqp_properties;
pub mod bills_csv;
pub mod cards;
pub mod events;
pub mod headers;
pub mod intake_bodies;
pub mod jwe;
pub mod masks;
pub mod smtp;
pub mod sse;

use tolom::payment::card::luhn;

/// Panics if a text of ours for people, a log or an answer holds what might be a card's number: 13 to 19 digits that
/// pass Luhn, with at most one character between any two of them.
#[track_caller]
pub fn tells_no_number(text: &str) {
    for (start, _) in text.char_indices().filter(|(_, char)| char.is_ascii_digit()) {
        let (mut digits, mut between) = (String::new(), 0);
        for char in text[start..].chars() {
            match char {
                '0'..='9' => {
                    digits.push(char);
                    between = 0;
                }
                ' ' | '-' | '.' | '_' | '/' if between == 0 => between = 1,
                _ => break,
            }
            assert!(!(digits.len() >= 13 && luhn(&digits)), "a number like a card's in `{text}`");
            if digits.len() == 19 {
                break;
            }
        }
    }
}
