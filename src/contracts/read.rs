//! Reading events from foreign bytes.
//!
//! What is wrong with a message is told in headers, logs and the list of dead letters, and serde's messages quote what
//! they found. A site that by mistake puts a card's number where it does not belong must not find it there, so the
//! explanations here name the place and what was expected, never what was found (rule 7).

use serde::{Deserialize, de::DeserializeOwned};

use super::event::{Event, Topic};

const VERSION: u32 = 1;
/// `source` becomes a key in the database; nothing is unbounded (rule 9).
const SOURCE_BYTES: usize = 255;
/// Foreign words are cut here.
const WORD_CHARS: usize = 80;
/// The shortest card numbers in use have 12 digits (ISO/IEC 7812-1 allows for fewer, no network issues them).
const PAN_DIGITS: usize = 12;

/// Why bytes are no event that this build can act on. All of these are permanent; after [`ReadError::Newer`] the
/// message may be replayed to a newer build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not of the schema's shape.
    #[error("not a valid `{expected}` event: {detail}")]
    Shape {
        /// The type that was expected.
        expected: String,
        /// Where, what was expected there, line and column; never the value that was found.
        detail: String,
    },
    /// Another type than the routing key promises.
    #[error("the event's type is `{found}`, expected `{expected}`")]
    Type {
        /// The type that was expected.
        expected: String,
        /// The type that it bears.
        found: String,
    },
    /// A newer version of a type that this build knows.
    #[error(
        "the event's type is `{found}`, a newer version than this build reads (`{known}`): replay it to a newer build"
    )]
    Newer {
        /// The newest version that this build reads.
        known: String,
        /// The type that it bears.
        found: String,
    },
    /// Not CloudEvents 1.0.
    #[error("specversion `{0}` is not 1.0")]
    SpecVersion(String),
    /// CloudEvents wants a source, and this build a short one.
    #[error("the event's source must have 1 to {SOURCE_BYTES} bytes, it has {0}")]
    Source(usize),
}

impl<T: DeserializeOwned> Event<T> {
    /// Reads an event of `topic` from foreign bytes. Unknown members are ignored: a newer publisher may send them.
    pub fn read(topic: Topic, bytes: &[u8]) -> Result<Self, ReadError> {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(event) => {
                check(topic, &event.specversion, &event.event_type)?;
                match event.source.len() {
                    1..=SOURCE_BYTES => Ok(event),
                    length => Err(ReadError::Source(length)),
                }
            }
            // Only now, because a broken message is rare and telling what is wrong with it costs a second reading.
            Err(_) => {
                let head = Head::read(bytes, topic.event_type())?;
                check(topic, &head.specversion, &head.event_type)?;
                Err(shape::<Self>(bytes, topic.event_type()))
            }
        }
    }
}

impl Topic {
    /// The topic of an event, by its `type`: the routing key is lost on the way through a retry tier.
    pub fn of(bytes: &[u8]) -> Result<Self, ReadError> {
        let head = Head::read(bytes, format!("tolom.*.v{VERSION}"))?;
        match Self::ALL.into_iter().find(|topic| topic.event_type() == head.event_type) {
            Some(topic) => check(topic, &head.specversion, &head.event_type).map(|()| topic),
            None => Err(Self::ALL.into_iter().find(|topic| topic.is_older_than(&head.event_type)).map_or_else(
                || other(format!("tolom.*.v{VERSION}"), &head.event_type),
                |topic| topic.newer(&head.event_type),
            )),
        }
    }

    fn is_older_than(self, found: &str) -> bool {
        let version = found.strip_prefix("tolom.").and_then(|rest| rest.strip_prefix(self.routing_key()));
        let version = version.and_then(|rest| rest.strip_prefix(".v")).and_then(|version| version.parse::<u32>().ok());
        version.is_some_and(|version| version > VERSION)
    }

    fn newer(self, found: &str) -> ReadError {
        ReadError::Newer { known: self.event_type(), found: shown(found) }
    }
}

fn check(topic: Topic, specversion: &str, event_type: &str) -> Result<(), ReadError> {
    if specversion != "1.0" {
        return Err(ReadError::SpecVersion(shown(specversion)));
    }
    if topic.is_older_than(event_type) {
        return Err(topic.newer(event_type));
    }
    if event_type != topic.event_type() {
        return Err(other(topic.event_type(), event_type));
    }
    Ok(())
}

fn other(expected: String, found: &str) -> ReadError {
    ReadError::Type { expected, found: shown(found) }
}

/// Enough of an event to tell what it is, so that another or a newer one is told from a broken message.
#[derive(Deserialize)]
struct Head {
    specversion: String,
    #[serde(rename = "type")]
    event_type: String,
}

impl Head {
    fn read(bytes: &[u8], expected: String) -> Result<Self, ReadError> {
        serde_json::from_slice(bytes).map_err(|_| shape::<Self>(bytes, expected))
    }
}

/// Reads once more what could not be read, this time keeping the path.
fn shape<T: DeserializeOwned>(bytes: &[u8], expected: String) -> ReadError {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let detail = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => "something follows the event".to_owned(),
        Err(error) => {
            let path = error.path().to_string();
            let explanation = explain(&error.into_inner().to_string());
            if path == "." { explanation } else { format!("{}: {explanation}", shown(&path)) }
        }
    };
    ReadError::Shape { expected, detail }
}

/// One of serde's messages without what it quotes from the input.
///
/// `missing field` and `duplicate field` quote names of our own. Of the others, all that is quoted before `, expected`
/// (the last one: the input may hold these words) is foreign.
fn explain(message: &str) -> String {
    if message.starts_with("missing field ") || message.starts_with("duplicate field ") {
        return message.to_owned();
    }
    let (found, expected) = message.rfind(", expected ").map_or((message, ""), |at| message.split_at(at));
    let shown = match found.find(['"', '`']) {
        None => found.to_owned(),
        Some(from) => {
            let quote = &found[from..=from];
            let to = found.rfind(quote).unwrap_or(from);
            format!("{}...{}", &found[..from], &found[to + 1..])
        }
    };
    hide_digits(&format!("{shown}{expected}"))
}

/// A foreign text as it may stand in a log, an answer or a header: short, on one line, and without anything that might
/// be a card's number.
pub(crate) fn shown(text: &str) -> String {
    let shown: String = hide_digits(text).chars().take(WORD_CHARS).collect();
    shown.escape_debug().to_string()
}

/// With as many digits as a card's number has, in a row or not and in whatever script, none is shown.
fn hide_digits(text: &str) -> String {
    match text.chars().filter(|char| char.is_numeric()).count() {
        0..PAN_DIGITS => text.to_owned(),
        _ => text.replace(char::is_numeric, "*"),
    }
}
