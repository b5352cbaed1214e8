//! The books of a year look as the pipeline's own, stand among them, and break no rule.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use time::OffsetDateTime;
use tolom::{
    clock::bishkek_day,
    config::{CaptureMode, Config},
    payment::{Currency, Money},
    store::{
        dead,
        grown::{self, Past},
    },
    verify::{self, Finding, verify},
};
use uuid::Uuid;

use crate::support::world::World;

const PAYMENTS: u64 = 500;
/// What must be the same in both; of everything else it matters whether it is there, and what kind of thing it is.
const SAME: [&str; 22] = [
    "acquirer",
    "actor",
    "amount_minor",
    "attempts",
    "caller",
    "capture_at_once",
    "captured",
    "closing",
    "credit_account",
    "currency",
    "debit_account",
    "event",
    "from_status",
    "kind",
    "outcome",
    "previous_status",
    "service",
    "status",
    "terms_version",
    "to_status",
    "value",
    "version",
];
const TABLES: [(&str, &str); 8] = [
    ("bill", "paid_by"),
    ("payment", "id"),
    ("operation", "payment_id"),
    ("journal", "payment_id"),
    ("posting", "payment_id"),
    ("settlement_entry", "payment_id"),
    ("receipt", "payment_id"),
    ("idempotency_key", "payment_id"),
];

fn past(config: &Config, now: OffsetDateTime) -> Past {
    let until = now - time::Duration::days(1);
    Past {
        payments: PAYMENTS,
        since: until - time::Duration::days(365),
        until,
        keys_since: now - time::Duration::days(config.intake.idempotency_keep_days.into()),
        agency: "agency".to_owned(),
        prefix: config.services[0].prefix.clone(),
        service: config.services[0].service.clone(),
        amount: Money::new(51_000, Currency::KGS),
        acquirer: config.acquirer.name.clone(),
        capture_at_once: config.acquirer.capture == CaptureMode::AtAuthorization,
        terms: config.terms_in_force(bishkek_day(now)).to_owned(),
    }
}

/// All rows of a payment, by table, with what varies from one payment to another put as its kind.
async fn shapes(pool: &PgPool, payment: Uuid) -> BTreeMap<&'static str, Vec<String>> {
    let mut shapes = BTreeMap::new();
    for (table, column) in TABLES {
        let rows = format!("SELECT to_jsonb(t) FROM {table} t WHERE {column} = $1");
        let rows: Vec<Value> = sqlx::query_scalar(AssertSqlSafe(rows)).bind(payment).fetch_all(pool).await.unwrap();
        assert!(!rows.is_empty(), "{table} has no row of {payment}");
        let mut rows: Vec<String> = rows.iter().map(|row| shape("", row).to_string()).collect();
        rows.sort();
        shapes.insert(table, rows);
    }
    shapes
}

fn shape(name: &str, value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(name, value))).collect(),
        Value::Null => Value::Null,
        same if SAME.contains(&name) => same.clone(),
        Value::String(text) => match text.parse::<Uuid>() {
            // With dashes or without.
            Ok(id) => format!("id of {} of version {}", text.len(), id.get_version_num()).into(),
            Err(_) => "text".into(),
        },
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

async fn findings(world: &World, books_from: Option<time::Date>) -> Vec<Finding> {
    verify(&world.config, &world.pool, &world.broker, &world.clock, Duration::ZERO, books_from).await.unwrap()
}

/// Fills a world's books, pays beside them, and holds both against each other and against every rule.
async fn a_year_and_a_payment(capture: CaptureMode) {
    let mut world = World::prepared(|config| config.acquirer.capture = capture).await;
    // The agency that the bills are of.
    sqlx::query("INSERT INTO api_client (id, kind, name, token_hash) VALUES ('agency', 'agency', 'Agency', $1)")
        .bind(vec![7_u8; 32])
        .execute(&world.pool)
        .await
        .unwrap();
    grown::fill(&world.config.database, &past(&world.config, world.clock.now())).await.unwrap();
    world.run(tolom::workers::ALL.to_vec()).await;
    let (paid, status) = world.pay_to_the_end(&world.bill("1100009001").await, "4111111111111111").await;
    assert_eq!(status, "captured");
    world.mail.wait_for_count(1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    world.wait_until("SELECT count(*) FROM outbox", 0).await;

    let newest = "SELECT id FROM payment WHERE id <> $1 ORDER BY accepted_at DESC LIMIT 1";
    let newest: Uuid = sqlx::query_scalar(newest).bind(paid).fetch_one(&world.pool).await.unwrap();
    assert_same_shape(&shapes(&world.pool, newest).await, &shapes(&world.pool, paid).await);
    // Of a year, a month's keys are left.
    let keys = world.count("SELECT count(*) FROM idempotency_key").await;
    assert!((35..=42).contains(&keys), "{keys}");
    let days = world.count("SELECT count(DISTINCT day) FROM settlement_entry").await;
    assert!((360..=368).contains(&days), "{days}");

    let books_from = bishkek_day(world.clock.now());
    let kept = findings(&world, Some(books_from)).await;
    assert!(verify::all_kept(&kept), "\n{}", verify::table(&kept));
    assert!(kept[1].checked > 2 * PAYMENTS.cast_signed() && kept[5].notes.len() == 1, "{kept:?}");
    // An acquirer who is asked about days before its books begin contradicts ours.
    let contradicted = findings(&world, None).await;
    let named = &contradicted[5].offending;
    assert!(named.len() == 101 && named[0].contains("the acquirer took 0 and gave back 0"), "{named:?}");
    assert_eq!(named[100], format!("and {} more", PAYMENTS - 100));
    assert_eq!(contradicted.iter().filter(|finding| !finding.ok).count(), 1, "\n{}", verify::table(&contradicted));

    // Books that are in use are not filled.
    let again = grown::fill(&world.config.database, &past(&world.config, world.clock.now())).await;
    assert!(again.is_err_and(|error| error.to_string().contains("not empty")));
    assert_eq!(world.count("SELECT count(*) FROM payment").await, PAYMENTS.cast_signed() + 1);
    world.finish_without_acquirer().await;
}

fn assert_same_shape(ours: &BTreeMap<&str, Vec<String>>, pipelines: &BTreeMap<&str, Vec<String>>) {
    for (table, rows) in pipelines {
        assert_eq!(&ours[table], rows, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_payments_captured_after_recording_is_as_the_pipeline_would_have_left_it() {
    a_year_and_a_payment(CaptureMode::AfterRecording).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_payments_captured_at_authorization_is_as_the_pipeline_would_have_left_it() {
    a_year_and_a_payment(CaptureMode::AtAuthorization).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_about_payments_of_the_year_are_parked_and_can_be_replayed() {
    let world = World::prepared(|_| ()).await;
    let _ = world.bill("1100009001").await;
    sqlx::query("DELETE FROM bill").execute(&world.pool).await.unwrap();
    grown::fill(&world.config.database, &past(&world.config, world.clock.now())).await.unwrap();
    let captured = grown::captured(&world.pool, 100).await.unwrap();
    assert_eq!(captured.len(), 100);
    grown::park_letters(&world.pool, &captured, 1_500, "tolom.receipt", world.clock.now()).await.unwrap();
    assert_eq!(dead::waiting(&world.pool).await.unwrap(), [("tolom.receipt".to_owned(), 1_500)]);
    let parked = dead::candidates(&world.pool, &dead::Filter::default(), 0, 10).await.unwrap();
    assert!(parked.len() == 10 && parked.iter().all(|letter| letter.unreplayable.is_none() && letter.times == 1));
    world.finish_without_acquirer().await;
}
