//! What values of the right type must keep to besides.

use std::collections::HashSet;

use time::Date;
use url::Url;

use super::{AGREEMENT, Config, Document, parse_date};

/// A value of the right type that cannot be used.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) key: String,
    pub(super) allowed: &'static str,
}

type Checked = Result<(), Refused>;

fn need(fits: bool, key: &str, allowed: &'static str) -> Checked {
    if fits { Ok(()) } else { Err(Refused { key: key.to_owned(), allowed }) }
}

/// Checks every value; `today` decides whether any terms are in force.
pub(super) fn check(config: &Config, today: Date) -> Checked {
    addresses(config)?;
    at_least_one(config)?;
    ranges(config)?;
    batches(config)?;
    limits(config)?;
    documents(config, today)
}

fn addresses(config: &Config) -> Checked {
    let scheme = |address: &str, schemes: &[&str]| Url::parse(address).is_ok_and(|url| schemes.contains(&url.scheme()));
    let database = scheme(config.database.url.expose(), &["postgres", "postgresql"]);
    need(database, "database.url", "postgres://user:password@host:port/database")?;
    let broker = scheme(config.broker.url.expose(), &["amqp", "amqps"]);
    need(broker, "broker.url", "amqp://user:password@host:port/vhost")?;
    let site = scheme(&config.intake.public_url, &["http", "https"]);
    need(site, "intake.public_url", "an http:// or https:// address")?;
    let allowed =
        "an https:// address; http:// within this machine, and with acquirer.insecure: cards go there in clear";
    need(config.acquirer.address().is_some(), "acquirer.url", allowed)?;
    let gateway = config.sms.url.is_empty() || scheme(&config.sms.url, &["http", "https"]);
    need(gateway, "sms.url", "an http:// or https:// address, or none")?;
    let networks = config.intake.proxies.iter().all(|network| network.parse::<ipnet::IpNet>().is_ok());
    need(networks, "intake.proxies", "a list of networks, [\"10.0.0.0/24\"]")
}

/// Where nothing would ever be done, be kept or be waited for with none.
fn at_least_one(config: &Config) -> Checked {
    let Config { broker, intake, acquirer, notice, resolve, mail, limits, .. } = config;
    for (value, key) in [
        (broker.publish_timeout_ms, "broker.publish_timeout_ms"),
        (intake.max_body_bytes as u64, "intake.max_body_bytes"),
        (intake.max_outbox_rows, "intake.max_outbox_rows"),
        (intake.idempotency_keep_days.into(), "intake.idempotency_keep_days"),
        (acquirer.connect_timeout_ms, "acquirer.connect_timeout_ms"),
        (acquirer.answer_timeout_ms, "acquirer.answer_timeout_ms"),
        (acquirer.send_within_ms, "acquirer.send_within_ms"),
        // With none, the first "not found" would be a proof.
        (acquirer.finality_hours.into(), "acquirer.finality_hours"),
        (acquirer.hold_hours.into(), "acquirer.hold_hours"),
        (acquirer.circuit_failures.into(), "acquirer.circuit_failures"),
        (acquirer.circuit_open_ms, "acquirer.circuit_open_ms"),
        (notice.poll_ms, "notice.poll_ms"),
        (resolve.poll_ms, "resolve.poll_ms"),
        (mail.claim_s, "mail.claim_s"),
        (limits.device_bills.into(), "limits.device_bills"),
    ] {
        need(value > 0, key, "at least 1")?;
    }
    need(!broker.retry_delays_ms.is_empty(), "broker.retry_delays_ms", "at least one delay")?;
    need(!resolve.schedule_s.is_empty(), "resolve.schedule_s", "at least one wait")?;
    need(!config.services.is_empty(), "services", "at least one")
}

