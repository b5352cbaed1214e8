//! The command line as scripts use it: exit status and JSON, of what goes wrong too.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::support::world::World;

/// What a command came to.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) json: Value,
    pub(crate) errors: String,
}

/// Runs `tolom ... --json` on the world's database and broker.
pub(crate) async fn tolom(world: &World, arguments: &[&str]) -> Ended {
    let config = &world.config;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tolom"))
        // The test's own, and no setting.
        .env_remove("TOLOM_TEST_POISON")
        .args(arguments)
        .arg("--json")
        .arg("--set")
        .arg(format!("database.url={}", config.database.url.expose()))
        .arg("--set")
        .arg(format!("broker.url={}", config.broker.url.expose()))
        .arg("--set")
        .arg(format!("broker.prefix={}", config.broker.prefix))
        .arg("--set")
        .arg(format!("broker.retry_delays_ms={:?}", config.broker.retry_delays_ms))
        .env("TOLOM_LOG__FILTER", "error")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    Ended {
        status: output.status.code().unwrap(),
        json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ended {
    /// The JSON, of a command that exited with this.
    pub(crate) fn with(self, status: i32) -> Value {
        assert_eq!(self.status, status, "{} {}", self.json, self.errors);
        self.json
    }
}

/// Imports these lines, below a header, for an agency.
async fn import(world: &World, agency: &str, lines: &str, more: &[&str]) -> Ended {
    // It goes with the world.
    let folder = Path::new(&world.config.sealing.keys_dir);
    fs::create_dir_all(folder).unwrap();
    let file = folder.join("bills.csv");
    fs::write(&file, format!("code,applicant,amount,valid_until\n{lines}")).unwrap();
    let arguments = ["bills", "import", file.to_str().unwrap(), "--agency", agency];
    tolom(world, &[&arguments, more].concat()).await
}

const GOOD: &str = "1100000001,Aibek Asanov,510.00,2099-12-31\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_tells_scripts_and_people_why() {
    let world = World::prepared(|_| ()).await;
    let added = ["clients", "add", "passports", "--kind", "agency", "--name", "Passport agency"];
    assert!(tolom(&world, &added).await.with(0)["token"].is_string());

    let faulty = import(&world, "passports", &format!("{GOOD}1100000002,,1.00,soon\n"), &[]).await.with(1);
    let fault = |column: &str, what: &str| json!({ "line": 3, "column": column, "what": what });
    let faults = [
        fault("applicant", "1 to 200 characters are wanted"),
        fault("valid_until", "a time (RFC 3339) or a day (YYYY-MM-DD) is wanted"),
    ];
    assert_eq!(faulty, json!({ "error": "nothing was imported", "faults": faults, "more": 0 }));

    let nobody = import(&world, "nobody", GOOD, &[]).await.with(1);
    assert_eq!(nobody, json!({ "error": "there is no agency `nobody`" }));

    world.take_database_away().await;
    let away = import(&world, "passports", GOOD, &[]).await;
    world.give_database_back().await;
    assert!(away.errors.contains("the bills cannot be written: "), "the cause is told: {}", away.errors);
    let told = away.errors.trim().strip_prefix("tolom: ").unwrap().to_owned();
    assert_eq!(away.with(1), json!({ "error": told }));

    let report = import(&world, "passports", GOOD, &[]).await.with(0);
    assert_eq!(report, json!({ "rows": 1, "issued": 1, "changed": 0, "unchanged": 0 }));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_status_2_and_what_is_not_there_1_and_both_are_json() {
    let world = World::prepared(|_| ()).await;
    let unusable: [&[&str]; 4] = [
        &["bills", "import", "/no/such/file.csv", "--agency", "passports"],
        &["bench", "compare", "/no/such/file.json", "/no/such/file.json"],
        &["worker", "juggler"],
        &["config", "check", "--set", "record.batch=-1"],
    ];
    for arguments in unusable {
        let told = tolom(&world, arguments).await;
        assert!(told.json["error"].is_string() && told.errors.starts_with("tolom: "), "{arguments:?}: {}", told.errors);
        told.with(2);
    }
    let folder = format!("sealing.keys_dir={}", world.config.sealing.keys_dir);
    let made = tolom(&world, &["keys", "new", "--set", &folder]).await.with(0);
    let kid = made["kid"].as_str().unwrap();
    assert_eq!(tolom(&world, &["keys", "retire", kid]).await.with(0), json!({ "retired": kid }));
    let absent: [(&[&str], &str); 2] = [
        (&["keys", "retire", "nokey"], "there is no key nokey"),
        (&["dead", "show", "7"], "there is no dead letter 7"),
    ];
    for (arguments, why) in absent {
        assert_eq!(tolom(&world, arguments).await.with(1), json!({ "error": why }), "{arguments:?}");
    }
    world.finish().await;
}
