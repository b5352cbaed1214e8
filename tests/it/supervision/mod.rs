//! Supervision and overload: what dies is built anew, what is too much is refused or held, and nothing is lost.

mod alarm;
mod bindings;
mod broker_away;
mod consumers;
mod database_away;
mod figures;
mod full_queues;
mod panics;
mod proxy;
mod shutdown;
mod told;

use std::time::Duration;

use tolom::payer::Request;
use uuid::Uuid;

use crate::{
    processes::Process,
    support::world::{World, wait_for},
};

/// Every worker in one process, as `tolom worker` takes them.
const WORKERS: [&str; 6] = ["worker", "authorize", "record", "capture", "receipt", "resolve"];

/// What a process tells on its operators' port; none while it cannot be reached.
async fn ask(admin: &str, path: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let answer = client.get(format!("http://{admin}{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// A series of a process; none while the process cannot be reached or has no such series.
async fn metric(admin: &str, series: &str) -> Option<f64> {
    let (_, text) = ask(admin, "/metrics").await?;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a series of a process has a value.
async fn wait_for_metric(admin: &str, series: &str, value: f64) {
    wait_for(async || metric(admin, series).await.filter(|now| *now == value)).await;
}

/// Requests of good cards for bills that begin with these digits.
async fn requests(world: &World, prefix: &str, count: usize, card: &str) -> Vec<Request> {
    let codes: Vec<String> = (0..count).map(|number| format!("{prefix}{number:04}")).collect();
    let mut requests = Vec::new();
    for bill in &world.bills(&codes).await {
        requests.push(world.request(bill, card).await);
    }
    requests
}

/// Submits requests that must be accepted.
async fn accept_all(world: &World, requests: &[Request]) {
    for request in requests {
        let submitted = world.payer.submit(request, &Uuid::new_v4().to_string()).await.unwrap();
        assert_eq!(submitted.status.as_u16(), 202, "{submitted:?}");
    }
}
