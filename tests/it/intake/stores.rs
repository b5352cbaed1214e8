//! What the store promises to others than the intake: admission of foreign messages, housekeeping.

use std::time::Duration;

use tolom::{
    clock::{Clock, new_id},
    contracts::Payer,
    store::{
        accept::{Acceptance, CardSource, Idempotency, NewPayment, Refusal, accept},
        cards::{self, NewCard},
        clients::{self, AddError, Client, ClientKind},
        payments,
        sessions::Sessions,
    },
};
use uuid::Uuid;

use super::{App, app::AMOUNT};

const CODE: &str = "1100000001";

async fn stored_card(app: &App, code: &str) -> Uuid {
    let now = app.clock.now();
    let card = NewCard {
        id: new_id(),
        bill: code.parse().unwrap(),
        kid: app.key.0.to_string(),
        jwe: app.sealed(code),
        expires_at: now + time::Duration::minutes(5),
    };
    assert_eq!(cards::put(&app.pool, &card, now).await.unwrap(), None);
    card.id
}

fn foreign(code: &str, card: Uuid, event: &str) -> NewPayment {
    NewPayment {
        id: new_id(),
        bill: code.parse().unwrap(),
        amount: AMOUNT,
        card: CardSource::Stored(card),
        payer: Payer { email: "a@b.kg".into(), phone: "+996555123456".into() },
        locale: "en".into(),
        terms: super::app::TERMS.into(),
        acquirer: "simulator".into(),
        capture_at_once: false,
        caller: "foreign".into(),
        idempotency: None,
        event: Some(("/foreign".into(), event.into())),
        origin: None,
        traceparent: None,
    }
}

#[tokio::test]
async fn a_foreign_message_is_admitted_once_by_its_source_and_id() {
    let app = App::start().await;
    app.bill(CODE).await;
    let first = foreign(CODE, stored_card(&app, CODE).await, "e1");
    let again = NewPayment { id: new_id(), ..first.clone() };
    let other = NewPayment { id: new_id(), event: Some(("/foreign".into(), "e2".into())), ..first.clone() };
    let done =
        accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &[first.clone(), again.clone(), other])
            .await
            .unwrap();
    let replayed = Acceptance::Replayed { payment: first.id, answer: String::new() };
    assert_eq!(done.results, [Acceptance::New, replayed.clone(), Acceptance::Refused(Refusal::CardUsed)]);
    assert!(done.outbox.is_empty(), "the foreign message itself is the work");
    sqlx::query("UPDATE bill SET status = 'paid'").execute(&app.pool).await.unwrap();
    sqlx::query("DELETE FROM sealed_card").execute(&app.pool).await.unwrap();
    let later = accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &[again, first]).await.unwrap();
    assert_eq!(later.results, [replayed.clone(), replayed]);
    assert_eq!(app.stored().await, [1, 0, 0, 1, 0]);
}

#[tokio::test]
async fn slices_of_past_cards_are_emptied_and_living_cards_stay() {
    let app = App::start().await;
    // The middle of a window.
    let middle = time::macros::datetime!(2030-01-01 00:07:30 UTC);
    let clock = Clock::manual(middle);
    let insert = |expires_at| NewCard {
        id: new_id(),
        bill: CODE.parse().unwrap(),
        kid: app.key.0.to_string(),
        jwe: String::new(),
        expires_at,
    };
    let cards: Vec<NewCard> = [60, 899].map(|seconds| insert(middle + time::Duration::seconds(seconds))).into();
    cards::insert(&app.pool, &cards.iter().collect::<Vec<_>>()).await.unwrap();
    let count = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sealed_card").fetch_one(&app.pool).await.unwrap()
    };
    assert_eq!((cards::truncate_past(&app.pool, &clock).await.unwrap(), count().await), (0, 2));
    clock.advance(Duration::from_secs(880));
    assert_eq!((cards::truncate_past(&app.pool, &clock).await.unwrap(), count().await), (1, 1));
    clock.advance(Duration::from_secs(900));
    assert_eq!((cards::truncate_past(&app.pool, &clock).await.unwrap(), count().await), (1, 0));
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_days_unless_its_payment_is_undecided() {
    let app = App::start().await;
    for code in [CODE, "1100000002", "1100000003"] {
        app.bill(code).await;
    }
    let ids = [app.pay(CODE).await, app.pay("1100000002").await, app.pay("1100000003").await];
    app.move_on(ids[0], "failed").await;
    for status in ["authorizing", "unknown"] {
        app.move_on(ids[1], status).await;
    }
    let forget =
        |days: i64| payments::forget_old_keys(&app.pool, app.clock.now() + time::Duration::days(days), 30, 100);
    assert_eq!(forget(29).await.unwrap(), 0);
    assert_eq!(forget(31).await.unwrap(), 1);
    assert_eq!(app.stored().await[1], 2);
}

