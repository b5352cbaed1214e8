//! Settings: built-in defaults, then `tolom.toml`, then `TOLOM_*`, then flags. A wrong value names its key, its source
//! and what is allowed; a secret is never printed.

mod check;
mod secret;
mod sections;
mod sources;
mod versions;
mod written;

use std::path::Path;

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
    value::Value,
};
use serde::{Deserialize, Serialize};

use self::{
    check::{Refused, check},
    sources::{describe, read_secret_files, source},
};
use crate::{
    clock::{Clock, bishkek_day},
    payment::{PaymentCode, card::CardRules},
};
pub use secret::Secret;
pub use sections::{
    Acquirer, Admin, Batching, Broker, CaptureMode, Database, Document, Intake, Limits, Log, LogFormat, Mail, Notice,
    Operator, Park, Resolve, Sealing, Service, Shutdown, Simulator, Site, Sms, Terms,
};
pub use versions::{AGREEMENT, in_force, parse_date};

const DEFAULTS: &str = include_str!("defaults.toml");

/// All settings; `defaults.toml` says what each means.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every key, once")]
pub struct Config {
    pub database: Database,
    pub broker: Broker,
    pub intake: Intake,
    pub admin: Admin,
    pub sealing: Sealing,
    pub card: CardRules,
    pub limits: Limits,
    pub acquirer: Acquirer,
    pub authorize: Batching,
    pub record: Batching,
    pub capture: Batching,
    pub receipt: Batching,
    pub notice: Notice,
    pub resolve: Resolve,
    pub park: Park,
    pub mail: Mail,
    pub sms: Sms,
    pub operator: Operator,
    pub log: Log,
    pub simulator: Simulator,
    pub shutdown: Shutdown,
    pub site: Site,
    pub services: Vec<Service>,
    pub terms: Vec<Terms>,
    pub documents: Vec<Document>,
}

/// Settings that cannot be used: names the key, its source and what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads the settings: defaults, `file` (or `tolom.toml` if it is there), the environment, then `flags`
    /// (dotted keys with values).
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        figment = match file {
            Some(path) => figment.merge(Toml::file_exact(path)),
            None => figment.merge(Toml::file("tolom.toml")),
        };
        figment = figment.merge(Env::prefixed("TOLOM_").split("__"));
        Self::read(&with_flags(figment, flags))
    }

    fn read(given: &Figment) -> Result<Self, ConfigError> {
        let config: Self = read_secret_files(given)?.extract().map_err(|error| describe(&error, given))?;
        check(&config, bishkek_day(Clock::system().now())).map_err(|Refused { key, allowed }| {
            ConfigError(format!("{key}{}: allowed is {allowed}", source(given, &key)))
        })?;
        Ok(config)
    }

    /// The defaults and `flags` alone: for worlds that must not meet a machine's own settings.
    pub fn apart(flags: &[(String, String)]) -> Result<Self, ConfigError> {
        Self::read(&with_flags(Figment::from(Toml::string(DEFAULTS)), flags))
    }

    /// The built-in defaults.
    pub fn defaults() -> Self {
        Figment::from(Toml::string(DEFAULTS)).extract().expect("a test reads the built-in defaults")
    }

    /// The service a payment code is for; none for a prefix that is not configured.
    pub fn service_of(&self, code: &PaymentCode) -> Option<&str> {
        self.services
            .iter()
            .find(|service| code.as_str().starts_with(&service.prefix))
            .map(|service| service.service.as_str())
    }
}

