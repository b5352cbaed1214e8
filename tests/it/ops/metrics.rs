//! Dashboards and alert rules against the metrics that exist, the list of those against the code, and what the rules do by
//! `promtool`.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use tolom::{
    services::ensure_packages,
    telemetry::{Kind, METRICS, Metric},
};

use super::{path, text, words, yaml};
use crate::architecture::sources;

/// What may be asked for and is not ours: Prometheus's own, and RabbitMQ's plugin.
const FOREIGN: [&str; 3] = ["up", "rabbitmq_alarms_memory_used_watermark", "rabbitmq_alarms_free_disk_space_watermark"];

/// What the scrape adds to every series.
const SCRAPE_LABELS: [&str; 3] = ["job", "instance", "role"];

/// The labels of a series name, if there is such a series.
fn labels_of(series: &str) -> Option<Vec<&'static str>> {
    let ours = METRICS.iter().find_map(|metric| {
        let part = series.strip_prefix(metric.name)?;
        match (metric.kind, part) {
            (Kind::Counter | Kind::Gauge, "") | (Kind::Histogram, "_sum" | "_count") => Some(metric.labels.to_vec()),
            (Kind::Histogram, "_bucket") => Some([metric.labels, &["le"]].concat()),
            _ => None,
        }
    });
    ours.or_else(|| FOREIGN.contains(&series).then(Vec::new))
}

/// The series and the labels that a PromQL expression mentions.
#[derive(Debug, Default, PartialEq)]
struct Mentioned {
    series: BTreeSet<String>,
    labels: BTreeSet<String>,
}

const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// Reads as much PromQL as it takes to tell series from labels, functions and operators.
fn mentioned(expression: &str) -> Mentioned {
    let mut found = Mentioned::default();
    let mut rest = expression;
    let mut grouping = false;
    let mut in_labels = false;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            // First: a label may be called `by`.
            if in_labels {
                found.labels.insert(word.to_owned());
            } else if GROUPINGS.contains(&word) {
                grouping = true;
            } else if !OPERATORS.contains(&word) && !after.trim_start().starts_with('(') {
                // A function or an aggregation stands before a bracket, or before `by (...)`.
                if !GROUPINGS.iter().any(|word| after.trim_start().starts_with(&format!("{word} ("))) {
                    found.series.insert(word.to_owned());
                }
            }
            continue;
        }
        let skip = match first {
            '"' => 2 + rest[1..].find('"').expect("a closed text"),
            '[' => 1 + rest.find(']').expect("a closed range"),
            // Numbers and durations.
            '0'..='9' => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        match first {
            '{' => in_labels = true,
            '(' if grouping => (in_labels, grouping) = (true, false),
            '}' | ')' => in_labels = false,
            _ => {}
        }
        rest = &rest[skip..];
    }
    found
}

fn check(place: &str, expression: &str) {
    let found = mentioned(expression);
    assert!(!found.series.is_empty(), "{place} asks for nothing: {expression}");
    let mut known: Vec<&str> = SCRAPE_LABELS.to_vec();
    for series in &found.series {
        known.extend(labels_of(series).unwrap_or_else(|| panic!("{place}: there is no series `{series}`")));
    }
    for label in &found.labels {
        assert!(known.contains(&label.as_str()), "{place}: no series in `{expression}` has the label `{label}`");
    }
}

#[test]
fn series_and_labels_are_told_from_functions_and_operators() {
    let found = mentioned(
        r#"histogram_quantile(0.9, sum by (le, a) (rate(x_bucket{b="by (c)"}[$__rate_interval]))) > 5m
           and on (d) max(y) unless sum(z offset 5m) by (e) or absent(w)"#,
    );
    assert_eq!(found.series.into_iter().collect::<Vec<_>>(), ["w", "x_bucket", "y", "z"]);
    assert_eq!(found.labels.into_iter().collect::<Vec<_>>(), ["a", "b", "d", "e", "le"]);
}

#[test]
fn every_panel_asks_for_metrics_and_labels_that_exist() {
    let dashboard: Value = serde_json::from_str(&text("ops/grafana/dashboards/tolom.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = String::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "prometheus", "{title}");
        assert!(panel["description"].is_string(), "{title} does not say what it shows");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            check(title, expression);
            asked.push_str(expression);
        }
    }
    for metric in METRICS {
        assert!(asked.contains(metric.name), "no panel shows {}", metric.name);
    }
    let source = yaml("ops/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["uid"], "prometheus");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels share an id");
}

#[test]
fn every_alert_asks_for_what_exists_says_what_to_do_and_is_tested() {
    let tests = text("ops/prometheus/alerts_test.yml");
    let rules = yaml("ops/prometheus/alerts.yml");
    let groups = rules["groups"].as_array().unwrap();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        check(name, rule["expr"].as_str().unwrap());
        for annotation in ["summary", "description", "runbook"] {
            let said = rule["annotations"][annotation].as_str().unwrap_or_default();
            assert!(said.ends_with('.'), "{name} has no {annotation} sentence");
        }
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("alertname: {name}\n")), "{name}");
    }
    assert_eq!(words(&yaml("ops/prometheus/alerts_test.yml")["rule_files"]), ["alerts.yml"]);
}

#[test]
fn the_list_of_metrics_is_what_the_code_reports() {
    let mut reported = BTreeSet::new();
    for file in ["src", "workers"].into_iter().flat_map(|folder| sources(&path(folder))) {
        let code = fs::read_to_string(&file).unwrap();
        for (kind, call) in [(Kind::Counter, "counter!("), (Kind::Gauge, "gauge!("), (Kind::Histogram, "histogram!(")] {
            for (at, _) in code.match_indices(&format!("metrics::{call}")) {
                let name = code[at..].split('"').nth(1).unwrap();
                let listed = METRICS.iter().any(|metric| metric.name == name && metric.kind == kind);
                assert!(listed, "{}: no {kind:?} `{name}` is listed in telemetry.rs", file.display());
                reported.insert(name.to_owned());
            }
            let all = code.matches(call).count();
            let spelt =
                code.matches(&format!("metrics::{call}")).count() + code.matches(&format!("describe_{call}")).count();
            assert_eq!(all, spelt, "{}: a {kind:?} that is not written `metrics::{call}`", file.display());
        }
    }
    for Metric { kind, name, .. } in METRICS {
        assert!(reported.contains(name), "nothing reports {name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
    }
    assert_eq!(reported.len(), METRICS.len(), "a metric is listed twice");
}

#[test]
fn a_role_that_is_scraped_is_missed_when_it_is_gone() {
    let rules = text("ops/prometheus/alerts.yml");
    let scrape = yaml("ops/prometheus/prometheus.yml");
    for role in words(&scrape["scrape_configs"][0]["dns_sd_configs"][0]["names"]) {
        assert!(rules.contains(&format!("absent(up{{job=\"tolom\", role=\"{role}\"}})")), "nobody misses {role}");
    }
}

#[tokio::test]
async fn the_rules_do_what_their_tests_say() {
    let programs = [("promtool", "prometheus")];
    ensure_packages(&programs, |step| eprintln!("{step}")).await.unwrap_or_else(|error| panic!("{error}"));
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(path("ops/prometheus")).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&told));
    }
}
