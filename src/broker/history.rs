//! What a message has been through, in headers of our own that travel with it from one retry to the next.
//!
//! RabbitMQ's own `x-death` is not it: its counting differs between versions, and copied on to another message it makes
//! the broker believe in a cycle. It is read where the broker itself gave a message up, and never written.

use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;

use crate::contracts::{FailedAttempt, mask};

/// The failures so far, as JSON.
const REASONS_HEADER: &str = "tolom-reasons";
/// What was masked in the body, and that it is no longer what was sent.
const MASKED_HEADER: &str = "tolom-masked";
/// Failures that are remembered: the first one and the last ones, as many as fit.
const MOST_FAILURES: usize = 16;
/// Bytes that they may take: with everything else, headers must fit into a frame.
const MOST_BYTES: usize = 10 * 1024;
/// Foreign headers of our name are not believed to be larger than ours get.
const LONGEST_HEADER: usize = 64 * 1024;
/// Of a foreign header as much is kept.
const HEADER_CHARS: usize = 1_000;
const MOST_HEADERS: usize = 64;

/// What a message has been through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Its failures, oldest first; of many, the first one and the last ones.
    pub failures: Vec<FailedAttempt>,
    /// What of a card was masked in its body before it was dead-lettered.
    pub masked: Option<String>,
    /// Its headers as text, masked and cut to a length: of dead letters only.
    pub headers: Vec<(String, String)>,
}

impl History {
    /// The history in the headers of a message.
    pub(super) fn read(headers: &FieldTable) -> Self {
        let text = |name: &str| headers.inner().get(name).and_then(text);
        let failures = text(REASONS_HEADER).filter(|json| json.len() <= LONGEST_HEADER);
        let failures: Vec<FailedAttempt> =
            failures.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        // Ours are short, and what is carried on must fit into a frame.
        let masked = text(MASKED_HEADER).filter(|masked| masked.len() <= HEADER_CHARS);
        let mut history = Self { failures: Vec::new(), masked, headers: Vec::new() };
        failures.into_iter().for_each(|failure| history.add(failure));
        history
    }

    /// The history of a dead letter: with all its headers, and with why the broker gave it up if we did not.
    pub(super) fn of_dead_letter(headers: &FieldTable, at: OffsetDateTime) -> Self {
        let mut history = Self::read(headers);
        if let Some(given_up) = given_up_by_the_broker(headers, at) {
            history.add(given_up);
        }
        let shown = headers.inner().iter().take(MOST_HEADERS);
        history.headers = shown
            .map(|(name, value)| {
                // Masked whole, for half a number is no number, and then cut.
                let (value, _) = mask::mask_named(name.as_str(), describe(value));
                (mask::mask_text(name.to_string()).0, cut(value))
            })
            .collect();
        history
    }

    /// Remembers a failure.
    pub(super) fn add(&mut self, failure: FailedAttempt) {
        self.failures.push(failure);
        if self.failures.len() > MOST_FAILURES {
            self.failures.remove(1);
        }
    }

    /// The headers that carry it on.
    pub(super) fn to_headers(&self) -> FieldTable {
        let mut headers = FieldTable::default();
        let mut add = |name: &str, value: String| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        if !self.failures.is_empty() {
            add(REASONS_HEADER, fitting(self.failures.clone()));
        }
        if let Some(masked) = &self.masked {
            add(MASKED_HEADER, masked.clone());
        }
        headers
    }
}

/// The failures as JSON, the older ones but the first left out until the rest fits.
fn fitting(mut failures: Vec<FailedAttempt>) -> String {
    loop {
        let json = serde_json::to_string(&failures).unwrap_or_default();
        if json.len() <= MOST_BYTES || failures.len() < 2 {
            return json;
        }
        failures.remove(1.min(failures.len() - 2));
    }
}

