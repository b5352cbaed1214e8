//! What operators start, scrape and look at names only commands, settings, ports, files and metrics that exist.

mod compose;
mod metrics;

use std::{fs, path::PathBuf};

use serde_json::Value;

/// A file of this repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// YAML with its anchors and merge keys resolved.
fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The texts of a list; a single text is a list of one.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().map(|item| item.as_str().expect("a text")).collect(),
        _ => Vec::new(),
    }
}
