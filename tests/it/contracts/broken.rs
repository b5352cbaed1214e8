//! Broken and foreign bytes: refused by schema and reader alike, with a reason that helps and tells nothing secret.

use proptest::prelude::*;
use serde_json::{Value, json};
use tolom::contracts::{ReadError, Topic, schemas};

use super::{generated, reread, validator};

const NUMBER: &str = "4111111111111111";

fn read(topic: Topic, event: &Value) -> Result<Value, ReadError> {
    reread(topic, &serde_json::to_vec(event).unwrap())
}

/// The example with the value at `pointer` replaced, or added, or (with `None`) removed.
fn changed(topic: Topic, pointer: &str, value: Option<Value>) -> Value {
    let mut event = schemas::example(topic);
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(member.to_owned(), value),
        None => parent.remove(member),
    };
    event
}

#[test]
fn an_event_without_a_required_member_is_refused_by_schema_and_reader() {
    for topic in Topic::ALL {
        let validator = validator(topic);
        for pointer in ["/specversion", "/id", "/source", "/type", "/time", "/data", "/data/payment"] {
            let event = changed(topic, pointer, None);
            assert!(!validator.is_valid(&event), "{} without {pointer}", topic.routing_key());
            let error = read(topic, &event).unwrap_err().to_string();
            let member = pointer.rsplit('/').next().unwrap();
            assert!(error.contains(&format!("missing field `{member}`")), "{error}");
        }
    }
}

#[test]
fn an_event_with_a_wrong_envelope_is_refused_by_schema_and_reader() {
    for topic in Topic::ALL {
        let validator = validator(topic);
        for (pointer, value) in [
            ("/specversion", json!("0.3")),
            ("/specversion", json!(1.0)),
            ("/id", json!("42")),
            ("/id", json!(42)),
            ("/source", json!("")),
            ("/source", json!("s".repeat(256))),
            ("/type", json!("tolom.payment.v1")),
            ("/type", json!("")),
            ("/type", json!(topic.routing_key())),
            ("/time", json!("yesterday")),
            ("/time", json!(1_763_889_302)),
            ("/data", json!(null)),
            ("/data", json!("text")),
            ("/data/payment", json!("not-a-uuid")),
        ] {
            let event = changed(topic, pointer, Some(value));
            assert!(!validator.is_valid(&event), "{pointer}: {event}");
            assert!(read(topic, &event).is_err(), "{pointer}: {event}");
        }
        for other in Topic::ALL.into_iter().filter(|other| *other != topic) {
            let event = schemas::example(other);
            assert!(!validator.is_valid(&event));
            assert!(matches!(read(topic, &event), Err(ReadError::Type { .. })), "{event}");
        }
    }
}

#[test]
fn data_that_breaks_the_contract_is_refused_by_schema_and_reader() {
    use Topic as T;
    for (topic, pointer, value) in [
        (T::PaymentRequested, "/data/amount", Some(json!({"value": "51000", "currency": "KGS"}))),
        (T::PaymentRequested, "/data/amount", Some(json!({"value": 510.5, "currency": "KGS"}))),
        (T::PaymentRequested, "/data/amount/currency", Some(json!("som"))),
        (T::PaymentRequested, "/data/bill", Some(json!("11-000"))),
        (T::PaymentRequested, "/data/card", Some(json!({"number": NUMBER, "cvc": "123"}))),
        (T::PaymentRequested, "/data/card/number", Some(json!(NUMBER))),
        (T::PaymentRequested, "/data/card", Some(json!({"sealed": "eyJhbGciOiJFQ0RILUVTIn0..x.y.z"}))),
        (T::PaymentRequested, "/data/payer/cvc", Some(json!("123"))),
        (T::PaymentRequested, "/data/bill", None),
        (T::PaymentRequested, "/data/amount", None),
        (T::PaymentRequested, "/data/card", None),
        (T::PaymentRequested, "/data/payer", None),
        (T::PaymentRequested, "/data/locale", None),
        (T::PaymentRequested, "/data/terms", None),
        (T::OperationCompleted, "/data/card/cvc", Some(json!("123"))),
        (T::OperationCompleted, "/data/result/outcome", Some(json!("perhaps"))),
        (T::OperationCompleted, "/data/result/amount", None),
        (T::OperationCompleted, "/data/reference", None),
        (T::PaymentCaptured, "/data/card/holder", Some(json!("AIBEK ASANOV"))),
        (T::PaymentCaptured, "/data/status", Some(json!("maybe"))),
        (T::PaymentCaptured, "/data/version", Some(json!("3"))),
        (T::PaymentRefused, "/data/request", Some(json!(1))),
        (T::SettlementEntry, "/data/at", Some(json!("2026-11-23"))),
        (T::SettlementEntry, "/data/kind", Some(json!("gift"))),
    ] {
        let event = changed(topic, pointer, value);
        assert!(!validator(topic).is_valid(&event), "{event:#}");
        let error = read(topic, &event).expect_err(pointer).to_string();
        assert!(!error.contains(NUMBER) && !error.contains("123\""), "{error}");
    }
}

