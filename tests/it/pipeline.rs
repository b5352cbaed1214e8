//! The whole way of a payment, through real servers: from the 202 to the books, the receipt and finance.

use std::time::Duration;

use tolom::{
    broker::{Exchange, Outgoing, Publisher, Queue, Tap},
    contracts::{Event, PaymentRefused, PaymentRequested, Topic},
    payment::card::CardInput,
};
use uuid::Uuid;

use crate::support::world::{World, card};

#[tokio::test(flavor = "multi_thread")]
async fn a_good_card_ends_captured_with_one_receipt_and_one_settlement_entry() {
    let world = World::start().await;
    let bill = world.bill("1100000001").await;
    let (id, status) = world.pay_to_the_end(&bill, "4111111111111111").await;
    assert_eq!(status, "captured");
    world.mail.wait_for_count(1).await;
    assert_eq!(world.count("SELECT count(*) FROM settlement_entry WHERE kind = 'capture'").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM bill WHERE status = 'paid'").await, 1);
    let receipt = world.payer.receipt(id).await.unwrap();
    assert_eq!(receipt["card"]["number"], "411111******1111");
    assert_eq!(world.mail.messages().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_at_authorization_is_one_message_to_the_acquirer() {
    let world = World::with(|config| config.acquirer.capture = tolom::config::CaptureMode::AtAuthorization).await;
    let bill = world.bill("1100000002").await;
    let (_, status) = world.pay_to_the_end(&bill, "5555555555554444").await;
    assert_eq!(status, "captured");
    assert_eq!(world.count("SELECT count(*) FROM operation").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_test_card_ends_as_it_says_and_every_rule_is_kept() {
    let world = World::start().await;
    let expected = [
        ("4111111111111111", "captured"),
        ("4000000000009995", "declined"),
        ("4000000000000002", "declined"),
        ("4000000000000127", "declined"),
        ("4000000000050015", "captured"),
        ("4000000000050031", "captured"),
        ("4000000000050049", "captured"),
        ("4000000000050064", "captured"),
        ("4000000000050023", "failed"),
        ("4000000000050056", "failed"),
        ("4000000000050114", "captured"),
        ("4000000000050106", "reversed"),
        // A reversal closes the reference before it appears.
        ("4000000000050080", "failed"),
        // Decided by us, before any call.
        ("4111111111111112", "declined"),
    ];
    let codes: Vec<String> = (0..expected.len()).map(|number| format!("16000000{number:02}")).collect();
    let bills = world.bills(&codes).await;
    let ends = bills.iter().zip(expected).map(|(bill, (number, _))| world.pay_to_the_end(bill, number));
    let ends = futures::future::join_all(ends).await;
    for ((_, status), (number, expected)) in ends.iter().zip(expected) {
        assert_eq!(status, expected, "card {number}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_card_is_declined_with_a_reason_and_never_leaves_the_house() {
    let world = World::start().await;
    let typed = |change: fn(&mut CardInput)| {
        let mut input = card("4111111111111111");
        change(&mut input);
        input
    };
    let wrong = [
        ("invalid_number", typed(|card| card.number = "4111111111111112".into())),
        ("expired_card", typed(|card| card.expiry_year = 2020)),
        ("invalid_cvc", typed(|card| card.cvc = "12".into())),
        ("invalid_holder", typed(|card| card.holder = "АЙБЕК".into())),
    ];
    for (number, (reason, input)) in wrong.iter().enumerate() {
        let bill = world.bill(&format!("13000000{number:02}")).await;
        let request = world.request_with(&bill, input).await;
        let submitted = world.payer.submit(&request, &Uuid::new_v4().to_string()).await.unwrap();
        let payment = world.payer.follow(submitted.id().unwrap()).await.unwrap();
        assert_eq!((payment["status"].as_str(), payment["decline_reason"].as_str()), (Some("declined"), Some(*reason)));
    }
    assert!(world.simulator.books().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_completed_or_declined_and_one_that_runs_out_is_closed_first() {
    let world = World::start().await;
    let bills = world.bills(&["1100000010".into(), "1100000011".into(), "1100000012".into()]).await;
    for (bill, code, expected) in [(&bills[0], "123456", "captured"), (&bills[1], "000000", "declined")] {
        let id = world.pay(bill, "4000000000003220").await.id().unwrap();
        let challenged = world.payer.follow_until(id, |news| news.payment["status"] == "challenged").await.unwrap();
        assert_eq!(challenged["public_status"], "confirm");
        assert!(world.payer.challenge(id, &[("otp", code)]).await.unwrap().status.is_success());
        assert_eq!(world.end_of(id).await, expected);
    }
    let (_, status) = world.pay_to_the_end(&bills[2], "4000000000050007").await;
    assert_eq!(status, "declined");
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE kind = 'reverse' AND outcome = 'approved'").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_posts_with_one_key_make_one_payment_one_operation_and_one_receipt() {
    let world = World::start().await;
    let bill = world.bill("1100000020").await;
    let request = world.request(&bill, "4111111111111111").await;
    let key = Uuid::new_v4().to_string();
    let answers = futures::future::join_all((0..50).map(|_| world.payer.submit(&request, &key))).await;
    let mut ids: Vec<Uuid> = answers
        .into_iter()
        .filter_map(|answer| {
            let answer = answer.unwrap();
            assert!(matches!(answer.status.as_u16(), 202 | 409), "{answer:?}");
            answer.id()
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(world.end_of(ids[0]).await, "captured");
    world.mail.wait_for_count(1).await;
    let authorized = world.simulator.books().iter().filter(|row| row.kind.as_str() == "authorize").count();
    assert_eq!(authorized, 1);
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;
    assert_eq!(world.mail.messages().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payers_on_one_bill_are_answered_202_and_409() {
    let world = World::start().await;
    let bill = world.bill("1100000021").await;
    let (a, b) = futures::join!(world.pay(&bill, "4111111111111111"), world.pay(&bill, "5555555555554444"));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409]);
    let id = a.id().or(b.id()).unwrap();
    assert_eq!(world.end_of(id).await, "captured");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_request_never_charges_twice() {
    let world = World::start().await;
    let bill = world.bill("1100000030").await;
    let publisher = Publisher::start(world.broker.clone());
    let id = world.pay(&bill, "4000000000050015").await.id().unwrap();
    let again = (0..20).map(|_| {
        let event_id = Uuid::new_v4();
        let data = PaymentRequested { payment: id, request: None };
        let event = Event::new(Topic::PaymentRequested, event_id, "/test", id, world.clock.now(), data);
        publisher.publish(Outgoing::event(Topic::PaymentRequested, event_id, event.to_bytes(), None))
    });
    assert!(futures::future::join_all(again).await.into_iter().all(|result| result.is_ok()));
    assert_eq!(world.end_of(id).await, "captured");
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE kind = 'authorize'").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_dead_lettered_and_its_neighbours_are_unharmed() {
    let world = World::start().await;
    let bills = world.bills(&(0..5).map(|number| format!("110000004{number}")).collect::<Vec<_>>()).await;
    let publisher = Publisher::start(world.broker.clone());
    let poison: [&[u8]; 4] =
        [b"\xff\xfe\x00", b"{}", b"[1,2]", b"{\"specversion\":\"1.0\",\"type\":\"tolom.payment.requested.v9\"}"];
    let mut messages = Vec::new();
    for queue in [Queue::Authorize, Queue::Record, Queue::Capture, Queue::Receipt] {
        for body in poison {
            messages.push(Outgoing {
                exchange: Exchange::Direct,
                routing_key: world.broker.names().queue(queue),
                message_id: Uuid::new_v4().to_string(),
                body: body.to_vec(),
                attempt: 0,
                reason: None,
                traceparent: None,
                mandatory: true,
            });
        }
    }
    let paid = futures::future::join_all(bills.iter().map(|bill| world.pay_to_the_end(bill, "4111111111111111")));
    let (results, paid) = futures::join!(publisher.publish_all(messages), paid);
    assert!(results.into_iter().all(|result| result.is_ok()));
    assert!(paid.iter().all(|(_, status)| status == "captured"));
    world.wait_until("SELECT count(*) FROM dead_letter WHERE state = 'parked' AND times = 1", 16).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bill_paid_by_another_channel_gives_the_money_back() {
    let mut world = World::prepared(|config| config.notice.poll_ms = 50).await;
    let all = tolom::workers::ALL;
    let without_capture: Vec<_> = all.into_iter().filter(|role| role.name != "capture").collect();
    world.run(without_capture).await;
    let bill = world.bill("1100000050").await;
    let id = world.pay(&bill, "4111111111111111").await.id().unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'authorized'", 1).await;
    sqlx::query("UPDATE bill SET status = 'paid' WHERE code = $1")
        .bind(bill.as_str())
        .execute(&world.pool)
        .await
        .unwrap();
    world.stop().await;
    world.run(all.to_vec()).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'reversed'", 1).await;
    assert_eq!(world.end_of(id).await, "reversed");
    // No receipt, but the word that it goes back, and that the bill is paid.
    world.wait_until("SELECT count(*) FROM notice WHERE kind = 'not_charged' AND sent_at IS NOT NULL", 1).await;
    let mails = world.mail.messages();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].subject.contains("деньги вернутся"), "{}", mails[0].subject);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquirer_that_is_away_charges_nobody_and_says_so() {
    let world = World::with(|config| {
        config.acquirer.url = "http://127.0.0.1:1".to_owned();
        config.acquirer.send_within_ms = 100;
        config.broker.retry_delays_ms = vec![20];
        config.broker.max_attempts = 3;
    })
    .await;
    let bill = world.bill("1100000060").await;
    world.pay(&bill, "4111111111111111").await.id().unwrap();
    // Tried through the tiers, and put back each time.
    world.wait_until("SELECT count(*) FROM operation WHERE outcome = 'not_sent'", 4).await;
    assert_eq!(world.count("SELECT count(*) FROM sealed_card").await, 1);
    // Its card runs out: provably nothing was charged.
    sqlx::query("UPDATE sealed_card SET expires_at = now() - interval '1 second'").execute(&world.pool).await.unwrap();
    sqlx::query("UPDATE payment SET updated_at = now() - interval '1 hour'").execute(&world.pool).await.unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'failed'", 1).await;
    assert_eq!(world.count("SELECT count(*) FROM sealed_card").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_message_was_lost_is_put_back_on_its_way() {
    // An intake alone: nobody takes its messages, and they are lost with their queues.
    let mut lost = World::prepared(|_| ()).await;
    lost.run(Vec::new()).await;
    let bill = lost.bill("1100000071").await;
    lost.make_sealing_key().await;
    lost.pay(&bill, "4111111111111111").await.id().unwrap();
    lost.wait_until("SELECT count(*) FROM outbox", 0).await;
    lost.stop().await;
    tolom::broker::remove(&lost.broker).await.unwrap();
    tolom::broker::apply(&lost.broker).await.unwrap();
    sqlx::query("UPDATE payment SET updated_at = now() - interval '1 hour'").execute(&lost.pool).await.unwrap();
    lost.run(tolom::workers::ALL.to_vec()).await;
    lost.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 1).await;
    lost.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_site_is_admitted_by_the_intakes_own_rules_or_refused_with_the_reason() {
    let world = World::start().await;
    let bill = world.bill("1100000080").await;
    let publisher = Publisher::start(world.broker.clone());
    let request = world.request(&bill, "4111111111111111").await;
    let stored = world.payer.store_card(&request.card).await.unwrap();
    let foreign = |payment: Uuid, amount: i64| {
        let data = serde_json::json!({
            "payment": payment, "bill": bill, "amount": {"value": amount, "currency": "KGS"},
            "card": {"id": stored}, "payer": {"email": "abroad@example.com", "phone": "+79161234567"},
            "locale": "ru", "terms": request.terms,
        });
        serde_json::json!({
            "specversion": "1.0", "id": Uuid::new_v4(), "source": "https://consulate.example",
            "type": "tolom.payment.requested.v1", "time": "2026-11-23T00:00:00Z", "data": data,
        })
    };
    let publish = async |event: serde_json::Value| {
        let id = event["id"].as_str().unwrap().parse().unwrap();
        let body = serde_json::to_vec(&event).unwrap();
        publisher.publish(Outgoing::event(Topic::PaymentRequested, id, body, None)).await.unwrap();
    };
    let refused = Uuid::new_v4();
    publish(foreign(refused, 1)).await;
    let payment = Uuid::new_v4();
    let event = foreign(payment, 51_000);
    for _ in 0..5 {
        publish(event.clone()).await;
    }
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 1).await;
    assert_eq!(world.end_of(payment).await, "captured");
    assert_eq!(world.count("SELECT count(*) FROM payment").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_that_was_refused_is_refused_for_ever() {
    let world = World::start().await;
    let bill = world.bill("1100000081").await;
    let request = world.request(&bill, "4111111111111111").await;
    let data = serde_json::json!({
        "payment": Uuid::new_v4(), "bill": bill, "amount": request.amount,
        "card": {"id": world.payer.store_card(&request.card).await.unwrap()},
        "payer": {"email": "abroad@example.com", "phone": "+79161234567"}, "locale": "ru", "terms": request.terms,
    });
    let id = Uuid::new_v4();
    let event = serde_json::json!({
        "specversion": "1.0", "id": id, "source": "https://consulate.example",
        "type": "tolom.payment.requested.v1", "time": "2026-11-23T00:00:00Z", "data": data,
    });
    let mut told = Tap::open(&world.broker, "test", &[Topic::PaymentRefused], 10).await.unwrap();
    let publisher = Publisher::start(world.broker.clone());
    let mut answer = async || {
        let body = serde_json::to_vec(&event).unwrap();
        publisher.publish(Outgoing::event(Topic::PaymentRequested, id, body, None)).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(30), told.next()).await.expect("told in time").unwrap();
        Event::<PaymentRefused>::read(told.topic, &told.body).unwrap().data
    };
    sqlx::query("UPDATE bill SET status = 'cancelled'").execute(&world.pool).await.unwrap();
    let first = answer().await;
    assert_eq!((first.request, first.reason.as_str()), (id, "bill-cancelled"));
    // Nothing stands against it any more, and its payer has been told to go and pay elsewhere.
    sqlx::query("UPDATE bill SET status = 'open'").execute(&world.pool).await.unwrap();
    assert_eq!(answer().await, first);
    assert_eq!(world.count("SELECT count(*) FROM payment").await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transitions_table_equals_the_rust_match() {
    let database = crate::support::database::TestDatabase::fresh().await;
    let mut rows: Vec<(String, String)> =
        sqlx::query_as("SELECT from_status, to_status FROM transition").fetch_all(&database.pool).await.unwrap();
    let mut code: Vec<(String, String)> =
        tolom::payment::status::transitions().map(|(from, to)| (from.to_string(), to.to_string())).collect();
    rows.sort();
    code.sort();
    assert_eq!(rows, code);
}
