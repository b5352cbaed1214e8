//! One caught message, and what its header says.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use time::OffsetDateTime;

use crate::clock::Clock;

/// A message as it was caught.
#[derive(Clone, Serialize)]
pub struct CaughtMail {
    /// Its number since the start, from 1; constant, also when older ones have gone.
    pub number: u64,
    /// The envelope's sender; empty for a bounce.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The Message-ID with its angle brackets.
    pub message_id: Option<String>,
    /// The subject, decoded (RFC 2047); empty if there is none.
    pub subject: String,
    /// Header and body as they came, without the dots of transport.
    #[serde(skip)]
    pub raw: Vec<u8>,
    /// When its last byte had come.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
}

impl CaughtMail {
    pub(super) fn new(number: u64, from: String, to: Vec<String>, raw: Vec<u8>) -> Self {
        let end = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(raw.len());
        let head = String::from_utf8_lossy(&raw[..end]);
        let (message_id, subject) = (header(&head, "Message-ID"), header(&head, "Subject").unwrap_or_default());
        let subject = decode_words(&subject);
        Self { number, from, to, message_id, subject, raw, received_at: Clock::system().now() }
    }
}

impl fmt::Debug for CaughtMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaughtMail").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The first header field of a name, unfolded (RFC 5322, section 2.2.3).
fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let Some((_, value)) = line.split_once(':').filter(|(field, _)| field.eq_ignore_ascii_case(name)) else {
            continue;
        };
        let mut value = value.to_owned();
        while let Some(folded) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
            value.push_str(folded);
        }
        return Some(value.trim().to_owned());
    }
    None
}

/// Decodes the encoded words of RFC 2047 in UTF-8; leaves anything else as it is.
fn decode_words(text: &str) -> String {
    let mut bytes = Vec::new();
    // White space since the last word, and whether that was encoded: between two that are, it is not part of the text
    // (section 6.2).
    let (mut gap, mut after_encoded) = (String::new(), false);
    for part in text.split_inclusive([' ', '\t']) {
        let word = part.trim_end_matches([' ', '\t']);
        let space = &part[word.len()..];
        if word.is_empty() {
            gap.push_str(space);
            continue;
        }
        let decoded = decode_word(word);
        if !(after_encoded && decoded.is_some()) {
            bytes.extend(gap.bytes());
        }
        after_encoded = decoded.is_some();
        // Put together as bytes: some senders cut letters in two, although they should not.
        bytes.extend(decoded.unwrap_or_else(|| word.as_bytes().to_vec()));
        space.clone_into(&mut gap);
    }
    bytes.extend(gap.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn decode_word(word: &str) -> Option<Vec<u8>> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let utf8 = ["utf-8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    match encoding {
        "B" | "b" if utf8 => STANDARD.decode(text).ok(),
        "Q" | "q" if utf8 => decode_q(text),
        _ => None,
    }
}

fn decode_q(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'_' => b' ',
            b'=' => {
                let mut hex = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                hex()? * 16 + hex()?
            }
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subject_is_unfolded_and_decoded() {
        let raw = "from: a@b.example\r\nSUBJECT: =?utf-8?b?0KfQtdC6IOKEljE=?=\r\n =?UTF-8?Q?:_=D0=9F=D0=B0?= and\r\n more\r\n\
                   Message-ID:\r\n <1@b.example>\r\n\r\nSubject: not this\r\n";
        let mail = CaughtMail::new(1, String::new(), Vec::new(), raw.as_bytes().to_vec());
        assert_eq!(mail.subject, "Чек №1: Па and more");
        assert_eq!(mail.message_id.as_deref(), Some("<1@b.example>"));
    }

    #[test]
    fn what_is_no_encoded_word_stays() {
        for text in ["", "plain  text ", "=?utf-8?x?a?=", "=?koi8-r?B?AA==?=", "=?utf-8?B?!!?=", "=?utf-8?Q?=4?="] {
            assert_eq!(decode_words(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(raw: Vec<u8>, text in "([ =?_a-f0-9bqBQ\t]|=\\?utf-8\\?){0,80}") {
            let _ = CaughtMail::new(1, String::new(), Vec::new(), raw);
            let _ = decode_words(&text);
            let _ = CaughtMail::new(1, String::new(), Vec::new(), format!("Subject: {text}\r\n").into_bytes());
        }
    }
}