/// Stricter than the reader: what no publisher may send, though a reader that meets it does no harm.
#[test]
fn the_schema_forbids_what_no_publisher_may_send() {
    use Topic as T;
    for (topic, pointer, value) in [
        (T::PaymentRequested, "/data/amount/value", json!(0)),
        (T::PaymentRequested, "/data/locale", json!("kg")),
        (T::PaymentRequested, "/data/terms", json!("")),
        (T::PaymentRequested, "/data/payer/email", json!("aibek")),
        (T::PaymentRequested, "/data/payer/phone", json!("0555 123456")),
        (T::PaymentRequested, "/data/cvc", json!("123")),
        (T::PaymentRequested, "/data/number", json!(NUMBER)),
        (T::OperationCompleted, "/data/card/number", json!(NUMBER)),
        (T::PaymentCaptured, "/data/card/number", json!(NUMBER)),
        (T::SettlementEntry, "/data/kind", json!("hold")),
        (T::SettlementEntry, "/data/amount/value", json!(-51_000)),
        (T::SettlementEntry, "/data/day", json!("23.11.2026")),
    ] {
        let event = changed(topic, pointer, Some(value));
        assert!(!validator(topic).is_valid(&event), "{event:#}");
    }
}

#[test]
fn a_broken_foreign_request_is_not_taken_for_none() {
    let event = changed(Topic::PaymentRequested, "/data/bill", Some(json!("eleven")));
    let error = read(Topic::PaymentRequested, &event).unwrap_err().to_string();
    assert!(error.contains("data.bill: a payment code has 6 to 20 digits"), "{error}");
    let event = changed(Topic::PaymentRequested, "/data", Some(json!({"payment": uuid::Uuid::nil(), "bill": null})));
    assert_eq!(read(Topic::PaymentRequested, &event).unwrap()["data"], json!({"payment": uuid::Uuid::nil()}));
}

#[test]
fn a_newer_version_is_told_from_a_broken_message() {
    for topic in Topic::ALL {
        let found = format!("tolom.{}.v2", topic.routing_key());
        let newer = ReadError::Newer { known: topic.event_type(), found: found.clone() };
        for event in [
            changed(topic, "/type", Some(found.clone().into())),
            json!({"specversion": "1.0", "type": found, "data": "of quite another shape"}),
        ] {
            assert_eq!(read(topic, &event), Err(newer.clone()));
            assert_eq!(Topic::of(&serde_json::to_vec(&event).unwrap()), Err(newer.clone()));
        }
        assert!(newer.to_string().contains("newer version"), "{newer}");
    }
    for other in ["tolom.payment.requested.v0", "tolom.payment.requested.vv2", "tolom.payment.v2", "tolom.v2"] {
        let event = changed(Topic::PaymentRequested, "/type", Some(other.into()));
        assert!(matches!(Topic::of(&serde_json::to_vec(&event).unwrap()), Err(ReadError::Type { .. })), "{other}");
    }
}

