//! The outbox relay: publishes what a transaction promised, right after its commit, and sweeps up what was left.

use tokio::sync::mpsc;

use crate::store::outbox::OutboxRow;

/// Hands committed outbox rows to the publisher of this process.
#[derive(Debug, Clone)]
pub struct Relay {
    committed: mpsc::Sender<Vec<OutboxRow>>,
}

impl Relay {
    /// Publishes these rows soon. Never waits and never fails: what does not fit is left to the sweep, for the rows
    /// are in the database.
    pub fn announce(&self, rows: Vec<OutboxRow>) {
        if !rows.is_empty() {
            let _ = self.committed.try_send(rows);
        }
    }
}
