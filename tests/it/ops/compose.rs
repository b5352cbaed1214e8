//! docker-compose.yml and the scrape configuration against the settings and the command line.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tolom::config::Config;
use url::Url;

use super::{path, text, words, yaml};

const SUBCOMMANDS: [&str; 18] = [
    "demo",
    "migrate",
    "intake",
    "worker",
    "all",
    "bills",
    "payment",
    "dead",
    "topology",
    "finance",
    "verify",
    "keys",
    "config",
    "simulator",
    "bench",
    "chaos",
    "mail-catcher",
    "clients",
];
const WORKERS: [&str; 7] = ["authorize", "record", "capture", "receipt", "notice", "resolve", "park"];
/// What runs from our image without an admin port: the outside world's stand-ins.
const STAND_INS: [&str; 2] = ["simulator", "mail"];

fn services() -> Map<String, Value> {
    yaml("docker-compose.yml")["services"].as_object().expect("services").clone()
}

/// Services that run our own binary.
fn ours() -> Vec<(String, Value)> {
    services().into_iter().filter(|(_, service)| service["image"] == "tolom:local").collect()
}

fn runs_once(service: &Value) -> bool {
    service["restart"] == "no"
}

/// `${NAME:-default}` as it is when nobody sets the name.
fn interpolated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').expect("a closed variable");
    let (_, default) = variable.split_once(":-").expect("a default, so that the file works as it is");
    interpolated(&format!("{before}{default}{after}"))
}

/// The settings of a service as dotted keys.
fn settings(service: &Value) -> Vec<(String, String)> {
    let environment = service["environment"].as_object().cloned().unwrap_or_default();
    environment
        .iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("TOLOM_")?.to_lowercase().replace("__", ".");
            Some((key, interpolated(value.as_str().expect("a text"))))
        })
        .collect()
}

fn setting(service: &Value, key: &str) -> Option<String> {
    settings(service).into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn port(listen: &str) -> u16 {
    listen.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {listen}"))
}

#[test]
fn every_service_of_ours_runs_a_command_that_exists() {
    for (name, service) in ours() {
        let command = words(&service["command"]);
        assert!(SUBCOMMANDS.contains(&command[0]), "{name}: {command:?}");
        if command[0] == "worker" {
            assert!(command.len() == 2 && WORKERS.contains(&command[1]), "{name}: {command:?}");
            assert_eq!(name, command[1]);
        }
    }
    let names: BTreeSet<_> = ours().into_iter().map(|(name, _)| name).collect();
    for role in WORKERS.into_iter().chain(["intake", "migrate", "topology", "keys"]).chain(STAND_INS) {
        assert!(names.contains(role), "{role} is missing");
    }
}

#[test]
fn every_setting_given_exists_and_its_value_is_accepted() {
    let defaults = serde_json::to_value(Config::defaults()).unwrap();
    for (name, service) in ours() {
        let given = settings(&service);
        for (key, _) in &given {
            let key = key.strip_suffix("_file").unwrap_or(key);
            let pointer = format!("/{}", key.replace('.', "/"));
            assert!(defaults.pointer(&pointer).is_some(), "{name}: no setting `{key}`");
        }
        let config = Config::load(None, &given).unwrap_or_else(|error| panic!("{name}: {error}"));
        let grace = service["stop_grace_period"].as_str().map(|grace| grace.trim_end_matches('s').parse::<u64>());
        if let Some(grace) = grace {
            assert!(grace.unwrap() > config.shutdown.drain_s, "{name} is killed before it has drained");
        }
    }
}

#[test]
fn every_file_that_is_mounted_copied_or_named_exists() {
    for (name, service) in services() {
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(path(source).exists(), "{name}: {source} does not exist");
                assert!(volume.ends_with(":ro"), "{name} may write {source}");
            } else {
                assert!(yaml("docker-compose.yml")["volumes"].get(source).is_some(), "{name}: no volume {source}");
            }
        }
        if let Some(file) = service["build"]["dockerfile"].as_str() {
            assert!(path(file).exists(), "{name}: {file}");
        }
    }
    let dockerfile = text("ops/docker/Dockerfile");
    for source in dockerfile.split_whitespace().filter(|word| word.starts_with("ops/")) {
        assert!(path(source).exists(), "Dockerfile: {source}");
    }
    for rules in words(&yaml("ops/prometheus/prometheus.yml")["rule_files"]) {
        assert!(path("ops/prometheus").join(rules).exists(), "{rules}");
        let mounted = words(&services()["prometheus"]["volumes"]).iter().any(|volume| volume.contains(rules));
        assert!(mounted, "{rules} is not mounted");
    }
}

#[test]
fn nothing_is_reachable_from_outside_and_nobody_is_root() {
    for (name, service) in services() {
        for published in words(&service["ports"]) {
            assert!(published.starts_with("127.0.0.1:"), "{name} publishes {published} to everyone");
        }
        assert_eq!(service["read_only"], true, "{name} may write its image");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(service["ulimits"]["core"], 0, "{name} may dump its memory");
        assert!(service["mem_limit"].is_string(), "{name} has no memory limit");
        assert!(service["restart"].is_string(), "{name} has no restart policy");
        let user = service["user"].as_str().unwrap_or("root");
        assert!(!user.starts_with("root") && !user.starts_with("0"), "{name} runs as root");
        assert!(runs_once(&service) || service["healthcheck"]["test"].is_array(), "{name} has no health check");
    }
}