#[test]
fn another_specversion_is_refused_wherever_the_topic_is_read() {
    let event = changed(Topic::PaymentRequested, "/specversion", Some("2.0".into()));
    let bytes = serde_json::to_vec(&event).unwrap();
    assert_eq!(Topic::of(&bytes), Err(ReadError::SpecVersion("2.0".to_owned())));
    assert_eq!(reread(Topic::PaymentRequested, &bytes), Err(ReadError::SpecVersion("2.0".to_owned())));
}

/// Wherever a site puts a card's number by mistake: the reason goes into headers, logs and the list of dead letters.
#[test]
fn no_reason_quotes_a_card_number() {
    let event = |topic: Topic| serde_json::to_string(&schemas::example(topic)).unwrap();
    let mut texts = Vec::new();
    for topic in Topic::ALL {
        let text = event(topic);
        // Instead of each value in turn, as text, as number, in groups, behind words of serde's; and as a key.
        let values: Vec<(usize, usize)> = text
            .match_indices(':')
            .filter_map(|(at, _)| {
                let end = text[at..].find([',', '}'])? + at;
                Some((at + 1, end))
            })
            .collect();
        for (from, to) in values {
            for value in [
                format!("\"{NUMBER}\""),
                NUMBER.to_owned(),
                format!("{NUMBER}0000"),
                "\"4111 1111 1111 1111\"".to_owned(),
                format!("\"{NUMBER}, expected `{NUMBER}`\""),
                format!("{{\"{NUMBER}\": [{{\"4111 1111 1111 1111\": 1]}}"),
            ] {
                texts.push((topic, format!("{}{value}{}", &text[..from], &text[to..])));
            }
        }
        texts.push((topic, text.replacen("\"data\"", &format!("\"{NUMBER}\""), 1)));
        texts.push((topic, format!("{text}{NUMBER}")));
    }
    for (topic, text) in texts {
        for reason in [
            reread(topic, text.as_bytes()).err().map(|error| format!("{error} {error:?}")),
            Topic::of(text.as_bytes()).err().map(|error| format!("{error} {error:?}")),
        ]
        .into_iter()
        .flatten()
        {
            let digits: String = reason.chars().filter(char::is_ascii_digit).collect();
            assert!(!digits.contains("411111111111"), "{text}\n{reason}");
        }
    }
}

fn mutated() -> impl Strategy<Value = (Topic, Vec<u8>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6);
    (generated::events(), edits).prop_map(|((topic, mut bytes), edits)| {
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match edit {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(bytes.len() / 2)),
            }
        }
        (topic, bytes)
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text: String) {
        for bytes in [&bytes[..], text.as_bytes()] {
            let _ = Topic::of(bytes);
            for topic in Topic::ALL {
                prop_assert!(reread(topic, bytes).is_err());
            }
        }
    }

    #[test]
    fn no_damaged_event_makes_the_reader_panic((_, bytes) in mutated()) {
        let _ = Topic::of(&bytes).map_err(|error| error.to_string());
        for topic in Topic::ALL {
            let _ = reread(topic, &bytes).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn no_foreign_word_makes_the_reader_panic(word: String, member in "[a-z]{1,12}") {
        for topic in Topic::ALL {
            for pointer in ["/type", "/specversion", "/time", "/data/payment", "/data/status", "/data/result"] {
                let _ = read(topic, &changed(topic, pointer, Some(word.clone().into()))).map_err(|error| error.to_string());
            }
            let _ = read(topic, &changed(topic, &format!("/data/{member}"), Some(json!({ word.as_str(): 1 }))));
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("{{\"specversion\":\"1.0\",\"type\":{}", "[".repeat(100_000));
    assert!(Topic::of(deep.as_bytes()).is_err());
    assert!(reread(Topic::OperationCompleted, deep.as_bytes()).is_err());
}
