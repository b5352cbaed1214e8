//! The house rules, read from the `use` lines: imports point one way, and vendor crates stay home.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tolom::workers;

/// Which modules a module of the library may import; itself always. What is not listed may import anything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("payment", &[]),
    ("chain", &[]),
    ("clock", &[]),
    ("config", &["payment", "clock"]),
    ("contracts", &["payment"]),
    ("live", &["contracts"]),
    ("store", &["payment", "contracts", "clock", "config"]),
    ("supervision", &[]),
    ("broker", &["payment", "contracts", "clock", "config", "live", "supervision"]),
    ("acquirer", &["chain", "payment", "contracts", "clock", "config"]),
    ("notify", &["payment", "contracts", "clock", "config", "store"]),
    ("sealing", &["payment", "clock", "config", "store"]),
    ("relay", &["broker", "contracts", "store", "supervision"]),
    ("telemetry", &["config", "contracts"]),
    (
        "worker",
        &["acquirer", "broker", "chain", "clock", "config", "contracts", "payment", "relay", "store", "supervision"],
    ),
    (
        "workers",
        &[
            "acquirer",
            "broker",
            "chain",
            "clock",
            "config",
            "contracts",
            "notify",
            "payment",
            "relay",
            "sealing",
            "store",
            "worker",
        ],
    ),
    (
        "intake",
        &[
            "clock",
            "config",
            "contracts",
            "live",
            "notify",
            "payment",
            "relay",
            "sealing",
            "store",
            "bills_csv",
            "supervision",
        ],
    ),
];

/// Vendor crates and the modules they may be named in.
const AT_HOME: &[(&str, &[&str])] = &[
    // The services finder asks servers whether they are usable, before there is any broker or store to ask; telemetry
    // names the crate whose logs it silences.
    ("lapin", &["broker", "services", "telemetry"]),
    (
        "sqlx",
        &[
            "store",
            "services",
            "app",
            "worker",
            "relay",
            "intake",
            "sealing",
            "verify",
            "cli",
            "stage",
            "bills_csv",
            "chaos",
        ],
    ),
    ("reqwest", &["acquirer", "notify", "payer"]),
    ("lettre", &["notify"]),
    ("axum", &["intake", "simulator", "mail_catcher", "app"]),
    ("figment", &["config"]),
    ("backoff", &["acquirer"]),
    ("p256", &["sealing", "payer"]),
    ("aws_lc_rs", &["sealing"]),
    ("tikv_jemallocator", &["main"]),
];

/// The Rust files in a folder.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// (file, module, code without comments and unit tests)
fn library() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["src", "workers"] {
        for file in sources(&root.join(folder)) {
            let inside = file.strip_prefix(root.join(folder)).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = if folder == "workers" { "workers" } else { first.trim_end_matches(".rs") };
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code: String = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| format!("{line}\n"))
                .collect();
            all.push((file.strip_prefix(root).unwrap().to_owned(), module.to_owned(), code));
        }
    }
    all
}

/// The modules of this crate that a code names: `crate::x`, and the first names of `use crate::{ ... }`.
fn imports(code: &str) -> Vec<String> {
    named(code, "crate::")
}

/// What a code names in this place, alone or in a group.
fn named(code: &str, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(place) {
        rest = &rest[at + place.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut top) = (0, String::new(), true);
            for char in group.chars() {
                let in_word = char.is_alphanumeric() || char == '_';
                match char {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => top = true,
                    _ if depth == 0 && top && in_word => word.push(char),
                    _ => {}
                }
                if !in_word && !word.is_empty() {
                    found.push(std::mem::take(&mut word));
                    top = char == ',' && depth == 0;
                }
            }
            found.extend((!word.is_empty()).then_some(word));
        } else {
            found.push(rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect());
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let mut broken = Vec::new();
    for (file, module, code) in library() {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else { continue };
        for import in imports(&code) {
            if import != module && !allowed.contains(&import.as_str()) {
                broken.push(format!("{}: `{module}` may import {allowed:?}, not `{import}`", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn vendor_crates_stay_home() {
    let mut broken = Vec::new();
    for (file, module, code) in library() {
        for (vendor, homes) in AT_HOME {
            let named = code.contains(&format!("{vendor}::")) || code.contains(&format!("use {vendor}"));
            if named && !homes.contains(&module.as_str()) {
                broken.push(format!("{}: `{vendor}` lives in {homes:?}, not in `{module}`", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn workers_do_not_know_each_other() {
    for (file, module, code) in library() {
        if module == "workers" && !file.ends_with("mod.rs") {
            let names = ["workers::", "super::"].into_iter().flat_map(|place| named(&code, place));
            for name in names {
                assert!(workers::ALL.iter().all(|role| role.name != name), "{} names {name}", file.display());
            }
        }
    }
}

#[test]
fn the_reader_of_imports_sees_through_groups() {
    assert_eq!(imports("use crate::{\n a::{b, c},\n d,\n};\nlet x = crate::e::f();"), ["a", "d", "e"]);
    assert_eq!(named("use super::{a, b::C};\nsuper::d::e()", "super::"), ["a", "b", "d"]);
}
