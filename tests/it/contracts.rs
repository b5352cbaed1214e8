//! What crosses the broker is what the files in `schemas/` say: the files are generated from the code, the examples
//! in them are valid and readable, and so is everything that the code makes.

mod asyncapi;
mod broken;
mod generated;

use std::{fs, path::PathBuf, sync::Once};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tolom::contracts::{
    ChallengeCompleted, Event, OperationCompleted, PaymentFact, PaymentRefused, PaymentRequested, ReadError,
    SettlementEntry, Topic, schemas,
};

/// A validator of the topic's events by the file in `schemas/`, formats (uuid, date-time, ...) included. Other tests
/// hold the messages of real queues to it.
pub(crate) fn validator(topic: Topic) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&file(topic)).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

/// Panics unless `bytes` are a valid event of the topic, and says what is wrong with them.
pub(crate) fn assert_valid(topic: Topic, bytes: &[u8]) {
    let event: Value = serde_json::from_slice(bytes).unwrap();
    let errors: Vec<_> = validator(topic).iter_errors(&event).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{}: {errors:#?}\n{event:#}", topic.routing_key());
}

fn path(topic: Topic) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(schemas::file_name(topic))
}

/// The topic's schema file. With `TOLOM_WRITE_SCHEMAS` all of them are written first, before any test reads one.
fn file(topic: Topic) -> String {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(|| {
        for topic in Topic::ALL.into_iter().filter(|_| std::env::var_os("TOLOM_WRITE_SCHEMAS").is_some()) {
            fs::write(path(topic), schemas::render(&schemas::schema(topic))).unwrap();
        }
    });
    fs::read_to_string(path(topic)).unwrap_or_default()
}

/// Reads an event as the topic's consumer does, and writes it again.
fn reread(topic: Topic, bytes: &[u8]) -> Result<Value, ReadError> {
    fn with<T: DeserializeOwned + Serialize>(topic: Topic, bytes: &[u8]) -> Result<Value, ReadError> {
        let event = Event::<T>::read(topic, bytes)?;
        Ok(serde_json::from_slice(&event.to_bytes()).unwrap())
    }
    match topic {
        Topic::PaymentRequested => with::<PaymentRequested>(topic, bytes),
        Topic::PaymentChallengeCompleted => with::<ChallengeCompleted>(topic, bytes),
        Topic::OperationCompleted => with::<OperationCompleted>(topic, bytes),
        Topic::PaymentRefused => with::<PaymentRefused>(topic, bytes),
        Topic::PaymentChallenged
        | Topic::PaymentAuthorized
        | Topic::PaymentDeclined
        | Topic::PaymentFailed
        | Topic::PaymentUnknown
        | Topic::PaymentCaptured
        | Topic::PaymentReversed => with::<PaymentFact>(topic, bytes),
        Topic::SettlementEntry => with::<SettlementEntry>(topic, bytes),
    }
}

#[test]
fn the_schema_files_are_those_of_the_code() {
    let stale: Vec<_> = Topic::ALL
        .into_iter()
        .filter(|topic| file(*topic) != schemas::render(&schemas::schema(*topic)))
        .map(|topic| format!("schemas/{}", schemas::file_name(topic)))
        .collect();
    assert!(
        stale.is_empty(),
        "{}: not what the code says; if the change is meant and only adds, run\n    \
         TOLOM_WRITE_SCHEMAS=1 cargo test --test it contracts\nand commit the files",
        stale.join(", ")
    );
}

#[test]
fn there_is_no_schema_file_without_a_topic() {
    for entry in fs::read_dir(path(Topic::PaymentRequested).parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let topic = name.strip_suffix(".v1.json").map(Topic::from_routing_key);
        assert_ne!(topic, Some(None), "schemas/{name} belongs to no topic");
    }
}

#[test]
fn every_schema_is_a_valid_one_and_open_to_additions() {
    for topic in Topic::ALL {
        let schema = schemas::schema(topic);
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{}: {error}", topic.routing_key()));
        let mut event = schemas::example(topic);
        event["added"] = "later".into();
        event["data"]["added"] = "later".into();
        assert_valid(topic, &serde_json::to_vec(&event).unwrap());
        reread(topic, &serde_json::to_vec(&event).unwrap()).unwrap();
    }
}

#[test]
fn every_example_is_valid_and_reads_and_is_written_the_same() {
    for topic in Topic::ALL {
        let schema: Value = serde_json::from_str(&schemas::render(&schemas::schema(topic))).unwrap();
        for example in schema["examples"].as_array().unwrap() {
            let bytes = serde_json::to_vec(example).unwrap();
            assert_valid(topic, &bytes);
            assert_eq!(Topic::of(&bytes).unwrap(), topic);
            assert_eq!(reread(topic, &bytes).unwrap(), *example);
        }
    }
}

/// `v1-examples.json` is never edited, only added to: such messages may lie in an outbox, a queue, a dead-letter list
/// or finance's archive.
#[test]
fn the_first_examples_remain_valid_and_readable_for_ever() {
    let old: Value = serde_json::from_str(include_str!("contracts/v1-examples.json")).unwrap();
    for topic in Topic::ALL {
        let examples =
            old[topic.routing_key()].as_array().unwrap_or_else(|| panic!("no example of {}", topic.routing_key()));
        assert!(!examples.is_empty(), "{}", topic.routing_key());
        for example in examples {
            let bytes = serde_json::to_vec(example).unwrap();
            assert_valid(topic, &bytes);
            let again = reread(topic, &bytes).unwrap_or_else(|error| panic!("{error}: {example}"));
            assert_eq!(again, *example, "what was written then is written so today");
        }
    }
}