/// The newest entry of `x-death`, which only letters have that the broker itself dead-lettered: ours are new messages.
fn given_up_by_the_broker(headers: &FieldTable, now: OffsetDateTime) -> Option<FailedAttempt> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let field = |name: &str| death.inner().get(name).and_then(text).unwrap_or_else(|| "?".to_owned());
    let at = match death.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => {
            i64::try_from(*seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        }
        _ => None,
    };
    let why = match field("reason").as_str() {
        "delivery_limit" => "it was delivered too often without being finished".to_owned(),
        "rejected" => "a consumer rejected it".to_owned(),
        "expired" => "it expired".to_owned(),
        "maxlen" => "the queue was full".to_owned(),
        other => format!("its reason is `{other}`"),
    };
    let reason = format!("the broker gave it up in {}: {why}", field("queue"));
    Some(FailedAttempt { attempt: 0, at: at.unwrap_or(now), reason: cut(reason) })
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// A header's value for people.
fn describe(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        AMQPValue::FieldArray(items) => {
            format!("[{}]", items.as_slice().iter().map(describe).collect::<Vec<_>>().join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let entries = table.inner().iter().map(|(name, value)| format!("{name}: {}", describe(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => text(other).unwrap_or_else(|| format!("{other:?}")),
    }
}

fn cut(text: String) -> String {
    if text.len() <= HEADER_CHARS { text } else { text.chars().take(HEADER_CHARS).collect() }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 09:15:02.481 UTC);

    fn failure(attempt: u32) -> FailedAttempt {
        FailedAttempt { attempt, at: NOW, reason: format!("reason {attempt}") }
    }

    #[test]
    fn failures_travel_and_only_the_last_are_kept() {
        let mut history = History::default();
        (0..40).for_each(|attempt| history.add(failure(attempt)));
        let read = History::read(&history.to_headers());
        assert_eq!(read, history);
        assert_eq!(read.failures.len(), MOST_FAILURES);
        assert_eq!(read.failures.first(), Some(&failure(0)));
        assert_eq!(read.failures.last(), Some(&failure(39)));
    }

    #[test]
    fn long_reasons_leave_the_first_and_the_last_ones() {
        let mut history = History::default();
        (0..16).for_each(|attempt| history.add(FailedAttempt { reason: "ө".repeat(500), ..failure(attempt) }));
        let read = History::read(&history.to_headers());
        let kept: Vec<u32> = read.failures.iter().map(|failure| failure.attempt).collect();
        assert_eq!(kept, [0, 8, 9, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn foreign_headers_of_our_names_do_no_harm() {
        let long = format!("[{}]", "1,".repeat(100_000));
        for value in ["", "[", "[{}]", "{}", "[1]", &long] {
            let mut headers = FieldTable::default();
            headers.insert(REASONS_HEADER.into(), AMQPValue::LongString(value.into()));
            assert_eq!(History::read(&headers), History::default());
        }
    }

    #[test]
    fn foreign_headers_of_our_names_are_not_carried_on_beyond_a_frame() {
        let long = "x".repeat(40_000);
        let foreign = serde_json::to_string(&[FailedAttempt { reason: long.clone(), ..failure(0) }]).unwrap();
        let mut headers = FieldTable::default();
        headers.insert(REASONS_HEADER.into(), AMQPValue::LongString(foreign.into()));
        headers.insert(MASKED_HEADER.into(), AMQPValue::LongString(long.into()));
        let mut history = History::read(&headers);
        history.add(failure(1));
        let carried = History::read(&history.to_headers());
        assert_eq!(carried, History { failures: vec![failure(1)], ..History::default() });
    }

    #[test]
    fn the_brokers_own_reason_is_read_and_headers_are_masked() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), AMQPValue::LongString("delivery_limit".into()));
        death.insert("queue".into(), AMQPValue::LongString("tolom.record".into()));
        death.insert("time".into(), AMQPValue::Timestamp(1_795_425_302));
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        headers.insert("note".into(), AMQPValue::LongString("4111 1111 1111 1111".into()));
        let history = History::of_dead_letter(&headers, NOW);
        let [failure] = &history.failures[..] else { panic!("{history:?}") };
        assert_eq!(
            failure.reason,
            "the broker gave it up in tolom.record: it was delivered too often without being finished"
        );
        assert_eq!(failure.at.unix_timestamp(), 1_795_425_302);
        assert!(history.headers.contains(&("note".to_owned(), "**** **** **** ****".to_owned())));
    }
}