fn with_flags(mut figment: Figment, flags: &[(String, String)]) -> Figment {
    for (key, value) in flags {
        let parsed: Value = value.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
        figment = figment.merge(Serialized::global(key, parsed));
    }
    figment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::load(None, &flags)
    }

    #[test]
    fn the_defaults_are_whole_and_well() {
        load(&[]).unwrap();
    }

    #[test]
    fn a_wrong_value_names_its_key_and_what_is_allowed_but_not_the_value() {
        let message = load(&[("acquirer.capture", "sometimes-4111")]).unwrap_err().to_string();
        assert!(message.starts_with("acquirer.capture"), "{message}");
        assert!(message.contains("after_recording"), "{message}");
        assert!(!message.contains("4111"), "{message}");
        let message = load(&[("record.batch", "0")]).unwrap_err().to_string();
        assert_eq!(message, "record.batch (from a flag): allowed is 1 to 10000");
        let message = load(&[("record.bach", "1")]).unwrap_err().to_string();
        assert!(message.contains("unknown key `bach`"), "{message}");
    }

    #[test]
    fn a_limit_leaves_something_free_and_its_waits_grow_within_its_window() {
        let wrong = |key: &str, value: &str| load(&[(key, value)]).unwrap_err().to_string();
        for rule in ["codes", "client", "bill", "device", "card", "address"] {
            let key = |last: &str| format!("limits.{rule}.{last}");
            assert_eq!(wrong(&key("free"), "0"), format!("{} (from a flag): allowed is at least 1", key("free")));
            assert!(wrong(&key("window_s"), "59").ends_with("allowed is 60 to 604800, a week"));
            for waits in ["[]", "[0, 5]", "[10, 5]", "[604800]"] {
                let message = wrong(&key("delays_s"), waits);
                assert!(message.starts_with(&format!("{} (from a flag): allowed is", key("delays_s"))), "{message}");
            }
        }
        assert!(wrong("limits.device_bills", "0").ends_with("allowed is at least 1"));
        assert!(wrong("limits.bill.fre", "5").contains("unknown key `fre`"));
    }

    #[test]
    fn proxies_are_networks() {
        let config = load(&[("intake.proxies", "[\"10.0.0.0/24\", \"2001:db8::/32\"]")]).unwrap();
        assert_eq!(config.intake.proxies, ["10.0.0.0/24", "2001:db8::/32"]);
        for wrong in ["[\"10.0.0.1\"]", "[\"10.0.0.0/33\"]", "[\"proxy\"]"] {
            let message = load(&[("intake.proxies", wrong)]).unwrap_err().to_string();
            assert_eq!(message, "intake.proxies (from a flag): allowed is a list of networks, [\"10.0.0.0/24\"]");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config = load(&[("database.url", "postgres://u:hunter2@h/d"), ("acquirer.token", "12345")]).unwrap();
        assert_eq!(config.acquirer.token.expose(), "12345");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("12345"));
    }

    #[test]
    fn a_secret_may_be_a_file_and_every_value_keeps_its_source() {
        let folder = std::env::temp_dir().join(format!("tolom-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (secret, file) = (folder.join("token"), folder.join("tolom.toml"));
        std::fs::write(&secret, "from-a-file\n").unwrap();
        let read = |settings: &str, flags: &[(String, String)]| {
            let token = format!("acquirer.token_file = {:?}\n", secret.to_str().unwrap());
            std::fs::write(&file, token + settings).unwrap();
            Config::load(Some(&file), flags)
        };
        let whole = read("", &[]).unwrap();
        let said = |settings: &str| read(settings, &[]).unwrap_err().to_string();
        let named = |key: &str, what: &str| format!("{key} (from TOML file {}): {what}", file.display());
        let out_of_range = said("record.batch = 0");
        let wrong_type = said("record.batch = \"many\"");
        let secret_itself = said(&format!("database.url_file = {:?}", secret.to_str().unwrap()));
        let in_a_list = said("terms = [{ version = \"/\", in_force_from = \"2026-01-01\" }]");
        let by_flag = read("record.batch = 0", &[("record.batch".into(), "0".into())]).unwrap_err().to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(whole.acquirer.token.expose(), "from-a-file");
        assert_eq!(out_of_range, named("record.batch", "allowed is 1 to 10000"));
        assert_eq!(wrong_type, named("record.batch", "expected a whole number"));
        assert!(secret_itself.starts_with(&named("database.url", "allowed is postgres://")), "{secret_itself}");
        assert!(in_a_list.starts_with(&named("terms.version", "allowed is ")), "{in_a_list}");
        assert_eq!(by_flag, "record.batch (from a flag): allowed is 1 to 10000");
    }
}
