//! Every kind of bad input has its own answer, names what is at fault, and stores nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tolom::store::clients::ClientKind;
use uuid::Uuid;

use super::{
    App,
    app::{is_problem, read, token},
};

const CODE: &str = "1100000001";

/// Submits the request that `change` makes of a good one.
async fn answer(app: &App, change: impl FnOnce(&mut Value)) -> (StatusCode, String, Value) {
    let mut request = app.request(CODE);
    change(&mut request);
    read(app.submit(&Uuid::now_v7().to_string(), &request).await).await
}

async fn post(app: &App, body: impl Into<reqwest::Body>) -> (StatusCode, String, Value) {
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", "k");
    read(post.header("content-type", "application/json").body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_request_that_differs_from_its_bill_is_refused() {
    let app = App::start().await;
    app.bill(CODE).await;
    is_problem(&answer(&app, |body| body["bill"] = "1100000009".into()).await, 422, "card-of-other-bill", Some("card"));
    let unknown = app.request("1100000009");
    is_problem(&read(app.submit("k", &unknown).await).await, 404, "bill-unknown", Some("bill"));
    let other = answer(&app, |body| body["amount"]["value"] = 1.into()).await;
    is_problem(&other, 422, "amount-differs", Some("amount.value"));
    let other = answer(&app, |body| body["amount"]["currency"] = "USD".into()).await;
    is_problem(&other, 422, "currency-differs", Some("amount.currency"));
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn a_bill_that_is_not_open_takes_no_payment() {
    let app = App::start().await;
    for (code, status) in [("1100000002", "paid"), ("1100000003", "cancelled")] {
        app.bill(code).await;
        sqlx::query("UPDATE bill SET status = $2 WHERE code = $1")
            .bind(code)
            .bind(status)
            .execute(&app.pool)
            .await
            .unwrap();
        let answer = read(app.submit("k", &app.request(code)).await).await;
        is_problem(&answer, 409, &format!("bill-{status}"), None);
    }
    app.bill(CODE).await;
    app.clock.advance(std::time::Duration::from_secs(31 * 24 * 3600));
    sqlx::query("UPDATE sealing_key SET seal_until = seal_until + interval '40 days', destroy_at = destroy_at + interval '40 days'")
        .execute(&app.pool)
        .await
        .unwrap();
    is_problem(&answer(&app, |_| ()).await, 409, "bill-expired", None);
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_by_its_fault() {
    let app = App::start().await;
    app.bill(CODE).await;
    for body in ["", "{", "{\"bill\":}", "\u{0}", "nonsense"] {
        is_problem(&post(&app, body).await, 400, "malformed-json", None);
    }
    is_problem(&post(&app, b"\xff\xfe".to_vec()).await, 400, "malformed-json", None);
    let mut huge = app.request(CODE);
    huge["locale"] = "k".repeat(70_000).into();
    is_problem(&post(&app, huge.to_string()).await, 413, "too-large", None);
    // Without a length, too.
    let chunks = futures::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 2_000])));
    let status = app.client.post(app.url("/v1/payments")).header("idempotency-key", "k");
    let body = http_body_util::StreamBody::new(futures::StreamExt::map(chunks, |chunk| {
        chunk.map(|chunk| hyper::body::Frame::data(axum::body::Bytes::from(chunk)))
    }));
    let chunked = status.header("content-type", "application/json").body(reqwest::Body::wrap(body)).send().await;
    is_problem(&read(chunked.unwrap()).await, 413, "too-large", None);
    let text =
        app.client.post(app.url("/v1/payments")).header("idempotency-key", "k").body(app.request(CODE).to_string());
    is_problem(&read(text.send().await.unwrap()).await, 415, "unsupported-media-type", None);
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn a_wrong_member_is_named() {
    let app = App::start().await;
    app.bill(CODE).await;
    let wrong: [(&str, Value); 23] = [
        ("amount.value", json!("51000")),
        ("amount.value", json!(510.5)),
        ("amount.value", json!(0)),
        ("amount.value", json!(-1)),
        ("amount.currency", json!("som")),
        ("amount.tip", json!(1)),
        ("bill", json!(1100000001)),
        ("bill", json!("11-000")),
        ("payer.email", json!("payer")),
        ("payer.email", json!("payer@example")),
        ("payer.email", json!("a@b.kg\r\nBcc: all@b.kg")),
        ("payer.email", Value::Null),
        ("payer.phone", json!("0555123456")),
        ("payer.phone", json!("+99655512345678901")),
        ("payer.name", json!("A")),
        ("locale", json!("de")),
        ("locale", json!(1)),
        ("card", json!("4111111111111111")),
        ("card.number", json!("4111111111111111")),
        ("card.id", json!("not-an-id")),
        ("card.sealed", json!(["4111111111111111"])),
        ("cvc", json!("123")),
        ("terms", json!(2026)),
    ];
    for (field, value) in wrong {
        let answer = answer(&app, |body| match field.split_once('.') {
            Some((object, member)) => body[object][member] = value,
            None => body[field] = value,
        })
        .await;
        is_problem(&answer, 422, "invalid-field", Some(field));
    }
    for member in ["bill", "amount", "card", "payer", "locale", "terms"] {
        let answer = answer(&app, |body| drop(body.as_object_mut().unwrap().remove(member))).await;
        is_problem(&answer, 422, "invalid-field", Some(member));
    }
    let old = answer(&app, |body| body["terms"] = "2025-01-01".into()).await;
    is_problem(&old, 422, "terms-not-in-force", Some("terms"));
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn a_sealed_card_that_will_not_do_is_refused() {
    let app = App::start().await;
    app.bill(CODE).await;
    let card = |card: Value| answer(&app, move |body| body["card"] = card);
    is_problem(&card(json!({})).await, 422, "invalid-field", Some("card"));
    let both = json!({"sealed": app.sealed(CODE), "id": Uuid::now_v7()});
    is_problem(&card(both).await, 422, "invalid-field", Some("card"));
    is_problem(&card(json!({"sealed": "a.b.c.d.e"})).await, 422, "card-malformed", Some("card.sealed"));
    is_problem(&card(json!({"sealed": "x".repeat(5_000)})).await, 422, "card-malformed", Some("card.sealed"));
    let late = app.sealed_until(CODE, app.clock.now() + time::Duration::minutes(16));
    is_problem(&card(json!({"sealed": late})).await, 422, "card-malformed", Some("card.sealed"));
    let past = app.sealed_until(CODE, app.clock.now() - time::Duration::seconds(1));
    is_problem(&card(json!({"sealed": past})).await, 422, "card-expired", Some("card"));
    let other = app.sealed("1600000001");
    is_problem(&card(json!({"sealed": other})).await, 422, "card-of-other-bill", Some("card"));
    is_problem(&card(json!({"id": Uuid::now_v7()})).await, 422, "card-unknown", Some("card.id"));
    let expires_at = app.clock.now() + time::Duration::minutes(5);
    let stranger = "stranger".parse().unwrap();
    let strange = tolom::sealing::seal(&app.key.1, &stranger, &CODE.parse().unwrap(), expires_at, &super::app::card());
    is_problem(&card(json!({"sealed": strange})).await, 422, "card-key-unknown", Some("card"));
    let before = app.sealed(CODE);
    assert!(tolom::sealing::retire(&app.pool, &app.key.0, app.clock.now()).await.unwrap());
    is_problem(&card(json!({"sealed": before})).await, 422, "card-key-unknown", Some("card"));
    let stored = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": before})).send().await.unwrap();
    is_problem(&read(stored).await, 422, "card-key-unknown", Some("card"));
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn the_idempotency_key_is_wanted_and_plain() {
    let app = App::start().await;
    app.bill(CODE).await;
    let body = app.request(CODE);
    let without = app.client.post(app.url("/v1/payments")).json(&body).send().await.unwrap();
    is_problem(&read(without).await, 400, "idempotency-key-missing", None);
    for key in [String::new(), "k".repeat(256), "ключ".to_owned(), "a\tb".to_owned()] {
        let value = reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", value).json(&body);
        is_problem(&read(post.send().await.unwrap()).await, 400, "idempotency-key-invalid", None);
    }
    assert_eq!(app.stored().await, [0; 5]);
    assert_eq!(app.submit(&"k".repeat(255), &body).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let app = App::start().await;
    is_problem(&read(app.get("/v1/nothing").await).await, 404, "not-found", None);
    is_problem(&read(app.get("/v1/bills/abc").await).await, 404, "bill-unknown", Some("bill"));
    is_problem(&read(app.get("/v1/bills/%ff").await).await, 404, "bill-unknown", Some("bill"));
    is_problem(&read(app.get("/v1/bills/1100000009").await).await, 404, "bill-unknown", Some("bill"));
    for path in ["", "/events", "/receipt"] {
        let path = format!("/v1/payments/{}{path}", Uuid::now_v7());
        let name = if path.ends_with("receipt") { "receipt-unavailable" } else { "payment-unknown" };
        is_problem(&read(app.get(&path).await).await, 404, name, None);
    }
    is_problem(&read(app.get("/v1/payments/1").await).await, 404, "payment-unknown", None);
    let response = app.client.delete(app.url("/v1/payments")).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    is_problem(&read(response).await, 405, "method-not-allowed", None);
}

#[tokio::test]
async fn a_token_must_be_known_and_fit() {
    let app = App::start().await;
    app.bill(CODE).await;
    let put = |auth: Option<String>| {
        let put = app.client.put(app.url("/v1/bills/1100000005")).json(&json!({}));
        async { auth.into_iter().fold(put, |put, auth| put.header("authorization", auth)).send().await.unwrap() }
    };
    for auth in [None, Some("Bearer nonsense".to_owned()), Some("Basic eDp5".to_owned()), Some("Bearer".to_owned())] {
        let response = put(auth).await;
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        is_problem(&read(response).await, 401, "unauthorized", None);
    }
    for (name, kind) in [("shop", ClientKind::Site), ("books", ClientKind::Finance)] {
        let response = put(Some(format!("Bearer {}", token(&app.pool, name, kind).await))).await;
        assert!(response.headers().contains_key("www-authenticate"));
        is_problem(&read(response).await, 403, "forbidden", None);
    }
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", "k").bearer_auth("nonsense");
    is_problem(&read(post.json(&app.request(CODE)).send().await.unwrap()).await, 401, "unauthorized", None);
    let other = token(&app.pool, "licences", ClientKind::Agency).await;
    let delete = app.client.request(Method::DELETE, app.url("/v1/bills/1100000001")).bearer_auth(other);
    is_problem(&read(delete.send().await.unwrap()).await, 403, "forbidden", None);
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn an_address_that_asks_too_often_must_wait() {
    let app = App::with(|config| config.intake.lookups_per_minute = 3).await;
    app.bill(CODE).await;
    for _ in 0..3 {
        assert_eq!(app.get("/v1/bills/1100000001").await.status(), StatusCode::OK);
    }
    let response = app.get("/v1/bills/1100000001").await;
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    is_problem(&read(response).await, 429, "rate-limited", None);
}
