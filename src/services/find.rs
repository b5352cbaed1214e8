//! Servers that are there already: the named ones, else those on this machine's standard ports.

use url::Url;

use super::{
    probe::{self, ProbeError},
    wanted::{Given, Server, ServicesError, Wanted},
};
use crate::chain::chain;

/// A database that can be used, if there is one.
pub(super) async fn database(wanted: &Wanted, progress: &impl Fn(&str)) -> Result<Option<String>, ServicesError> {
    if let Some(given) = &wanted.database {
        let probed = probe::database(&given.url, false).await;
        return accept(Server::Database, given, probed);
    }
    let us = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let mut candidates = Vec::new();
    for user in [us.as_str(), "postgres"] {
        // No TLS within one machine: a distribution's own certificate would cost tests a handshake each.
        candidates.push(format!("postgres://{user}@127.0.0.1:5432/postgres?sslmode=disable"));
        candidates.push(format!("postgres://{user}@localhost/postgres?host=/var/run/postgresql&sslmode=disable"));
    }
    for url in candidates.into_iter().filter(|_| wanted.reuse_running) {
        match probe::database(&url, true).await {
            Ok(()) => return Ok(Some(url)),
            Err(error) => tracing::debug!(server = "database", %url, error = chain(&error), "not usable"),
        }
    }
    if wanted.reuse_running {
        progress("no usable PostgreSQL runs on this machine");
    }
    Ok(None)
}

/// A broker that can be used, if there is one.
pub(super) async fn broker(wanted: &Wanted, progress: &impl Fn(&str)) -> Result<Option<String>, ServicesError> {
    if let Some(given) = &wanted.broker {
        let probed = probe::broker(&given.url).await;
        return accept(Server::Broker, given, probed);
    }
    if !wanted.reuse_running {
        return Ok(None);
    }
    let url = "amqp://guest:guest@127.0.0.1:5672/%2f";
    match probe::broker(url).await {
        Ok(()) => Ok(Some(url.to_owned())),
        Err(error) => {
            progress(&format!("no usable RabbitMQ runs on this machine ({})", chain(&error)));
            Ok(None)
        }
    }
}

fn accept(server: Server, given: &Given, probed: Result<(), ProbeError>) -> Result<Option<String>, ServicesError> {
    match probed {
        Ok(()) => Ok(Some(given.url.clone())),
        Err(source) => Err(ServicesError::Given {
            server,
            setting: given.setting.clone(),
            url: masked(&given.url),
            source: Box::new(source),
        }),
    }
}

/// An address without its password. What is no URL is not shown at all: it may be a password in the wrong place.
pub(super) fn masked(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| "an address that is not a URL".to_owned(),
        |mut url| {
            // A query may hold a password too.
            url.set_query(None);
            if url.password().is_some() {
                // Fails only for addresses that cannot hold a password.
                let _ = url.set_password(Some("***"));
            }
            url.into()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(masked("amqp://tolom:hunter2@broker:5672/%2f"), "amqp://tolom:***@broker:5672/%2f");
        assert_eq!(masked("postgres://host/tolom?user=u&password=hunter2"), "postgres://host/tolom");
        assert_eq!(masked("hunter2"), "an address that is not a URL");
    }
}
