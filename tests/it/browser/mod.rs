//! The payer's way in a real browser (headless Chromium), against everything running.
//!
//! The walks are scripts in `tests/browser/`: a browser is driven in its own language, by a library that waits for what
//! the page shows and never for a time to pass. Pictures of every page are in `target/screenshots/`.

mod payer;
mod run;

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tolom::{
    clock::Clock,
    simulator::{self, Simulator, SimulatorOptions},
};

use self::run::walk;

#[tokio::test]
async fn what_leaves_a_browser_is_recorded_and_a_planted_card_is_found_in_it() {
    walk("planted.mjs", json!({})).await;
}

#[tokio::test]
async fn the_banks_page_can_be_used_by_anyone_and_always_leads_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = SimulatorOptions { short_challenge: Duration::from_secs(1), ..SimulatorOptions::default() };
    let simulator = Simulator::with_options(Clock::system(), options);
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    tokio::spawn(simulator::serve(listener, simulator, stop));
    walk("bank.mjs", json!({ "bank": format!("http://localhost:{port}") })).await;
}
