//! Who fails too often has to wait, whichever intake is asked; who was accepted is answered whatever the limits say.

use reqwest::{Response, StatusCode};
use serde_json::Value;
use time::Duration;
use tolom::store::{clients::ClientKind, limits};
use uuid::Uuid;

use super::{
    App,
    app::{is_problem, read, token},
};

const ONE_BROWSER: &str = "0123456789abcdef0123456789abcdef";
const ANOTHER_BROWSER: &str = "fedcba9876543210fedcba9876543210";

fn code(number: u32) -> String {
    format!("11000007{number:02}")
}

async fn bills(app: &App, numbers: std::ops::Range<u32>) {
    for number in numbers {
        app.bill(&code(number)).await;
    }
}

async fn from_browser(app: &App, cookie: &str, code: &str) -> Response {
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", Uuid::new_v4().to_string());
    let post = post.header("cookie", format!("tolom_device={cookie}"));
    post.json(&app.request(code)).send().await.unwrap()
}

/// Has the bank decline what was accepted.
async fn decline(app: &App, response: Response) {
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let body: Value = response.json().await.unwrap();
    let id: Uuid = body["id"].as_str().unwrap().parse().unwrap();
    app.move_on(id, "authorizing").await;
    app.move_on(id, "declined").await;
    sqlx::query("UPDATE payment SET decline_reason = 'insufficient_funds', updated_at = $2 WHERE id = $1")
        .bind(id)
        .bind(app.clock.now())
        .execute(&app.pool)
        .await
        .unwrap();
}

fn wait_of(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_browser_whose_payments_of_many_bills_are_declined_waits_and_another_does_not() {
    let app = App::start().await;
    bills(&app, 0..11).await;
    for number in 0..10 {
        decline(&app, from_browser(&app, ONE_BROWSER, &code(number)).await).await;
    }
    let refused = from_browser(&app, ONE_BROWSER, &code(10)).await;
    assert_eq!(wait_of(&refused), 600);
    is_problem(&read(refused).await, 429, "too-many-attempts", None);
    decline(&app, from_browser(&app, ANOTHER_BROWSER, &code(10)).await).await;
    app.clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(from_browser(&app, ONE_BROWSER, &code(10)).await.status(), StatusCode::ACCEPTED, "it ends by itself");
}

#[tokio::test]
async fn a_browser_that_tries_more_bills_than_anybody_has_waits_although_nothing_was_declined() {
    let app = App::with(|config| config.limits.device_bills = 3).await;
    bills(&app, 0..4).await;
    for number in 0..3 {
        assert_eq!(from_browser(&app, ONE_BROWSER, &code(number)).await.status(), StatusCode::ACCEPTED);
    }
    is_problem(&read(from_browser(&app, ONE_BROWSER, &code(3)).await).await, 429, "too-many-attempts", None);
    assert_eq!(from_browser(&app, ANOTHER_BROWSER, &code(3)).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn two_intakes_hold_back_the_same_bills_and_addresses() {
    let app = App::with(|config| config.limits.address.free = 6).await;
    let another = app.another().await;
    let there = async |request: Value| {
        let post =
            app.client.post(format!("{another}/v1/payments")).header("idempotency-key", Uuid::new_v4().to_string());
        post.json(&request).send().await.unwrap()
    };
    bills(&app, 0..3).await;
    for _ in 0..5 {
        decline(&app, app.submit(&Uuid::new_v4().to_string(), &app.request(&code(0))).await).await;
    }
    let refused = there(app.request(&code(0))).await;
    assert_eq!(wait_of(&refused), 600, "the bill's wait");
    is_problem(&read(refused).await, 429, "too-many-attempts", None);
    decline(&app, there(app.request(&code(1))).await).await;
    for refused in [there(app.request(&code(2))).await, app.submit("key", &app.request(&code(2))).await] {
        assert_eq!(wait_of(&refused), 30, "the address's wait");
        is_problem(&read(refused).await, 429, "too-many-attempts", None);
    }
}

#[tokio::test]
async fn unknown_codes_of_payments_count_as_guessed_and_a_replay_is_answered_all_the_same() {
    let app = App::with(|config| config.limits.codes.free = 3).await;
    bills(&app, 0..2).await;
    let request = app.request(&code(0));
    let first = app.submit("the-first", &request).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let first = first.bytes().await.unwrap();
    for number in 50..53 {
        let answer = read(app.submit(&format!("guess-{number}"), &app.request(&code(number))).await).await;
        is_problem(&answer, 404, "bill-unknown", Some("bill"));
    }
    for known_or_not in [1, 53] {
        let refused = app.submit(&format!("guess-{known_or_not}"), &app.request(&code(known_or_not))).await;
        assert_eq!(wait_of(&refused), 5);
        is_problem(&read(refused).await, 429, "too-many-attempts", None);
    }
    assert_eq!(app.get(&format!("/v1/bills/{}", code(1))).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let replayed = app.submit("the-first", &request).await;
    assert_eq!((replayed.status(), replayed.bytes().await.unwrap()), (StatusCode::ACCEPTED, first));
    app.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(app.submit("later", &app.request(&code(1))).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_client_asks_as_often_as_it_likes_and_waits_once_it_guesses() {
    let app = App::with(|config| {
        config.intake.lookups_per_minute = 1;
        config.limits.client.free = 4;
    })
    .await;
    bills(&app, 0..1).await;
    let (shop, other) =
        (token(&app.pool, "shop", ClientKind::Site).await, token(&app.pool, "other", ClientKind::Site).await);
    let ask = async |token: &str, number| {
        let get = app.client.get(app.url(&format!("/v1/bills/{}", code(number)))).bearer_auth(token);
        get.send().await.unwrap()
    };
    for _ in 0..5 {
        assert_eq!(ask(&shop, 0).await.status(), StatusCode::OK);
    }
    for number in 50..53 {
        is_problem(&read(ask(&shop, number).await).await, 404, "bill-unknown", Some("bill"));
    }
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", "k").bearer_auth(&shop);
    let paid = post.json(&app.request(&code(53))).send().await.unwrap();
    is_problem(&read(paid).await, 404, "bill-unknown", Some("bill"));
    for known_or_not in [0, 54] {
        let refused = ask(&shop, known_or_not).await;
        assert_eq!(wait_of(&refused), 5);
        is_problem(&read(refused).await, 429, "rate-limited", None);
    }
    assert_eq!(ask(&other, 0).await.status(), StatusCode::OK);
    assert_eq!(app.get(&format!("/v1/bills/{}", code(0))).await.status(), StatusCode::OK);
    app.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(ask(&shop, 0).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn from_where_payments_came_is_forgotten_in_bounded_batches_once_no_limit_looks_at_it() {
    let app = App::start().await;
    bills(&app, 0..3).await;
    for number in 0..3 {
        app.pay(&code(number)).await;
    }
    let window = app.config.limits.origin_window();
    let forget = |now, limit| limits::forget(&app.pool, &app.config.limits, now, limit);
    assert_eq!(forget(app.clock.now() + window - Duration::SECOND, 100).await.unwrap(), 0);
    let past = app.clock.now() + window + Duration::SECOND;
    let deleted = [forget(past, 2).await.unwrap(), forget(past, 2).await.unwrap(), forget(past, 2).await.unwrap()];
    assert_eq!(deleted, [2, 1, 0]);
}