/// A request over HTTP with its card inside.
fn submitted(app: &App, code: &str, key: &str, fingerprint: u8) -> NewPayment {
    let card = NewCard {
        id: new_id(),
        bill: code.parse().unwrap(),
        kid: app.key.0.to_string(),
        jwe: app.sealed(code),
        expires_at: app.clock.now() + time::Duration::minutes(5),
    };
    let idempotency = Idempotency { key: key.into(), fingerprint: [fingerprint; 32], answer: format!("to {key}") };
    NewPayment {
        card: CardSource::Inline(card),
        idempotency: Some(idempotency),
        event: None,
        origin: None,
        ..foreign(code, Uuid::nil(), "")
    }
}

#[tokio::test]
async fn each_member_of_a_batch_has_its_own_fate() {
    let app = App::start().await;
    for code in [CODE, "1100000002", "1100000003"] {
        app.bill(code).await;
    }
    let earlier = submitted(&app, "1100000003", "k9", 9);
    accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, std::slice::from_ref(&earlier))
        .await
        .unwrap();
    let mut late = submitted(&app, "1100000002", "k5", 5);
    if let CardSource::Inline(card) = &mut late.card {
        card.expires_at = app.clock.now();
    }
    let requests = [
        submitted(&app, CODE, "k1", 1),
        submitted(&app, CODE, "k1", 1),
        submitted(&app, CODE, "k1", 2),
        submitted(&app, CODE, "k2", 1),
        submitted(&app, "1100000009", "k3", 1),
        submitted(&app, "1100000003", "k9", 9),
        submitted(&app, "1100000003", "k9", 8),
        late,
        submitted(&app, "1100000002", "k5", 5),
    ];
    let done = accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &requests).await.unwrap();
    let replayed = |payment, key: &str| Acceptance::Replayed { payment, answer: format!("to {key}") };
    let refused = Acceptance::Refused;
    assert_eq!(
        done.results,
        [
            Acceptance::New,
            replayed(requests[0].id, "k1"),
            refused(Refusal::KeyReused),
            refused(Refusal::PaymentLive),
            refused(Refusal::BillUnknown),
            replayed(earlier.id, "k9"),
            refused(Refusal::KeyReused),
            refused(Refusal::CardExpired),
            // The same key with a good card: what was refused is not remembered.
            Acceptance::New,
        ]
    );
    assert_eq!(done.outbox.len(), 2);
    assert_eq!(app.stored().await, [3; 5]);
}

#[tokio::test]
async fn of_a_batch_with_one_card_twice_one_member_is_accepted() {
    let app = App::start().await;
    app.bill(CODE).await;
    let one = submitted(&app, CODE, "k1", 1);
    let other = NewPayment { card: one.card.clone(), ..submitted(&app, CODE, "k2", 2) };
    let both = [one, other];
    let done = accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &both).await.unwrap();
    assert_eq!(done.results, [Acceptance::New, Acceptance::Refused(Refusal::CardUsed)]);
    assert_eq!(app.stored().await, [1; 5]);
}

