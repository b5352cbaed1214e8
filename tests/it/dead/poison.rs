//! Poison among good payments: each poisonous message is alone in its fate.
//!
//! `TOLOM_TEST_POISON=1000x10000` sets how many of each; by default fewer, for a run that takes seconds.

use std::time::Duration;

use futures::{StreamExt, stream};
use tolom::{
    broker::{Publisher, Queue},
    contracts::Topic,
};
use uuid::Uuid;

use super::{
    NUMBER,
    commands::{dead, many},
    example, publish_foreign, to_queue,
};
use crate::support::world::World;

/// Payments on their way at once.
const AT_ONCE: usize = 48;
/// Kinds of poison: what it is, and a part of the reason it dies of.
const KINDS: [(&str, &str); 10] = [
    ("not JSON", "expected value"),
    ("NUL bytes", "not a valid"),
    ("wrong schema", "data.payment"),
    ("newer version", "newer version"),
    ("unknown operation", "no such operation"),
    ("unknown payment", "no such payment"),
    ("contradicting amount", "amount or currency differ"),
    ("unknown receipt", "no receipt of such a payment"),
    ("huge headers", "not a valid"),
    ("foreign card", "data.card"),
];

/// (poison, good payments)
fn numbers() -> (usize, usize) {
    let asked = std::env::var("TOLOM_TEST_POISON").unwrap_or_else(|_| "50x250".to_owned());
    let (poison, good) = asked.split_once('x').expect("TOLOM_TEST_POISON=<poison>x<good>");
    (poison.parse().unwrap(), good.parse().unwrap())
}

/// Publishes one poisonous message; its id tells its kind.
async fn poison(world: &World, publisher: &Publisher, number: usize) {
    let broker = &world.broker;
    let kind = number % KINDS.len();
    let id = format!("{}: {number}", KINDS[kind].0);
    let (queue, body) = match kind {
        0 => (Queue::Authorize, b"give me money".to_vec()),
        1 => (Queue::Record, b"\0\0\xFF\0".to_vec()),
        2 => (Queue::Authorize, example(Topic::PaymentRequested, |event| event["data"]["payment"] = 42.into())),
        3 => {
            let newer = |event: &mut serde_json::Value| event["type"] = "tolom.operation.completed.v2".into();
            (Queue::Record, example(Topic::OperationCompleted, newer))
        }
        4 => (Queue::Record, example(Topic::OperationCompleted, |_| ())),
        5 => (Queue::Capture, example(Topic::PaymentAuthorized, |_| ())),
        6 => (Queue::Record, contradicting(world).await),
        7 => (Queue::Receipt, example(Topic::PaymentCaptured, |_| ())),
        8 => {
            let long = "h".repeat(40_000);
            let queue = broker.names().queue(Queue::Capture);
            return publish_foreign(broker, &queue, &id, &[("x-long", &long), ("nul", "\0")], b"{\"specversion\":1}")
                .await;
        }
        _ => {
            let card = serde_json::json!({"number": NUMBER, "cvc": "987"});
            (Queue::Authorize, example(Topic::PaymentRequested, |event| event["data"]["card"] = card))
        }
    };
    publisher.publish(to_queue(broker, queue, &id, &body)).await.unwrap();
}

/// An outcome of a real operation, for another amount.
async fn contradicting(world: &World) -> Vec<u8> {
    let operation = crate::support::world::wait_for(async || {
        let any = "SELECT id, payment_id, reference FROM operation WHERE kind = 'authorize' ORDER BY random() LIMIT 1";
        sqlx::query_as::<_, (Uuid, Uuid, String)>(any).fetch_optional(&world.pool).await.unwrap()
    })
    .await;
    let (operation, payment, reference) = operation;
    example(Topic::OperationCompleted, |event| {
        event["subject"] = payment.to_string().into();
        event["data"]["payment"] = payment.to_string().into();
        event["data"]["operation"] = operation.to_string().into();
        event["data"]["reference"] = reference.into();
        event["data"]["amount"]["value"] = 1.into();
        event["data"]["result"]["amount"]["value"] = 1.into();
    })
}

