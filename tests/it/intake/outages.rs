//! Without its database, or with too much to do, the intake says so and loses nothing.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    App,
    app::{is_problem, read},
};
use crate::support::world::wait_for;

const CODE: &str = "1100000001";

#[tokio::test]
async fn without_a_database_it_answers_503_and_afterwards_the_same_request_is_accepted() {
    let app = App::start().await;
    app.bill(CODE).await;
    let request = app.request(CODE);
    app.database.take_away().await;
    let response = app.submit("k", &request).await;
    assert!(response.headers().contains_key("retry-after"));
    is_problem(&read(response).await, 503, "unavailable", None);
    let response = app.get("/v1/bills/1100000001").await;
    assert!(response.headers().contains_key("retry-after"));
    is_problem(&read(response).await, 503, "unavailable", None);
    app.database.give_back().await;
    assert_eq!(app.submit("k", &request).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_bill_that_is_locked_for_long_is_refused_alone_and_for_now() {
    let app = App::start().await;
    app.bill(CODE).await;
    app.bill("1100000002").await;
    let mut holder = app.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bill WHERE code = $1 FOR UPDATE").bind(CODE).execute(&mut *holder).await.unwrap();
    let (locked, free) = (app.request(CODE), app.request("1100000002"));
    let (locked, free) = tokio::join!(app.submit("k1", &locked), app.submit("k2", &free));
    assert_eq!(free.status(), StatusCode::ACCEPTED);
    assert_eq!(locked.headers()["retry-after"], "1");
    is_problem(&read(locked).await, 409, "request-in-flight", None);
    holder.rollback().await.unwrap();
    assert_eq!(app.submit("k1", &app.request(CODE)).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_full_house_is_told_at_once() {
    let app = App::with(|config| config.intake.max_in_flight = 1).await;
    app.bill(CODE).await;
    let mut holder = app.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bill FOR UPDATE").execute(&mut *holder).await.unwrap();
    let request = app.request(CODE);
    let waiting = app.submit("k", &request);
    let refused = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        app.get("/v1/encryption-keys").await
    };
    let (_, refused) = tokio::join!(waiting, refused);
    assert!(refused.headers().contains_key("retry-after"));
    is_problem(&read(refused).await, 503, "overloaded", None);
}

#[tokio::test]
async fn while_the_outbox_is_full_new_payments_are_refused_until_it_has_room_again() {
    let app = App::with(|config| config.intake.max_outbox_rows = 10).await;
    let mut number = 0;
    // It goes by an estimate that is some seconds old.
    let mut pay = async || {
        number += 1;
        let code = format!("11000{number:05}");
        app.bill(&code).await;
        app.submit(&code, &app.request(&code)).await
    };
    let refused = wait_for(async || Some(pay().await).filter(|answer| answer.status() != StatusCode::ACCEPTED)).await;
    assert_eq!(refused.headers()["retry-after"], "30");
    is_problem(&read(refused).await, 503, "overloaded", None);
    let [payments, .., outbox] = app.stored().await;
    assert_eq!(payments, outbox, "of what was refused nothing is stored");
    assert!(outbox >= 10);
    assert_eq!(app.get("/v1/bills/1100000001").await.status(), StatusCode::OK, "only payments are refused");
    sqlx::query("DELETE FROM outbox").execute(&app.pool).await.unwrap();
    wait_for(async || Some(pay().await).filter(|answer| answer.status() == StatusCode::ACCEPTED)).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_not_waited_for() {
    let app = App::start().await;
    let mut stream = TcpStream::connect(app.url("").trim_start_matches("http://")).await.unwrap();
    let head = "POST /v1/payments HTTP/1.1\r\nhost: tolom\r\nidempotency-key: k\r\n\
        content-type: application/json\r\ncontent-length: 500\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The end of the connection: it is not kept for the rest of the body.
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_string(&mut answer));
    read.await.expect("an answer before any proxy gives up").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("problems/slow-body"), "{answer}");
}

#[tokio::test]
async fn what_the_database_refuses_fails_alone() {
    let app = App::start().await;
    app.bill(CODE).await;
    app.bill("1100000002").await;
    // A constraint that this build knows nothing of.
    sqlx::query("ALTER TABLE payment ADD CHECK (bill_code <> '1100000001')").execute(&app.pool).await.unwrap();
    let (poison, well) = (app.request(CODE), app.request("1100000002"));
    let (poison, well) = tokio::join!(app.submit("k1", &poison), app.submit("k2", &well));
    assert_eq!(well.status(), StatusCode::ACCEPTED);
    let answer = read(poison).await;
    is_problem(&answer, 500, "internal", None);
    assert!(!answer.2.to_string().contains("constraint"), "nothing internal leaks");
    assert_eq!(app.stored().await, [1; 5]);
}
