//! What a 202 promises.

use std::{collections::HashSet, sync::Arc};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tolom::{
    clock::{Clock, bishkek_day},
    config::Terms,
    contracts::{Event, PaymentRequested, Topic},
    store::clients::ClientKind,
};

use super::{
    App,
    app::{is_problem, read, token},
};

const CODE: &str = "1100000001";

#[tokio::test]
async fn an_accepted_payment_is_kept_with_its_card_and_its_message() {
    let app = App::start().await;
    app.bill(CODE).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", "k").header("traceparent", parent);
    let response = post.json(&app.request(CODE)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    let id = body["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/payments/{id}"));
    assert_eq!((body["status"].as_str(), body["public_status"].as_str()), (Some("accepted"), Some("processing")));
    assert_eq!(body["amount"], json!({"value": 51000, "currency": "KGS"}));
    assert_eq!(app.stored().await, [1; 5]);

    let announced = app.announced.lock().await.recv().await.unwrap();
    let [row] = &announced.rows[..] else { panic!("one message") };
    let event: Event<PaymentRequested> = Event::read(Topic::PaymentRequested, &row.body).unwrap();
    assert_eq!((event.id, event.source.as_str()), (row.id, "/tolom/intake"));
    assert_eq!((event.data.payment.to_string().as_str(), event.subject.as_deref()), (id, Some(id)));
    assert_eq!((event.data.request, row.traceparent.as_deref()), (None, Some(parent)));

    let seen: Value = app.get(&location).await.json().await.unwrap();
    assert_eq!((seen["status"].as_str(), seen["version"].as_i64()), (Some("accepted"), Some(1)));
    assert_eq!(seen["timeline"][0]["event"], "accepted");
    let text = seen.to_string();
    assert!(!text.contains("payer@example.org") && !text.contains("996555"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_same_key_submissions_at_once_make_one_payment_and_one_answer() {
    let app = Arc::new(App::start().await);
    app.bill(CODE).await;
    let submissions = (0..50).map(|_| {
        let app = app.clone();
        // Each is sealed anew, as a browser does.
        tokio::spawn(async move {
            let response = app.submit("the-key", &app.request(CODE)).await;
            let replayed = response.headers().contains_key("idempotency-replayed");
            (response.status(), replayed, response.bytes().await.unwrap())
        })
    });
    let answers: Vec<_> = join_all(submissions).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|(status, ..)| *status == StatusCode::ACCEPTED), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, replayed, _)| !replayed).count(), 1);
    assert_eq!(answers.iter().map(|(.., body)| body).collect::<HashSet<_>>().len(), 1);
    assert_eq!(app.stored().await, [1; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_payers_of_one_bill_one_is_accepted() {
    let app = Arc::new(App::start().await);
    app.bill(CODE).await;
    let payers = (0..20).map(|payer| {
        let app = app.clone();
        tokio::spawn(async move { read(app.submit(&format!("payer-{payer}"), &app.request(CODE)).await).await })
    });
    let answers: Vec<_> = join_all(payers).await.into_iter().map(Result::unwrap).collect();
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(status, ..)| *status == StatusCode::ACCEPTED);
    assert_eq!(accepted.len(), 1);
    for answer in refused {
        is_problem(answer, 409, "payment-in-progress", None);
    }
    assert_eq!(app.stored().await, [1; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_accepted_and_one_conflict_fails_alone() {
    let app = Arc::new(App::start().await);
    for number in 0..60 {
        app.bill(&format!("11000001{number:02}")).await;
    }
    sqlx::query("UPDATE bill SET status = 'paid' WHERE code = '1100000130'").execute(&app.pool).await.unwrap();
    let submissions = (0..60).map(|number| {
        let app = app.clone();
        tokio::spawn(async move {
            let request = app.request(&format!("11000001{number:02}"));
            app.submit(&format!("key-{number}"), &request).await.status().as_u16()
        })
    });
    let statuses: Vec<u16> = join_all(submissions).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 59);
    assert_eq!(statuses[30], 409);
    assert_eq!(app.stored().await, [59; 5]);
}

#[tokio::test]
async fn a_key_stands_for_one_request_of_one_caller() {
    let app = App::start().await;
    app.bill(CODE).await;
    app.bill("1100000002").await;
    let first = app.submit("key", &app.request(CODE)).await.bytes().await.unwrap();
    let mut other = app.request(CODE);
    other["payer"]["email"] = "other@example.org".into();
    is_problem(&read(app.submit("key", &other).await).await, 422, "idempotency-key-reused", None);
    // Another card or language is the same request.
    let mut same = app.request(CODE);
    same["locale"] = "ru".into();
    let again = app.submit("key", &same).await;
    assert_eq!(
        (again.status(), &again.headers()["idempotency-replayed"]),
        (StatusCode::ACCEPTED, &"true".parse().unwrap())
    );
    assert_eq!(again.bytes().await.unwrap(), first);
    // Another caller's keys are its own.
    let site = token(&app.pool, "shop", ClientKind::Site).await;
    let post = app.client.post(app.url("/v1/payments")).header("idempotency-key", "key").bearer_auth(site);
    let response = post.json(&app.request("1100000002")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(app.stored().await, [2; 5]);
}

#[tokio::test]
async fn a_refusal_is_not_remembered_under_its_key() {
    let app = App::start().await;
    let request = app.request(CODE);
    is_problem(&read(app.submit("key", &request).await).await, 404, "bill-unknown", Some("bill"));
    app.bill(CODE).await;
    assert_eq!(app.submit("key", &request).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_answer_is_replayed_even_when_the_bill_is_paid_and_the_payment_over() {
    let app = App::start().await;
    app.bill(CODE).await;
    let request = app.request(CODE);
    let first = app.submit("key", &request).await.bytes().await.unwrap();
    let id: Value = serde_json::from_slice(&first).unwrap();
    let id = id["id"].as_str().unwrap().parse().unwrap();
    for status in ["authorizing", "captured"] {
        app.move_on(id, status).await;
    }
    sqlx::query("UPDATE bill SET status = 'paid', paid_by = $1").bind(id).execute(&app.pool).await.unwrap();
    app.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(app.submit("key", &request).await.bytes().await.unwrap(), first);
    is_problem(&read(app.submit("other", &request).await).await, 409, "bill-paid", None);
}

#[tokio::test]
async fn the_answer_is_replayed_to_the_same_bytes_when_the_card_has_expired_and_other_terms_are_in_force() {
    let app = App::with(|config| {
        let day = bishkek_day(Clock::system().now() + time::Duration::days(2)).to_string();
        config.terms.push(Terms { version: "later".to_owned(), in_force_from: day });
    })
    .await;
    app.bill(CODE).await;
    app.bill("1100000002").await;
    let (request, other) = (app.request(CODE), app.request("1100000002"));
    let first = app.submit("key", &request).await.bytes().await.unwrap();
    let replayed = async || {
        let again = app.submit("key", &request).await;
        assert_eq!(again.status(), StatusCode::ACCEPTED);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(again.bytes().await.unwrap(), first);
    };
    app.clock.advance(std::time::Duration::from_secs(301));
    replayed().await;
    is_problem(&read(app.submit("other", &other).await).await, 422, "card-expired", Some("card"));
    app.clock.advance(std::time::Duration::from_secs(3 * 86_400));
    replayed().await;
    is_problem(&read(app.submit("other", &other).await).await, 422, "terms-not-in-force", Some("terms"));
    assert_eq!(app.stored().await, [1; 5]);
}

#[tokio::test]
async fn after_a_declined_payment_the_bill_takes_another() {
    let app = App::start().await;
    app.bill(CODE).await;
    let first = app.pay(CODE).await;
    is_problem(&read(app.submit("k2", &app.request(CODE)).await).await, 409, "payment-in-progress", None);
    app.move_on(first, "authorizing").await;
    app.move_on(first, "declined").await;
    assert_ne!(app.pay(CODE).await, first);
}

#[tokio::test]
async fn a_sealed_card_pays_once_whichever_way_it_comes() {
    let app = App::start().await;
    app.bill(CODE).await;
    let request = app.request(CODE);
    let store = async || {
        let post = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": request["card"]["sealed"]}));
        post.send().await.unwrap()
    };
    let card: Value = store().await.json().await.unwrap();
    let again: Value = store().await.json().await.unwrap();
    assert_eq!(card, again);
    // It is stored already, and comes with its payment all the same.
    let first = app.submit("key", &request).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let first: Value = first.json().await.unwrap();
    assert_eq!(app.stored().await, [1; 5]);
    let id = first["id"].as_str().unwrap().parse().unwrap();
    // The claim takes the card, and the bank declines it.
    sqlx::query("DELETE FROM sealed_card").execute(&app.pool).await.unwrap();
    app.move_on(id, "authorizing").await;
    app.move_on(id, "declined").await;
    let mut by_name = request.clone();
    by_name["card"] = card;
    for body in [&request, &by_name] {
        is_problem(&read(app.submit("another", body).await).await, 422, "card-used", Some("card"));
    }
    is_problem(&read(store().await).await, 422, "card-used", Some("card"));
    assert_eq!(app.submit("key", &request).await.json::<Value>().await.unwrap(), first);
    assert_eq!(app.stored().await, [1, 1, 0, 1, 1]);
    assert_eq!(app.submit("another", &app.request(CODE)).await.status(), StatusCode::ACCEPTED, "sealed anew");
}

#[tokio::test]
async fn a_card_of_no_service_or_past_its_time_is_not_stored() {
    let app = App::start().await;
    let post = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": app.sealed("4111111111111111")}));
    is_problem(&read(post.send().await.unwrap()).await, 422, "card-malformed", Some("sealed"));
    let late = app.sealed_until(CODE, app.clock.now() - time::Duration::seconds(1));
    let post = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": late}));
    is_problem(&read(post.send().await.unwrap()).await, 422, "card-expired", Some("card"));
    assert_eq!(app.stored().await, [0; 5]);
}

#[tokio::test]
async fn a_stored_card_pays_once() {
    let app = App::start().await;
    app.bill(CODE).await;
    app.bill("1100000002").await;
    let post = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": app.sealed(CODE)}));
    let response = post.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let card: Value = response.json().await.unwrap();
    let mut request = app.request("1100000002");
    request["card"] = card.clone();
    is_problem(&read(app.submit("k", &request).await).await, 422, "card-of-other-bill", Some("card"));
    let mut request = app.request(CODE);
    request["card"] = card;
    let response = app.submit("k", &request).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let id: Value = response.json().await.unwrap();
    let id = id["id"].as_str().unwrap().parse().unwrap();
    app.move_on(id, "authorizing").await;
    app.move_on(id, "declined").await;
    is_problem(&read(app.submit("k2", &request).await).await, 422, "card-used", Some("card"));
    // The claim takes the card; it stays used.
    sqlx::query("DELETE FROM sealed_card").execute(&app.pool).await.unwrap();
    is_problem(&read(app.submit("k2", &request).await).await, 422, "card-used", Some("card"));
}

#[tokio::test]
async fn a_stored_card_expires() {
    let app = App::start().await;
    app.bill(CODE).await;
    let post = app.client.post(app.url("/v1/cards")).json(&json!({"sealed": app.sealed(CODE)}));
    let card: Value = post.send().await.unwrap().json().await.unwrap();
    app.clock.advance(std::time::Duration::from_secs(301));
    let mut request = app.request(CODE);
    request["card"] = card;
    is_problem(&read(app.submit("k", &request).await).await, 422, "card-expired", Some("card"));
}

#[tokio::test]
async fn a_client_that_hangs_up_has_its_payment_all_the_same() {
    let mut app = App::start().await;
    app.bill(CODE).await;
    // Somebody holds the bill for a moment, so that the request is certainly still on its way when its client goes.
    let mut holder = app.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bill FOR UPDATE").execute(&mut *holder).await.unwrap();
    let request = app.request(CODE);
    let hurried = tokio::time::timeout(std::time::Duration::from_millis(300), app.submit("k", &request));
    assert!(hurried.await.is_err());
    holder.rollback().await.unwrap();
    app.stop().await;
    assert_eq!(app.stored().await, [1; 5]);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_id() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // The test's runtime has one thread, which is this one.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    app.get(&format!("/v1/payments/{id}")).await;
    app.get("/v1/bills/1100000009").await;
    app.get("/v1/nothing").await;
    let metrics = handle.render();
    for expected in [
        "tolom_http_requests_total{route=\"/v1/payments\",method=\"POST\",status=\"202\"} 1",
        "tolom_http_requests_total{route=\"/v1/payments/{id}\",method=\"GET\",status=\"200\"} 1",
        "tolom_http_requests_total{route=\"/v1/bills/{code}\",method=\"GET\",status=\"404\"} 1",
        "tolom_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"} 1",
        "tolom_http_request_duration_seconds_count{route=\"/v1/payments\",method=\"POST\"} 1",
        "tolom_payments_submitted_total{result=\"accepted\"} 1",
    ] {
        assert!(metrics.contains(expected), "{expected} in:\n{metrics}");
    }
    assert!(!metrics.contains(&id.to_string()) && !metrics.contains(CODE));
}
