//! Many pages that wait: cheap, and without asking the database.

use std::time::Duration;

use futures::future::join_all;
use tolom::payment::Status;
use uuid::Uuid;

use super::look::{CODE, browser};
use crate::intake::{app::App, events::fact};

const PAGES: usize = 200;

/// Transactions of this test's database so far. The statistics of other connections arrive when these are idle, so the
/// figure is awaited rather than read once.
async fn transactions(app: &App) -> i64 {
    sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&app.pool).await.unwrap();
    sqlx::query_scalar("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

/// Kibibytes of memory that this process holds.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn two_hundred_live_pages_cost_little_and_ask_the_database_nothing_while_nothing_happens() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let path = app.url(&format!("/v1/payments/{id}/events"));
    let before_kib = resident_kib();
    // A client of its own for each, as each browser is one.
    let open = join_all((0..PAGES).map(|_| async {
        let mut response = browser().get(&path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.chunk().await.unwrap().unwrap();
        response
    }))
    .await;
    let grown_kib = resident_kib().saturating_sub(before_kib);
    println!("{PAGES} live pages: {grown_kib} KiB, clients included");
    assert!(grown_kib < 50 * 1024, "{grown_kib} KiB");

    // A connection that is idle tells its transactions 10 s late at most (PGSTAT_IDLE_INTERVAL), so those of the opening
    // are waited for, and the time that is measured is longer. That nothing happens can only be seen by letting it pass.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = transactions(&app).await;
    for _ in 0..100 {
        // Facts of other payments pass every page by.
        app.live.send(fact(Uuid::now_v7(), 2, Status::Captured)).unwrap();
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let asked = transactions(&app).await - before;
    println!("transactions in 12 s with {PAGES} pages open: {asked}");
    // The intake itself looks at the outbox once a second; pages that ask once each would show as hundreds.
    assert!(asked < 60, "{asked}");

    // Without a database at all the pages still hear their news.
    app.database.take_away().await;
    app.live.send(fact(id, 5, Status::Captured)).unwrap();
    let heard = join_all(open.into_iter().map(|mut response| async move {
        while let Ok(Some(bytes)) = response.chunk().await {
            if String::from_utf8_lossy(&bytes).contains("\"paid\"") {
                return true;
            }
        }
        false
    }));
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
    app.database.give_back().await;
    assert_eq!(heard.into_iter().filter(|heard| *heard).count(), PAGES);
}