/// Bytes of `1g`, `256m` (compose) or `600MB` (RabbitMQ).
fn bytes(text: &str) -> u64 {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" => 1,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => panic!("{text}: no unit {other}"),
    };
    text[..digits].parse::<u64>().unwrap() * unit
}

#[test]
fn the_broker_stops_taking_messages_before_its_container_is_out_of_memory() {
    let conf = text("ops/rabbitmq/tolom.conf");
    let setting = |key: &str| {
        let mut settings = conf.lines().filter_map(|line| line.split_once(" = "));
        settings.find(|(name, _)| *name == key).map(|(_, value)| bytes(value)).expect("the setting")
    };
    let limit = bytes(services()["broker"]["mem_limit"].as_str().unwrap());
    // Quorum queues need about a third beyond it, when they write their log out.
    assert!(setting("vm_memory_high_watermark.absolute") * 3 / 2 < limit);
    assert!(setting("max_message_size") <= 128 * 1024, "rule 9: a body has a limit");
}

#[test]
fn only_the_authorize_worker_can_reach_the_sealing_keys() {
    let holders: Vec<_> = services()
        .into_iter()
        .filter(|(_, service)| words(&service["volumes"]).iter().any(|volume| volume.starts_with("keys:")))
        .map(|(name, service)| {
            let keys = setting(&service, "sealing.keys_dir").unwrap();
            assert_eq!(words(&service["volumes"]), [format!("keys:{keys}")]);
            name
        })
        .collect();
    assert_eq!(holders.iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["authorize", "keys"]));
}

#[test]
fn what_a_service_waits_for_can_come_true() {
    let all = services();
    for (name, service) in &all {
        for (other, wait) in service["depends_on"].as_object().into_iter().flatten() {
            let other = all.get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match wait["condition"].as_str() {
                Some("service_healthy") => assert!(other["healthcheck"].is_object(), "{name}: {other} has no health"),
                Some("service_completed_successfully") => assert!(runs_once(other), "{name} waits for ever"),
                condition => panic!("{name}: {condition:?}"),
            }
        }
    }
}

#[test]
fn addresses_name_services_that_listen_there() {
    let all = services();
    let listens = |service: &str, key: &str| port(&setting(&all[service], key).unwrap());
    let mail = words(&all["mail"]["command"]);
    let smtp = port(mail[mail.iter().position(|word| *word == "--listen").unwrap() + 1]);
    let http = port(mail[mail.iter().position(|word| *word == "--http").unwrap() + 1]);
    for (name, service) in ours() {
        let given = settings(&service).into_iter().filter(|(key, _)| key.ends_with(".url"));
        for (key, value) in given {
            let url = Url::parse(&value).unwrap();
            let expected = match key.as_str() {
                "database.url" => ("database", 5432),
                "broker.url" => ("broker", 5672),
                "acquirer.url" => ("simulator", listens("simulator", "simulator.listen")),
                "mail.url" => ("mail", smtp),
                "sms.url" => ("mail", http),
                other => panic!("{name}: {other} is not checked"),
            };
            assert_eq!((url.host_str().unwrap(), url.port().unwrap()), expected, "{name}: {key}");
            assert!(all.contains_key(expected.0));
        }
    }
    let site = listens("intake", "intake.listen");
    assert_eq!(words(&all["intake"]["ports"]), [format!("127.0.0.1:{site}:{site}")]);
    assert_eq!(
        words(&all["simulator"]["healthcheck"]["test"])[2],
        listens("simulator", "simulator.listen").to_string()
    );
    assert_eq!(words(&all["mail"]["healthcheck"]["test"])[2], smtp.to_string());
}

#[test]
fn every_role_is_checked_and_scraped_on_its_admin_port() {
    let all = services();
    let scrape = yaml("ops/prometheus/prometheus.yml");
    let jobs = scrape["scrape_configs"].as_array().unwrap();
    let found = &jobs.iter().find(|job| job["job_name"] == "tolom").expect("the job")["dns_sd_configs"][0];
    let roles: BTreeSet<_> = ours()
        .into_iter()
        .filter(|(name, service)| !runs_once(service) && !STAND_INS.contains(&name.as_str()))
        .map(|(name, service)| {
            let admin = port(&setting(&service, "admin.listen").unwrap());
            assert_eq!(found["port"], admin, "{name}");
            let check = ["CMD", "ready", &admin.to_string(), "/health/ready"].map(str::to_owned);
            assert_eq!(words(&service["healthcheck"]["test"]), check, "{name}");
            name
        })
        .collect();
    assert_eq!(words(&found["names"]).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), roles);
    let broker = &jobs.iter().find(|job| job["job_name"] == "rabbitmq").expect("the job")["static_configs"][0];
    assert_eq!(words(&broker["targets"]), ["broker:15692"]);
    assert!(all.contains_key("broker"));
    assert!(text("ops/rabbitmq/enabled_plugins").contains("rabbitmq_prometheus"), "nobody listens on 15692");
}
