//! Which notices are due, held against the database alone.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use tolom::{
    clock::Clock,
    payment::Status,
    store::notices::{self, BillNow, Due, Kind, Notice},
};
use uuid::Uuid;

use crate::support::database::TestDatabase;

const LEASE: Duration = Duration::from_secs(60);

/// A bill with a payment of a status that it has just entered.
async fn payment(pool: &PgPool, code: &str, from: &str, status: &str) -> Uuid {
    sqlx::raw_sql(
        "INSERT INTO api_client (id, kind, name, token_hash)
         VALUES ('agency', 'agency', 'Agency', decode(repeat('07', 32), 'hex')) ON CONFLICT DO NOTHING",
    )
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until)
         VALUES ($1, 'agency', 'passport', 'Асанов Айбек', 51000, 'KGS', now() + interval '30 days')
         ON CONFLICT DO NOTHING",
    )
    .bind(code)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query_scalar(
        "INSERT INTO payment (id, bill_code, status, previous_status, amount_minor, currency, acquirer, capture_at_once,
                              card_id, payer_email, payer_phone, locale, terms_version, caller)
         VALUES (gen_random_uuid(), $1, $2, $3, 51000, 'KGS', 'simulator', false,
                 gen_random_uuid(), 'payer@mail.example', '+996555123456', 'ru', '2026-01-01', 'public')
         RETURNING id",
    )
    .bind(code)
    .bind(status)
    .bind(from)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn becomes(pool: &PgPool, payment: Uuid, status: &str) {
    sqlx::query("UPDATE payment SET previous_status = status, status = $2, updated_at = now() WHERE id = $1")
        .bind(payment)
        .bind(status)
        .execute(pool)
        .await
        .unwrap();
}

/// Plans at a moment, with the defaults' waits.
async fn plan(pool: &PgPool, now: OffsetDateTime) {
    let due = Due {
        now,
        unknown_since: now - Duration::from_secs(60),
        reversed_after: now - time::Duration::days(7),
        limit: 100,
    };
    notices::plan(pool, &due).await.unwrap();
}

async fn claim(pool: &PgPool, now: OffsetDateTime) -> Vec<Notice> {
    notices::claim(pool, now, LEASE, 100).await.unwrap()
}

/// (payment, kind) of what is claimed.
async fn claimed(pool: &PgPool, now: OffsetDateTime) -> Vec<(Uuid, Kind)> {
    claim(pool, now).await.iter().map(|notice| (notice.payment, notice.kind)).collect()
}

#[tokio::test]
async fn a_moments_uncertainty_is_not_worth_a_mail() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now());
    let unknown = payment(pool, "1100000001", "authorizing", "unknown").await;
    let review = payment(pool, "1100000002", "unknown", "review").await;
    for (number, status) in (3..).zip(["authorizing", "challenged", "authorized", "captured", "failed", "declined"]) {
        let from = if status == "authorizing" { "accepted" } else { "authorizing" };
        payment(pool, &format!("110000000{number}"), from, status).await;
    }
    plan(pool, now + Duration::from_secs(30)).await;
    assert!(claimed(pool, now + Duration::from_secs(30)).await.is_empty());
    let later = now + Duration::from_secs(90);
    for _ in 0..2 {
        plan(pool, later).await;
    }
    let mut told = claimed(pool, later).await;
    told.sort_by_key(|(payment, _)| *payment != unknown);
    assert_eq!(told, [(unknown, Kind::Unknown), (review, Kind::Unknown)]);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM notice").fetch_one(pool).await.unwrap();
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn a_claimed_notice_has_one_sender_until_its_lease_ends() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now() + Duration::from_secs(90));
    payment(pool, "1100000001", "authorizing", "unknown").await;
    plan(pool, now).await;
    let (a, b) = futures::join!(claim(pool, now), claim(pool, now));
    let first = [a, b].concat();
    assert_eq!(first.len(), 1);
    assert!(claim(pool, now + LEASE).await.is_empty());
    let second = claim(pool, now + LEASE + Duration::from_secs(1)).await;
    assert_eq!((second.len(), second[0].id, second[0].attempts), (1, first[0].id, 2));
    notices::mark_sent(pool, &[second[0].id], now).await.unwrap();
    assert!(claim(pool, now + time::Duration::days(1)).await.is_empty());
}

#[tokio::test]
async fn what_was_never_told_is_called_off_once_the_payment_has_ended() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now() + Duration::from_secs(90));
    let failed = payment(pool, "1100000001", "authorizing", "unknown").await;
    let captured = payment(pool, "1100000002", "authorizing", "unknown").await;
    plan(pool, now).await;
    becomes(pool, failed, "failed").await;
    becomes(pool, captured, "captured").await;
    // Even before the next plan: it would not be true any more.
    assert!(claimed(pool, now).await.is_empty());
    plan(pool, now).await;
    assert!(claimed(pool, now).await.is_empty());
}

