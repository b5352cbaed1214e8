//! Settings: built-in defaults, then `tolom.toml`, then `TOLOM_*`, then flags. A wrong value names its key, its source
//! and what is allowed; a secret is never printed.

mod secret;
mod sections;
mod written;

use std::path::Path;

use figment::{
    Figment, Metadata, Source,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::{Deserialize, Serialize};
use time::Date;

use crate::payment::{PaymentCode, card::CardRules};
pub use secret::Secret;
pub use sections::{
    Acquirer, Admin, Batching, Broker, CaptureMode, Database, Document, Intake, Limits, Log, LogFormat, Mail, Notice,
    Operator, Park, Resolve, Sealing, Service, Shutdown, Simulator, Site, Sms, Terms,
};

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
        Self::read(with_flags(figment, flags))
    }

    fn read(figment: Figment) -> Result<Self, ConfigError> {
        let figment = read_secret_files(figment)?;
        let config: Self = figment.extract().map_err(|error| ConfigError(describe(&error)))?;
        config.check().map_err(|Refused { key, allowed }| {
            ConfigError(format!("{key}{}: allowed is {allowed}", source(figment.find_metadata(&key))))
        })?;
        Ok(config)
    }

    /// The defaults and `flags` alone: for worlds that must not meet a machine's own settings.
    pub fn apart(flags: &[(String, String)]) -> Result<Self, ConfigError> {
        Self::read(with_flags(Figment::from(Toml::string(DEFAULTS)), flags))
    }

    /// The built-in defaults.
    pub fn defaults() -> Self {
        Figment::from(Toml::string(DEFAULTS)).extract().expect("a test reads the built-in defaults")
    }

    fn check(&self) -> Result<(), Refused> {
        let need = |fits: bool, key: &str, allowed: &'static str| {
            if fits { Ok(()) } else { Err(Refused { key: key.to_owned(), allowed }) }
        };
        let scheme =
            |address: &str, schemes: &[&str]| url::Url::parse(address).is_ok_and(|url| schemes.contains(&url.scheme()));
        let database = scheme(self.database.url.expose(), &["postgres", "postgresql"]);
        need(database, "database.url", "postgres://user:password@host:port/database")?;
        need(
            scheme(self.broker.url.expose(), &["amqp", "amqps"]),
            "broker.url",
            "amqp://user:password@host:port/vhost",
        )?;
        need(scheme(&self.acquirer.url, &["http", "https"]), "acquirer.url", "an http:// or https:// address")?;
        need(self.database.max_connections >= 2, "database.max_connections", "at least 2")?;
        need(!self.broker.retry_delays_ms.is_empty(), "broker.retry_delays_ms", "at least one delay")?;
        need(self.broker.publish_timeout_ms > 0, "broker.publish_timeout_ms", "at least 1")?;
        need((1..=300).contains(&self.broker.watchdog_s), "broker.watchdog_s", "1 to 300")?;
        need(self.intake.max_outbox_rows > 0, "intake.max_outbox_rows", "at least 1")?;
        for (name, batching) in [
            ("authorize", &self.authorize),
            ("record", &self.record),
            ("capture", &self.capture),
            ("receipt", &self.receipt),
        ] {
            need((1..=10_000).contains(&batching.batch), &format!("{name}.batch"), "1 to 10000")?;
            let prefetch = usize::from(batching.prefetch) >= batching.batch;
            need(prefetch, &format!("{name}.prefetch"), "at least the batch (and never 0: unlimited)")?;
        }
        need(self.acquirer.hold_hours > 0, "acquirer.hold_hours", "at least 1")?;
        need(self.acquirer.circuit_failures > 0, "acquirer.circuit_failures", "at least 1")?;
        need(self.acquirer.circuit_open_ms > 0, "acquirer.circuit_open_ms", "at least 1")?;
        let ordered = self.acquirer.circuit_longest_open_ms >= self.acquirer.circuit_open_ms;
        need(ordered, "acquirer.circuit_longest_open_ms", "at least circuit_open_ms")?;
        need((1..=1_000).contains(&self.park.batch), "park.batch", "1 to 1000")?;
        let prefetch = usize::from(self.park.prefetch) >= self.park.batch;
        need(prefetch, "park.prefetch", "at least the batch (and never 0: unlimited)")?;
        let days = |days: u32| (1..=36_500).contains(&days);
        need(days(self.park.keep_days), "park.keep_days", "1 to 36500")?;
        need(days(self.park.audit_days), "park.audit_days", "1 to 36500")?;
        need(self.notice.poll_ms > 0, "notice.poll_ms", "at least 1")?;
        need((1..=1_000).contains(&self.notice.batch), "notice.batch", "1 to 1000")?;
        let retries = 1..=self.notice.longest_retry_s;
        need(retries.contains(&self.notice.retry_s), "notice.retry_s", "1 to notice.longest_retry_s")?;
        need((1..=30).contains(&self.notice.give_up_days), "notice.give_up_days", "1 to 30")?;
        need((1..=180).contains(&self.notice.hold_days), "notice.hold_days", "1 to 180")?;
        let gateway = self.sms.url.is_empty() || scheme(&self.sms.url, &["http", "https"]);
        need(gateway, "sms.url", "an http:// or https:// address, or none")?;
        need((1..=60_000).contains(&self.sms.timeout_ms), "sms.timeout_ms", "1 to 60000")?;
        need((1..=30).contains(&self.sms.give_up_days), "sms.give_up_days", "1 to 30")?;
        need(!self.resolve.schedule_s.is_empty(), "resolve.schedule_s", "at least one wait")?;
        need(self.resolve.poll_ms > 0, "resolve.poll_ms", "at least 1")?;
        need((1..=24).contains(&self.sealing.seal_hours), "sealing.seal_hours", "1 to 24")?;
        need((1..=24).contains(&self.sealing.keep_hours), "sealing.keep_hours", "1 to 24")?;
        need(!self.services.is_empty(), "services", "at least one")?;
        need(self.limits.device_bills > 0, "limits.device_bills", "at least 1")?;
        for (name, velocity) in self.limits.velocities() {
            let key = |last: &str| format!("limits.{name}.{last}");
            need(velocity.free > 0, &key("free"), "at least 1")?;
            need((60..=604_800).contains(&velocity.window_s), &key("window_s"), "60 to 604800, a week")?;
            let growing = velocity.delays_s.is_sorted() && velocity.delays_s.first().is_some_and(|first| *first > 0);
            let remembered = velocity.delays_s.last().is_some_and(|longest| *longest <= velocity.window_s);
            let allowed = "at least one wait, each as long as the one before or longer, none longer than window_s";
            need(growing && remembered, &key("delays_s"), allowed)?;
        }
        for terms in &self.terms {
            need(parse_date(&terms.in_force_from).is_some(), "terms.in_force_from", "a date, YYYY-MM-DD")?;
        }
        for terms in &self.terms {
            need(is_slug(&terms.version), "terms.version", "1 to 64 letters, digits, `-`, `_` and `.`")?;
        }
        for document in &self.documents {
            let named = is_slug(&document.document) && document.document != "user-agreement";
            need(
                named,
                "documents.document",
                "a name of letters, digits, `-`, `_` and `.` (user-agreement: see `terms`)",
            )?;
            need(is_slug(&document.version), "documents.version", "1 to 64 letters, digits, `-`, `_` and `.`")?;
            let date = parse_date(&document.in_force_from).is_some();
            need(date, "documents.in_force_from", "a date, YYYY-MM-DD")?;
        }
        need(!self.terms.is_empty(), "terms", "at least one version")
    }

    /// The version of the terms in force on a day: the newest one whose day has come.
    pub fn terms_in_force(&self, day: Date) -> &str {
        self.terms
            .iter()
            .filter_map(|terms| Some((parse_date(&terms.in_force_from)?, terms.version.as_str())))
            .filter(|(from, _)| *from <= day)
            .max_by_key(|(from, _)| *from)
            .map_or("", |(_, version)| version)
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

/// Whether a text may be a part of an address and of a file's name.
fn is_slug(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A date of the settings, `2026-01-01`.
pub fn parse_date(text: &str) -> Option<Date> {
    Date::parse(text, time::macros::format_description!("[year]-[month]-[day]")).ok()
}

/// Replaces every `x_file` by `x`, the file's content without trailing line ends.
fn read_secret_files(figment: Figment) -> Result<Figment, ConfigError> {
    fn walk(dict: &mut Dict, path: &str) -> Result<(), ConfigError> {
        let named: Vec<String> = dict.keys().filter(|key| key.ends_with("_file")).cloned().collect();
        for key in named {
            let Some(Value::String(_, file)) = dict.remove(&key) else {
                return Err(ConfigError(format!("{path}{key}: a file's path is expected")));
            };
            let text = std::fs::read_to_string(&file)
                .map_err(|error| ConfigError(format!("{path}{key}: {file} cannot be read: {error}")))?;
            let name = key.trim_end_matches("_file").to_owned();
            dict.insert(name, Value::from(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        for (key, value) in dict.iter_mut() {
            if let Value::Dict(_, inner) = value {
                walk(inner, &format!("{path}{key}."))?;
            }
        }
        Ok(())
    }
    let mut all: Dict = figment.extract().map_err(|error| ConfigError(describe(&error)))?;
    let before = all.clone();
    walk(&mut all, "")?;
    // Untouched, the values keep the names of their sources for error messages.
    Ok(if all == before { figment } else { Figment::from(Serialized::defaults(all)) })
}

/// A value of the right type that cannot be used.
#[derive(Debug)]
struct Refused {
    key: String,
    allowed: &'static str,
}

/// Where a value comes from, in brackets.
fn source(metadata: Option<&Metadata>) -> String {
    let Some(metadata) = metadata else { return String::new() };
    match &metadata.source {
        // Flags are merged value by value, by this file.
        Some(Source::Code(_)) => " (from a flag)".to_owned(),
        Some(place) => format!(" (from {} {place})", metadata.name),
        None => format!(" (from {})", metadata.name),
    }
}

/// Key, source and what is allowed; never the value, which may be a secret.
fn describe(error: &figment::Error) -> String {
    use figment::error::Kind;
    let key = if error.path.is_empty() { "configuration".to_owned() } else { error.path.join(".") };
    let source = source(error.metadata.as_ref());
    let what = match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            let expected = expected.to_string();
            match expected.as_str() {
                "usize" | "u8" | "u16" | "u32" | "u64" | "i64" => "expected a whole number".to_owned(),
                _ => format!("expected {expected}"),
            }
        }
        Kind::UnknownField(field, allowed) => format!("unknown key `{field}`; allowed are {}", allowed.join(", ")),
        Kind::UnknownVariant(_, allowed) => format!("allowed are {}", allowed.join(", ")),
        Kind::MissingField(field) => format!("`{field}` is missing"),
        Kind::Message(text) => text.clone(),
        other => other.to_string(),
    };
    format!("{key}{source}: {what}")
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
        Config::defaults().check().unwrap();
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
        for rule in ["codes", "bill", "device", "card", "address"] {
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
    fn a_secret_is_never_shown() {
        let config = load(&[("database.url", "postgres://u:hunter2@h/d"), ("acquirer.token", "12345")]).unwrap();
        assert_eq!(config.acquirer.token.expose(), "12345");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("12345"));
    }

    #[test]
    fn a_secret_may_be_a_file() {
        let path = std::env::temp_dir().join(format!("tolom-secret-{}", std::process::id()));
        std::fs::write(&path, "from-a-file\n").unwrap();
        let config = load(&[("acquirer.token_file", path.to_str().unwrap())]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(config.acquirer.token.expose(), "from-a-file");
    }

    #[test]
    fn the_newest_terms_whose_day_has_come_are_in_force() {
        let mut config = Config::defaults();
        config.terms.push(Terms { version: "later".into(), in_force_from: "2030-01-01".into() });
        assert_eq!(config.terms_in_force(time::macros::date!(2026 - 11 - 23)), "2026-01-01");
        assert_eq!(config.terms_in_force(time::macros::date!(2030 - 01 - 01)), "later");
    }
}