fn ranges(config: &Config) -> Checked {
    let Config { database, broker, acquirer, notice, sms, park, sealing, .. } = config;
    need(database.max_connections >= 2, "database.max_connections", "at least 2")?;
    need((1..=300).contains(&broker.watchdog_s), "broker.watchdog_s", "1 to 300")?;
    let ordered = acquirer.circuit_longest_open_ms >= acquirer.circuit_open_ms;
    need(ordered, "acquirer.circuit_longest_open_ms", "at least circuit_open_ms")?;
    let days = |days: u32| (1..=36_500).contains(&days);
    need(days(park.keep_days), "park.keep_days", "1 to 36500")?;
    need(days(park.audit_days), "park.audit_days", "1 to 36500")?;
    let retries = 1..=notice.longest_retry_s;
    need(retries.contains(&notice.retry_s), "notice.retry_s", "1 to notice.longest_retry_s")?;
    need((1..=30).contains(&notice.give_up_days), "notice.give_up_days", "1 to 30")?;
    need((1..=180).contains(&notice.hold_days), "notice.hold_days", "1 to 180")?;
    need((1..=60_000).contains(&sms.timeout_ms), "sms.timeout_ms", "1 to 60000")?;
    need((1..=30).contains(&sms.give_up_days), "sms.give_up_days", "1 to 30")?;
    need((1..=24).contains(&sealing.seal_hours), "sealing.seal_hours", "1 to 24")?;
    need((1..=24).contains(&sealing.keep_hours), "sealing.keep_hours", "1 to 24")
}

fn batches(config: &Config) -> Checked {
    for (name, batching) in [
        ("authorize", &config.authorize),
        ("record", &config.record),
        ("capture", &config.capture),
        ("receipt", &config.receipt),
    ] {
        need((1..=10_000).contains(&batching.batch), &format!("{name}.batch"), "1 to 10000")?;
        prefetch(name, batching.prefetch, batching.batch)?;
    }
    need((1..=1_000).contains(&config.park.batch), "park.batch", "1 to 1000")?;
    prefetch("park", config.park.prefetch, config.park.batch)?;
    need((1..=1_000).contains(&config.notice.batch), "notice.batch", "1 to 1000")?;
    need((1..=1_000).contains(&config.resolve.batch), "resolve.batch", "1 to 1000")
}

fn prefetch(name: &str, prefetch: u16, batch: usize) -> Checked {
    let allowed = "at least the batch (and never 0: unlimited)";
    need(usize::from(prefetch) >= batch, &format!("{name}.prefetch"), allowed)
}

fn limits(config: &Config) -> Checked {
    for (name, velocity) in config.limits.velocities() {
        let key = |last: &str| format!("limits.{name}.{last}");
        need(velocity.free > 0, &key("free"), "at least 1")?;
        need((60..=604_800).contains(&velocity.window_s), &key("window_s"), "60 to 604800, a week")?;
        let growing = velocity.delays_s.is_sorted() && velocity.delays_s.first().is_some_and(|first| *first > 0);
        let remembered = velocity.delays_s.last().is_some_and(|longest| *longest <= velocity.window_s);
        let allowed = "at least one wait, each as long as the one before or longer, none longer than window_s";
        need(growing && remembered, &key("delays_s"), allowed)?;
    }
    Ok(())
}

fn documents(config: &Config, today: Date) -> Checked {
    let named = |it: &Document| is_slug(&it.document) && it.document != AGREEMENT;
    let allowed = "a name of letters, digits, `-`, `_` and `.` (user-agreement: see `terms`)";
    need(config.documents.iter().all(named), "documents.document", allowed)?;
    let (mut versions, mut days) = (HashSet::new(), HashSet::new());
    for (document, version, from) in config.editions() {
        let key = |last: &str| format!("{}.{last}", if document == AGREEMENT { "terms" } else { "documents" });
        let allowed = "1 to 64 letters, digits, `-`, `_` and `.`, another for each version of a document";
        need(is_slug(version) && versions.insert((document, version)), &key("version"), allowed)?;
        let day = parse_date(from);
        let allowed = "a date, YYYY-MM-DD, another for each version of a document";
        need(day.is_some() && days.insert((document, day)), &key("in_force_from"), allowed)?;
    }
    let begun = !config.terms_in_force(today).is_empty();
    need(begun, "terms", "at least one version, and of one the day must have come: without terms nothing can be paid")
}

