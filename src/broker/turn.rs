//! Turns: how many batches of a queue are begun at once.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

/// So long the next batch waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// One of the places of [`Reading::concurrency`](super::Reading::concurrency). A handler that drops it early, because what is left to do needs no
/// place, lets the next batch grow meanwhile instead of being cut small. It is taken away after a second: a batch that
/// waits for somebody's lock holds up only itself.
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
