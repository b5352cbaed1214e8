//! The benchmark measures a pipeline that keeps its promises, and tells in the words that scripts read.

use std::time::Duration;

use tolom::bench::{self, Amount, BenchOptions, Load};

use super::support::services::services;

async fn run(load: Load, flags: &[(&str, &str)]) -> (bench::Report, serde_json::Value) {
    let services = services().await;
    let given = [("database.url", services.database_url.as_str()), ("broker.url", services.amqp_url.as_str())];
    let flags = given.iter().chain(flags).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let options = BenchOptions {
        amount: Amount::Payments(5),
        load,
        acquirer_latency: Duration::from_millis(20),
        config_file: None,
        flags: flags.collect(),
    };
    let report = bench::run(&options, |_| ()).await.unwrap();
    let document = serde_json::to_value(&report).unwrap();
    (report, document)
}

/// The percentiles of a stage rise.
fn p50(document: &serde_json::Value, stage: &str) -> f64 {
    let value = |name: &str| document["latency_ms"][stage][name].as_f64().unwrap_or_else(|| panic!("{stage}.{name}"));
    let all = ["p50", "p95", "p99", "max"].map(value);
    assert!(all.is_sorted() && all[0] > 0.0, "{stage}: {all:?}");
    all[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn five_payments_are_measured_from_the_post_to_the_settlement_entry_and_every_rule_is_kept() {
    let (report, document) = run(Load::Concurrency(2), &[]).await;
    assert!(report.ok, "{}", report.text());
    assert_eq!((report.payments, report.accepted, report.failed), (5, 5, 0));
    assert_eq!(report.outcomes.get("captured"), Some(&5));
    assert_eq!(document["verify"]["ok"], true);
    assert_eq!(document["config"]["capture"], "after_recording");
    assert!(document["end_to_end_payments_per_s"].as_f64() > Some(0.0));
    assert!(document["accept_per_s"].as_f64() >= document["end_to_end_payments_per_s"].as_f64());
    let (accept, authorized) = (p50(&document, "accept"), p50(&document, "accept_to_authorized"));
    let (captured, settled) = (p50(&document, "accept_to_captured"), p50(&document, "accept_to_settlement_entry"));
    // Two calls to an acquirer that takes 20 ms stand between the 202 and the capture.
    assert!(accept < authorized && authorized >= 20.0 && captured >= 40.0 && settled >= 40.0, "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_at_authorization_has_no_stage_of_its_own_for_the_authorization() {
    let (report, document) = run(Load::Rate(20.0), &[("acquirer.capture", "at_authorization")]).await;
    assert!(report.ok, "{}", report.text());
    assert_eq!(document["config"]["capture"], "at_authorization");
    assert_eq!(document["config"]["rate"], 20.0);
    assert!(document["latency_ms"]["accept_to_authorized"].is_null());
    assert!(p50(&document, "accept_to_captured") >= 20.0);
    // The last of five was due after 200 ms, and none was sent early.
    assert!(report.accept_per_s <= 5.0 / 0.2, "{}", report.text());
}
