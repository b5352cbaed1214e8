//! What is searched for: a card, in every form that it could have been written in.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use tolom::payment::card::{CardInput, luhn};
use uuid::Uuid;

/// A card that has never been before: a number with a valid check digit, a code, and a holder whose name is a marker.
pub(super) fn canary() -> CardInput {
    let random = Uuid::new_v4();
    // A Visa, so that it passes for one; never one of the simulator's, which begin with 40 or 41.
    let digits = format!("47{:013}", random.as_u128() % 10_000_000_000_000);
    let number = (0..10).map(|check| format!("{digits}{check}")).find(|number| luhn(number)).unwrap();
    let letters: String = random.as_bytes()[8..].iter().map(|byte| char::from(b'A' + byte % 26)).collect();
    CardInput {
        number,
        expiry_month: 12,
        expiry_year: 2035,
        cvc: format!("{:03}", random.as_u128() >> 96 & 511),
        holder: format!("CANARY {letters}"),
    }
}

/// Texts and bytes to be found, each with what it is.
#[derive(Default)]
pub(super) struct Needles {
    needles: Vec<(String, Vec<u8>)>,
    /// By the first two bytes: whether a needle begins so.
    begins: Vec<bool>,
}

impl Needles {
    /// All of these cards.
    pub(super) fn of<'a>(cards: impl IntoIterator<Item = &'a CardInput>) -> Self {
        let mut needles = Self::default();
        for card in cards {
            needles.add_number(&card.number);
            needles.add_code(&card.cvc);
            needles.add_text("a holder's name", &card.holder);
        }
        needles
    }

    /// One text as it stands, for what must be found.
    pub(super) fn text(text: &str) -> Self {
        let mut needles = Self::default();
        needles.add("the text".to_owned(), text.as_bytes().to_vec());
        needles
    }

    /// The numbers alone, as they stand.
    pub(super) fn numbers<'a>(cards: impl IntoIterator<Item = &'a CardInput>) -> Self {
        let mut needles = Self::default();
        for card in cards {
            needles.add("a number".to_owned(), card.number.as_bytes().to_vec());
        }
        needles
    }

    fn add(&mut self, what: String, bytes: Vec<u8>) {
        self.begins.resize(1 << 16, false);
        self.begins[usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))] = true;
        self.needles.push((what, bytes));
    }

    /// As text, in both orders of UTF-16, in base64 at each of its three alignments, and in hexadecimal.
    fn add_text(&mut self, what: &str, text: &str) {
        let bytes = text.as_bytes();
        let mut form = |name: &str, bytes: Vec<u8>| self.add(format!("{what}, {name}"), bytes);
        form("as text", bytes.to_vec());
        form("as UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        form("as UTF-16 of the other order", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        for before in 0..3 {
            let encoded = STANDARD_NO_PAD.encode([&vec![0; before], bytes].concat()).into_bytes();
            // What mixes with its neighbours at either end is not searched for.
            let (first, last) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
            form("in base64", encoded[first..last].to_vec());
        }
        let each = |form: fn(&u8) -> String, between: &str| -> Vec<u8> {
            bytes.iter().map(form).collect::<Vec<_>>().join(between).into_bytes()
        };
        form("in hexadecimal", each(|byte| format!("{byte:02x}"), ""));
        form("in capital hexadecimal", each(|byte| format!("{byte:02X}"), ""));
        form("in spaced hexadecimal", each(|byte| format!("{byte:02x}"), " "));
        form("as a list of bytes", each(|byte| byte.to_string(), ", "));
        form("as a tight list of bytes", each(|byte| byte.to_string(), ","));
        form("percent-encoded", each(|byte| format!("%{byte:02X}"), ""));
        form("in JSON escapes", each(|byte| format!("\\u{byte:04x}"), ""));
    }

    fn add_number(&mut self, number: &str) {
        self.add_text("a number", number);
        let groups = [&number[..4], &number[4..8], &number[8..12], &number[12..]];
        for between in [" ", "-", ".", "_", "/", "+", "%20", "\u{a0}", "\u{2009}", "  "] {
            self.add(format!("a number in groups by `{between}`"), groups.join(between).into_bytes());
        }
        let digits: Vec<u8> = number.bytes().map(|byte| byte - b'0').collect();
        self.add("a number, packed".to_owned(), digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect());
        let value: i64 = number.parse().unwrap();
        self.add("a number as an integer".to_owned(), value.to_be_bytes().to_vec());
        self.add("a number as an integer of the other order".to_owned(), value.to_le_bytes().to_vec());
    }

    /// Three digits are everywhere, so a code is looked for where it is called one.
    fn add_code(&mut self, code: &str) {
        for name in ["cvc", "cvv", "cvc2", "cvv2"] {
            for (before, after) in
                [("\":\"", "\""), ("\": \"", "\""), ("\\\":\\\"", "\\\""), ("=", ""), (": \"", "\""), ("\":", "")]
            {
                self.add(format!("a code called {name}"), format!("{name}{before}{code}{after}").into_bytes());
            }
        }
    }

    /// What is found first, with what stands around it.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<String> {
        for at in 0..bytes.len().saturating_sub(1) {
            if !self.begins[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])] {
                continue;
            }
            for (what, needle) in &self.needles {
                if bytes[at..].starts_with(needle) {
                    let around = &bytes[at.saturating_sub(120)..(at + needle.len() + 60).min(bytes.len())];
                    return Some(format!("{what}, at byte {at}: {}", around.escape_ascii()));
                }
            }
        }
        None
    }

    /// The files of a folder, and of those in it, in which something is found.
    pub(super) fn find_in_files(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for file in files(folder) {
            // Servers remove files while they are looked at; what a file held stands elsewhere then.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            found.extend(self.find(&bytes).map(|what| format!("{}: {what}", file.display())));
        }
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(self::files(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

#[test]
fn a_card_is_found_in_every_form_and_a_masked_one_in_none() {
    let card = canary();
    let needles = Needles::of([&card]);
    let (number, cvc) = (&card.number, &card.cvc);
    let quoted = format!("{{\"number\":\"{number}\"}}");
    let forms = [
        format!("x{number}y").into_bytes(),
        format!("{} {}", &number[..4], &number[4..])
            .replace(&number[4..], &format!("{} {} {}", &number[4..8], &number[8..12], &number[12..]))
            .into_bytes(),
        STANDARD_NO_PAD.encode(&quoted).into_bytes(),
        STANDARD_NO_PAD.encode(format!(" {quoted}")).into_bytes(),
        STANDARD_NO_PAD.encode(format!("  {quoted}")).into_bytes(),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("  {quoted}?")).into_bytes(),
        format!("{:?}", quoted.as_bytes()).into_bytes(),
        quoted.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        number.parse::<i64>().unwrap().to_le_bytes().to_vec(),
        format!("{{\"cvc\":\"{cvc}\"}}").into_bytes(),
        format!("a&cvv={cvc}&b").into_bytes(),
        card.holder.clone().into_bytes(),
    ];
    for form in forms {
        assert!(needles.find(&form).is_some(), "{}", form.escape_ascii());
    }
    let masked = format!("{}******{} {cvc} {}", &number[..6], &number[12..], "1".repeat(40));
    assert_eq!(needles.find(masked.as_bytes()), None);
}
