//! Turns: batches of a queue are begun one after the other, and how far apart.
//!
//! Statements, commits and publishes cost by the batch: a machine that is half busy with many small ones answers later than
//! one that lets them grow a little.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

/// So long the next batch waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The one place in which a batch is claimed or recorded: while it is taken, the next batch grows, where two at once would
/// be two small ones. A handler drops it once what is left to do needs no place; slow calls are bounded by the prefetch
/// alone. It is taken away after a second: a batch that waits for somebody's lock holds up only itself.
#[derive(Debug, Clone, Default)]
pub struct Turn(
    #[expect(dead_code, reason = "held, and given back when the last clone is dropped")] Option<Arc<Place>>,
);

#[derive(Debug)]
pub(super) struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Turn {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> (Self, Weak<Place>) {
        let place = Arc::new(Place(Mutex::new(Some(permit))));
        let watch = Arc::downgrade(&place);
        (Self(Some(place)), watch)
    }
}

/// Gives a place back that is still held after [`PATIENCE`]; never ends.
pub(super) async fn take_away(place: Weak<Place>) {
    tokio::time::sleep(PATIENCE).await;
    if let Some(place) = place.upgrade() {
        drop(place.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    std::future::pending().await
}

/// How long after the beginning of a batch of so many the next one may begin: a message that comes alone holds up nobody.
pub(super) const fn pause_after(batch: usize, linger: Duration) -> Duration {
    if batch > 1 { linger } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_alone_holds_up_nobody() {
        let pauses = [0, 1, 2, usize::MAX].map(|batch| pause_after(batch, Duration::from_millis(20)).as_millis());
        assert_eq!(pauses, [0, 0, 20, 20]);
    }
}
