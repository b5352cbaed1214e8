//! Connections to the mail server, kept open between messages.
//!
//! lettre has a pool of its own, but takes back a connection whose send was cancelled in the middle (0.11.23,
//! `PooledConnection::drop`): the next message would read the answers meant for the last one, and be counted as sent
//! when it was not. And its time-out covers connecting alone, so a deadline must cancel. Here a connection is owned by
//! the send that uses it: cancelled, it is closed.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, TlsParameters},
    extension::ClientId,
};
use tokio::net::TcpStream;
use url::Url;

/// Connecting to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers hang up after 5 minutes (RFC 5321, section 4.5.3.2.7), some much sooner.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// A kept connection that does not answer within this is given up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the address of a mail server cannot be used. Never names it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// Not of the form that is expected.
    #[error("smtp://host:port, smtp://host:port?tls=required or smtps://host:port is expected")]
    Form,
    /// A password would go over the wire in clear.
    #[error("a user and password need smtps:// or ?tls=required")]
    PasswordInClear,
    /// The system's certificates cannot be used.
    #[error("TLS cannot be set up")]
    Tls,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// The network does not lead there.
    Unreachable,
    /// The server's word, or what went wrong with it.
    Smtp(Error),
}

impl From<Error> for NoConnection {
    fn from(error: Error) -> Self {
        Self::Smtp(error)
    }
}

enum Encryption {
    None,
    StartTls(TlsParameters),
    Whole(TlsParameters),
}

/// One mail server, and the idle connections to it.
pub(super) struct Connections {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    keep: usize,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl Connections {
    /// Reads the server's address; keeps at most `keep` idle connections.
    pub(super) fn new(address: &str, keep: usize) -> Result<Self, AddressFault> {
        let url = Url::parse(address).map_err(|_| AddressFault::Form)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(AddressFault::Form)?.to_owned();
        let tls = || TlsParameters::new(host.clone()).map_err(|_| AddressFault::Tls);
        let (encryption, port) = match (url.scheme(), url.query()) {
            ("smtp", None) => (Encryption::None, 25),
            ("smtp", Some("tls=required")) => (Encryption::StartTls(tls()?), 587),
            ("smtps", None) => (Encryption::Whole(tls()?), 465),
            _ => return Err(AddressFault::Form),
        };
        let credentials = credentials(&url)?;
        if credentials.is_some() && matches!(encryption, Encryption::None) {
            return Err(AddressFault::PasswordInClear);
        }
        // An IPv6 address stands in brackets in an address, and without them where it is connected to.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port().unwrap_or(port), encryption, credentials, keep, idle: Mutex::default() })
    }

    /// An open connection: a kept one that still answers, or a new one.
    pub(super) async fn take(&self) -> Result<AsyncSmtpConnection, NoConnection> {
        while let Some((mut connection, since)) = self.pop() {
            let fresh = since.elapsed() < KEEP_IDLE;
            let probe = async { tokio::time::timeout(PROBE_TIMEOUT, connection.test_connected()).await };
            if fresh && probe.await == Ok(true) {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    /// Keeps a connection whose last message was answered.
    pub(super) fn put_back(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < KEEP_IDLE);
        if idle.len() < self.keep {
            idle.push((connection, Instant::now()));
        }
    }

    fn pop(&self) -> Option<(AsyncSmtpConnection, Instant)> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, NoConnection> {
        let hello = ClientId::default();
        let server = (self.host.as_str(), self.port);
        let mut connection = match &self.encryption {
            Encryption::Whole(tls) => {
                let tls = Some(tls.clone());
                AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &hello, tls, None).await?
            }
            Encryption::None | Encryption::StartTls(_) => {
                let stream = self.dial().await?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await?
            }
        };
        if let Encryption::StartTls(tls) = &self.encryption {
            connection.starttls(tls.clone(), &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await?;
        }
        Ok(connection)
    }

    /// lettre writes a message's end apart from its body. The kernel holds that back until the body is acknowledged
    /// (Nagle), which the server puts off by 40 ms because it waits for the end: so send at once.
    async fn dial(&self) -> Result<TcpStream, NoConnection> {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let stream = dialled.ok().and_then(Result::ok).ok_or(NoConnection::Unreachable)?;
        // Best effort: without it, mail is only slower.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

fn credentials(url: &Url) -> Result<Option<Credentials>, AddressFault> {
    let decoded = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8();
        text.map(std::borrow::Cow::into_owned).map_err(|_| AddressFault::Form)
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        (user, password) => Ok(Some(Credentials::new(decoded(user)?, decoded(password.unwrap_or_default())?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(address: &str) -> Option<AddressFault> {
        Connections::new(address, 1).err()
    }

    #[test]
    fn an_address_is_understood_or_refused_without_being_repeated() {
        assert_eq!(fault("smtp://127.0.0.1:1025"), None);
        assert_eq!(fault("smtp://[::1]:1025"), None);
        assert_eq!(fault("smtps://us%40er:p%2fw@mail.example"), None);
        assert_eq!(fault("smtp://user:hunter2@mail.example?tls=required"), None);
        assert_eq!(fault("smtp://user:hunter2@mail.example"), Some(AddressFault::PasswordInClear));
        for wrong in ["", "mail.example", "http://mail.example", "smtp://", "smtp://h?tls=perhaps", "smtp://h:99999"] {
            assert_eq!(fault(wrong), Some(AddressFault::Form), "{wrong}");
        }
    }
}
