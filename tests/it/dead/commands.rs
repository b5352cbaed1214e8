//! `tolom dead` through the real binary.

use lapin::options::{BasicGetOptions, BasicRejectOptions};
use serde_json::Value;
use tolom::{broker::Queue, contracts::Topic, store::dead};

use super::{NUMBER, all_but, column, example, publish, to_queue};
use crate::{
    commands::{Ended, tolom},
    support::world::World,
};

const PARKED: &str = "SELECT count(*) FROM dead_letter WHERE state = 'parked'";

/// Runs `tolom dead ... --json` on the world's database and broker.
pub(super) async fn dead(world: &World, arguments: &[&str]) -> Ended {
    tolom(world, &[&["dead"], arguments].concat()).await
}

/// How many a list has.
pub(super) fn many(list: &Value) -> usize {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).len()
}

/// A world with one dead letter of each of these, parked.
async fn with_letters(bodies: &[(&str, Queue, Vec<u8>)]) -> World {
    let world = World::start().await;
    let messages = bodies.iter().map(|(id, queue, body)| to_queue(&world.broker, *queue, id, body));
    publish(&world.broker, messages.collect()).await;
    world.wait_until(PARKED, bodies.len().try_into().unwrap()).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_letter_does_its_work_once_however_often_it_is_replayed() {
    let mut world = World::prepared(|_| ()).await;
    // Nobody records, and nobody else finds out what came of it.
    world.run(all_but(&["record", "resolve"])).await;
    let bill = world.bill("1100000601").await;
    let id = world.pay(&bill, "4111111111111111").await.id().unwrap();
    let connection = world.broker.connect("rejecting").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = world.broker.names().queue(Queue::Record);
    let message = crate::support::world::wait_for(async || {
        channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap()
    })
    .await;
    channel.basic_reject(message.delivery.delivery_tag, BasicRejectOptions { requeue: false }).await.unwrap();
    world.wait_until(PARKED, 1).await;
    world.stop().await;
    world.run(all_but(&["resolve"])).await;

    let listed = dead(&world, &["list", "--payment", &id.to_string(), "--queue", "tolom.record"]).await.with(0);
    let number = listed["letters"][0]["id"].to_string();
    let dry = dead(&world, &["replay", &number, "--dry-run"]).await.with(0);
    assert_eq!((many(&dry["replayed"]), &dry["dry_run"]), (1, &Value::Bool(true)));
    assert_eq!(world.count(PARKED).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM dead_letter_audit").await, 0);

    let arguments = ["replay", "--payment", &id.to_string(), "--by", "aigul", "--why", "record was down"];
    assert_eq!(many(&dead(&world, &arguments).await.with(0)["replayed"]), 1);
    assert_eq!(world.end_of(id).await, "captured");
    for _ in 0..2 {
        assert_eq!(many(&dead(&world, &["replay", &number]).await.with(0)["replayed"]), 1);
    }
    let shown = dead(&world, &["show", &number]).await.with(0);
    assert_eq!((&shown["state"], &shown["times"]), (&Value::from("replayed"), &Value::from(1)));
    assert_eq!(many(&shown["audit"]), 3);
    assert_eq!((&shown["audit"][0]["who"], &shown["audit"][0]["why"]), (&"aigul".into(), &"record was down".into()));
    assert_eq!(shown["audit"][1]["who"], shown["audit"][1]["os_user"]);
    assert!(shown["body"].as_str().unwrap().contains(&id.to_string()));
    assert_eq!(world.count("SELECT count(*) FROM settlement_entry").await, 1);
    assert_eq!(world.simulator.books().iter().filter(|row| row.kind.as_str() == "authorize").count(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_dies_again_is_parked_again_and_counted() {
    let body = example(Topic::PaymentCaptured, |_| ());
    let bodies: Vec<_> = (0..30).map(|_| ("", Queue::Receipt, body.clone())).collect();
    let ids: Vec<String> = (0..30).map(|number| format!("letter {number}")).collect();
    let bodies: Vec<_> =
        bodies.into_iter().zip(&ids).map(|((_, queue, body), id)| (id.as_str(), queue, body)).collect();
    let world = with_letters(&bodies).await;
    let started = std::time::Instant::now();
    let report = dead(&world, &["replay", "--reason", "NO RECEIPT", "--rate", "20"]).await.with(0);
    assert_eq!(many(&report["replayed"]), 30);
    // Thirty at twenty a second.
    assert!(started.elapsed() > std::time::Duration::from_millis(1_400), "{:?}", started.elapsed());
    world.wait_until("SELECT count(*) FROM dead_letter WHERE state = 'parked' AND times = 2", 30).await;
    assert_eq!(world.count("SELECT count(*) FROM dead_letter_audit WHERE action = 'replayed'").await, 30);
    let groups = dead(&world, &["list", "--group", "--newer-than", "1h"]).await.with(0);
    assert_eq!((many(&groups["groups"]), &groups["groups"][0]["letters"]), (1, &Value::from(30)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_found_by_queue_reason_age_and_state_and_discarded_with_a_reason() {
    let world = with_letters(&[
        ("one", Queue::Record, b"{}".to_vec()),
        ("two", Queue::Record, example(Topic::OperationCompleted, |_| ())),
        ("three", Queue::Capture, vec![0xFF, 0x00, b'x']),
    ])
    .await;
    let found = async |arguments: &[&str]| {
        let json = dead(&world, &[&["list"], arguments].concat()).await.with(0);
        (many(&json["letters"]), json["all"].as_i64().unwrap())
    };
    assert_eq!(found(&[]).await, (3, 3));
    assert_eq!(found(&["--limit", "1"]).await, (1, 3));
    assert_eq!(found(&["--queue", "tolom.record"]).await, (2, 2));
    assert_eq!(found(&["--reason", "no such operation"]).await, (1, 1));
    assert_eq!(found(&["--reason", "100%_"]).await, (0, 0));
    assert_eq!(found(&["--older-than", "1h"]).await, (0, 0));
    assert_eq!(found(&["--newer-than", "1h", "--state", "parked"]).await, (3, 3));
    assert_eq!(found(&["--state", "discarded"]).await, (0, 0));

    let discarded =
        dead(&world, &["discard", "--queue", "tolom.record", "--why", "a test's", "--by", "aigul"]).await.with(0);
    assert_eq!(many(&discarded["discarded"]), 2);
    assert_eq!(found(&["--state", "discarded"]).await, (2, 2));
    assert_eq!(found(&[]).await, (1, 1));
    let audited = "SELECT count(*) FROM dead_letter_audit
                   WHERE action = 'discarded' AND who = 'aigul' AND os_user <> '' AND why = 'a test''s'";
    assert_eq!(world.count(audited).await, 2);
    // Given up is given up once; by number it can still be replayed, and dies again.
    let number = discarded["discarded"][0].to_string();
    let again = dead(&world, &["discard", &number, "--why", "again"]).await.with(1);
    assert_eq!(many(&again["not_parked"]), 1);
    assert_eq!(many(&dead(&world, &["replay", &number]).await.with(0)["replayed"]), 1);
    world.wait_until(PARKED, 2).await;
    let binary = dead(&world, &["list", "--queue", "tolom.capture"]).await.with(0)["letters"][0]["id"].to_string();
    assert_eq!(dead(&world, &["show", &binary]).await.with(0)["body_base64"], "/wB4");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_told_from_what_cannot_be_done() {
    let card = format!("{{\"pan\":\"{NUMBER}\"}}");
    let world = with_letters(&[("card", Queue::Record, card.into_bytes())]).await;
    for (arguments, about) in [
        (&["replay"][..], "--all"),
        (&["discard", "--why", "x"], "--all"),
        (&["discard", "--all"], "--why"),
        (&["discard", "--all", "--why", " "], "--why"),
        (&["replay", "1", "--all"], "--all"),
        (&["replay", "--all", "--queue", "tolom.record"], "--all"),
        (&["replay", "1", "--queue", "tolom.record"], "numbers or a filter"),
        (&["replay", "x"], "x"),
        (&["list", "--queue", "tolom.nothing"], "finance.settlement"),
        (&["list", "--older-than", "1w"], "15m"),
        (&["list", "--state", "lost"], "lost"),
        (&["list", "--limit", "0"], "limit"),
        (&["list", "--payment", "42"], "42"),
        (&["replay", "--all", "--rate", "0"], "rate"),
    ] {
        let ended = dead(&world, arguments).await;
        assert_eq!(ended.status, 2, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(about), "{arguments:?}: {}", ended.errors);
    }
    assert!(dead(&world, &["show", "999999"]).await.errors.contains("no dead letter 999999"));
    assert_eq!(many(&dead(&world, &["replay", "999999"]).await.with(1)["unknown"]), 1);
    let refused = dead(&world, &["replay", "--all"]).await.with(1);
    assert!(refused["refused"][0]["why"].as_str().unwrap().contains("card"), "{refused}");
    assert_eq!(many(&refused["replayed"]), 0);
    assert_eq!(column(&world, "card", "times").await, "1");
    assert_eq!(world.count(PARKED).await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_settles_letters_while_they_are_parked_in_another_order_begins_anew() {
    let body = example(Topic::PaymentCaptured, |_| ());
    let world = with_letters(&[("one", Queue::Receipt, body.clone()), ("two", Queue::Receipt, body)]).await;
    let letters = dead::candidates(&world.pool, &dead::Filter::default(), 0, 10).await.unwrap();
    let actor = dead::Actor { who: "aigul", os_user: "aigul", why: None };
    const HOLD: &str = "SELECT FROM dead_letter WHERE id = $1 FOR UPDATE";
    let mut rival = world.pool.begin().await.unwrap();
    sqlx::query(HOLD).bind(letters[1].id).execute(&mut *rival).await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND a.datname = current_database()";
    let rival = async {
        world.wait_until(waits, 1).await;
        // Each waits for the other now, and who has waited longer is thrown out by the database.
        sqlx::query(HOLD).bind(letters[0].id).execute(&mut *rival).await.unwrap();
        rival.rollback().await.unwrap();
    };
    let now = world.clock.now();
    let (marked, ()) = futures::join!(dead::mark_replayed(&world.pool, &letters, actor, now), rival);
    assert_eq!(marked.unwrap(), 2);
    assert_eq!(world.count("SELECT count(*) FROM dead_letter_audit").await, 2, "nothing of the first try is left");
    world.finish().await;
}
