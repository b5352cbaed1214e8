//! How each payment ended and when, as finance and the payers' side see it.
//!
//! A captured payment is over when finance has its settlement entry, taken from finance's own queue. Nothing else is
//! listened to for it: each further listener costs the broker a copy. Of the other ends there are facts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
    try_join,
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{
    broker::{Broker, BrokerError, Entries, Tap},
    contracts::Topic,
};

/// The ends that finance does not hear of.
const OTHER_ENDS: [Topic; 3] = [Topic::PaymentDeclined, Topic::PaymentFailed, Topic::PaymentReversed];
/// A broker that is away is asked so often whether it is back.
const LISTEN_AGAIN_EVERY: Duration = Duration::from_millis(100);
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
        let (entries, tap) = try_join!(Entries::open(broker), open_tap(broker))?;
        let payments = Payments::default();
        let finance = tokio::spawn(hear_finance(broker.clone(), entries, Arc::clone(&payments)));
        let others = tokio::spawn(hear_others(broker.clone(), tap, Arc::clone(&payments)));
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

/// Takes finance's entries for ever. While the broker is away they wait in finance's queue: none is missed.
async fn hear_finance(broker: Broker, mut entries: Entries, payments: Payments) {
    loop {
        let mut take = |body: &[u8]| hear(&payments, body, End { at: Instant::now(), how: Topic::SettlementEntry });
        if let Err(error) = entries.next(&mut take).await {
            entries = open_again(&error, || Entries::open(&broker)).await;
        }
    }
}

/// Takes the facts of other ends for ever. What is announced before this is back after an outage is not heard, and its
/// payment counts as missing.
async fn hear_others(broker: Broker, mut tap: Tap, payments: Payments) {
    loop {
        match tap.next().await {
            Ok(arrival) => hear(&payments, &arrival.body, End { at: arrival.at, how: arrival.topic }),
            Err(error) => tap = open_again(&error, || open_tap(&broker)).await,
        }
    }
}

async fn open_tap(broker: &Broker) -> Result<Tap, BrokerError> {
    Tap::open(broker, "benchmark", &OTHER_ENDS, MOST_WAITING).await
}

/// Listens anew, as soon as the broker lets it.
async fn open_again<T, F>(lost: &BrokerError, open: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, BrokerError>>,
{
    tracing::warn!(error = lost as &dyn std::error::Error, "the benchmark is deaf, and listens anew");
    let mut look = interval(LISTEN_AGAIN_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Ok(open) = open().await {
            return open;
        }
    }
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
