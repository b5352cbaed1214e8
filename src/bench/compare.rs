//! Two reports beside each other.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::spread::figures;

/// What has to be the same for two reports to mean anything beside each other.
const SETUP: [&str; 10] = [
    "capture",
    "topology",
    "profile",
    "cpus",
    "rate",
    "concurrency",
    "acquirer_latency",
    "fault_rate",
    "database.version",
    "broker.version",
];
/// The figures that are compared: these, and all that begin so.
const COMPARED: [&str; 9] = [
    "end_to_end_payments_per_s",
    "accept_per_s",
    "share",
    "quiet_after_s",
    "latency_ms.",
    "ceiling.",
    "cpu_ms_per_payment.",
    "peak_memory_mb.",
    "per_payment.",
];

/// A figure of two reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Of the first.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// The second's by the first's; none by nothing.
    pub ratio: Option<f64>,
}

/// Two reports beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What differs in how they were measured, in words.
    pub warnings: Vec<String>,
    /// The figures that both have, by their path.
    pub figures: BTreeMap<String, Compared>,
}

/// Compares two reports, as `bench --json` prints them.
///
/// # Errors
/// Says which of them is none.
pub fn compare(a: &Value, b: &Value) -> Result<Comparison, String> {
    for (name, report) in [("first", a), ("second", b)] {
        let is_report = report["end_to_end_payments_per_s"].is_number() && report["config"].is_object();
        is_report.then_some(()).ok_or_else(|| format!("the {name} file is no report of `tolom bench --json`"))?;
    }
    let setting = |report: &Value, key: &str| {
        let found = report.pointer(&format!("/config/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        found.as_str().map_or_else(|| found.to_string(), str::to_owned)
    };
    let differs = |key: &&str| {
        let (a, b) = (setting(a, key), setting(b, key));
        (a != b).then(|| format!("{key} differs: {a} and {b}"))
    };
    let mut warnings: Vec<String> = SETUP.iter().filter_map(differs).collect();
    for (name, report) in [("first", a), ("second", b)] {
        if report["ok"] != true {
            warnings.push(format!("the {name} run was not well: its figures are worth nothing"));
        }
    }
    let (of_a, of_b) = (figures(a), figures(b));
    let compared =
        |path: &String| COMPARED.iter().any(|known| path == known || (known.ends_with('.') && path.starts_with(known)));
    let both = of_a.into_iter().filter(|(path, _)| compared(path)).filter_map(|(path, a)| {
        let b = *of_b.get(&path)?;
        Some((path, Compared { a, b, ratio: (a != 0.0).then(|| b / a) }))
    });
    Ok(Comparison { warnings, figures: both.collect() })
}

impl Comparison {
    /// The table for people.
    pub fn text(&self) -> String {
        let mut text: String = self.warnings.iter().map(|warning| format!("  ! {warning}\n")).collect();
        text.push_str(&format!("  {:<44} {:>12} {:>12} {:>8}\n", "", "A", "B", "B/A"));
        for (path, Compared { a, b, ratio }) in &self.figures {
            let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            text.push_str(&format!("  {path:<44} {a:>12.3} {b:>12.3} {ratio:>8}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_stand_beside_each_other_and_what_makes_them_incomparable_is_told() {
        let report = |rate: f64, capture: &str, p50: Option<f64>| {
            json!({ "ok": true, "end_to_end_payments_per_s": rate, "payments": 5, "share": 0.0,
                    "latency_ms": { "accept": { "p50": p50 } }, "config": { "capture": capture, "cpus": 2 } })
        };
        let compared = compare(&report(100.0, "a", Some(2.0)), &report(150.0, "b", Some(1.0))).unwrap();
        assert_eq!(compared.warnings, ["capture differs: a and b"]);
        assert_eq!(compared.figures["end_to_end_payments_per_s"].ratio, Some(1.5));
        assert_eq!(compared.figures["latency_ms.accept.p50"].ratio, Some(0.5));
        assert_eq!(compared.figures["share"].ratio, None);
        assert!(!compared.figures.contains_key("payments"));
        let without = compare(&report(100.0, "a", None), &report(150.0, "a", Some(1.0))).unwrap();
        assert!(without.warnings.is_empty() && !without.figures.contains_key("latency_ms.accept.p50"));
        assert!(compare(&json!({}), &report(1.0, "a", None)).unwrap_err().contains("first"));
    }
}
