//! Live pages, the payer's return from the bank, receipts.

use std::{sync::Arc, time::Duration};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tolom::{contracts::PaymentFact, live::LiveNews, payment::Status};
use uuid::Uuid;

use super::{
    App,
    app::{AMOUNT, is_problem, read},
};

const CODE: &str = "1100000001";

pub(crate) fn fact(payment: Uuid, version: i32, status: Status) -> LiveNews {
    LiveNews::Fact(Arc::new(PaymentFact {
        payment,
        bill: CODE.parse().unwrap(),
        version,
        status,
        public_status: status.public(),
        amount: AMOUNT,
        card: None,
        decline_reason: None,
        receipt_number: None,
    }))
}

/// The next event's data; none when the stream has ended.
async fn next(stream: &mut Response) -> Option<Value> {
    let chunk = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.expect("an event").unwrap()?;
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    assert!(text.starts_with("event: status\n"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    Some(serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn an_open_page_hears_each_news_once_and_the_stream_ends_with_the_payment() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let mut stream = app.get(&format!("/v1/payments/{id}/events")).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(next(&mut stream).await.unwrap()["status"], "accepted");
    for news in [
        fact(Uuid::now_v7(), 9, Status::Captured),
        fact(id, 1, Status::Declined),
        fact(id, 3, Status::Unknown),
        fact(id, 3, Status::Unknown),
        fact(id, 2, Status::Authorizing),
        fact(id, 4, Status::Captured),
        fact(id, 5, Status::Settled),
    ] {
        app.live.send(news).unwrap();
    }
    let heard = next(&mut stream).await.unwrap();
    assert_eq!((heard["status"].as_str(), heard["public_status"].as_str()), (Some("unknown"), Some("unknown")));
    let heard = next(&mut stream).await.unwrap();
    assert_eq!((heard["version"].as_i64(), heard["public_status"].as_str()), (Some(4), Some("paid")));
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn a_page_opened_late_hears_the_end_at_once() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    app.move_on(id, "failed").await;
    let mut stream = app.get(&format!("/v1/payments/{id}/events")).await;
    assert_eq!(next(&mut stream).await.unwrap()["public_status"], "not_charged");
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn when_facts_may_have_been_missed_the_row_is_read() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let mut stream = app.get(&format!("/v1/payments/{id}/events")).await;
    next(&mut stream).await.unwrap();
    app.live.send(LiveNews::Resync).unwrap();
    app.move_on(id, "authorizing").await;
    app.live.send(LiveNews::Resync).unwrap();
    assert_eq!(next(&mut stream).await.unwrap()["status"], "authorizing");
    app.move_on(id, "declined").await;
    // More than the feed holds: the page lags.
    for _ in 0..1_000 {
        // The page may have read the row already, and ended: then nobody listens.
        let _ = app.live.send(fact(Uuid::now_v7(), 1, Status::Captured));
    }
    assert_eq!(next(&mut stream).await.unwrap()["public_status"], "declined");
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn open_pages_do_not_hold_up_a_shutdown() {
    let mut app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let mut stream = app.get(&format!("/v1/payments/{id}/events")).await;
    next(&mut stream).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), app.stop()).await.unwrap();
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn streams_are_bounded() {
    let app = App::with(|config| config.intake.max_in_flight = 8).await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let path = format!("/v1/payments/{id}/events");
    let mut open = Vec::new();
    // While half are free an address may have them, and then its share.
    for (address, places) in [(1, 8), (2, 2), (3, 2), (4, 2), (5, 2)] {
        let client = app.client_at([127, 0, 0, address]);
        let ask = async || client.get(app.url(&path)).send().await.unwrap();
        for _ in 0..places {
            open.push(ask().await);
        }
        assert!(open.iter().all(|stream| stream.status() == StatusCode::OK));
        is_problem(&read(ask().await).await, 503, "overloaded", None);
    }
    let refused = app.client_at([127, 0, 0, 9]).get(app.url(&path)).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    is_problem(&read(refused).await, 503, "overloaded", None);
}

async fn challenged(app: &App) -> Uuid {
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    app.move_on(id, "authorizing").await;
    app.move_on(id, "challenged").await;
    sqlx::query("UPDATE payment SET challenge = $1")
        .bind(json!({"url": "https://acs.example/", "fields": [["creq", "x"]], "expires_at": "2030-01-01T00:00:00Z"}))
        .execute(&app.pool)
        .await
        .unwrap();
    id
}

#[tokio::test]
async fn the_page_is_given_the_banks_form_and_the_payers_return_is_taken_once() {
    let app = App::start().await;
    let id = challenged(&app).await;
    let mut stream = app.get(&format!("/v1/payments/{id}/events")).await;
    let heard = next(&mut stream).await.unwrap();
    assert_eq!(heard["public_status"], "confirm");
    assert_eq!(heard["challenge"]["fields"], json!([["creq", "x"]]));
    let path = app.url(&format!("/v1/payments/{id}/challenge"));
    // The order of the form's fields is kept.
    let back = |value: &str| {
        let body = format!("{{\"response\":{{\"cres\":\"{value}\",\"a\":\"b\"}}}}");
        app.client.post(&path).header("content-type", "application/json").body(body).send()
    };
    for _ in 0..3 {
        let response = back("yes").await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
    is_problem(&read(back("no").await.unwrap()).await, 409, "challenge-over", None);
    let (response, version): (Value, i32) =
        sqlx::query_as("SELECT challenge_response, version FROM payment").fetch_one(&app.pool).await.unwrap();
    assert_eq!((response, version), (json!([["cres", "yes"], ["a", "b"]]), 4));
    let outbox: Vec<String> =
        sqlx::query_scalar("SELECT routing_key FROM outbox ORDER BY created_at, routing_key DESC")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(outbox, ["payment.requested", "payment.challenge_completed"]);
    app.move_on(id, "authorizing").await;
    assert_eq!(back("yes").await.unwrap().status(), StatusCode::ACCEPTED, "repeating it is harmless for ever");
}

#[tokio::test]
async fn a_return_that_nobody_waits_for_is_refused() {
    let app = App::start().await;
    let id = challenged(&app).await;
    app.move_on(id, "declined").await;
    let path = app.url(&format!("/v1/payments/{id}/challenge"));
    let late = app.client.post(&path).json(&json!({"response": {"cres": "x"}})).send().await.unwrap();
    is_problem(&read(late).await, 409, "challenge-over", None);
    for (body, field) in [(json!({"response": {"cres": 1}}), "response.cres"), (json!({}), "response")] {
        let bad = app.client.post(&path).json(&body).send().await.unwrap();
        is_problem(&read(bad).await, 422, "invalid-field", Some(field));
    }
}

#[tokio::test]
async fn a_receipt_is_there_once_it_is_paid() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let path = format!("/v1/payments/{id}/receipt");
    let get = |accept: &'static str| app.client.get(app.url(&path)).header("accept", accept).send();
    is_problem(&read(get("application/json").await.unwrap()).await, 404, "receipt-unavailable", None);
    is_problem(&read(get("image/png").await.unwrap()).await, 406, "not-acceptable", None);
    for status in ["authorizing", "captured"] {
        app.move_on(id, status).await;
    }
    sqlx::query("INSERT INTO receipt (payment_id) VALUES ($1)").bind(id).execute(&app.pool).await.unwrap();
    let (status, media_type, body) = read(get("application/json").await.unwrap()).await;
    assert_eq!((status, media_type.as_str()), (StatusCode::OK, "application/json"));
    assert_eq!((body["number"].as_str(), body["service"].as_str()), (Some("TLM-0000000001"), Some("passport")));
    let seen: Value = app.get(&format!("/v1/payments/{id}")).await.json().await.unwrap();
    assert_eq!((seen["public_status"].as_str(), &seen["receipt_number"]), (Some("paid"), &body["number"]));
}
