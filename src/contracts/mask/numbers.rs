//! Card numbers by their digits: 13 to 19 of them that pass Luhn (ISO/IEC 7812-1), wherever they stand.

use std::{collections::VecDeque, ops::Range};

use super::is_traceparent;

const SHORTEST: usize = 13;
const LONGEST: usize = 19;
/// Between two digits of one number stand at most so many spaces, dashes and the like.
const WIDEST_GAP: usize = 3;

/// Masks every number; `spared` are ranges, in order, that are known to hold none.
///
/// Any 13 to 19 digits that follow each other count, also within longer ones, and whatever separates them: too much is
/// masked rather than too little. Twice: as the bytes stand, and as they read with escapes undone.
pub(super) fn mask(bytes: &mut [u8], spared: &[Range<usize>]) -> bool {
    let plain = pass(bytes, spared, false);
    pass(bytes, spared, true) || plain
}

/// What stands at a place.
enum Unit {
    /// A digit in so many bytes.
    Digit(u8, usize),
    /// What people put between the digits of a number.
    Separator(usize),
    Other,
}

fn pass(bytes: &mut [u8], spared: &[Range<usize>], escapes: bool) -> bool {
    let (mut found, mut at, mut gap) = (false, 0, 0);
    let mut spared = spared.iter().peekable();
    let mut recent: VecDeque<(u8, Range<usize>)> = VecDeque::with_capacity(LONGEST);
    while at < bytes.len() {
        while spared.next_if(|range| range.end <= at).is_some() {}
        let skip = spared.peek().filter(|range| range.start <= at).map(|range| range.end);
        if let Some(end) = skip.or_else(|| identifier_end(bytes, at)) {
            recent.clear();
            at = end;
            continue;
        }
        match unit(&bytes[at..], escapes) {
            Unit::Digit(digit, length) => {
                if recent.len() == LONGEST {
                    recent.pop_front();
                }
                recent.push_back((digit, at..at + length));
                gap = 0;
                at += length;
                let number = longest_number(&recent);
                for (_, place) in recent.iter().rev().take(number) {
                    bytes[place.clone()].fill(b'*');
                }
                found |= number > 0;
            }
            Unit::Separator(length) => {
                gap += 1;
                if gap > WIDEST_GAP {
                    recent.clear();
                }
                at += length;
            }
            Unit::Other => {
                recent.clear();
                at += 1;
            }
        }
    }
    found
}

/// How many of the last digits are the longest number that ends here; 0 if none does.
fn longest_number(digits: &VecDeque<(u8, Range<usize>)>) -> usize {
    let (mut sum, mut longest) = (0_u32, 0);
    for (index, (digit, _)) in digits.iter().rev().enumerate() {
        let doubled = u32::from(*digit) << (index % 2);
        sum += doubled / 10 + doubled % 10;
        if index + 1 >= SHORTEST && sum.is_multiple_of(10) {
            longest = index + 1;
        }
    }
    longest
}

fn unit(bytes: &[u8], escapes: bool) -> Unit {
    match bytes {
        [digit @ b'0'..=b'9', ..] => Unit::Digit(digit - b'0', 1),
        // Full-width digits, U+FF10 to U+FF19.
        [0xEF, 0xBC, digit @ 0x90..=0x99, ..] => Unit::Digit(digit - 0x90, 3),
        // NUL stands between the digits of UTF-16.
        [b' ' | b'-' | b'.' | 0, ..] => Unit::Separator(1),
        // No-break space; Unicode's other spaces, hyphens and dashes; the minus sign.
        [0xC2, 0xA0, ..] => Unit::Separator(2),
        [0xE2, 0x80, 0x80..=0x95 | 0xAF, ..] | [0xE2, 0x88, 0x92, ..] => Unit::Separator(3),
        [b'+', ..] if escapes => Unit::Separator(1),
        [b'%', high, low, ..] if escapes => escaped(&[*high, *low], 3),
        [b'\\', ..] if escapes => json_escape(bytes),
        _ => Unit::Other,
    }
}

/// `\u0034`, also where JSON stands in JSON and backslashes have bred.
fn json_escape(bytes: &[u8]) -> Unit {
    let backslashes = bytes.iter().take(8).take_while(|byte| **byte == b'\\').count();
    match &bytes[backslashes..] {
        [b'u', b'0', b'0', high, low, ..] => escaped(&[*high, *low], backslashes + 5),
        _ => Unit::Other,
    }
}

/// A digit or a separator by its code in hexadecimal; `length` is that of the whole escape.
fn escaped(code: &[u8; 2], length: usize) -> Unit {
    match code {
        [b'3', digit @ b'0'..=b'9'] => Unit::Digit(digit - b'0', length),
        [b'2', b'0' | b'd' | b'D' | b'e' | b'E' | b'b' | b'B'] | [b'a' | b'A', b'0'] => Unit::Separator(length),
        _ => Unit::Other,
    }
}

/// The end of a UUID (RFC 9562, with or without its dashes) or a `traceparent` that begins here: our own identifiers,
/// which have many digits. One without any letter may as well be a card's number and is none of them.
fn identifier_end(bytes: &[u8], at: usize) -> Option<usize> {
    let begins = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
    if !begins || !bytes[at].is_ascii_hexdigit() {
        return None;
    }
    let of = |length: usize| {
        let token = bytes.get(at..at + length)?;
        bytes.get(at + length).is_none_or(|next| !next.is_ascii_alphanumeric()).then_some(token)
    };
    let found = of(36).filter(|token| is_dashed_uuid(token));
    let found = found.or_else(|| of(32).filter(|token| is_uuid(token)));
    let found = found.or_else(|| of(55).filter(|token| is_traceparent(token)));
    found.filter(|token| token.iter().any(u8::is_ascii_alphabetic)).map(|token| at + token.len())
}

fn is_dashed_uuid(token: &[u8]) -> bool {
    let mut digits = [0; 32];
    let mut rest = digits.iter_mut();
    for (index, byte) in token.iter().enumerate() {
        match index {
            8 | 13 | 18 | 23 if *byte == b'-' => {}
            8 | 13 | 18 | 23 => return false,
            _ => match rest.next() {
                Some(digit) => *digit = *byte,
                None => return false,
            },
        }
    }
    is_uuid(&digits)
}

/// Thirty-two hexadecimal digits with version and variant where they belong (RFC 9562, 4.1 and 4.2).
fn is_uuid(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_hexdigit)
        && matches!(digits[12], b'1'..=b'8')
        && matches!(digits[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B')
}
