//! Facts for the pages that are open: an exclusive queue of this process, bounded, dropping the oldest.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Arrival, Broker, BrokerError, Rebuild, Tap};
use crate::{
    contracts::{Event, PaymentFact, Topic},
    live::{LiveFeed, LiveNews},
};

/// A page that misses a fact reads the database at the next one.
const MOST_WAITING: u32 = 10_000;

/// What the live pages are bound to.
pub const TOPICS: [Topic; 6] = [
    Topic::PaymentChallenged,
    Topic::PaymentUnknown,
    Topic::PaymentCaptured,
    Topic::PaymentDeclined,
    Topic::PaymentFailed,
    Topic::PaymentReversed,
];

/// Feeds facts to `feed` until `stop`. After each rebuild it says [`LiveNews::Resync`]: something may have been missed.
pub async fn follow(broker: Broker, feed: LiveFeed, stop: CancellationToken) {
    let mut rebuild = Rebuild::new();
    while !stop.is_cancelled() {
        let result = tokio::select! {
            result = session(&broker, &feed, &mut rebuild) => result,
            () = stop.cancelled() => return,
        };
        if let Err(error) = result {
            tracing::warn!(error = &error as &dyn std::error::Error, "live facts ended, rebuilding");
        }
        tokio::select! {
            () = rebuild.wait() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn session(broker: &Broker, feed: &LiveFeed, rebuild: &mut Rebuild) -> Result<(), BrokerError> {
    let mut facts = Tap::open(broker, "live facts", &TOPICS, MOST_WAITING).await?;
    rebuild.reset();
    let _ = feed.send(LiveNews::Resync);
    loop {
        let Arrival { topic, body, .. } = facts.next().await?;
        // Under load most facts are about pages that nobody has open.
        if feed.receiver_count() > 0
            && let Ok(event) = Event::<PaymentFact>::read(topic, &body)
        {
            // Nobody listening is no error.
            let _ = feed.send(LiveNews::Fact(Arc::new(event.data)));
        }
    }
}
