//! Runs a script of `tests/browser/walks` in Node.js, with Chromium and the libraries it needs.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};
use tolom::services::ensure_packages;

/// What must be there, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 3] = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];

/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(600);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the scripts' libraries are; installed once, as `package-lock.json` says.
async fn libraries() -> &'static PathBuf {
    static LIBRARIES: OnceCell<PathBuf> = OnceCell::const_new();
    LIBRARIES.get_or_init(install).await
}

async fn install() -> PathBuf {
    ensure_packages(&PROGRAMS, |step| eprintln!("{step}")).await.unwrap_or_else(|error| panic!("{error}"));
    let folder = root().join("target/browser");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::read_to_string(root().join("tests/browser/package-lock.json")).unwrap();
    // Written last, so that half an installation is done again.
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|of| of == lock) {
        return folder;
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(root().join("tests/browser").join(file), folder.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).stdin(Stdio::null());
    let output = npm.kill_on_drop(true).output().await.expect("npm runs");
    assert!(output.status.success(), "npm ci in {}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    std::fs::write(installed, lock).unwrap();
    folder
}

/// Where a program is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is in no folder of PATH"))
}

/// Runs a script to its end. `stage` is told to it, besides where it finds things and keeps its pictures.
///
/// # Panics
/// If a walk fails, with what the script said.
pub(super) async fn walk(script: &str, mut stage: Value) {
    stage["libraries"] = libraries().await.to_str().unwrap().into();
    stage["chromium"] = program("chromium").to_str().unwrap().into();
    stage["screenshots"] = root().join("target/screenshots").to_str().unwrap().into();
    let mut node = Command::new("node");
    // One walk of many, for who mends a page: TOLOM_WALKS='en: the keyboard'
    let only = std::env::var("TOLOM_WALKS").unwrap_or_else(|_| ".".to_owned());
    node.args(["--test-reporter=spec", "--test-name-pattern", &only])
        .arg(root().join("tests/browser/walks").join(script))
        .env("TOLOM_BROWSER_STAGE", stage.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(LONGEST, node.output()).await.expect("the walks end in time");
    let output = ended.expect("node runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}");
    println!("{said}");
}
