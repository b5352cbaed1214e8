//! When each fact of each payment arrived, as a listener on the broker saw it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::de::IgnoredAny;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{
    broker::{Arrival, Broker, BrokerError, Tap},
    contracts::{Event, Topic},
};

/// What a payment can be heard of.
const TOPICS: [Topic; 6] = [
    Topic::PaymentAuthorized,
    Topic::PaymentCaptured,
    Topic::SettlementEntry,
    Topic::PaymentDeclined,
    Topic::PaymentFailed,
    Topic::PaymentReversed,
];

/// More than all facts of the largest run.
const MOST_WAITING: u32 = 1_000_000;

/// What was heard of a payment. Of a fact that came twice, the first arrival counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    pub(super) authorized: Option<Instant>,
    pub(super) captured: Option<Instant>,
    /// Its settlement entry.
    pub(super) settled: Option<Instant>,
    /// It ended without a capture.
    pub(super) ended: Option<Topic>,
}

impl Heard {
    fn learn(&mut self, topic: Topic, at: Instant) {
        match topic {
            Topic::PaymentAuthorized => drop(self.authorized.get_or_insert(at)),
            Topic::PaymentCaptured => drop(self.captured.get_or_insert(at)),
            Topic::SettlementEntry => drop(self.settled.get_or_insert(at)),
            other => drop(self.ended.get_or_insert(other)),
        }
    }

    /// Nothing more is to come.
    const fn is_over(&self) -> bool {
        self.ended.is_some() || (self.captured.is_some() && self.settled.is_some())
    }
}

#[derive(Default)]
struct Payment {
    heard: Heard,
    waiting: Option<oneshot::Sender<Heard>>,
}

type Payments = Arc<Mutex<HashMap<Uuid, Payment>>>;

/// Listens until it is dropped.
pub(super) struct Arrivals {
    payments: Payments,
    _listening: AbortOnDropHandle<()>,
}

impl Arrivals {
    /// Begins to listen: whatever is published from now on is heard.
    pub(super) async fn listen(broker: &Broker) -> Result<Self, BrokerError> {
        let mut tap = Tap::open(broker, "benchmark", &TOPICS, MOST_WAITING).await?;
        let payments = Payments::default();
        let heard = Arc::clone(&payments);
        let listening = tokio::spawn(async move {
            loop {
                match tap.next().await {
                    Ok(arrival) => hear(&heard, &arrival),
                    // Whoever waits for a fact gives up in time, and its payment counts as missing.
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "the benchmark is deaf");
                        return;
                    }
                }
            }
        });
        Ok(Self { payments, _listening: AbortOnDropHandle::new(listening) })
    }

    /// Waits until a payment is over, at most so long; what was heard of it until then. To be asked once a payment.
    pub(super) async fn end_of(&self, payment: Uuid, patience: Duration) -> Heard {
        let over = {
            let mut payments = lock(&self.payments);
            let known = payments.entry(payment).or_default();
            if known.heard.is_over() {
                return known.heard;
            }
            let (waiting, over) = oneshot::channel();
            known.waiting = Some(waiting);
            over
        };
        match tokio::time::timeout(patience, over).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(_)) | Err(_) => lock(&self.payments).get(&payment).map(|known| known.heard).unwrap_or_default(),
        }
    }
}

fn hear(payments: &Payments, arrival: &Arrival) {
    let event = Event::<IgnoredAny>::read(arrival.topic, &arrival.body).ok();
    let Some(payment) = event.and_then(|event| event.subject?.parse().ok()) else { return };
    let mut payments = lock(payments);
    let known = payments.entry(payment).or_default();
    known.heard.learn(arrival.topic, arrival.at);
    if known.heard.is_over()
        && let Some(waiting) = known.waiting.take()
    {
        // Nobody waits any more.
        let _ = waiting.send(known.heard);
    }
}

/// No change leaves the map half-done when it panics.
fn lock(payments: &Payments) -> MutexGuard<'_, HashMap<Uuid, Payment>> {
    payments.lock().unwrap_or_else(PoisonError::into_inner)
}
