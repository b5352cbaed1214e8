//! Card data in foreign bytes, found and masked before anything of them is kept (rule 7).
//!
//! No contract of ours has a place for a card, but a foreign site may put one anywhere: in a member of its own, in a
//! text, in bytes that are no JSON at all. What ends as a dead letter is kept for as long as a person needs, so it is
//! masked first. Every masked byte becomes `*`, in place: lengths, and what stands around it, stay as they are.
//!
//! Masked is: a card's number by its digits alone (`numbers`), card fields by their names (`fields`), and a sealed
//! card by its form (`sealed`). The sealed one too: its key lives for another day or two, copies of it here would be
//! out of reach of the rule that it exists once, and nobody misses it, for no message of ours may carry it.

mod fields;
mod numbers;
mod sealed;

use std::fmt;

/// What of a card was found in foreign bytes, and is masked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Digits of a card's number.
    pub number: bool,
    /// Fields that by their name or place hold card data.
    pub field: bool,
    /// A sealed card.
    pub sealed: bool,
}

impl Found {
    /// Whether anything was found.
    pub const fn any(self) -> bool {
        self.number || self.field || self.sealed
    }

    /// What either found.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            number: self.number || other.number,
            field: self.field || other.field,
            sealed: self.sealed || other.sealed,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.number, "a card number"), (self.field, "card fields"), (self.sealed, "a sealed card")];
        let found: Vec<&str> = words.into_iter().filter_map(|(found, word)| found.then_some(word)).collect();
        f.write_str(&found.join(", "))
    }
}

/// Masks card data in bytes of any kind. Afterwards nothing of 13 to 19 digits in them passes Luhn (UUIDs and payment
/// codes apart); if nothing was found, the bytes are as they were.
pub fn mask(bytes: &mut [u8]) -> Found {
    let fields::Walked { found: by_place, codes } = fields::walk(bytes);
    let by_name = fields::pairs(bytes);
    let sealed = sealed::mask(bytes);
    let number = numbers::mask(bytes, &codes);
    Found { number, field: by_place || by_name, sealed }
}

/// The same for a text, say a header or a reason.
pub fn mask_text(text: String) -> (String, Found) {
    let mut bytes = text.into_bytes();
    let found = mask(&mut bytes);
    // Whole characters are masked, so it is text still.
    let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (text, found)
}

/// The value of a header: masked whole if its name says that it is card data.
pub fn mask_named(name: &str, value: String) -> (String, Found) {
    if fields::is_card_field(name) {
        let found = Found { field: !value.is_empty(), ..Found::default() };
        return ("*".repeat(value.chars().count()), found);
    }
    mask_text(value)
}

/// Whether these are the bytes of a version 00 `traceparent` (W3C Trace Context, 3.2).
pub fn is_traceparent(bytes: &[u8]) -> bool {
    const FORM: &[u8; 55] = b"00-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    bytes.len() == FORM.len()
        && bytes.iter().zip(FORM).all(|(byte, form)| match form {
            b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            form => byte == form,
        })
}

#[cfg(test)]
mod tests;
