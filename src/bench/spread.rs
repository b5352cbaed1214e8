//! Many runs as one: the median of each figure, and how far it ranged.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The smallest and the greatest value of each figure, by its path (`latency_ms.accept.p50`).
pub type Range = BTreeMap<String, [f64; 2]>;

/// A document of the same shape with the median of each number. A figure that a run lacks is not in its median; of
/// anything but numbers, the first run's stands.
pub(super) fn medians(runs: &[Value]) -> Value {
    match runs.iter().find(|value| !value.is_null()) {
        None => Value::Null,
        Some(Value::Object(first)) => {
            let member = |key: &String| {
                let values: Vec<Value> = runs.iter().filter_map(|run| run.get(key)).cloned().collect();
                (key.clone(), medians(&values))
            };
            Value::Object(first.keys().map(member).collect::<Map<_, _>>())
        }
        Some(Value::Number(first)) => {
            let mut numbers: Vec<f64> = runs.iter().filter_map(Value::as_f64).collect();
            // More digits than these are noise.
            let median = (median(&mut numbers) * 1e6).round() / 1e6;
            // A count stays one.
            if first.is_f64() { median.into() } else { (median.round() as i64).into() }
        }
        Some(other) => other.clone(),
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 }
}

/// How far each figure ranged.
pub(super) fn range(runs: &[Value]) -> Range {
    let mut range = Range::new();
    for run in runs {
        for (path, number) in figures(run) {
            let [least, most] = range.entry(path).or_insert([number; 2]);
            (*least, *most) = (least.min(number), most.max(number));
        }
    }
    range
}

/// Every number of a document, by its path.
pub(super) fn figures(document: &Value) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    collect("", document, &mut found);
    found
}

fn collect(path: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(members) => {
            let dot = if path.is_empty() { "" } else { "." };
            members.iter().for_each(|(key, value)| collect(&format!("{path}{dot}{key}"), value, found));
        }
        value => drop(value.as_f64().map(|number| found.insert(path.to_owned(), number))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn medians_and_ranges_are_taken_figure_by_figure() {
        let run = |rate: f64, p50: f64, statements: Option<f64>| json!({ "rate": rate, "latency": { "p50": p50 }, "statements": statements, "queues": 2, "word": "x" });
        let runs = [run(3.0, 1.0, Some(7.0)), run(1.0, 9.0, None), run(2.0, 4.0, Some(5.0))];
        let expected = json!({ "rate": 2.0, "latency": { "p50": 4.0 }, "statements": 6.0, "queues": 2, "word": "x" });
        assert_eq!(medians(&runs), expected);
        let range = range(&runs);
        assert_eq!(range["rate"], [1.0, 3.0]);
        assert_eq!(range["latency.p50"], [1.0, 9.0]);
        assert_eq!(range["statements"], [5.0, 7.0]);
        assert!(!range.contains_key("word"));
    }
}
