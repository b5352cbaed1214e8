//! Trying stolen cards, and paying for a family.

use reqwest::StatusCode;
use serde_json::json;
use tolom::{
    broker::{Outgoing, Publisher, Tap},
    contracts::{Event, PaymentRefused, Topic},
};
use uuid::Uuid;

use crate::support::world::{PATIENCE, World};

const DECLINED: &str = "4000000000000002";
const GOOD: &str = "4111111111111111";

async fn world() -> World {
    World::with(|config| config.limits = tolom::config::Config::defaults().limits).await
}

async fn submit(world: &World, code: &tolom::payment::PaymentCode, card: &str) -> tolom::payer::Submitted {
    let request = world.request(code, card).await;
    world.payer.submit(&request, &Uuid::new_v4().to_string()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_cards_tried_on_one_bill_five_reach_the_bank_and_a_replay_is_never_refused() {
    let world = world().await;
    let bill = world.bill("1100005001").await;
    let request = world.request(&bill, DECLINED).await;
    let first = world.payer.submit(&request, "the first").await.unwrap();
    assert_eq!(world.end_of(first.id().unwrap()).await, "declined");
    let mut refused = 0;
    for _ in 1..20 {
        let submitted = submit(&world, &bill, DECLINED).await;
        match submitted.id() {
            Some(id) => assert_eq!(world.end_of(id).await, "declined"),
            None => {
                refused += 1;
                assert_eq!(submitted.status, StatusCode::TOO_MANY_REQUESTS);
                assert!(submitted.body["type"].as_str().unwrap().ends_with("/too-many-attempts"));
                let wait: u64 = submitted.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=600).contains(&wait), "{wait}");
            }
        }
    }
    assert_eq!(refused, 15);
    assert_eq!(world.simulator.books().len(), 5, "the bank was asked five times");
    let replayed = world.payer.submit(&request, "the first").await.unwrap();
    assert_eq!(replayed.id(), first.id());
    // Another payer and another card wait too; another bill does not.
    assert_eq!(submit(&world, &bill, GOOD).await.status, StatusCode::TOO_MANY_REQUESTS);
    let other = world.bill("1100005002").await;
    assert_eq!(world.pay_to_the_end(&other, GOOD).await.1, "captured");
    // The wait ends by itself.
    sqlx::query("UPDATE payment SET updated_at = updated_at - interval '601 seconds' WHERE status = 'declined'")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.pay_to_the_end(&bill, GOOD).await.1, "captured");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_declined_on_many_bills_is_declined_before_the_call() {
    let world = world().await;
    let codes: Vec<String> = (0..10).map(|number| format!("11000051{number:02}")).collect();
    for bill in world.bills(&codes).await {
        assert_eq!(world.pay_to_the_end(&bill, DECLINED).await.1, "declined");
    }
    assert_eq!(world.simulator.books().len(), 8, "the ninth and the tenth were not sent");
    let unsent = "SELECT count(*) FROM payment WHERE decline_reason = 'too_many_attempts'";
    assert_eq!(world.count(unsent).await, 2);
    let another = world.bill("1100005199").await;
    assert_eq!(world.pay_to_the_end(&another, GOOD).await.1, "captured", "another card is not held back");
    // The wait ends by itself, and those that were not sent have not made it longer.
    sqlx::query("UPDATE payment SET updated_at = updated_at - interval '3601 seconds' WHERE status = 'declined'")
        .execute(&world.pool)
        .await
        .unwrap();
    let later = world.bill("1100005198").await;
    let before = world.simulator.books().len();
    assert_eq!(world.pay_to_the_end(&later, DECLINED).await.1, "declined");
    assert_eq!(world.simulator.books().len(), before + 1, "the bank was asked again");
    assert_eq!(world.count(unsent).await, 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_pays_its_bills_with_one_card_from_one_address() {
    let world = world().await;
    let codes: Vec<String> = (0..12).map(|number| format!("11000052{number:02}")).collect();
    for bill in world.bills(&codes).await {
        assert_eq!(world.pay_to_the_end(&bill, GOOD).await.1, "captured");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_sites_request_meets_the_bills_limit_and_is_told() {
    let world = world().await;
    let bill = world.bill("1100005301").await;
    for _ in 0..5 {
        assert_eq!(world.pay_to_the_end(&bill, DECLINED).await.1, "declined");
    }
    let mut told = Tap::open(&world.broker, "test", &[Topic::PaymentRefused], 10).await.unwrap();
    let request = world.request(&bill, GOOD).await;
    let (payment, id) = (Uuid::new_v4(), Uuid::new_v4());
    let event = json!({
        "specversion": "1.0", "id": id, "source": "https://consulate.example",
        "type": "tolom.payment.requested.v1", "time": "2026-11-23T00:00:00Z",
        "data": {
            "payment": payment, "bill": bill, "amount": request.amount, "payer": request.payer,
            "card": {"id": world.payer.store_card(&request.card).await.unwrap()},
            "locale": request.locale, "terms": request.terms,
        },
    });
    let publisher = Publisher::start(world.broker.clone());
    let body = serde_json::to_vec(&event).unwrap();
    publisher.publish(Outgoing::event(Topic::PaymentRequested, id, body, None)).await.unwrap();
    let refused = tokio::time::timeout(PATIENCE, told.next()).await.expect("an answer in time").unwrap();
    let refused: Event<PaymentRefused> = Event::read(refused.topic, &refused.body).unwrap();
    assert_eq!((refused.data.payment, refused.data.request), (payment, id));
    assert_eq!(refused.data.reason, "too-many-attempts");
    assert_eq!(world.count("SELECT count(*) FROM payment").await, 5);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_cards_cannot_be_held_against_their_limit_the_bank_decides_alone() {
    let world = world().await;
    sqlx::query("DROP TABLE card_use").execute(&world.pool).await.unwrap();
    let bill = world.bill("1100005401").await;
    assert_eq!(world.pay_to_the_end(&bill, GOOD).await.1, "captured");
    world.finish().await;
}
