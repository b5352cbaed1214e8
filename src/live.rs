//! Facts as they happen, for the pages that are open: what the intake's own exclusive queue brings.

use tokio::sync::broadcast;

use crate::contracts::PaymentFact;

/// News for open pages.
#[derive(Debug, Clone)]
pub enum LiveNews {
    /// A payment has changed.
    Fact(std::sync::Arc<PaymentFact>),
    /// Facts may have been missed (the broker connection was rebuilt): read the database once.
    Resync,
}

/// Where pages subscribe.
pub type LiveFeed = broadcast::Sender<LiveNews>;
