//! The outbox relay: publishes what a transaction promised, right after its commit, and sweeps up what was left.

use tokio::sync::mpsc;

use crate::store::outbox::OutboxRow;

/// Hands committed outbox rows to the publisher of this process.
#[derive(Debug, Clone)]
pub struct Relay {
    committed: mpsc::Sender<Vec<OutboxRow>>,
}

/// A relay and the end where the publisher takes what was announced; at most `capacity` transactions wait in between.
pub fn channel(capacity: usize) -> (Relay, mpsc::Receiver<Vec<OutboxRow>>) {
    let (committed, taken) = mpsc::channel(capacity);
    (Relay { committed }, taken)
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
