//! RabbitMQ: topology, confirmed publishing, supervised consuming. All lapin code of the pipeline stands here.
//!
//! Publishing and consuming use different connections (`connection.blocked` stops every write of a connection, acks
//! included). lapin's auto-recovery stays off: after an error or an end everything is rebuilt, connection first.

mod acks;
pub mod backlog;
pub mod ceiling;
mod consumer;
mod depths;
mod entries;
mod history;
mod lane;
pub mod live;
mod message;
mod names;
mod outgoing;
mod publisher;
mod returns;
mod tap;
mod topology;
mod turn;
mod watchdog;
mod windows;

use std::{sync::Arc, time::Duration};

pub use consumer::{Handler, Reading, consume, consume_dead_letters};
pub use depths::{Depths, peek, peek_dead_letters};
pub use entries::Entries;
pub use history::History;
pub use lane::Lane;
use lapin::{
    Connection, ConnectionProperties,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
pub use message::{Fate, Message, Parcel, Verdict, Watch, read_parcel};
pub use names::{Names, Queue, UNREADABLE};
pub use outgoing::{Exchange, Outgoing, PublishError};
pub use publisher::{Detached, Link, Publisher, Unanswered};
pub use returns::onward;
pub use tap::{Arrival, Tap};
pub use topology::{Finding, apply, remove, renew_stream, stream_has_writer, verify};
pub use turn::Turn;
pub use watchdog::Complaint;

use crate::{config, supervision::Supervisor};

/// Bytes of a frame where messages are read. The client library sets 64 of them aside for each connection. What a message's
/// headers hold must fit into one: a message with more is set aside by the broker.
const LARGEST_FRAME: u32 = 48 * 1024;
/// The same where messages are only published: the headers of ours take at most 13 KiB.
const PUBLISHED_FRAME: u32 = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The header that counts attempts. Ours, because RabbitMQ's own counters change between versions.
pub(crate) const ATTEMPT_HEADER: &str = "tolom-attempt";
/// The header with the reason of a retry or a dead letter.
pub const REASON_HEADER: &str = "tolom-reason";

/// The broker cannot do it now.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// lapin's word.
    #[error("the broker refuses or is away")]
    Amqp(#[from] lapin::Error),
    /// No answer in time.
    #[error("the broker did not answer within {0:?}")]
    TimedOut(Duration),
    /// A consumer ended without an error: its queue was deleted, or the broker cancelled it.
    #[error("the consumer was ended by the broker")]
    Ended,
    /// A dead letter was not parked: it stays at the broker, and is delivered again.
    #[error("a dead letter was not parked")]
    Unparked,
    /// A message was not taken.
    #[error("a message is not stored")]
    Unpublished(#[from] PublishError),
    /// The watchdog found a consumer dead that believed itself well.
    #[error("the consumer is not well")]
    Unwell(#[from] Complaint),
}

impl BrokerError {
    /// Every word for metrics.
    const WORDS: [&str; 7] = ["error", "ended", "unparked", "unreadable", "silent", "missing", "stalled"];

    /// Whether the broker sent what the client library cannot read: the connection cannot go on, whoever is to blame.
    fn is_unreadable(&self) -> bool {
        let too_large = AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR);
        matches!(self, Self::Amqp(error) if match error.kind() {
            lapin::ErrorKind::ParsingError(_) => true,
            lapin::ErrorKind::ProtocolError(error) => *error.kind() == too_large,
            _ => false,
        })
    }

    /// Whether a queue or an exchange that was asked for is not there.
    fn is_missing(&self) -> bool {
        let not_found = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
        matches!(self, Self::Amqp(error) if matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if *error.kind() == not_found))
    }

    /// The word for metrics.
    fn word(&self) -> &'static str {
        match self {
            _ if self.is_unreadable() => "unreadable",
            Self::Amqp(_) | Self::TimedOut(_) | Self::Unpublished(_) => "error",
            Self::Ended => "ended",
            Self::Unparked => "unparked",
            Self::Unwell(complaint) => complaint.word(),
        }
    }
}

/// How to reach the broker, what things are called there, and who watches over what runs on it.
#[derive(Debug, Clone)]
pub struct Broker {
    settings: Arc<config::Broker>,
    names: Names,
    supervisor: Supervisor,
}

impl Broker {
    /// A broker by these settings; nothing is connected yet.
    pub fn new(settings: &config::Broker) -> Self {
        let supervisor = Supervisor::default();
        Self { names: Names::new(&settings.prefix), settings: Arc::new(settings.clone()), supervisor }
    }

    /// Who watches over the tasks of this process.
    pub const fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// What things are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The settings.
    pub fn settings(&self) -> &config::Broker {
        &self.settings
    }

    /// A new connection, named after its purpose in the broker's own tools.
    pub async fn connect(&self, purpose: &str) -> Result<Connection, BrokerError> {
        self.connect_with(purpose, LARGEST_FRAME).await
    }

    async fn connect_with(&self, purpose: &str, frame: u32) -> Result<Connection, BrokerError> {
        let url = self.settings.url.expose();
        let with = |url: String, name: &str, value: u32| {
            let separator = if url.contains('?') { '&' } else { '?' };
            if url.contains(name) { url } else { format!("{url}{separator}{name}{value}") }
        };
        // A peer that is gone without a word is noticed within two heartbeats.
        let url = with(with(url.to_owned(), "heartbeat=", 10), "frame_max=", frame);
        let properties = ConnectionProperties::default().with_connection_name(format!("tolom {purpose}").into());
        tokio::time::timeout(CONNECT_TIMEOUT, Connection::connect(&url, properties))
            .await
            .map_err(|_| BrokerError::TimedOut(CONNECT_TIMEOUT))?
            .map_err(BrokerError::Amqp)
    }
}

/// Longer than declaring, subscribing and the like take at a broker that is well. One that is only just coming up may
/// take a connection and then never answer.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Does what a new connection needs before it is of use, within a limit.
pub(crate) async fn set_up<T>(work: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    tokio::time::timeout(SETUP_TIMEOUT, work).await.unwrap_or(Err(BrokerError::TimedOut(SETUP_TIMEOUT)))
}

/// Closes a connection, within a limit: a peer that is gone never says that it is closed.
pub(crate) async fn close(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "done".into())).await;
}

/// Waits between attempts to rebuild: 100 ms at first, doubling to 5 s, for ever.
#[derive(Debug)]
pub(crate) struct Rebuild(Duration);

impl Rebuild {
    pub(crate) const fn new() -> Self {
        Self(Duration::from_millis(100))
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
    }
}
