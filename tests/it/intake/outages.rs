//! Without its database, or with too much to do, the intake says so and loses nothing.

use std::time::Duration;

use reqwest::StatusCode;

use super::{
    App,
    app::{is_problem, read},
};

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
