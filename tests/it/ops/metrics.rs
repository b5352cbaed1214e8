//! Dashboards and alert rules against the metrics that exist. Syntax and behaviour of the rules are `promtool`'s to
//! check; here it is that they ask for something that is there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{text, words, yaml};

/// Every metric that may be asked for, with its labels.
const METRICS: [(&str, Kind, &[&str]); 35] = [
    ("tolom_payments_total", Kind::Single, &["outcome"]),
    ("tolom_operation_duration_seconds", Kind::Histogram, &["acquirer", "kind", "outcome"]),
    ("tolom_acquirer_circuit_open", Kind::Single, &["acquirer"]),
    ("tolom_acquirer_circuit_opened_total", Kind::Single, &["acquirer"]),
    ("tolom_worker_messages_total", Kind::Single, &["queue", "result"]),
    ("tolom_worker_duration_seconds", Kind::Histogram, &["queue"]),
    ("tolom_worker_in_flight", Kind::Single, &["queue"]),
    ("tolom_worker_panics_total", Kind::Single, &["worker"]),
    ("tolom_consumers_alive", Kind::Single, &["queue"]),
    ("tolom_consumer_rebuilds_total", Kind::Single, &["queue", "reason"]),
    ("tolom_requests_shed_total", Kind::Single, &["reason"]),
    ("tolom_limited_total", Kind::Single, &["by", "what"]),
    ("tolom_limits_shut", Kind::Single, &["by"]),
    ("tolom_queue_messages", Kind::Single, &["queue"]),
    ("tolom_dead_letters", Kind::Single, &["queue"]),
    ("tolom_parked_dead_letters", Kind::Single, &["queue"]),
    ("tolom_dead_letters_parked_total", Kind::Single, &["queue"]),
    ("tolom_outbox_rows", Kind::Single, &[]),
    ("tolom_outbox_oldest_age_seconds", Kind::Single, &[]),
    ("tolom_oldest_unknown_age_seconds", Kind::Single, &[]),
    ("tolom_payments_in_review", Kind::Single, &[]),
    ("tolom_receipts_total", Kind::Single, &["result"]),
    ("tolom_notices_total", Kind::Single, &["kind", "result"]),
    ("tolom_sms_total", Kind::Single, &["result"]),
    ("tolom_http_requests_total", Kind::Single, &["route", "method", "status"]),
    ("tolom_http_request_duration_seconds", Kind::Histogram, &["route", "method"]),
    ("tolom_stage_duration_seconds", Kind::Histogram, &["stage"]),
    ("tolom_published_messages_total", Kind::Single, &["result"]),
    ("tolom_broker_blocked", Kind::Single, &[]),
    ("tolom_captured_minor", Kind::Single, &["source", "currency"]),
    ("tolom_conservation_difference_minor", Kind::Single, &["currency"]),
    ("tolom_bills_paid_twice", Kind::Single, &[]),
    // Not ours: Prometheus's own, and RabbitMQ's plugin.
    ("up", Kind::Single, &[]),
    ("rabbitmq_alarms_memory_used_watermark", Kind::Single, &[]),
    ("rabbitmq_alarms_free_disk_space_watermark", Kind::Single, &[]),
];

/// What the scrape adds to every series.
const SCRAPE_LABELS: [&str; 3] = ["job", "instance", "role"];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One series a label set: a counter or a gauge.
    Single,
    /// `_bucket`, `_sum` and `_count`, the first with `le`.
    Histogram,
}

/// The labels of a series name, if there is such a series.
fn labels_of(series: &str) -> Option<Vec<&'static str>> {
    METRICS.iter().find_map(|(name, kind, labels)| {
        let mut labels = labels.to_vec();
        match kind {
            Kind::Single => (*name == series).then_some(labels),
            Kind::Histogram => {
                let part = series.strip_prefix(name)?;
                if part == "_bucket" {
                    labels.push("le");
                }
                ["_bucket", "_sum", "_count"].contains(&part).then_some(labels)
            }
        }
    })
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
    for (name, ..) in METRICS.iter().filter(|(name, ..)| name.starts_with("tolom_")) {
        assert!(asked.contains(name), "no panel shows {name}");
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
