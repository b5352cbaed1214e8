//! The chaos command itself, for a quarter of a minute: real processes, real servers of its own, real faults.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tolom::{chaos::kind::Kind, workers};

fn tolom(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tolom"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_short_run_breaks_much_and_loses_nothing() {
    let output = tolom(&["chaos", "--minutes", "0.3", "--seed", "7", "--rate", "4", "--json"]);
    let told = report(&output);
    let pretty = serde_json::to_string_pretty(&told).unwrap();
    assert!(output.status.success(), "{pretty}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told["ok"], true, "{pretty}");
    assert_eq!(told["lost"], Value::Array(Vec::new()), "{pretty}");
    assert_eq!(told["charged_twice"], Value::Array(Vec::new()), "{pretty}");
    let faults: u64 = told["faults"].as_array().unwrap().iter().filter_map(|line| line["count"].as_u64()).sum();
    assert!(faults >= 5, "{pretty}");
    assert!(told["accepted"].as_u64().unwrap() > 40, "{pretty}");
    assert!(told["ended"]["captured"].as_u64().unwrap() > 15, "{pretty}");
    for role in workers::ALL {
        let processes = told["processes"].as_array().unwrap();
        assert!(processes.iter().any(|name| name.as_str().unwrap().starts_with(role.name)), "{} runs", role.name);
    }
    std::fs::remove_dir_all(told["logs"].as_str().unwrap()).unwrap();
}

#[test]
fn the_same_seed_is_the_same_plan_and_five_minutes_have_every_kind() {
    let plan = |seed: &str| tolom(&["chaos", "--minutes", "5", "--seed", seed, "--plan", "--json"]);
    let (once, again, other) = (plan("3"), plan("3"), plan("4"));
    assert_eq!(once.stdout, again.stdout);
    assert_ne!(once.stdout, other.stdout);
    let faults = report(&once);
    let faults = faults.as_array().unwrap();
    assert!(faults.len() >= 100);
    for kind in Kind::ALL {
        let word = serde_json::to_value(kind).unwrap();
        assert!(faults.iter().any(|fault| fault["kind"] == word), "{word}");
    }
}

#[test]
fn servers_of_others_are_never_broken() {
    for arguments in [
        ["chaos", "--set", "database.url=postgres://somebody/else"],
        ["chaos", "--set", "broker.url_file=/etc/hostname"],
        ["chaos", "--config", "tolom.toml"],
    ] {
        assert_eq!(tolom(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}