/// Waits for a count without [`World`]'s limit: the full numbers take minutes.
async fn wait_until(world: &World, question: &'static str, answer: usize) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while world.count(question).await != i64::try_from(answer).unwrap() {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(300), wait).await.is_err() {
        panic!("`{question}` is {}, not {answer}", world.count(question).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_among_good_payments_is_parked_with_its_reason_and_replaying_it_twice_changes_nothing() {
    let (bad, good) = numbers();
    // A machine under load answers late, and that alone must send nobody to a retry tier.
    let world = World::with(|config| {
        config.acquirer.send_within_ms = 20_000;
        config.acquirer.answer_timeout_ms = 20_000;
        config.mail.claim_s = 600;
    })
    .await;
    let codes: Vec<String> = (0..good).map(|number| format!("1100{number:07}")).collect();
    let bills = world.bills(&codes).await;
    let publisher = Publisher::start(world.broker.clone());
    let started = std::time::Instant::now();
    let payments = stream::iter(&bills).map(async |bill| world.pay(bill, NUMBER).await.id().expect("accepted"));
    let payments = payments.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let poisons =
        stream::iter(0..bad).map(|number| poison(&world, &publisher, number)).buffer_unordered(8).collect::<Vec<_>>();
    let (paid, _) = futures::join!(payments, poisons);
    let offered = started.elapsed();
    assert_eq!(paid.len(), good);
    wait_until(&world, "SELECT count(*) FROM payment WHERE status = 'captured'", good).await;
    let ended = started.elapsed();
    wait_until(&world, "SELECT count(*) FROM dead_letter WHERE state = 'parked'", bad).await;

    // Every poisonous message with its reason, and nothing else.
    for (kind, (what, reason)) in KINDS.iter().enumerate() {
        let of_kind = (0..bad).filter(|number| number % KINDS.len() == kind).count();
        let parked: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM dead_letter WHERE message_id LIKE $1 || ': %' AND position($2 in reason) > 0 AND times = 1
             AND attempts = 0",
        )
        .bind(what)
        .bind(reason)
        .fetch_one(&world.pool)
        .await
        .unwrap();
        assert_eq!(parked, i64::try_from(of_kind).unwrap(), "{what}");
    }
    // No good payment had to be tried again, or looked for.
    assert_eq!(world.count("SELECT count(*) FROM operation").await, i64::try_from(2 * good).unwrap());
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE outcome <> 'approved'").await, 0);
    wait_until(&world, "SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", good).await;
    let (middle, longest): (f64, f64) = sqlx::query_as(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s), max(s) FROM (
             SELECT extract(epoch FROM captured_at - accepted_at)::float8 AS s FROM payment) t",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();

    let cards = (0..bad).filter(|number| number % KINDS.len() == 9).count();
    let mut replays = Vec::new();
    for times in [2, 3] {
        let began = std::time::Instant::now();
        let report = dead(&world, &["replay", "--all"]).await;
        replays.push(began.elapsed());
        let report = report.with(i32::from(cards > 0));
        assert_eq!((many(&report["replayed"]), many(&report["refused"])), (bad - cards, cards));
        let again = match times {
            2 => "SELECT count(*) FROM dead_letter WHERE state = 'parked' AND times = 2",
            _ => "SELECT count(*) FROM dead_letter WHERE state = 'parked' AND times = 3",
        };
        wait_until(&world, again, bad - cards).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM dead_letter").await, i64::try_from(bad).unwrap());
    let charges = world.simulator.books().iter().filter(|row| row.kind.as_str() == "authorize").count();
    assert_eq!(charges, good, "one charge a payment");
    eprintln!(
        "{bad} poisonous among {good} good: offered in {offered:.1?}, all captured after {ended:.1?}; accepted to captured: \
         median {middle:.3} s, longest {longest:.3} s; replayed in {replays:.1?}"
    );
    world.finish().await;
}