/// Whether a text may be a part of an address and of a file's name.
fn is_slug(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;
    use crate::config::Terms;

    const TODAY: Date = date!(2026 - 11 - 23);

    /// The key that is refused after a change of the defaults; empty if none is.
    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::defaults();
        change(&mut config);
        check(&config, TODAY).map_or_else(|refused| refused.key, |()| String::new())
    }

    #[test]
    fn the_defaults_are_well() {
        assert_eq!(refused(|_| ()), "");
    }

    #[test]
    fn cards_leave_this_machine_by_tls_alone_unless_it_is_written_that_they_may_not() {
        let to = |url: &str, insecure: bool| {
            refused(|config| (config.acquirer.url, config.acquirer.insecure) = (url.into(), insecure))
        };
        for url in ["http://bank.example", "http://10.0.0.7:8090", "http://[fe80::1]", "http://localhost.bank.example"]
        {
            assert_eq!(to(url, false), "acquirer.url", "{url}");
            assert_eq!(to(url, true), "", "{url}");
        }
        for url in ["https://bank.example", "http://127.8.0.1:80", "http://[::1]:8090", "http://LOCALHOST/shim"] {
            assert_eq!(to(url, false), "", "{url}");
        }
        for url in ["", "bank", "ftp://bank.example"] {
            assert_eq!(to(url, true), "acquirer.url", "{url}");
        }
    }

    #[test]
    fn what_would_never_be_done_with_none_is_refused() {
        assert_eq!(refused(|config| config.acquirer.finality_hours = 0), "acquirer.finality_hours");
        assert_eq!(refused(|config| config.acquirer.send_within_ms = 0), "acquirer.send_within_ms");
        assert_eq!(refused(|config| config.mail.claim_s = 0), "mail.claim_s");
        assert_eq!(refused(|config| config.intake.idempotency_keep_days = 0), "intake.idempotency_keep_days");
        for batch in [i64::MIN, -1, 0, 1_001] {
            assert_eq!(refused(|config| config.resolve.batch = batch), "resolve.batch", "{batch}");
        }
        for url in ["pay.example", "//pay.example", "ftp://pay.example", ""] {
            assert_eq!(refused(|config| config.intake.public_url = url.into()), "intake.public_url", "{url}");
        }
    }

    #[test]
    fn one_version_of_the_terms_and_no_more_is_in_force() {
        let terms = |versions: &[(&str, &str)]| {
            let versions = versions
                .iter()
                .map(|(version, from)| Terms { version: (*version).to_owned(), in_force_from: (*from).to_owned() });
            refused(|config| config.terms = versions.collect())
        };
        assert_eq!(terms(&[]), "terms");
        assert_eq!(terms(&[("1", "2026-11-24"), ("2", "2027-01-01")]), "terms", "none has begun");
        assert_eq!(terms(&[("1", "2026-11-23"), ("2", "2027-01-01")]), "");
        assert_eq!(terms(&[("1", "2026-01-01"), ("2", "2026-01-01")]), "terms.in_force_from");
        assert_eq!(terms(&[("1", "2026-01-01"), ("1", "2026-02-01")]), "terms.version");
        // Documents are files: no name leads out of their folder.
        for name in ["", "..", "../secret", "a/b", AGREEMENT] {
            assert_eq!(refused(|config| config.documents[0].document = name.into()), "documents.document", "{name}");
            assert_eq!(name == AGREEMENT, refused(|config| config.terms[0].version = name.into()).is_empty(), "{name}");
        }
        let again = |config: &mut Config| config.documents.push(config.documents[0].clone());
        assert_eq!(refused(again), "documents.version");
        let same_day = |config: &mut Config| {
            again(config);
            config.documents.last_mut().unwrap().version = "2".to_owned();
        };
        assert_eq!(refused(same_day), "documents.in_force_from");
    }
}
