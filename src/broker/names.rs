//! What queues and exchanges are called, and what is routed where.

use crate::contracts::Topic;

/// The name, without prefix, of the queue of dead letters that no client can read; also its label in metrics.
pub const UNREADABLE: &str = "tolom.unreadable";

/// A queue that somebody consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Payments to authorize.
    Authorize,
    /// Outcomes to record.
    Record,
    /// Authorizations to capture.
    Capture,
    /// Receipts to send.
    Receipt,
    /// Finance's settlement entries; consumed by finance.
    Settlement,
}

impl Queue {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Authorize, Self::Record, Self::Capture, Self::Receipt, Self::Settlement];

    /// The name without prefix; also the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorize => "tolom.authorize",
            Self::Record => "tolom.record",
            Self::Capture => "tolom.capture",
            Self::Receipt => "tolom.receipt",
            Self::Settlement => "finance.settlement",
        }
    }

    /// Its dead letters' name without prefix, and their label in metrics.
    pub const fn dead_name(self) -> &'static str {
        match self {
            Self::Authorize => "tolom.authorize.dead",
            Self::Record => "tolom.record.dead",
            Self::Capture => "tolom.capture.dead",
            Self::Receipt => "tolom.receipt.dead",
            Self::Settlement => "finance.settlement.dead",
        }
    }

    /// The queue of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.name() == name)
    }

    /// What is routed to it.
    pub const fn topics(self) -> &'static [Topic] {
        match self {
            Self::Authorize => &[Topic::PaymentRequested, Topic::PaymentChallengeCompleted],
            Self::Record => &[Topic::OperationCompleted],
            Self::Capture => &[Topic::PaymentAuthorized],
            Self::Receipt => &[Topic::PaymentCaptured],
            Self::Settlement => &[Topic::SettlementEntry],
        }
    }

    /// Whether it has retry tiers. Finance decides for itself when to try again.
    pub const fn has_tiers(self) -> bool {
        !matches!(self, Self::Settlement)
    }
}

/// What things are called at the broker: the names of the design behind a configurable prefix.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names behind this prefix (empty: the design's own).
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The exchange of work to do.
    pub fn commands(&self) -> String {
        format!("{}tolom.commands", self.prefix)
    }

    /// The exchange of facts.
    pub fn events(&self) -> String {
        format!("{}tolom.events", self.prefix)
    }

    /// The dead-letter exchange.
    pub fn dead_exchange(&self) -> String {
        format!("{}tolom.dead", self.prefix)
    }

    /// A queue.
    pub fn queue(&self, queue: Queue) -> String {
        format!("{}{}", self.prefix, queue.name())
    }

    /// A queue's dead letters.
    pub fn dead(&self, queue: Queue) -> String {
        format!("{}{}", self.prefix, queue.dead_name())
    }

    /// A queue's retry tier of this delay.
    pub fn tier(&self, queue: Queue, delay_ms: u32) -> String {
        let delay =
            if delay_ms.is_multiple_of(1000) { format!("{}s", delay_ms / 1000) } else { format!("{delay_ms}ms") };
        format!("{}{}.retry.{delay}", self.prefix, queue.name())
    }

    /// Where dead letters end that no client can read.
    pub fn unreadable(&self) -> String {
        format!("{}{UNREADABLE}", self.prefix)
    }

    /// The stream of all settlement entries.
    pub fn stream(&self) -> String {
        format!("{}settlement.log", self.prefix)
    }
}
