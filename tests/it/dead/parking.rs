//! From the broker's dead queues into the table: once, whole, and masked.

use std::{sync::Arc, time::Duration};

use lapin::options::{BasicGetOptions, BasicRejectOptions};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tolom::{
    broker::{self, Handler, Message, Publisher, Queue, Reading, Turn, Verdict},
    contracts::{FailedAttempt, Topic},
    store::dead::{self, Letter},
    workers,
};

use super::{NUMBER, all_but, column, example, publish, publish_foreign, to_queue};
use crate::support::world::{World, wait_for};

const PARKED: &str = "SELECT count(*) FROM dead_letter WHERE state = 'parked'";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_parked_with_all_that_is_known_of_it_and_leaves_the_broker() {
    let world = World::start().await;
    let body = example(Topic::OperationCompleted, |_| ());
    let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Record, "unknown", &body)]).await;
    world.wait_until(PARKED, 1).await;
    for (name, value) in [
        ("queue", "tolom.record"),
        ("event_type", "tolom.operation.completed.v1"),
        ("payment", event["subject"].as_str().unwrap()),
        ("reason", "there is no such operation"),
        ("attempts", "0"),
        ("times", "1"),
        ("unreplayable", "null"),
        ("jsonb_array_length(reasons)", "1"),
        ("convert_from(body, 'UTF8')", std::str::from_utf8(&body).unwrap()),
    ] {
        assert_eq!(column(&world, "unknown", name).await, value, "{name}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_is_parked_with_a_reason_that_says_so() {
    let world = World::start().await;
    let newer = example(Topic::OperationCompleted, |event| event["type"] = "tolom.operation.completed.v2".into());
    let messages = [Queue::Record, Queue::Authorize, Queue::Capture, Queue::Receipt].map(|queue| {
        let body = match queue {
            Queue::Record => newer.clone(),
            Queue::Authorize => {
                example(Topic::PaymentRequested, |event| event["type"] = "tolom.payment.requested.v2".into())
            }
            Queue::Capture => {
                example(Topic::PaymentAuthorized, |event| event["type"] = "tolom.payment.authorized.v3".into())
            }
            _ => example(Topic::PaymentCaptured, |event| event["type"] = "tolom.payment.captured.v2".into()),
        };
        to_queue(&world.broker, queue, queue.name(), &body)
    });
    publish(&world.broker, messages.to_vec()).await;
    let question = "SELECT count(*) FROM dead_letter WHERE reason LIKE '%a newer version than this build reads%'
                    AND payment IS NOT NULL AND unreplayable IS NULL AND attempts = 0";
    world.wait_until(question, 4).await;
    world.finish().await;
}

/// Never finishes anything.
struct Fails;

impl Handler for Fails {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        for message in batch {
            let attempt = message.attempt;
            message.settle(Verdict::Retry(format!("no luck {attempt}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_on_the_way_is_remembered() {
    let mut world = World::prepared(|config| {
        config.broker.retry_delays_ms = vec![20];
        config.broker.max_attempts = 3;
    })
    .await;
    world.run(all_but(&["capture"])).await;
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Capture, batch: 10, prefetch: 10, linger: Duration::ZERO };
    let publisher = Publisher::start(world.broker.clone());
    let failing =
        tokio::spawn(broker::consume(world.broker.clone(), publisher, reading, Arc::new(Fails), stop.clone()));
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Capture, "unlucky", b"anything")]).await;
    world.wait_until(PARKED, 1).await;
    assert_eq!(column(&world, "unlucky", "attempts").await, "3");
    assert_eq!(column(&world, "unlucky", "reason").await, "no luck 3");
    let chain =
        "(SELECT string_agg((r ->> 'attempt') || ' ' || (r ->> 'reason'), ', ') FROM jsonb_array_elements(reasons) r)";
    assert_eq!(column(&world, "unlucky", chain).await, "0 no luck 0, 1 no luck 1, 2 no luck 2, 3 no luck 3");
    assert_eq!(column(&world, "unlucky", "last_at - first_at >= interval '60 ms'").await, "true");
    stop.cancel();
    failing.await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_itself_gave_up_says_so() {
    let mut world = World::prepared(|_| ()).await;
    let queue = world.broker.names().queue(Queue::Capture);
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Capture, "rejected", b"anything")]).await;
    let connection = world.broker.connect("rejecting").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let message = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    channel.basic_reject(message.delivery.delivery_tag, BasicRejectOptions { requeue: false }).await.unwrap();
    world.run(workers::ALL.to_vec()).await;
    world.wait_until(PARKED, 1).await;
    assert_eq!(
        column(&world, "rejected", "reason").await,
        format!("the broker gave it up in {queue}: a consumer rejected it")
    );
    assert_eq!(column(&world, "rejected", "headers ? 'x-death'").await, "true");
    world.finish().await;
}

