//! Card fields by their names and places, in JSON and in whatever resembles it.
//!
//! Dead letters are mostly what could not be read, so nothing here rests on the bytes being whole or valid: [`walk`]
//! goes through them as a JSON reader that is surprised by nothing, and [`pairs`] finds `name=value` and the like
//! wherever they stand, inside texts too.

use std::ops::Range;

/// Deeper than any JSON that a reader of ours takes; what is deeper counts as this deep.
const DEEPEST: usize = 256;
const LONGEST_NAME: usize = 64;

/// What a walk found.
pub(super) struct Walked {
    /// Whether anything was masked.
    pub(super) found: bool,
    /// Payment codes: digits that are no card's, though they may look like it.
    pub(super) codes: Vec<Range<usize>>,
}

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// A card field.
    Secret,
    /// `card`: everything in it is masked, but for its id and its brand.
    Card,
    /// `data`, the event's own part.
    Data,
    /// `bill`: a payment code, within `data`.
    Bill,
    /// What may stay within a `card`.
    Harmless,
    Other,
}

/// A container that is open.
#[derive(Debug, Clone, Copy)]
struct Frame {
    name: Name,
    /// Everything in it is card data.
    secret: bool,
}

/// Masks card fields of JSON: by name wherever they stand, and everything within an object called `card`.
pub(super) fn walk(bytes: &mut [u8]) -> Walked {
    let mut walk =
        Walk { stack: Vec::new(), too_deep: 0, name: None, walked: Walked { found: false, codes: Vec::new() } };
    let mut at = 0;
    while at < bytes.len() {
        at = match bytes[at] {
            b'"' => {
                let content = at + 1..string_end(bytes, at + 1);
                let after = content.end + 1;
                let next = after + bytes.iter().skip(after).take_while(|byte| byte.is_ascii_whitespace()).count();
                if bytes.get(next) == Some(&b':') {
                    walk.name = Some(classify(&bytes[content]));
                    next + 1
                } else {
                    walk.value(bytes, content);
                    after
                }
            }
            b'{' | b'[' => {
                walk.open();
                at + 1
            }
            b'}' | b']' => {
                walk.close();
                at + 1
            }
            b',' => {
                walk.name = None;
                at + 1
            }
            byte if byte.is_ascii_whitespace() || byte == b':' => at + 1,
            _ => {
                let bare = |byte: &&u8| !byte.is_ascii_whitespace() && !b"\"{}[],:".contains(byte);
                let end = at + bytes[at..].iter().take_while(bare).count();
                walk.value(bytes, at..end);
                end
            }
        };
    }
    walk.walked
}

struct Walk {
    stack: Vec<Frame>,
    too_deep: usize,
    /// The name whose value comes next.
    name: Option<Name>,
    walked: Walked,
}

impl Walk {
    fn open(&mut self) {
        if self.stack.len() == DEEPEST {
            self.too_deep += 1;
        } else {
            let inherited = self.stack.last().is_some_and(|frame| frame.secret);
            // The members of an array have no names: what the array is called, they are.
            let in_array = self.stack.last().map_or(Name::Other, |frame| frame.name);
            let name = self.name.unwrap_or(if in_array == Name::Card { Name::Card } else { Name::Other });
            self.stack.push(Frame { name, secret: inherited || matches!(name, Name::Secret | Name::Card) });
        }
        self.name = None;
    }

    fn close(&mut self) {
        match self.too_deep {
            0 => drop(self.stack.pop()),
            _ => self.too_deep -= 1,
        }
        self.name = None;
    }

    /// Masks a value if its name or its place makes it card data.
    fn value(&mut self, bytes: &mut [u8], place: Range<usize>) {
        let name = self.name.take();
        let parent = self.stack.last();
        let within = parent.is_some_and(|frame| frame.secret);
        let secret = match name {
            Some(Name::Secret | Name::Card) => true,
            Some(Name::Harmless) => within && parent.is_none_or(|frame| frame.name != Name::Card),
            _ => within,
        };
        let value = &mut bytes[place.clone()];
        if secret && is_telling(value) {
            value.fill(b'*');
            self.walked.found = true;
        }
        // Payment codes may have as many digits as a card's number, and theirs too may pass Luhn. No network issues
        // numbers that begin with 1 (ISO/IEC 7812-1: airlines), as the prefixes of payment codes do.
        let in_data = self.stack.len() == 2 && parent.is_some_and(|frame| frame.name == Name::Data);
        let value = &bytes[place.clone()];
        if name == Some(Name::Bill) && in_data && value.starts_with(b"1") && value.iter().all(u8::is_ascii_digit) {
            self.walked.codes.push(place);
        }
    }
}

