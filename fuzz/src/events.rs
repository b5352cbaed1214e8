//! CloudEvents off the broker.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use tolom::contracts::{
    ChallengeCompleted, Event, OperationCompleted, PaymentFact, PaymentRefused, PaymentRequested, ReadError,
    SettlementEntry, Topic,
};

/// An explanation goes into a header of at most 500 characters; this much more may be cut off.
const LONGEST_EXPLANATION: usize = 1000;

/// What is read is of the topic that it bears and within its bounds, and what is written of it reads the same. What is
/// not read is explained briefly and without a card's number.
pub fn target(bytes: &[u8]) {
    let topic = Topic::of(bytes);
    if let Err(error) = &topic {
        is_harmless(error);
    }
    for asked in Topic::ALL {
        let read = match asked {
            Topic::PaymentRequested => reads::<PaymentRequested>(asked, bytes),
            Topic::PaymentChallengeCompleted => reads::<ChallengeCompleted>(asked, bytes),
            Topic::OperationCompleted => reads::<OperationCompleted>(asked, bytes),
            Topic::PaymentRefused => reads::<PaymentRefused>(asked, bytes),
            Topic::SettlementEntry => reads::<SettlementEntry>(asked, bytes),
            Topic::PaymentChallenged
            | Topic::PaymentAuthorized
            | Topic::PaymentDeclined
            | Topic::PaymentFailed
            | Topic::PaymentUnknown
            | Topic::PaymentCaptured
            | Topic::PaymentReversed => reads::<PaymentFact>(asked, bytes),
        };
        assert!(!read || topic == Ok(asked), "read as {asked:?}, and it is {topic:?}");
    }
}

fn reads<T: Serialize + DeserializeOwned + PartialEq + Debug>(topic: Topic, bytes: &[u8]) -> bool {
    let event = match Event::<T>::read(topic, bytes) {
        Ok(event) => event,
        Err(error) => {
            is_harmless(&error);
            return false;
        }
    };
    assert_eq!((event.specversion.as_str(), event.event_type), ("1.0", topic.event_type()));
    assert!((1..=255).contains(&event.source.len()));
    let event = Event { event_type: topic.event_type(), ..event };
    let written = event.to_bytes();
    let again = Event::<T>::read(topic, &written).expect("what we write, we read");
    assert_eq!(again, event);
    assert_eq!(again.to_bytes(), written);
    true
}

fn is_harmless(error: &ReadError) {
    let text = error.to_string();
    assert!(text.chars().count() <= LONGEST_EXPLANATION, "{} characters: {text}", text.chars().count());
    assert!(!text.contains(char::is_control), "{text:?}");
    super::tells_no_number(&text);
}
