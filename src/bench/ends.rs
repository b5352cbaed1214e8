//! How each payment ended and when, as finance and the payers' side see it.
//!
//! A captured payment is over when finance has its settlement entry, taken from finance's own queue. Nothing else is
//! listened to for it: each further listener costs the broker a copy. Of the other ends there are facts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{
    broker::{Broker, BrokerError, Entries, Tap},
    contracts::Topic,
};

/// The ends that finance does not hear of.
const OTHER_ENDS: [Topic; 3] = [Topic::PaymentDeclined, Topic::PaymentFailed, Topic::PaymentReversed];
/// More than all payments of the largest run.
const MOST_WAITING: u32 = 500_000;

/// The end of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: Instant,
    /// [`Topic::SettlementEntry`] if it was captured.
    pub(super) how: Topic,
}

#[derive(Default)]
struct Payment {
    end: Option<End>,
    waiting: Option<oneshot::Sender<End>>,
}

type Payments = Arc<Mutex<HashMap<Uuid, Payment>>>;

/// Listens until it is dropped.
pub(super) struct Ends {
    payments: Payments,
    _listening: [AbortOnDropHandle<()>; 2],
}

impl Ends {
    /// Begins to listen: whatever ends from now on is heard.
    pub(super) async fn listen(broker: &Broker) -> Result<Self, BrokerError> {
        let mut entries = Entries::open(broker).await?;
        let mut tap = Tap::open(broker, "benchmark", &OTHER_ENDS, MOST_WAITING).await?;
        let payments = Payments::default();
        let heard = Arc::clone(&payments);
        let finance = tokio::spawn(async move {
            loop {
                let mut take =
                    |body: &[u8]| hear(&heard, body, End { at: Instant::now(), how: Topic::SettlementEntry });
                if let Err(error) = entries.next(&mut take).await {
                    return deaf(&error);
                }
            }
        });
        let heard = Arc::clone(&payments);
        let others = tokio::spawn(async move {
            loop {
                match tap.next().await {
                    Ok(arrival) => hear(&heard, &arrival.body, End { at: arrival.at, how: arrival.topic }),
                    Err(error) => return deaf(&error),
                }
            }
        });
        Ok(Self { payments, _listening: [finance, others].map(AbortOnDropHandle::new) })
    }

    /// Waits until a payment is over, at most until then.
    pub(super) async fn end_of(&self, payment: Uuid, until: Instant) -> Option<End> {
        let over = {
            let mut payments = lock(&self.payments);
            let known = payments.entry(payment).or_default();
            if let Some(end) = known.end {
                return Some(end);
            }
            let (waiting, over) = oneshot::channel();
            known.waiting = Some(waiting);
            over
        };
        timeout_at(until, over).await.ok()?.ok()
    }

    /// Forgets what has ended.
    pub(super) fn forget(&self) {
        lock(&self.payments).clear();
    }
}

/// Whoever waits for an end gives up in time, and its payment counts as missing.
fn deaf(error: &BrokerError) {
    tracing::error!(error = error as &dyn std::error::Error, "the benchmark is deaf");
}

/// All that is read of an event.
#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    subject: Option<&'a str>,
}

fn hear(payments: &Payments, body: &[u8], end: End) {
    let subject = serde_json::from_slice::<Subject<'_>>(body).ok().and_then(|event| event.subject);
    let Some(payment) = subject.and_then(|id| id.parse().ok()) else { return };
    let mut payments = lock(payments);
    let known = payments.entry(payment).or_default();
    // Of an end that comes twice, the first counts.
    let end = *known.end.get_or_insert(end);
    if let Some(waiting) = known.waiting.take() {
        // Nobody waits any more.
        let _ = waiting.send(end);
    }
}

/// No change leaves the map half-done when it panics.
fn lock(payments: &Payments) -> MutexGuard<'_, HashMap<Uuid, Payment>> {
    payments.lock().unwrap_or_else(PoisonError::into_inner)
}
