//! `schemas/asyncapi.yaml` is written by hand; here it is held to the topology that the code declares.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use tolom::{
    broker::{Names, Queue, live},
    config::Config,
    contracts::{Topic, schemas},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn document() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(folder().join("asyncapi.yaml")).unwrap()).unwrap()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text is expected, not {value}")).to_owned()
}

/// A name with its one parameter, if any, replaced by each of the values it may have.
fn expand(name: &str, channel: &Value) -> Vec<String> {
    let Some((parameter, description)) = members(&channel["parameters"]).next() else { return vec![name.to_owned()] };
    let values = description["enum"].as_array().unwrap();
    values.iter().map(|value| name.replace(&format!("{{{parameter}}}"), &text(value))).collect()
}

/// Names of queues or exchanges, each with the words that its channel's messages go by.
fn named<'a>(document: &'a Value, kind: &str) -> Vec<(String, BTreeSet<&'a str>)> {
    let mut all = Vec::new();
    for (id, channel) in members(&document["channels"]) {
        let amqp = &channel["bindings"]["amqp"];
        assert_eq!(amqp["bindingVersion"], "0.3.0", "{id}");
        let Some(name) = amqp[kind]["name"].as_str() else { continue };
        let is = if kind == "queue" { "queue" } else { "routingKey" };
        assert_eq!(amqp["is"], is, "{id}");
        if kind == "queue" {
            assert_eq!(channel["address"].as_str(), Some(name), "{id}");
            assert_eq!(amqp["queue"]["durable"], true, "{id}");
        }
        let messages: BTreeSet<_> = members(&channel["messages"]).map(|(name, _)| name).collect();
        all.extend(expand(name, channel).into_iter().map(|name| (name, messages.clone())));
    }
    all
}

fn keys(topics: &[Topic]) -> BTreeSet<&'static str> {
    topics.iter().map(|topic| topic.routing_key()).collect()
}

#[test]
fn every_routing_key_is_a_channel_of_its_exchange_and_there_are_no_others() {
    let (document, names) = (document(), Names::new(""));
    let mut expected: BTreeSet<(String, String)> = BTreeSet::new();
    for topic in Topic::ALL {
        let exchange = if topic.is_command() { names.commands() } else { names.events() };
        expected.insert((exchange, topic.routing_key().to_owned()));
    }
    expected.extend(Queue::ALL.map(|queue| (names.dead_exchange(), names.queue(queue))));
    let mut found = BTreeSet::new();
    for (id, channel) in members(&document["channels"]) {
        let exchange = &channel["bindings"]["amqp"]["exchange"];
        if exchange.is_null() {
            continue;
        }
        assert_eq!((&exchange["type"], &exchange["durable"]), (&"topic".into(), &true.into()), "{id}");
        for key in expand(&text(&channel["address"]), channel) {
            assert!(found.insert((text(&exchange["name"]), key)), "{id} is there twice");
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn every_queue_is_a_channel_with_the_messages_it_is_bound_to_and_there_are_no_others() {
    let (document, names) = (document(), Names::new(""));
    let delays = Config::defaults().broker.retry_delays_ms;
    let mut expected = vec![(names.stream(), keys(&[Topic::SettlementEntry]))];
    for queue in Queue::ALL {
        let messages = keys(queue.topics());
        expected.push((names.queue(queue), messages.clone()));
        expected.push((names.dead(queue), messages.clone()));
        if queue.has_tiers() {
            expected.extend(delays.iter().map(|delay| (names.tier(queue, *delay), messages.clone())));
        }
    }
    let mut found = named(&document, "queue");
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let live: BTreeSet<_> = members(&document["channels"]["live"]["messages"]).map(|(name, _)| name).collect();
    assert_eq!(live, keys(&live::TOPICS));
}

#[test]
fn every_message_is_a_topic_with_its_schema_file() {
    let document = document();
    let messages: BTreeSet<_> = members(&document["components"]["messages"]).map(|(name, _)| name).collect();
    assert_eq!(messages, keys(&Topic::ALL));
    for topic in Topic::ALL {
        let message = &document["components"]["messages"][topic.routing_key()];
        assert_eq!(message["name"], topic.event_type());
        assert_eq!(message["payload"]["$ref"], format!("./{}", schemas::file_name(topic)));
        assert!(folder().join(schemas::file_name(topic)).is_file());
    }
    let headers = &document["components"]["messageTraits"]["event"]["headers"]["properties"];
    let headers: Vec<_> = members(headers).map(|(name, _)| name).collect();
    assert_eq!(headers.into_iter().collect::<BTreeSet<_>>(), ["traceparent", "tolom-attempt", "tolom-reason"].into());
}

/// The value that a local `$ref` points to.
fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = text(&reference["$ref"]);
    let pointer = pointer.strip_prefix('#').unwrap_or_else(|| panic!("{pointer} is not local"));
    document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"))
}

#[test]
fn every_operation_says_how_its_message_is_published_and_every_topic_has_who_sends_and_who_takes_it() {
    let document = document();
    let (mut sent, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for (id, operation) in members(&document["operations"]) {
        let channel = resolve(&document, &operation["channel"]);
        let amqp = &operation["bindings"]["amqp"];
        let sends = operation["action"] == "send";
        for message in operation["messages"].as_array().unwrap() {
            let message = resolve(&document, resolve(&document, message));
            let topic = Topic::from_routing_key(&text(&message["title"])).unwrap();
            if sends && channel["address"] == topic.routing_key() {
                assert_eq!(amqp["mandatory"], topic.must_be_routed(), "{id}");
                sent.insert(topic.routing_key());
            }
            if !sends {
                taken.insert(topic.routing_key());
            }
        }
        if sends {
            assert_eq!(amqp["deliveryMode"], 2, "{id}");
        } else {
            let broker_names_it = channel["address"].is_null();
            assert_eq!(amqp["ack"], !broker_names_it, "{id}");
        }
    }
    assert_eq!(sent, keys(&Topic::ALL));
    assert_eq!(taken, keys(&Topic::ALL));
}