#[tokio::test]
async fn a_member_that_breaks_its_batch_fails_alone() {
    let app = App::start().await;
    for code in [CODE, "1100000002", "1100000003"] {
        app.bill(code).await;
    }
    sqlx::query("ALTER TABLE payment ADD CHECK (bill_code <> '1100000001')").execute(&app.pool).await.unwrap();
    let mut holder = app.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bill WHERE code = '1100000002' FOR UPDATE").execute(&mut *holder).await.unwrap();
    let requests = [
        submitted(&app, CODE, "poison", 1),
        submitted(&app, "1100000002", "locked", 1),
        submitted(&app, "1100000003", "well", 1),
    ];
    let done = accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &requests).await.unwrap();
    let refused = Acceptance::Refused;
    assert_eq!(done.results, [refused(Refusal::Internal), refused(Refusal::InFlight), Acceptance::New]);
    assert_eq!(app.stored().await, [1; 5]);
    holder.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_from_several_intakes_at_once_the_rules_hold() {
    let app = std::sync::Arc::new(App::start().await);
    for bill in 0..12 {
        app.bill(&format!("11000000{bill:02}")).await;
    }
    // Keys and bills are few, so that batches collide in every way, in every order.
    let tasks = (0..6_u64).map(|task| {
        let app = app.clone();
        tokio::spawn(async move {
            let mut random = task.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut results = Vec::new();
            for _ in 0..12 {
                let batch: Vec<NewPayment> = (0..=next(10))
                    .map(|_| {
                        let bill = next(12);
                        submitted(&app, &format!("11000000{bill:02}"), &format!("key-{}", next(20)), bill as u8)
                    })
                    .collect();
                let done =
                    accept(&Sessions::new(app.pool.clone()), app.clock.now(), &app.config, &batch).await.unwrap();
                results.extend(batch.into_iter().map(|request| request.id).zip(done.results));
            }
            results
        })
    });
    let results: Vec<_> = futures::future::join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    let mut new: Vec<Uuid> =
        results.iter().filter(|(_, result)| *result == Acceptance::New).map(|(id, _)| *id).collect();
    new.sort_unstable();
    let stored: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM payment ORDER BY id").fetch_all(&app.pool).await.unwrap();
    assert_eq!(stored, new, "what was answered 202 is what is there");
    let bills: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT bill_code) FROM payment").fetch_one(&app.pool).await.unwrap();
    let count = i64::try_from(new.len()).unwrap();
    assert_eq!(
        (bills, app.stored().await),
        (count, [count; 5]),
        "one payment a bill, one key, card, step and message each"
    );
    for (id, result) in &results {
        match result {
            Acceptance::New => {}
            Acceptance::Replayed { payment, .. } => assert!(stored.contains(payment) && payment != id),
            Acceptance::Refused(refusal) => {
                assert!(matches!(refusal, Refusal::KeyReused | Refusal::PaymentLive | Refusal::InFlight), "{refusal:?}")
            }
        }
    }
    assert!(results.iter().any(|(_, result)| matches!(result, Acceptance::Replayed { .. })));
}

#[tokio::test]
async fn a_client_has_a_plain_name_of_its_own_and_a_token_that_is_not_stored() {
    let app = App::start().await;
    let add = |id: &str| {
        let client = Client { id: id.to_owned(), kind: ClientKind::Site, name: "A shop".into() };
        let pool = app.pool.clone();
        async move { clients::add(&pool, &client).await }
    };
    let token = add("shop-1").await.unwrap();
    let found = clients::by_token(&app.pool, token.expose()).await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.kind), ("shop-1", ClientKind::Site));
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT token_hash FROM api_client WHERE id = 'shop-1'").fetch_one(&app.pool).await.unwrap();
    assert_eq!(stored.len(), 32);
    assert!(matches!(add("shop-1").await, Err(AddError::Exists(_))));
    for name in ["", "public", "Shop", "-a", "a b", "магазин", &"a".repeat(41)] {
        assert!(matches!(add(name).await, Err(AddError::Name(_))), "{name}");
    }
}