/// The end of a JSON string whose content begins at `from`: its closing quote, or the end of everything.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// Masks values that follow the name of a card field: `"cvc": "123"` in broken or quoted JSON, `cvc=123` in a form,
/// `<cvc>123</cvc>`.
pub(super) fn pairs(bytes: &mut [u8]) -> bool {
    let (mut found, mut at) = (false, 0);
    while at < bytes.len() {
        if !is_name_byte(bytes[at]) {
            at += 1;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|byte| is_name_byte(**byte)).count();
        if end - at <= LONGEST_NAME
            && classify(&bytes[at..end]) == Name::Secret
            && let Some(place) = value_after(bytes, end)
            && is_telling(&bytes[place.clone()])
        {
            bytes[place].fill(b'*');
            found = true;
        }
        at = end;
    }
    found
}

/// The value that a name which ends here is given, if any.
fn value_after(bytes: &[u8], name_end: usize) -> Option<Range<usize>> {
    let skip = |from: usize, these: &[u8]| from + bytes[from..].iter().take_while(|byte| these.contains(byte)).count();
    // Quotes, and backslashes where JSON stands in a JSON string.
    let sign = skip(name_end, b"\"'\\ \t");
    bytes.get(sign).filter(|byte| b":=>".contains(byte))?;
    let quote = skip(sign + 1, b" \t\r\n\\");
    let (start, ends): (usize, &[u8]) = match bytes.get(quote)? {
        b'"' => (quote + 1, b"\"\\"),
        b'\'' => (quote + 1, b"'\\"),
        // An object or an array is the walk's.
        b'{' | b'[' => return None,
        _ => (quote, b" \t\r\n\"'\\,;&<>{}[]()"),
    };
    let end = start + bytes[start..].iter().take_while(|byte| !ends.contains(byte)).count();
    (start < end).then_some(start..end)
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Whether a value tells anything: not empty, not a literal, and not masked already as our contracts do it.
fn is_telling(value: &[u8]) -> bool {
    let masked = value.iter().filter(|byte| **byte == b'*').count() >= 3
        && value.iter().all(|byte| *byte == b'*' || byte.is_ascii_digit())
        && value.iter().filter(|byte| byte.is_ascii_digit()).count() <= 10;
    value.iter().any(u8::is_ascii_alphanumeric) && !masked && ![&b"null"[..], b"true", b"false"].contains(&value)
}

/// Whether a name is that of a card field.
pub(super) fn is_card_field(name: &str) -> bool {
    matches!(classify(name.as_bytes()), Name::Secret | Name::Card)
}

/// Names are compared without case, dashes and underscores.
fn classify(name: &[u8]) -> Name {
    let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).take(LONGEST_NAME);
    let plain: String = letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    match plain.as_str() {
        "card" => Name::Card,
        "data" => Name::Data,
        "bill" => Name::Bill,
        "id" | "brand" => Name::Harmless,
        other if is_secret(other) || other.strip_prefix("card").is_some_and(is_secret) => Name::Secret,
        _ => Name::Other,
    }
}

fn is_secret(name: &str) -> bool {
    const NAMES: [&str; 30] = [
        "number",
        "pan",
        "primaryaccountnumber",
        "cvc",
        "cvccode",
        "cvv",
        "cvvcode",
        "csc",
        "securitycode",
        "verificationcode",
        "verificationvalue",
        "pin",
        "pinblock",
        "pindata",
        "track",
        "track1",
        "track2",
        "track1data",
        "track2data",
        "trackdata",
        "magstripe",
        "exp",
        "expdate",
        "expmonth",
        "expyear",
        "validthru",
        "goodthru",
        "holder",
        "nameoncard",
        "sealed",
    ];
    let families = ["cvc2", "cvv2", "expiry", "expiration", "cardholder", "holdername", "cardno", "cardnum"];
    NAMES.contains(&name) || families.iter().any(|family| name.starts_with(family))
}
