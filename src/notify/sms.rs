//! Sends short messages through an HTTP gateway that speaks `schemas/sms.openapi.json`, or a shim in front of one.
//!
//! A message whose answer was lost is sent again under the same id, and the gateway knows it by that. Neither errors nor
//! `Debug` hold a number or a text.

use std::{fmt, time::Duration};

use futures::future::join_all;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::config;

/// Requests at the same time, over all batches.
const MAX_IN_FLIGHT: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the idle time-outs common at the other end.
const KEEP_IDLE: Duration = Duration::from_secs(4);
/// Longest `Retry-After` that is taken at its word.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A short message to a payer. Made by [`receipt_sms`](super::receipt_sms).
#[derive(Clone, PartialEq, Eq)]
pub struct Sms {
    /// The idempotency key: what is sent again has it again.
    pub id: Uuid,
    /// The payer's number (ITU-T E.164).
    pub to: String,
    /// What it says.
    pub text: String,
}

impl fmt::Debug for Sms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sms").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SmsError {
    /// May go better later; the message may even have been taken.
    #[error("not sent, may be tried again: {fault}")]
    Transient {
        /// What went wrong.
        fault: SmsFault,
        /// The gateway asked not to be asked before.
        after: Option<Duration>,
    },
    /// Will not go better.
    #[error("cannot be sent: {0}")]
    Permanent(SmsFault),
}

/// What went wrong, without any word of the message or of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SmsFault {
    /// The gateway's status code.
    #[error("the gateway answered {0}")]
    Reply(u16),
    /// No connection could be made.
    #[error("the gateway cannot be reached")]
    Unreachable,
    /// The connection ended before the answer.
    #[error("the connection to the gateway was lost")]
    Lost,
    /// The message's time was up.
    #[error("the gateway took too long")]
    Deadline,
}

/// Settings that nothing can be sent with. Never names the token.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The gateway's address.
    #[error("sms.url: an address that begins with https:// or http:// is expected")]
    Url,
    /// The token.
    #[error("sms.token: only visible ASCII is allowed")]
    Token,
    /// The HTTP client cannot be made, for example because the system has no root certificates.
    #[error("the HTTP client for short messages cannot be made")]
    Client(#[source] reqwest::Error),
}

/// A gateway.
pub struct Gateway {
    client: Client,
    url: Url,
    bearer: Option<HeaderValue>,
    from: String,
    turns: Semaphore,
    timeout: Duration,
}

/// The contract's request.
#[derive(Serialize)]
struct Message<'a> {
    id: Uuid,
    #[serde(skip_serializing_if = "str::is_empty")]
    from: &'a str,
    to: &'a str,
    text: &'a str,
}

impl Gateway {
    /// The gateway by the settings; none without an address. Does not connect.
    pub fn new(sms: &config::Sms) -> Result<Option<Self>, GatewayError> {
        if sms.url.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&sms.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let timeout = Duration::from_millis(sms.timeout_ms);
        // Fails when the process has a provider already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("tolom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(MAX_IN_FLIGHT)
            // Whoever gets a payer's number must be the gateway; and nothing is sent twice behind our back.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(GatewayError::Client)?;
        Ok(Some(Self {
            client,
            url: url.ok_or(GatewayError::Url)?,
            bearer: bearer(sms.token.expose())?,
            from: sms.from.clone(),
            turns: Semaphore::new(MAX_IN_FLIGHT),
            timeout,
        }))
    }

    /// How long a batch of so many messages can take to send at most.
    pub fn longest(&self, messages: usize) -> Duration {
        self.timeout * u32::try_from(messages.div_ceil(MAX_IN_FLIGHT)).unwrap_or(u32::MAX)
    }

    /// Sends messages side by side; the results stand in the order of the messages.
    pub async fn send(&self, messages: &[Sms]) -> Vec<Result<(), SmsError>> {
        join_all(messages.iter().map(|message| self.send_one(message))).await
    }

    async fn send_one(&self, sms: &Sms) -> Result<(), SmsError> {
        let transient = |fault| SmsError::Transient { fault, after: None };
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.map_err(|_| transient(SmsFault::Deadline))?;
        let body = Message { id: sms.id, from: &self.from, to: &sms.to, text: &sms.text };
        let mut request = self.client.post(self.url.clone()).header("Idempotency-Key", sms.id.to_string()).json(&body);
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        match request.send().await {
            Ok(answer) => judge(&answer),
            Err(error) if error.is_connect() => Err(transient(SmsFault::Unreachable)),
            Err(error) if error.is_timeout() => Err(transient(SmsFault::Deadline)),
            Err(_) => Err(transient(SmsFault::Lost)),
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

fn bearer(token: &str) -> Result<Option<HeaderValue>, GatewayError> {
    if token.is_empty() {
        return Ok(None);
    }
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| visible);
    let mut value = value.ok_or(GatewayError::Token)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What an answer means; its body says nothing that matters, and is not read.
fn judge(answer: &Response) -> Result<(), SmsError> {
    let status = answer.status();
    let fault = SmsFault::Reply(status.as_u16());
    if status.is_success() {
        return Ok(());
    }
    if status.is_client_error() && is_about_the_message(status) {
        return Err(SmsError::Permanent(fault));
    }
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Err(SmsError::Transient { fault, after: seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE)) })
}

/// Whether a refusal is about this message. One that is about the moment ends by itself; one that is about us, a token
/// that has run out or an address that has moved, when an operator mends the setting, and no payer's message is to be
/// lost by that.
fn is_about_the_message(status: StatusCode) -> bool {
    const MOMENT: [StatusCode; 3] = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    const US: [StatusCode; 5] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PAYMENT_REQUIRED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
    ];
    !MOMENT.contains(&status) && !US.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn gateway(change: impl FnOnce(&mut config::Sms)) -> Result<Option<Gateway>, String> {
        let mut sms = config::Sms { url: "https://gateway.example/sms".to_owned(), ..Config::defaults().sms };
        change(&mut sms);
        Gateway::new(&sms).map_err(|error| error.to_string())
    }

    #[test]
    fn a_wrong_setting_is_named_and_not_repeated() {
        assert!(gateway(|_| ()).unwrap().is_some());
        assert!(gateway(|sms| sms.url.clear()).unwrap().is_none());
        assert!(gateway(|sms| sms.url = "smpp://h".into()).unwrap_err().starts_with("sms.url: "));
        let fault = gateway(|sms| sms.token = "hun\nter2".to_owned().into()).unwrap_err();
        assert!(fault.starts_with("sms.token: ") && !fault.contains("hun"), "{fault}");
    }

    #[test]
    fn a_lease_outlasts_a_batch() {
        let gateway = gateway(|sms| sms.timeout_ms = 1_000).unwrap().unwrap();
        assert_eq!([1, 16, 17, 100].map(|count| gateway.longest(count).as_secs()), [1, 1, 2, 7]);
    }
}
