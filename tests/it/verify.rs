//! `tolom verify` sees what is broken: here where no other test breaks it.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use lapin::options::QueueDeleteOptions;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};
use tolom::{
    acquirer::{Acquirer, Call, Circuit, http::HttpAcquirer},
    broker::Queue,
    config::Config,
    payment::{Currency, Money, card::CardRules},
    store::{
        operations::{Terms, claim_captures},
        sessions::Sessions,
    },
    telemetry,
    verify::{Finding, all_kept, table, verify},
    workers,
};
use uuid::Uuid;

use crate::support::world::{World, card, wait_for};

const GOOD: &str = "4111111111111111";
const TIMED_OUT_AFTER_APPROVAL: &str = "4000000000050031";

/// Serves an acquirer's books that are not the simulator's.
async fn acquirer(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The world's settings with another acquirer.
fn with_acquirer(world: &World, url: String) -> Config {
    let mut config = (*world.config).clone();
    config.acquirer.url = url;
    config
}

async fn finding(world: &World, rule: u8) -> Finding {
    let findings = verify(&world.config, &world.pool, &world.broker, &world.clock, Duration::ZERO, None).await.unwrap();
    findings.into_iter().find(|finding| finding.rule == rule).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_beyond_its_time_and_what_grows_beyond_its_limit_is_named() {
    let world = World::prepared(|config| config.intake.max_outbox_rows = 1).await;
    let well = finding(&world, 9).await;
    assert!(well.ok && well.checked > 10, "{well:?}");
    sqlx::query(
        "INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer, created_at)
         VALUES ('public', 'k', decode(repeat('00', 32), 'hex'), $1, '{}', now() - interval '40 days')",
    )
    .bind(Uuid::nil())
    .execute(&world.pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO outbox (id, routing_key, body)
         SELECT gen_random_uuid(), 'payment.requested', '{}'::bytea FROM generate_series(1, 2)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let broken = finding(&world, 9).await;
    assert!(!broken.ok);
    for what in ["idempotency keys kept beyond their time: 1", "messages in the outbox: 2"] {
        assert!(broken.offending.iter().any(|text| text.contains(what)), "{what}: {:?}", broken.offending);
    }
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_is_named() {
    let world = World::prepared(|_| ()).await;
    let well = finding(&world, 8).await;
    assert!(well.ok && well.checked > 10, "{well:?}");
    let connection = world.broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let tier = world.broker.names().tier(Queue::Record, world.config.broker.retry_delays_ms[0]);
    channel.queue_delete(tier.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let broken = finding(&world, 8).await;
    assert!(!broken.ok && broken.offending.iter().any(|text| text.contains(&tier)), "{broken:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_hang_on_nothing_are_named() {
    let world = World::start().await;
    let (_, status) = world.pay_to_the_end(&world.bill("1100009001").await, GOOD).await;
    assert_eq!(status, "captured");
    world.mail.wait_for_count(1).await;
    assert!(finding(&world, 5).await.ok && finding(&world, 6).await.ok);
    for orphan in [
        "INSERT INTO journal (payment_id, version, event, to_status, actor) VALUES ($1, 1, 'accepted', 'accepted', 'test')",
        "UPDATE settlement_entry SET payment_id = $1",
    ] {
        sqlx::query(orphan).bind(Uuid::nil()).execute(&world.pool).await.unwrap();
    }
    let (journal, books) = (finding(&world, 5).await, finding(&world, 6).await);
    assert!(journal.offending.iter().any(|text| text.ends_with("is of no payment")), "{journal:?}");
    assert!(books.offending.iter().any(|text| text.contains("names another payment")), "{books:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_in_any_company_is_named_and_a_random_name_is_not() {
    let world = World::prepared(|_| ()).await;
    let write = "INSERT INTO journal (payment_id, version, event, to_status, actor, detail) VALUES ($1, 1, 'e', 's', 'test', $2)";
    let write = async |detail: &str| {
        sqlx::query(write).bind(Uuid::nil()).bind(detail).execute(&world.pool).await.unwrap();
    };
    write("as 24b465ae54447769296873613b3b4285 said").await;
    let well = finding(&world, 7).await;
    assert!(well.ok, "{well:?}");
    for detail in ["x4111111111111111y", "a5555555555554444"] {
        write(detail).await;
    }
    let broken = finding(&world, 7).await;
    assert!(broken.offending.iter().any(|text| text.contains("411111******1111")), "{broken:?}");
    assert!(broken.offending.iter().any(|text| text.contains("555555******4444")), "{broken:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_behind_many_other_long_numbers_is_named_and_not_told() {
    let world = World::prepared(|_| ()).await;
    sqlx::query(
        "INSERT INTO journal (payment_id, version, event, to_status, actor, detail)
         SELECT $1, 1, 'e', 's', 'test', detail FROM (
             SELECT number, 'order 4222222222221' AS detail FROM generate_series(1, 150) number
             UNION ALL SELECT 151, 'card 4222222222222') rows ORDER BY number",
    )
    .bind(Uuid::nil())
    .execute(&world.pool)
    .await
    .unwrap();
    let broken = finding(&world, 7).await;
    assert_eq!(broken.offending, [format!("{}: journal holds 422222***2222", Uuid::nil())]);
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_that_nobody_looks_into_is_named() {
    let mut world = World::prepared(|_| ()).await;
    world.run(workers::ALL.into_iter().filter(|role| role.name != "resolve").collect()).await;
    let id = world.pay(&world.bill("1100009020").await, TIMED_OUT_AFTER_APPROVAL).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'unknown'", 1).await;
    world.wait_until("SELECT count(*) FROM outbox", 0).await;
    let next = async |moment: &'static str| {
        sqlx::query("UPDATE operation SET next_attempt_at = now() + $1::interval")
            .bind(moment)
            .execute(&world.pool)
            .await
            .unwrap();
        finding(&world, 1).await
    };
    let scheduled = next("1 hour").await;
    assert!(scheduled.ok, "{scheduled:?}");
    let forgotten = next("-2 hours").await;
    assert_eq!(forgotten.offending, [format!("{id} is still unknown")]);
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_payment_whose_capture_is_looked_into_is_on_its_way() {
    let mut world = World::prepared(|_| ()).await;
    world.run(workers::ALL.into_iter().filter(|role| ["authorize", "record"].contains(&role.name)).collect()).await;
    let id = world.pay(&world.bill("1100009021").await, GOOD).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    world.wait_until("SELECT count(*) FROM outbox", 0).await;
    assert_eq!(finding(&world, 1).await.offending, [format!("{id} is still authorized")]);
    let lease = Duration::from_secs(60);
    let terms = Terms { owner: "silent", clock: &world.clock, send_within: lease, lease };
    claim_captures(&Sessions::new(world.pool.clone()), &[id], &terms).await.unwrap();
    let asked = finding(&world, 1).await;
    assert!(asked.ok, "{asked:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_the_acquirer_refuses_to_show_prove_nothing_and_books_that_it_has_not_leave_a_note() {
    let world = World::prepared(|config| config.acquirer.token = "secret-token".to_owned().into()).await;
    let books = async |headers: HeaderMap| {
        let known = headers.get("authorization").is_some_and(|value| value == "Bearer secret-token");
        if known { Ok(Json(json!([]))) } else { Err(StatusCode::UNAUTHORIZED) }
    };
    let mut config = with_acquirer(&world, acquirer(Router::new().route("/books", get(books))).await);
    let ask =
        async |config: &Config| verify(config, &world.pool, &world.broker, &world.clock, Duration::ZERO, None).await;
    let shown = ask(&config).await.unwrap();
    assert!(all_kept(&shown) && shown.iter().all(|finding| finding.notes.is_empty()), "{shown:?}");
    config.acquirer.token = "another".to_owned().into();
    let refused = ask(&config).await.unwrap_err();
    assert!(refused.to_string().contains("401"), "{refused}");
    config.acquirer.url = acquirer(Router::new()).await;
    let alone = ask(&config).await.unwrap();
    let noted = alone.iter().filter(|finding| finding.notes.iter().any(|note| note.contains("our own books alone")));
    assert_eq!(noted.map(|finding| finding.rule).collect::<Vec<_>>(), [2, 3, 4, 6]);
    assert!(table(&alone).contains("note: held against our own books alone"));
    world.finish_without_acquirer().await;
}

/// A proxy says 503 with `Retry-After` although the acquirer has booked it: it counts as not sent, and another is sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_stands_beside_the_captured_one_is_named() {
    let world = World::start().await;
    let (id, status) = world.pay_to_the_end(&world.bill("1100009010").await, GOOD).await;
    assert_eq!(status, "captured");
    let other = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                outcome, next_attempt_at, completed_at)
         SELECT $1, payment_id, kind, $2, $2, acquirer, amount_minor, currency, 'not_sent', now(), now()
         FROM operation WHERE kind = 'authorize'",
    )
    .bind(other)
    .bind(other.simple().to_string())
    .execute(&world.pool)
    .await
    .unwrap();
    let well = finding(&world, 3).await;
    assert!(well.ok, "{well:?}");
    let settings = &world.config.acquirer;
    let acquirer = HttpAcquirer::new(settings, world.clock.clone(), Circuit::new(settings)).unwrap();
    let call = Call {
        reference: other.simple().to_string(),
        amount: Money::new(51_000, Currency::KGS),
        send_before: world.clock.now() + Duration::from_secs(60),
        traceparent: None,
    };
    let good = card(GOOD).check(&CardRules::default(), (2026, 11)).unwrap();
    assert_eq!(acquirer.authorize(&call, &good, false).await.as_str(), "approved");
    let broken = finding(&world, 3).await;
    assert!(!broken.ok && broken.offending.iter().any(|text| text.contains(&id.to_string())), "{broken:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_while_the_acquirers_books_are_read_breaks_no_rule() {
    let world = World::start().await;
    let bills = world.bills(&["1100009011", "1100009012"].map(str::to_owned)).await;
    world.pay_to_the_end(&bills[0], GOOD).await;
    let (read, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let books = {
        let (simulator, read, answer) = (world.simulator.clone(), Arc::clone(&read), Arc::clone(&answer));
        async move || {
            let rows = simulator.books();
            read.notify_one();
            answer.notified().await;
            Json(rows)
        }
    };
    let config = with_acquirer(&world, acquirer(Router::new().route("/books", get(books))).await);
    let grace = Duration::from_secs(60);
    let (findings, ()) = tokio::join!(verify(&config, &world.pool, &world.broker, &world.clock, grace, None), async {
        read.notified().await;
        assert_eq!(world.pay_to_the_end(&bills[1], GOOD).await.1, "captured");
        answer.notify_one();
    });
    let findings = findings.unwrap();
    assert!(all_kept(&findings), "\n{}", table(&findings));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_wrong_by_the_same_amount_in_both_directions_are_both_named() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for bill in &world.bills(&["1100009013", "1100009014"].map(str::to_owned)).await {
        ids.push(world.pay_to_the_end(bill, GOOD).await.0);
    }
    assert!(finding(&world, 6).await.ok);
    for (id, by) in ids.iter().zip([1_i64, -1]) {
        let wrong = "UPDATE settlement_entry SET amount_minor = amount_minor + $2 WHERE payment_id = $1";
        sqlx::query(wrong).bind(id).bind(by).execute(&world.pool).await.unwrap();
    }
    let broken = finding(&world, 6).await;
    for (id, ours) in ids.iter().zip(["51001 and 0", "50999 and 0"]) {
        let named = broken.offending.iter().find(|text| text.starts_with(&format!("{id} on ")));
        assert!(named.is_some_and(|text| text.ends_with(ours)), "{id}: {broken:?}");
    }
    world.finish_without_acquirer().await;
}

/// The gauge that an alert hangs on.
fn difference(currency: &str) -> Option<String> {
    let labels = format!("tolom_conservation_difference_minor{{source=\"acquirer\",currency=\"{currency}\"}} ");
    let metrics = telemetry::metrics().render();
    metrics.lines().find_map(|line| line.strip_prefix(&labels).map(str::to_owned))
}

/// Every test of this process shows its gauges in one place; these currencies are of this one alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_shows_and_keeps_what_the_acquirer_lacks_though_an_operation_stays_open() {
    let mut world = World::prepared(|_| ()).await;
    let resolve: Vec<_> = workers::ALL.into_iter().filter(|role| role.name == "resolve").collect();
    world.run(workers::ALL.into_iter().filter(|role| role.name != "resolve").collect()).await;
    let bills = world.bills(&["1100009015", "1100009016", "1100009017"].map(str::to_owned)).await;
    sqlx::query("UPDATE bill SET currency = 'XTS'").execute(&world.pool).await.unwrap();
    for bill in &bills[..2] {
        assert_eq!(world.pay_to_the_end(bill, GOOD).await.1, "captured");
    }
    world.pay(&bills[2], TIMED_OUT_AFTER_APPROVAL).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'unknown'", 1).await;
    sqlx::query("UPDATE operation SET next_attempt_at = now() + interval '1 day' WHERE outcome = 'unknown'")
        .execute(&world.pool)
        .await
        .unwrap();
    let mut books: Vec<Value> = world.simulator.books().iter().map(|row| serde_json::to_value(row).unwrap()).collect();
    let capture = books.iter().position(|row| row["kind"] == "capture").unwrap();
    let mut stray = books.remove(capture);
    (stray["reference"], stray["amount"], stray["currency"]) = (json!("of-nobody"), json!(7), json!("XXX"));
    books.push(stray);
    let asked = Arc::new(AtomicUsize::new(0));
    let books = {
        let asked = Arc::clone(&asked);
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Json(books.clone())
        }
    };
    world.config = Arc::new(with_acquirer(&world, acquirer(Router::new().route("/books", get(books))).await));
    world.run_too(resolve).await;
    wait_for(async || difference("XTS")).await;
    // By the third look the second one has shown what it found.
    wait_for(async || (asked.load(Ordering::SeqCst) >= 3).then_some(())).await;
    assert_eq!((difference("XTS").as_deref(), difference("XXX").as_deref()), (Some("51000"), Some("7")));
    world.finish_without_acquirer().await;
}

#[test]
fn a_grace_beyond_all_time_is_unusable() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tolom"));
    let output = command.args(["verify", "--grace-s", "18446744073709551615"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