fn failure(at: OffsetDateTime, reason: &str) -> FailedAttempt {
    FailedAttempt { attempt: 0, at, reason: reason.to_owned() }
}

fn letter(id: &str, failures: &[FailedAttempt]) -> Letter {
    Letter {
        queue: Queue::Record.name(),
        message_id: id.to_owned(),
        body: b"body".to_vec(),
        headers: vec![("a\0b".to_owned(), "c\0d".to_owned())],
        traceparent: None,
        event_type: Some("nul \0".to_owned()),
        payment: None,
        reason: failures.last().map_or("none", |failure| &failure.reason).to_owned(),
        failures: failures.to_vec(),
        attempts: 0,
        unreplayable: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_death_is_one_row_however_often_it_is_delivered_and_another_death_counts() {
    let world = World::prepared(|_| ()).await;
    let now = world.clock.now();
    let first = letter("same", &[failure(now, "first")]);
    let second = letter("same", &[failure(now + Duration::from_secs(1), "second")]);
    let park = async |letters: &[Letter]| dead::park(&world.pool, letters, now).await.unwrap();
    let stands = async |times: &str, state: &str, reason: &str| {
        for (name, value) in [("times", times), ("state", state), ("reason", reason)] {
            assert_eq!(column(&world, "same", name).await, value, "{name}");
        }
    };
    park(&[first.clone(), letter("other", &[]), first.clone()]).await;
    park(&[first.clone(), letter("other", &[])]).await;
    stands("1", "parked", "first").await;
    sqlx::query("UPDATE dead_letter SET state = 'replayed', settled_at = now()").execute(&world.pool).await.unwrap();
    park(std::slice::from_ref(&first)).await;
    stands("1", "replayed", "first").await;
    park(&[second.clone(), second.clone()]).await;
    stands("2", "parked", "second").await;
    park(&[first, second, letter("other", &[])]).await;
    stands("2", "parked", "second").await;
    assert_eq!(column(&world, "same", "jsonb_array_length(reasons)").await, "2");
    assert_eq!(column(&world, "other", "times").await, "2");
    assert_eq!(world.count("SELECT count(*) FROM dead_letter").await, 2);
    // The chain of a letter that dies for ever has an end.
    for round in 0..80 {
        park(&[letter("same", &[failure(now + Duration::from_secs(60 + round), "again")])]).await;
    }
    assert_eq!(column(&world, "same", "times").await, "82");
    assert_eq!(column(&world, "same", "jsonb_array_length(reasons)").await, "51");
    assert_eq!(column(&world, "same", "reasons -> 0 ->> 'reason'").await, "first");
    broker::remove(&world.broker).await.unwrap();
}

/// Parks as the worker does, and "crashes" before it acknowledges.
struct ParksAndDies {
    pool: sqlx::PgPool,
    parked: tokio::sync::mpsc::Sender<()>,
}

impl Handler for ParksAndDies {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        for message in batch {
            let letter = Letter { body: message.body.clone(), ..letter(&message.id, &message.history.failures) };
            dead::park(&self.pool, &[letter], OffsetDateTime::UNIX_EPOCH).await.unwrap();
            message.leave();
            self.parked.send(()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_commit_and_acknowledgement_leaves_one_row() {
    let mut world = World::prepared(|_| ()).await;
    world.run(all_but(&["park"])).await;
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Record, "twice", b"{}")]).await;
    let (parked, mut parking) = tokio::sync::mpsc::channel(10);
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Record, batch: 10, prefetch: 10, linger: Duration::ZERO };
    let (broker, publisher) = (world.broker.clone(), Publisher::start(world.broker.clone()));
    let handler = Arc::new(ParksAndDies { pool: world.pool.clone(), parked });
    let dying = tokio::spawn(broker::consume_dead_letters(broker, publisher, reading, handler, stop.clone()));
    parking.recv().await.unwrap();
    stop.cancel();
    dying.await.unwrap();
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    // It is delivered again, and taken.
    wait_for(async || world.no_dead_letter_at_the_broker().await.then_some(())).await;
    assert_eq!(column(&world, "twice", "times").await, "1");
    assert_eq!(world.count("SELECT count(*) FROM dead_letter").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_not_settled_is_delivered_again() {
    struct Panics(tokio::sync::mpsc::Sender<()>);
    impl Handler for Panics {
        async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
            let _ = self.0.try_send(());
            assert!(batch.is_empty(), "parked by nobody");
        }
    }
    let mut world = World::prepared(|_| ()).await;
    world.run(all_but(&["park"])).await;
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Receipt, "kept", b"{}")]).await;
    let (seen, mut saw) = tokio::sync::mpsc::channel(100);
    let stop = CancellationToken::new();
    let reading = Reading { queue: Queue::Receipt, batch: 10, prefetch: 10, linger: Duration::ZERO };
    let (broker, publisher) = (world.broker.clone(), Publisher::start(world.broker.clone()));
    let panicking =
        tokio::spawn(broker::consume_dead_letters(broker, publisher, reading, Arc::new(Panics(seen)), stop.clone()));
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(30), saw.recv()).await.expect("delivered again").unwrap();
    }
    stop.cancel();
    panicking.await.unwrap();
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until(PARKED, 1).await;
    assert_eq!(column(&world, "kept", "times").await, "1");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn card_data_is_masked_before_a_letter_reaches_the_dead_queue_and_such_a_letter_is_not_replayable() {
    let mut world = World::prepared(|_| ()).await;
    world.run(all_but(&["park"])).await;
    let card = serde_json::json!({"number": NUMBER, "cvc": "987", "expiry_month": 12, "expiry_year": 2033});
    let foreign = example(Topic::PaymentRequested, |event| event["data"]["card"] = card);
    let messages = vec![
        to_queue(&world.broker, Queue::Authorize, "card", &foreign),
        to_queue(&world.broker, Queue::Record, "bytes", b"\x00\x014111 1111 1111 1111\n"),
        to_queue(&world.broker, Queue::Capture, "clean", b"nothing of a card"),
    ];
    publish(&world.broker, messages).await;
    let letters = crate::broker::dead_letters(&world.broker, 3).await;
    for letter in &letters {
        let text = String::from_utf8_lossy(letter);
        let telling = [NUMBER, "4111 1111", "\"987\"", ":2033"];
        assert!(!telling.iter().any(|told| text.contains(told)), "{text}");
    }
    world.stop().await;
    // What never passed through our hands is masked when it is parked: headers, message id and all.
    let dead = world.broker.names().dead(Queue::Settlement);
    let headers = [("cvc", "987"), ("note", "pan 4111-1111-1111-1111"), ("nul", "a\0b")];
    publish_foreign(&world.broker, &dead, NUMBER, &headers, b"number=4111111111111111&cvv=987").await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM dead_letter WHERE unreplayable LIKE 'it held card data%'", 3).await;
    world.wait_until("SELECT count(*) FROM dead_letter WHERE unreplayable IS NULL", 1).await;
    let masked = "*".repeat(NUMBER.len());
    assert_eq!(column(&world, &masked, "headers ->> 'cvc'").await, "***");
    assert_eq!(column(&world, &masked, "headers ->> 'note'").await, "pan ****-****-****-****");
    assert_eq!(column(&world, &masked, "headers ->> 'nul'").await, "a\u{FFFD}b");
    assert_eq!(column(&world, &masked, "convert_from(body, 'UTF8')").await, format!("number={masked}&cvv=***"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_is_cut_and_not_replayable() {
    let world = World::start().await;
    let long = vec![b'x'; 1024 * 1024 + 1];
    publish(&world.broker, vec![to_queue(&world.broker, Queue::Capture, "long", &long)]).await;
    world.wait_until(PARKED, 1).await;
    assert_eq!(column(&world, "long", "octet_length(body)").await, "1048576");
    assert_eq!(column(&world, "long", "unreplayable").await, "its body was cut to 1048576 bytes");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_long_ago_is_forgotten_and_what_waits_never() {
    let world = World::prepared(|_| ()).await;
    let now = world.clock.now();
    let ids = ["waits", "replayed lately", "replayed long ago"];
    let letters: Vec<Letter> = ids.iter().map(|id| letter(id, &[failure(now, "x")])).collect();
    dead::park(&world.pool, &letters, now).await.unwrap();
    sqlx::query(
        "UPDATE dead_letter SET state = 'replayed', settled_at = now() - CASE message_id
             WHEN 'replayed lately' THEN interval '1 day' ELSE interval '31 days' END WHERE message_id <> 'waits'",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    dead::forget(&world.pool, now - Duration::from_secs(30 * 86_400), now).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("SELECT message_id FROM dead_letter ORDER BY message_id DESC")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(left, ids[..2]);
    broker::remove(&world.broker).await.unwrap();
}
