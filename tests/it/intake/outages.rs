//! Without its database, or with too much to do, the intake says so and loses nothing.

use std::{net::IpAddr, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
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
        let other = app.client_at([127, 0, 0, 2]);
        other.get(app.url("/v1/encryption-keys")).send().await.unwrap()
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

/// A connection from an address of loopback.
async fn connect_from(app: &App, address: [u8; 4], recv_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(address), 0).into())?;
    if let Some(bytes) = recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect(app.url("").trim_start_matches("http://").parse().unwrap()).await
}

const HALF: &str = "POST /v1/payments HTTP/1.1\r\nhost: tolom\r\nidempotency-key: k\r\n\
    content-type: application/json\r\ncontent-length: 500\r\n\r\n{";

#[tokio::test]
async fn an_address_that_holds_half_is_refused_and_others_are_answered() {
    let app = App::with(|config| config.intake.max_in_flight = 8).await;
    let half = async || {
        let mut stream = connect_from(&app, [127, 0, 0, 2], None).await.unwrap();
        stream.write_all(HALF.as_bytes()).await?;
        let mut answer = [0; 12];
        let got = stream.read(&mut answer).await?;
        std::io::Result::Ok(answer[..got].to_vec())
    };
    let mut halves: FuturesUnordered<_> = (0..8).map(|_| half()).collect();
    for _ in 0..4 {
        // Refused with its head, or with its connection: the body is not waited for.
        let refused = halves.next().await.unwrap().unwrap_or_default();
        assert!(refused.is_empty() || refused == b"HTTP/1.1 503", "{}", String::from_utf8_lossy(&refused));
    }
    for _ in 0..3 {
        assert_eq!(app.get("/v1/encryption-keys").await.status(), StatusCode::OK);
    }
    while let Some(half) = halves.next().await {
        assert_eq!(half.unwrap(), b"HTTP/1.1 408", "the others had a place until their time was over");
    }
}

#[tokio::test]
async fn a_peer_that_takes_no_answers_loses_its_connection() {
    let app = App::with(|config| config.intake.max_in_flight = 1).await;
    let mut silent = connect_from(&app, [127, 0, 0, 2], Some(4_096)).await.unwrap();
    let question = "GET /ky/documents/user-agreement/2026-01-01 HTTP/1.1\r\nhost: tolom\r\n\r\n";
    silent.write_all(question.as_bytes()).await.unwrap();
    silent.readable().await.unwrap();
    // More questions, and more answers, than the system keeps for a peer that reads none.
    let questions = question.repeat(300_000);
    let written = tokio::time::timeout(Duration::from_secs(90), silent.write_all(questions.as_bytes())).await;
    assert!(written.expect("cut in time").is_err(), "nobody takes them any more");
}

#[tokio::test]
async fn a_banks_form_that_does_not_arrive_in_time_is_not_waited_for() {
    let app = App::start().await;
    let mut stream = connect_from(&app, [127, 0, 0, 1], None).await.unwrap();
    let head = format!(
        "POST /ky/payments/{}/return HTTP/1.1\r\nhost: tolom\r\ncontent-type: multipart/form-data; boundary=b\r\n\
         content-length: 500\r\n\r\n--b\r\n",
        uuid::Uuid::now_v7()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_string(&mut answer));
    read.await.expect("an answer before any proxy gives up").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_not_waited_for() {
    let app = App::start().await;
    let mut stream = TcpStream::connect(app.url("").trim_start_matches("http://")).await.unwrap();
    stream.write_all(HALF.as_bytes()).await.unwrap();
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