#[tokio::test]
async fn notices_that_cannot_be_sent_now_keep_back_none_that_can() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now() + Duration::from_secs(90));
    for number in 1..=3 {
        payment(pool, &format!("110000000{number}"), "authorizing", "unknown").await;
    }
    plan(pool, now).await;
    sqlx::query("UPDATE payment SET previous_status = status, status = 'reversing'").execute(pool).await.unwrap();
    let reversed = payment(pool, "1100000004", "reversing", "reversed").await;
    plan(pool, now + Duration::from_secs(1)).await;
    let claimed = notices::claim(pool, now + Duration::from_secs(1), LEASE, 3).await.unwrap();
    let told: Vec<_> = claimed.iter().map(|notice| (notice.payment, notice.kind)).collect();
    assert_eq!(told, [(reversed, Kind::NotCharged)]);
}

#[tokio::test]
async fn the_answer_waits_for_the_notice_that_is_on_its_way() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now() + Duration::from_secs(90));
    let codes = ["1100000001", "1100000002", "1100000003", "1100000004"];
    let mut payments = Vec::new();
    for code in codes {
        payments.push(payment(pool, code, "authorizing", "unknown").await);
    }
    plan(pool, now).await;
    let unknown = claim(pool, now).await;
    assert_eq!(unknown.len(), 4);
    for (payment, status) in payments.iter().zip(["failed", "declined", "captured", "reversing"]) {
        becomes(pool, *payment, status).await;
    }
    becomes(pool, payments[3], "reversed").await;
    plan(pool, now).await;
    assert!(claimed(pool, now).await.is_empty(), "a mail of each is on its way");

    // The first may have been read, although its sender could not tell.
    let (retry, sent): (Vec<_>, Vec<_>) = unknown.iter().partition(|notice| notice.payment == payments[0]);
    notices::postpone(pool, &[retry[0].id], &[now + LEASE]).await.unwrap();
    notices::mark_sent(pool, &sent.iter().map(|notice| notice.id).collect::<Vec<_>>(), now).await.unwrap();
    for _ in 0..2 {
        plan(pool, now).await;
    }
    let mut answers = claim(pool, now).await;
    answers.sort_by_key(|notice| payments.iter().position(|payment| *payment == notice.payment));
    let told: Vec<_> = answers.iter().map(|notice| (notice.payment, notice.kind, notice.status)).collect();
    let expected = [(0, Status::Failed), (1, Status::Declined), (3, Status::Reversed)];
    assert_eq!(told, expected.map(|(index, status)| (payments[index], Kind::NotCharged, status)));
    assert!(answers.iter().all(|notice| notice.bill_now == BillNow::Open));
    assert_eq!(claimed(pool, now + time::Duration::hours(1)).await.len(), 3, "only the answers, whose senders died");
}

#[tokio::test]
async fn what_was_reversed_is_told_while_it_is_news() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now());
    let reversed = payment(pool, "1100000001", "reversing", "reversed").await;
    plan(pool, now + time::Duration::days(8)).await;
    assert!(claimed(pool, now + time::Duration::days(8)).await.is_empty());
    for _ in 0..2 {
        plan(pool, now).await;
    }
    assert_eq!(claimed(pool, now).await, [(reversed, Kind::NotCharged)]);
}

#[tokio::test]
async fn the_payer_is_told_what_can_be_done_about_the_bill() {
    let database = TestDatabase::fresh().await;
    let (pool, now) = (&database.pool, Clock::system().now());
    for code in ["1100000001", "1100000002", "1100000003", "1100000004", "1100000005"] {
        payment(pool, code, "reversing", "reversed").await;
    }
    payment(pool, "1100000002", "accepted", "authorizing").await;
    for change in [
        "UPDATE bill SET status = 'paid' WHERE code = '1100000003'",
        "UPDATE bill SET status = 'cancelled' WHERE code = '1100000004'",
        "UPDATE bill SET valid_until = now() - interval '1 hour' WHERE code = '1100000005'",
    ] {
        sqlx::query(change).execute(pool).await.unwrap();
    }
    plan(pool, now).await;
    let mut told = claim(pool, now).await;
    told.sort_by(|a, b| a.bill.cmp(&b.bill));
    let now: Vec<_> = told.iter().map(|notice| notice.bill_now).collect();
    assert_eq!(now, [BillNow::Open, BillNow::Held, BillNow::Paid, BillNow::Closed, BillNow::Closed]);
}
