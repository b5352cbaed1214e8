//! The benchmark measures a pipeline that keeps its promises, and tells in the words that scripts read.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tolom::workers;

use super::support::services::services;

/// `tolom bench` with these arguments, on the tests' servers.
async fn bench(arguments: &[&str]) -> Output {
    let services = services().await;
    let set = [format!("database.url={}", services.database_url), format!("broker.url={}", services.amqp_url)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tolom"));
    command.arg("bench").args(arguments).args(["--set", &set[0], "--set", &set[1]]).stdin(Stdio::null());
    // What is in the environment is told to the roles too, and nothing else is.
    command.env("TOLOM_RECORD__BATCH", "50");
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn report(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat()).await;
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert!(output.status.success() && report["ok"] == true, "{report:#}\n{told}");
    assert_eq!(report["verify"]["ok"], true);
    report
}

/// The percentiles of a stage rise.
fn p50(report: &Value, stage: &str) -> f64 {
    let value = |name: &str| report["latency_ms"][stage][name].as_f64().unwrap_or_else(|| panic!("{stage}.{name}"));
    let all = ["p50", "p95", "p99", "max"].map(value);
    assert!(all.is_sorted() && all[0] > 0.0, "{stage}: {all:?}");
    all[0]
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// Every part has a figure, and together they are the total.
fn assert_parts(report: &Value, roles: &[&str]) {
    let parts = [roles, &["simulator", "load", "broker", "database"]].concat();
    let cpu = report["cpu_ms_per_payment"].as_object().unwrap();
    assert_eq!(cpu.len(), parts.len() + 1, "{report:#}");
    // Servers of another machine cannot be seen; these are here.
    let sum: f64 = parts.iter().map(|part| number(report, &format!("/cpu_ms_per_payment/{part}"))).sum();
    assert!((sum - number(report, "/cpu_ms_per_payment/total")).abs() < 1e-6 && sum > 0.0, "{report:#}");
    for part in parts {
        let memory = ["/memory_mb/start", "/memory_mb/end", "/peak_memory_mb"];
        assert!(memory.iter().all(|memory| number(report, &format!("{memory}/{part}")) > 1.0), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_a_role_is_measured_from_the_post_to_finance_and_every_rule_is_kept() {
    let arguments = ["--payments", "10", "--concurrency", "3", "--acquirer-latency", "20", "--ceiling", "0.2"];
    let report = report(&[&arguments[..], &["--runs", "2"]].concat()).await;
    assert_eq!((&report["payments"], &report["accepted"], &report["failed"]), (&20.into(), &20.into(), &0.into()));
    assert_eq!(report["outcomes"]["captured"], 20);
    assert_eq!(report["config"]["capture"], "after_recording");
    assert_eq!(report["config"]["topology"], "processes");
    assert!(number(&report, "/accept_per_s") >= number(&report, "/end_to_end_payments_per_s"));
    let (accept, authorized) = (p50(&report, "accept"), p50(&report, "accept_to_authorized"));
    let (recorded, settled) = (p50(&report, "accept_to_recorded"), p50(&report, "accept_to_settlement"));
    // Two calls to an acquirer that takes 20 ms stand between the 202 and the settlement entry.
    assert!(accept < authorized && authorized >= 20.0 && recorded >= authorized && settled >= 40.0, "{report:#}");
    let roles: Vec<&str> = ["intake"].into_iter().chain(workers::ALL.map(|role| role.name)).collect();
    assert_parts(&report, &roles);
    // Requested, completed, authorized, completed, captured, settlement entry.
    assert_eq!(number(&report, "/per_payment/messages"), 6.0);
    assert!(number(&report, "/per_payment/commits") >= 1.0 && number(&report, "/per_payment/wal_bytes") > 1_000.0);
    for figure in ["quorum_messages_per_s", "batched_rows_per_s", "single_commits_per_s", "single_confirm_ms/p50"] {
        assert!(number(&report, &format!("/ceiling/{figure}")) > 0.0);
    }
    let [least, most] = ["0", "1"].map(|end| number(&report, &format!("/range/share/{end}")));
    assert!(least > 0.0 && (least..=most).contains(&number(&report, "/share")), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_for_all_roles_takes_payments_on_schedule_and_bears_answers_that_go_wrong() {
    let arguments = ["--payments", "10", "--rate", "20", "--topology", "one", "--ceiling", "0", "--fault-rate", "0.3"];
    let setting = ["--set", "acquirer.capture=at_authorization", "--acquirer-latency", "exp:10"];
    let report = report(&[&arguments[..], &setting].concat()).await;
    assert_eq!(report["config"]["capture"], "at_authorization");
    assert_eq!(report["config"]["topology"], "one");
    assert_eq!(report["config"]["rate"], 20.0);
    assert_eq!(report["config"]["acquirer_latency"], "exp:10");
    assert!(report["ceiling"].is_null() && report["share"].is_null());
    assert_parts(&report, &["all"]);
    // The last of ten was due after 450 ms, and none was sent early.
    assert!(number(&report, "/accept_per_s") <= 10.0 / 0.45, "{report:#}");
    assert!(p50(&report, "accept_to_settlement") > p50(&report, "accept"));
}

#[test]
fn reports_are_compared_and_what_is_none_is_refused() {
    let folder = std::env::temp_dir().join(format!("tolom-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let report = |rate: f64, topology: &str| {
        format!(r#"{{"ok": true, "end_to_end_payments_per_s": {rate}, "config": {{"topology": "{topology}"}}}}"#)
    };
    let (a, b) = (write("a.json", &report(100.0, "one")), write("b.json", &report(250.0, "processes")));
    let none = write("none.json", "{}");
    let tolom = |b: &std::path::Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tolom"));
        command.args(["bench", "compare"]).args([&a, b]).args(more).output().unwrap()
    };
    let compared = tolom(&b, &["--json"]);
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!(compared["figures"]["end_to_end_payments_per_s"]["ratio"], 2.5);
    assert_eq!(compared["warnings"][0], "topology differs: one and processes");
    let text = String::from_utf8(tolom(&b, &[]).stdout).unwrap();
    assert!(text.contains("end_to_end_payments_per_s") && text.contains("2.500"), "{text}");
    assert_eq!(tolom(&none, &[]).status.code(), Some(2));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_a_year_behind_it_and_a_backlog_beside_it_is_measured_and_keeps_every_rule() {
    let grown = ["--private", "--grown", "3000", "--backlog", "2500", "--dead-letters", "1200"];
    let report = report(&[&grown[..], &["--payments", "10", "--concurrency", "3", "--ceiling", "0"]].concat()).await;
    assert_eq!(report["outcomes"]["captured"], 10);
    let shown = &report["config"]["grown"];
    assert_eq!(
        (&shown["payments"], &shown["backlog"], &shown["dead_letters"]),
        (&3000.into(), &2500.into(), &1200.into())
    );
    assert!(number(&report, "/config/grown/database_bytes") > 10e6, "{report:#}");
    let findings = &report["verify"]["findings"];
    // Twice each bill and each captured payment, at least.
    assert!(number(findings, "/1/checked") > 6_000.0, "{findings:#}");
    assert!(
        findings[7]["notes"][0].as_str().unwrap().starts_with("1200 dead letters of tolom.receipt"),
        "{findings:#}"
    );
    // The run's own payments alone are measured: the messages of each, and no receipt of the backlog.
    assert_eq!(number(&report, "/per_payment/messages"), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_servers_are_filled() {
    for (arguments, named) in [
        (&["--grown", "1000"][..], "--private"),
        (&["--private", "--backlog", "10"], "--grown"),
        (&["--private", "--dead-letters", "10"], "--grown"),
        (&["--private", "--grown", "0"], "--grown"),
        (&["--private", "--grown", "60000000"], "--grown"),
    ] {
        let refused = bench(arguments).await;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && told.contains(named), "{arguments:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_and_comes_back_costs_time_and_no_payment() {
    let load = ["--private", "--rate", "8", "--seconds", "12", "--outage", "6", "--ceiling", "0"];
    let report = report(&load).await;
    assert_eq!((&report["payments"], &report["outcomes"]["captured"]), (&96.into(), &96.into()));
    assert_eq!(report["config"]["outage_s"], 6);
    let outage = |figure: &str| number(&report, &format!("/outage/{figure}"));
    // A third of the payments are due before it goes.
    assert!(outage("began_s") >= 4.0 && outage("seconds") >= 6.0, "{report:#}");
    assert!(outage("offered_meanwhile") >= 47.0 && outage("lost") == 0.0 && outage("refused") == 0.0, "{report:#}");
    assert_eq!(outage("accepted_meanwhile"), outage("offered_meanwhile"));
    // Who paid right after it went waited for its return; all of those were let through afterwards.
    assert!(outage("longest_wait_s") > 5.0 && outage("backlog") >= 40.0, "{report:#}");
    let rate = outage("payments_per_s") * outage("gone_after_s");
    assert!(outage("gone_after_s") > 0.0 && rate.round() >= outage("backlog"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_broker_is_stopped_and_no_outage_outlasts_the_payments() {
    for (arguments, named) in [
        (&["--rate", "5", "--seconds", "20", "--outage", "5"][..], "--private"),
        (&["--private", "--seconds", "20", "--outage", "5"], "--rate"),
        (&["--private", "--rate", "5", "--seconds", "20", "--outage", "15"], "--outage"),
        (&["--private", "--rate", "5", "--seconds", "20", "--outage", "0"], "--outage"),
        (&["--private", "--rate", "5", "--seconds", "20", "--outage", "5", "--runs", "2"], "--runs"),
    ] {
        let refused = bench(arguments).await;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && told.contains(named), "{arguments:?}: {told}");
    }
}
