//! What a handler does not finish: to the next retry tier, later untried, or to the dead letters.

use tokio::sync::mpsc;

use super::{
    Broker, Exchange, History, Outgoing, Publisher, Queue, Rebuild,
    message::{Parcel, Settled, Verdict},
};
use crate::{
    clock::Clock,
    contracts::{FailedAttempt, mask},
};

/// A longer reason says no more, and headers should stay small.
const REASON_CHARS: usize = 500;

/// Sends messages to retry tiers and dead letters.
#[derive(Clone)]
pub(super) struct Returns {
    pub(super) broker: Broker,
    pub(super) publisher: Publisher,
    pub(super) queue: Queue,
}

impl Returns {
    /// Publishes the message elsewhere, for as long as it takes, and acknowledges it here only then.
    pub(super) fn send(&self, tag: u64, parcel: Parcel, verdict: Verdict, settled: mpsc::Sender<Settled>) {
        let (message, history, word) = onward(&self.broker, self.queue, parcel, verdict);
        tracing::warn!(
            queue = self.queue.name(),
            message_id = message.message_id,
            attempt = message.attempt,
            reason = message.reason,
            "{word}"
        );
        self.publish(Settled::Sent(tag, word), message, history, settled);
    }

    /// Sends the message through the last retry tier as it came.
    pub(super) fn postpone(&self, tag: u64, parcel: Parcel, settled: mpsc::Sender<Settled>) {
        let delay_ms = self.broker.settings().retry_delays_ms.last().copied().unwrap_or_default();
        let message = Outgoing {
            exchange: Exchange::Direct,
            routing_key: self.broker.names().tier(self.queue, delay_ms),
            message_id: parcel.id,
            body: parcel.body,
            attempt: parcel.attempt,
            reason: None,
            traceparent: parcel.traceparent,
            mandatory: true,
        };
        self.publish(Settled::Sent(tag, "postponed"), message, parcel.history, settled);
    }

    /// Publishes until the broker confirms, and tells the session so.
    fn publish(&self, sent: Settled, message: Outgoing, history: History, settled: mpsc::Sender<Settled>) {
        let returns = self.clone();
        tokio::spawn(async move {
            let supervisor = returns.broker.supervisor();
            supervisor.keep("returns", || returns.publish_at_last(&message, &history, &settled)).await;
            let _ = settled.send(sent).await;
        });
    }

    async fn publish_at_last(&self, message: &Outgoing, history: &History, settled: &mpsc::Sender<Settled>) {
        let mut pause = Rebuild::new();
        // Once the session is gone the broker redelivers the message, and it is judged anew.
        while !settled.is_closed() {
            if self.publisher.publish_with(message.clone(), history.to_headers()).await.is_ok() {
                return;
            }
            pause.wait().await;
        }
    }
}

/// Where a message that is not done with goes, what it has been through by now, and the word for it: to its next retry
/// tier, or to the dead letters.
pub fn onward(broker: &Broker, queue: Queue, parcel: Parcel, verdict: Verdict) -> (Outgoing, History, &'static str) {
    let settings = broker.settings();
    let Parcel { id, mut body, attempt: tried, traceparent, mut history } = parcel;
    let (why, retry) = match verdict {
        Verdict::Retry(why) => (why, tried < settings.max_attempts),
        Verdict::Dead(why) => (why, false),
        Verdict::Done => (String::new(), false),
    };
    let reason: String = mask::mask_text(why).0.chars().take(REASON_CHARS).collect();
    history.add(FailedAttempt { attempt: tried, at: Clock::system().now(), reason: reason.clone() });
    let last = settings.retry_delays_ms.len().saturating_sub(1);
    let tier = usize::try_from(tried).unwrap_or(last).min(last);
    let (exchange, routing_key, attempt, word) = match settings.retry_delays_ms.get(tier) {
        Some(delay) if retry => (Exchange::Direct, broker.names().tier(queue, *delay), tried + 1, "retry"),
        _ => (Exchange::Dead, broker.names().queue(queue), tried, "dead"),
    };
    if exchange == Exchange::Dead {
        // From here on it is kept until a person has looked: nothing of a card may be in it.
        let found = mask::mask(&mut body);
        history.masked = found.any().then(|| found.to_string()).or(history.masked);
    }
    let reason = Some(reason);
    let message =
        Outgoing { exchange, routing_key, message_id: id, body, attempt, reason, traceparent, mandatory: true };
    (message, history, word)
}
