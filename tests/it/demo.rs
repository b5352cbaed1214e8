//! The demo as a person runs it: a process, a document, an interrupt, and nothing left behind.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};
use tolom::{
    broker::{self, Broker},
    config::Config,
    payer::Payer,
};

use super::support::services::services;

const PATIENCE: Duration = Duration::from_secs(120);

async fn start() -> (Child, BufReader<ChildStdout>) {
    let services = services().await;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tolom"))
        .args(["demo", "--json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TOLOM_DATABASE__URL", &services.database_url)
        .env("TOLOM_BROKER__URL", &services.amqp_url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let out = BufReader::new(demo.stdout.take().unwrap());
    (demo, out)
}

/// Reads one pretty-printed document; its end is the first line that is a lone brace.
async fn read_document(out: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).await.unwrap() > 0, "the demo ended early: {text}");
        text.push_str(&line);
        if line == "}\n" {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}"))
}

#[tokio::test]
async fn the_demo_ends_well_stays_for_its_visitor_and_leaves_nothing_behind() {
    let (mut demo, mut out) = start().await;
    let found = tokio::time::timeout(PATIENCE, read_document(&mut out)).await.unwrap();
    assert_eq!(found["ok"], true, "{found:#}");
    let payments = found["payments"].as_array().unwrap();
    assert!(payments.len() >= 12 && payments.iter().all(|payment| payment["wrong"].is_null()));
    assert!(found["unknown"]["paid"].as_u64() >= Some(2) && found["unknown"]["not_charged"].as_u64() >= Some(1));
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join(text(&found, "/addresses/log"));
    for document in [found.to_string(), std::fs::read_to_string(log).unwrap()] {
        for card in tolom::simulator::cards::CARDS {
            assert!(!document.contains(card.number), "a card in clear");
        }
    }
    // A visitor finds a bill to pay.
    let payer = Payer::new(text(&found, "/addresses/site")).unwrap();
    let bill = payer.bill(&text(&found, "/unpaid/0").parse().unwrap()).await.unwrap();
    assert_eq!(bill.status, "open");

    let pid = rustix::process::Pid::from_raw(i32::try_from(demo.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(PATIENCE, demo.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    assert_nothing_is_left(&found).await;
}

async fn assert_nothing_is_left(found: &Value) {
    let (database, queues) = (text(found, "/addresses/database"), text(found, "/addresses/queues"));
    let mut admin = PgConnection::connect(&services().await.database_url).await.unwrap();
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(!there, "{database} is still there");
    let mut settings = Config::defaults().broker;
    settings.url = services().await.amqp_url.clone().into();
    settings.prefix = queues.to_owned();
    let still_there: Vec<_> =
        broker::verify(&Broker::new(&settings)).await.unwrap().into_iter().filter(|finding| finding.ok).collect();
    assert!(still_there.is_empty(), "{still_there:?}");
    let keys = std::env::temp_dir().join(database.replace('_', "-"));
    assert!(!keys.exists(), "{} is still there", keys.display());
}
