//! Unknown outcomes to their end: by the ladder where the acquirer answers, by a person where it does not.

use std::{
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use sqlx::Row;
use time::format_description::well_known::Rfc3339;
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    acquirer::{Acquirer, Call, Circuit, http::HttpAcquirer},
    clock::Clock,
    config::CaptureMode,
    payer::Payer,
    payment::{Currency, Money},
    simulator::{self, Simulator, SimulatorOptions},
    store::{
        operations::{Claimed, Terms, claim_captures},
        sessions::Sessions,
    },
    workers::{self, Role},
};
use uuid::Uuid;

use crate::support::world::{World, wait_for};

const TIMED_OUT_AFTER_APPROVAL: &str = "4000000000050031";
const WRONG_AMOUNT: &str = "4000000000050072";
const GOOD: &str = "4111111111111111";

fn all_but(name: &str) -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| role.name != name).collect()
}

async fn paid_elsewhere(world: &World) {
    sqlx::query("UPDATE bill SET status = 'paid', paid_at = now()").execute(&world.pool).await.unwrap();
}

/// An acquirer that takes every request and then hangs up without a word.
async fn silent_acquirer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
            });
        }
    });
    format!("http://{address}")
}

/// `tolom payment ...` as a person types it.
fn tolom(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tolom"))
        .args(["--set", &format!("database.url={}", world.config.database.url.expose())])
        .args(arguments)
        .env("TOLOM_LOG__FILTER", "error")
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_timed_out_after_approval_ends_captured() {
    let world = World::start().await;
    let bill = world.bill("1100020001").await;
    let (_, status) = world.pay_to_the_end(&bill, TIMED_OUT_AFTER_APPROVAL).await;
    assert_eq!(status, "captured");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_timed_out_after_approval_is_reversed_when_its_bill_was_paid_elsewhere() {
    let mut world = World::prepared(|_| ()).await;
    world.run(all_but("resolve")).await;
    let bill = world.bill("1100020002").await;
    let id = world.pay(&bill, TIMED_OUT_AFTER_APPROVAL).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'unknown'", 1).await;
    paid_elsewhere(&world).await;
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    // The payer is told that nothing stays charged as soon as that is certain; the acknowledgement follows.
    world.end_of(id).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'reversed'", 1).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_never_arrived_is_not_sent_for_a_bill_that_was_paid_elsewhere() {
    let mut world = World::prepared(|_| ()).await;
    world.run(workers::ALL.into_iter().filter(|role| ["authorize", "record"].contains(&role.name)).collect()).await;
    let bill = world.bill("1100020003").await;
    let id = world.pay(&bill, GOOD).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    // A capture worker claims and dies before it sends.
    let terms = Terms { owner: "dead", clock: &world.clock, send_within: Duration::ZERO, lease: Duration::ZERO };
    let claims = claim_captures(&Sessions::new(world.pool.clone()), &[id], &terms).await.unwrap();
    assert!(matches!(claims[0].1, Claimed::Capture(_)));
    paid_elsewhere(&world).await;
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'reversed'", 1).await;
    world.wait_until("SELECT count(*) FROM operation WHERE kind = 'capture' AND outcome = 'not_sent'", 1).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_never_arrived_is_sent_however_long_it_takes_to_learn_that() {
    let slow = SimulatorOptions { latency: "300".parse().unwrap(), ..SimulatorOptions::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(simulator::serve(listener, Simulator::with_options(Clock::system(), slow), stop.clone()));
    let mut world = World::prepared(|config| {
        config.acquirer.url = format!("http://{address}");
        config.acquirer.send_within_ms = 100;
    })
    .await;
    world.run(workers::ALL.into_iter().filter(|role| ["authorize", "record"].contains(&role.name)).collect()).await;
    let bill = world.bill("1100020005").await;
    let id = world.pay(&bill, GOOD).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    let terms = Terms { owner: "dead", clock: &world.clock, send_within: Duration::ZERO, lease: Duration::ZERO };
    claim_captures(&Sessions::new(world.pool.clone()), &[id], &terms).await.unwrap();
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 1).await;
    world.stop().await;
    tolom::broker::remove(&world.broker).await.unwrap();
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_records_is_told_by_the_rungs_and_then_a_person() {
    let mut world = World::prepared(|config| {
        config.acquirer.capture = CaptureMode::AtAuthorization;
        config.resolve.schedule_s = vec![3_600];
    })
    .await;
    world.run(all_but("record")).await;
    let bill = world.bill("1100020006").await;
    world.pay(&bill, GOOD).await.id().unwrap();
    // Its lease ends, the acquirer says that it took the money, and nobody writes that down.
    let waits = "SELECT count(*) FROM operation WHERE attempts = 2 AND next_attempt_at > now() + interval '50 minutes'";
    world.wait_until(waits, 1).await;
    // A day later a person is asked, who need do nothing once it is recorded after all.
    sqlx::query("UPDATE operation SET created_at = now() - interval '25 hours', next_attempt_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'review'", 1).await;
    world.run_too(workers::ALL.into_iter().filter(|role| role.name == "record").collect()).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 1).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_nobody_captures_is_given_back_before_it_lapses() {
    let mut world = World::prepared(|_| ()).await;
    world.run(all_but("capture")).await;
    let bill = world.bill("1100020004").await;
    world.pay(&bill, GOOD).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    sqlx::query("UPDATE payment SET accepted_at = now() - interval '7 days', updated_at = now() - interval '2 hours'")
        .execute(&world.pool)
        .await
        .unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'reversed'", 1).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_acquirer_silent_for_the_whole_ladder_a_payment_ends_in_review_and_a_person_settles_it() {
    let silent = silent_acquirer().await;
    let world = World::with(|config| {
        config.acquirer.url = silent;
        config.acquirer.capture = CaptureMode::AtAuthorization;
        config.resolve.give_up_hours = 0;
    })
    .await;
    let bills = world.bills(&["1100020010", "1100020011", "1100020012"].map(str::to_owned)).await;
    let mut ids = Vec::new();
    for bill in &bills {
        ids.push(world.pay(bill, GOOD).await.id().unwrap());
    }
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'review'", 3).await;
    assert_eq!(world.count("SELECT count(*) FROM journal WHERE to_status = 'failed'").await, 0);
    for id in &ids {
        assert_eq!(world.payer.payment(*id).await.unwrap()["public_status"], "unknown");
    }
    let at = world.clock.now().format(&Rfc3339).unwrap();
    // What a person reads names the commands; each word does what it says, and a second one changes nothing.
    let shown = printed(&tolom(&world, &["payment", "show", &ids[0].to_string()]));
    for word in ["approved", "declined", "reversed"] {
        assert!(shown.contains(&format!("tolom payment resolve {} --{word} --evidence", ids[0])), "{shown}");
    }
    for (id, (word, status)) in
        ids.iter().zip([("approved", "captured"), ("declined", "declined"), ("reversed", "reversed")])
    {
        let (id, flag) = (id.to_string(), format!("--{word}"));
        let mut say = vec!["payment", "resolve", &id, &flag, "--evidence", "statement 7, line 3", "--by", "Aizada"];
        if word != "declined" {
            say.extend(["--at", &at]);
        }
        let output = tolom(&world, &say);
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        assert!(printed(&output).contains(status), "{}", printed(&output));
        let output = tolom(&world, &say);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    }
    assert_eq!(
        world
            .count(
                "SELECT count(*) FROM journal WHERE actor LIKE 'Aizada (%) by hand' AND detail LIKE '%: statement 7, line 3'
                 AND from_status = 'review'",
            )
            .await,
        3
    );
    assert_eq!(world.count("SELECT count(*) FROM bill WHERE paid_by IS NOT NULL").await, 1);
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    world.wait_until("SELECT count(*) FROM outbox", 0).await;
    let receipts = world.mail.messages().into_iter().filter_map(|mail| mail.message_id.clone());
    assert_eq!(receipts.filter(|id| id.starts_with("<TLM-")).count(), 1);
    world.finish_without_acquirer().await;
}

/// A world whose acquirer takes the money at once and lives a day ago, and when that is. Nobody asks it again.
async fn with_books_of_yesterday() -> (World, String, DropGuard) {
    let mut world = World::prepared(|config| config.acquirer.capture = CaptureMode::AtAuthorization).await;
    let yesterday = world.clock.now() - time::Duration::DAY;
    world.simulator = Simulator::new(Clock::manual(yesterday));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = (*world.config).clone();
    config.acquirer.url = format!("http://{}", listener.local_addr().unwrap());
    world.config = Arc::new(config);
    let stop = CancellationToken::new();
    tokio::spawn(simulator::serve(listener, world.simulator.clone(), stop.clone()));
    world.run(all_but("resolve")).await;
    (world, yesterday.format(&Rfc3339).unwrap(), stop.drop_guard())
}

/// A payment with this card that waits for a person.
async fn in_review(world: &World, bill: &str, card: &str) -> Uuid {
    let id = world.pay(&world.bill(bill).await, card).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status IN ('accepted', 'authorizing')", 0).await;
    sqlx::query("UPDATE payment SET status = 'review', previous_status = 'unknown' WHERE status = 'unknown'")
        .execute(&world.pool)
        .await
        .unwrap();
    id
}

/// Sends a reversal that is never answered.
async fn reverse_unheard(world: &World, payment: Uuid) {
    let reversal = Uuid::now_v7();
    let original: String =
        sqlx::query("UPDATE operation SET closing = true WHERE payment_id = $1 RETURNING original_reference")
            .bind(payment)
            .fetch_one(&world.pool)
            .await
            .unwrap()
            .get(0);
    sqlx::query(
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                next_attempt_at)
         SELECT $1, payment_id, 'reverse', $2, reference, acquirer, amount_minor, currency, now() FROM operation
         WHERE payment_id = $3",
    )
    .bind(reversal)
    .bind(reversal.simple().to_string())
    .bind(payment)
    .execute(&world.pool)
    .await
    .unwrap();
    let settings = &world.config.acquirer;
    let acquirer = HttpAcquirer::new(settings, world.clock.clone(), Circuit::new(settings)).unwrap();
    let call = Call {
        reference: reversal.simple().to_string(),
        amount: Money::new(51_000, Currency::KGS),
        send_before: world.clock.now() + Duration::from_secs(60),
        traceparent: None,
    };
    assert_eq!(acquirer.reverse(&call, &original, false).await.as_str(), "approved");
}

/// The days of the books are the acquirer's, though a person speaks days later.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_says_was_approved_is_booked_on_the_acquirers_day() {
    let (world, yesterday, _acquirer) = with_books_of_yesterday().await;
    let id = in_review(&world, "1100020040", TIMED_OUT_AFTER_APPROVAL).await.to_string();
    let output =
        tolom(&world, &["payment", "resolve", &id, "--approved", "--evidence", "statement", "--at", &yesterday]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert_eq!(world.count("SELECT count(*) FROM settlement_entry").await, 1);
    world.finish().await;
}

/// A hold is no capture, whatever a person says of it: it is taken, and only then is the bill paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_a_person_keeps_is_captured_at_the_acquirer_before_its_bill_is_paid() {
    let mut world = World::prepared(|_| ()).await;
    world.run(workers::ALL.into_iter().filter(|role| ["authorize", "record"].contains(&role.name)).collect()).await;
    let bill = world.bill("1100020043").await;
    let id = world.pay(&bill, GOOD).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    world.stop().await;
    // For a day nobody could say whether the capture had arrived; it never did.
    let terms = Terms { owner: "dead", clock: &world.clock, send_within: Duration::ZERO, lease: Duration::ZERO };
    claim_captures(&Sessions::new(world.pool.clone()), &[id], &terms).await.unwrap();
    for settled in [
        "UPDATE operation SET outcome = 'unknown', next_attempt_at = now() + interval '1 hour' WHERE kind = 'capture'",
        "UPDATE payment SET status = 'review', previous_status = 'authorized', version = version + 1",
    ] {
        sqlx::query(settled).execute(&world.pool).await.unwrap();
    }
    let id = id.to_string();
    let now = world.clock.now().format(&Rfc3339).unwrap();
    let output = tolom(&world, &["payment", "resolve", &id, "--approved", "--evidence", "statement", "--at", &now]);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(world.count("SELECT count(*) FROM bill WHERE status = 'paid'").await, 0);
    world.run(workers::ALL.to_vec()).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 1).await;
    // Rule 6 is asked for there: the acquirer has the capture too.
    world.finish().await;
}

/// The books show what the acquirer took and gave back, at its amount.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_says_was_given_back_is_booked_as_the_acquirer_moved_it() {
    let (world, yesterday, _acquirer) = with_books_of_yesterday().await;
    for (bill, card, keeps) in
        [("1100020041", TIMED_OUT_AFTER_APPROVAL, None), ("1100020042", WRONG_AMOUNT, Some("another amount"))]
    {
        let payment = in_review(&world, bill, card).await;
        let id = payment.to_string();
        let say = |word| {
            let output =
                tolom(&world, &["payment", "resolve", &id, word, "--evidence", "statement", "--at", &yesterday]);
            (output.status.code(), printed(&output))
        };
        if let Some(why) = keeps {
            let (code, text) = say("--approved");
            assert!(code == Some(1) && text.contains(why), "{text}");
        }
        reverse_unheard(&world, payment).await;
        let (code, text) = say("--reversed");
        assert!(code == Some(0) && text.contains("reversed"), "{text}");
    }
    assert_eq!(world.count("SELECT count(*) FROM settlement_entry").await, 4);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_cannot_say_is_refused_with_the_reason() {
    let world = World::start().await;
    let bill = world.bill("1100020020").await;
    let (id, _) = world.pay_to_the_end(&bill, GOOD).await;
    let id = id.to_string();
    let say = |arguments: &[&str]| {
        let output = tolom(&world, &[&["payment", "resolve"], arguments].concat());
        (output.status.code(), printed(&output))
    };
    let (code, text) = say(&[&id, "--declined", "--evidence", "x"]);
    assert!(code == Some(1) && text.contains("nothing of it waits for a person"), "{text}");
    let (code, text) = say(&[&Uuid::new_v4().to_string(), "--declined", "--evidence", "x"]);
    assert!(code == Some(1) && text.contains("there is no payment"), "{text}");
    let tomorrow = (world.clock.now() + time::Duration::DAY).format(&Rfc3339).unwrap();
    for unusable in [
        vec![id.as_str(), "--declined"],
        vec![id.as_str(), "--approved", "--evidence", "x"],
        vec![id.as_str(), "--reversed", "--evidence", "x"],
        vec![id.as_str(), "--reversed", "--evidence", "x", "--at", "yesterday"],
        vec![id.as_str(), "--approved", "--evidence", "x", "--at", &tomorrow],
        vec![id.as_str(), "--declined", "--evidence", "x", "--at", "2026-11-27T16:05:00+06:00"],
        vec![id.as_str(), "--evidence", "x"],
        vec![id.as_str(), "--declined", "--approved", "--evidence", "x"],
        vec![id.as_str(), "--declined", "--evidence", " "],
        vec![id.as_str(), "--declined", "--evidence", "card 4111 1111 1111 1111"],
        vec![id.as_str(), "--declined", "--evidence", "x", "--by", ""],
        vec!["4111", "--declined", "--evidence", "x"],
    ] {
        let (code, text) = say(&unusable);
        assert_eq!(code, Some(2), "{unusable:?}: {text}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_wait_while_the_acquirer_is_away_and_are_taken_when_it_returns() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = World::with(|config| {
        config.acquirer.url = format!("http://{address}");
        config.acquirer.name = "away".to_owned();
        config.acquirer.circuit_failures = 3;
        config.acquirer.circuit_open_ms = 200;
        config.acquirer.circuit_longest_open_ms = 400;
    })
    .await;
    let codes: Vec<String> = (0..20).map(|number| format!("11000201{number:02}")).collect();
    for bill in &world.bills(&codes).await {
        world.pay(bill, GOOD).await.id().unwrap();
    }
    // Some ran into the closed door; while the circuit is open nobody knocks but the probes.
    wait_for(async || {
        let metrics = tolom::telemetry::metrics().render();
        metrics
            .lines()
            .any(|line| line.starts_with("tolom_acquirer_circuit_open{acquirer=\"away\"") && line.ends_with(" 1"))
            .then_some(())
    })
    .await;
    // One of the cards runs out meanwhile: its payer is told that nothing was charged.
    sqlx::query(
        "UPDATE sealed_card SET expires_at = now() WHERE id = (
             SELECT p.card_id FROM payment p JOIN sealed_card c ON c.id = p.card_id ORDER BY p.id LIMIT 1)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'failed'", 1).await;
    let stop = CancellationToken::new();
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(simulator::serve(listener, world.simulator.clone(), stop.clone()));
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 19).await;
    world.finish().await;
    stop.cancel();
}

/// The browser keeps asking; nothing of the waiting shows as an error.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_says_do_not_pay_again_and_holds_its_bill() {
    let mut world = World::prepared(|config| config.acquirer.answer_timeout_ms = 200).await;
    world.run(all_but("resolve")).await;
    let bill = world.bill("1100020030").await;
    let id = world.pay(&bill, TIMED_OUT_AFTER_APPROVAL).await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'unknown'", 1).await;
    let payer: &Payer = &world.payer;
    assert_eq!(payer.payment(id).await.unwrap()["public_status"], "unknown");
    let second = world.pay(&bill, GOOD).await;
    assert_eq!(second.status.as_u16(), 409, "a second card is refused while the first is unknown");
    world.stop().await;
    world.run(workers::ALL.to_vec()).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), world.end_of(id)).await.unwrap(), "captured");
    world.finish().await;
}
