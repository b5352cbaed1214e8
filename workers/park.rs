//! Park: dead letters leave the broker for the database, where a person can find, replay or discard them.
//!
//! A letter is acknowledged once its row is committed. One that comes again, because of a crash in between, finds its
//! row and changes nothing.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use serde_json::Value;

use crate::{
    broker::{self, Handler, Message, Parcel, Queue, Reading, Turn, Verdict},
    chain::chain,
    contracts::mask::{self, Found},
    store::{
        StoreError,
        dead::{self, Letter},
    },
    worker::Context,
};

/// What is longer is cut, and cannot be replayed.
const LONGEST_BODY: usize = 1024 * 1024;
const LONGEST_WORD: usize = 255;
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Counts from one sweep of what is old to the next.
const COUNTS_A_SWEEP: u32 = 240;
const DAY: Duration = Duration::from_secs(86_400);

/// Parks the dead letters of one queue.
struct Park {
    context: Context,
    queue: Queue,
}

/// Parks the dead letters of every queue until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    tracing::info!(worker = "park", "started");
    let settings = &context.config.park;
    let consumers = Queue::ALL.map(|queue| {
        let reading = Reading { queue, batch: settings.batch, prefetch: settings.prefetch, linger: Duration::ZERO };
        let handler = Arc::new(Park { context: context.clone(), queue });
        let (broker, publisher) = (context.broker.clone(), context.publisher.clone());
        broker::consume_dead_letters(broker, publisher, reading, handler, context.stop.clone())
    });
    futures::join!(join_all(consumers), upkeep(&context));
    tracing::info!(worker = "park", "drained");
    Ok(())
}

impl Handler for Park {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        let letters = batch.into_iter().map(|message| {
            let letter = letter(self.queue, &message);
            (message, letter)
        });
        let mut parts = vec![letters.collect::<Vec<_>>()];
        while let Some(part) = parts.pop() {
            parts.extend(self.park(part).await);
        }
    }
}

impl Park {
    /// Parks a part of a batch; returns what is still to be parked, in smaller parts.
    async fn park(&self, part: Vec<(Message, Letter)>) -> Vec<Vec<(Message, Letter)>> {
        let (messages, mut letters): (Vec<_>, Vec<_>) = part.into_iter().unzip();
        let mut parked = self.store(&letters).await;
        if let (Some(Err(error)), [letter]) = (&parked, &mut letters[..]) {
            // Nothing here should be refused. If it is, its body and why are worth more than the rest.
            tracing::error!(
                queue = self.queue.name(),
                error = error as &dyn std::error::Error,
                "a dead letter is refused"
            );
            *letter = bare(letter, error);
            parked = self.store(&letters).await;
        }
        match parked {
            Some(Ok(())) => {
                for letter in &letters {
                    tracing::warn!(
                        queue = letter.queue,
                        message_id = letter.message_id,
                        reason = letter.reason,
                        "parked"
                    );
                }
                let queue = self.queue.name();
                metrics::counter!("tolom_dead_letters_parked_total", "queue" => queue).increment(letters.len() as u64);
                messages.into_iter().for_each(|message| message.settle(Verdict::Done));
                Vec::new()
            }
            Some(Err(_)) if letters.len() > 1 => {
                let mut part: Vec<_> = messages.into_iter().zip(letters).collect();
                let rest = part.split_off(part.len() / 2);
                vec![rest, part]
            }
            // It stays at the broker, where it is counted, and comes again after the next start.
            Some(Err(_)) | None => {
                messages.into_iter().for_each(Message::leave);
                Vec::new()
            }
        }
    }

    async fn store(&self, letters: &[Letter]) -> Option<Result<(), StoreError>> {
        let context = &self.context;
        context.until_available(|| dead::park(&context.pool, letters, context.clock.now())).await
    }
}

/// A dead letter as it is kept: masked, bounded, and told apart as far as it can be read.
fn letter(queue: Queue, parcel: &Parcel) -> Letter {
    let mut body = parcel.body.clone();
    let found = mask::mask(&mut body);
    let head = Head::read(&body);
    let cut = body.len() > LONGEST_BODY;
    body.truncate(LONGEST_BODY);
    let history = &parcel.history;
    let mut failures = history.failures.clone();
    for failure in &mut failures {
        failure.reason = mask::mask_text(std::mem::take(&mut failure.reason)).0;
    }
    let said =
        || history.headers.iter().find(|(name, _)| name == broker::REASON_HEADER).map(|(_, value)| value.clone());
    let reason = failures.last().map(|failure| failure.reason.clone()).or_else(said);
    Letter {
        queue: queue.name(),
        message_id: parcel.id.clone(),
        body,
        headers: history.headers.clone(),
        traceparent: parcel.traceparent.clone(),
        event_type: head.event_type,
        payment: head.payment,
        reason: reason.unwrap_or_else(|| "no reason is known".to_owned()),
        failures,
        attempts: parcel.attempt,
        unreplayable: unreplayable(found, history.masked.as_deref(), cut),
    }
}

/// What is no longer what was sent must not be sent again in its name.
fn unreplayable(found: Found, before: Option<&str>, cut: bool) -> Option<String> {
    let masked = found.any().then(|| found.to_string()).or_else(|| before.map(str::to_owned));
    match (masked, cut) {
        (Some(masked), _) => Some(format!("it held card data, which is masked: {masked}")),
        (None, true) => Some(format!("its body was cut to {LONGEST_BODY} bytes")),
        (None, false) => None,
    }
}

/// The least that can be kept of a letter.
fn bare(letter: &Letter, error: &StoreError) -> Letter {
    Letter {
        headers: Vec::new(),
        traceparent: None,
        event_type: None,
        payment: None,
        reason: format!("{} ({})", letter.reason, chain(error)),
        failures: Vec::new(),
        ..letter.clone()
    }
}

/// What a CloudEvent says of itself, where it can be read.
#[derive(Default)]
struct Head {
    event_type: Option<String>,
    payment: Option<uuid::Uuid>,
}

impl Head {
    fn read(body: &[u8]) -> Self {
        let Ok(event) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let text = |value: &Value| value.as_str().map(|text| text.chars().take(LONGEST_WORD).collect::<String>());
        let payment = [&event["data"]["payment"], &event["subject"]];
        Self {
            event_type: text(&event["type"]),
            payment: payment.into_iter().find_map(|value| value.as_str()?.parse().ok()),
        }
    }
}

/// Counts what waits, and forgets what was settled long ago.
async fn upkeep(context: &Context) {
    let mut tick = tokio::time::interval(COUNT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0_u32.. {
        tokio::select! {
            _ = tick.tick() => {}
            () = context.stop.cancelled() => return,
        }
        let work = async {
            show(&dead::waiting(&context.pool).await?);
            if count % COUNTS_A_SWEEP == 0 {
                let (now, settings) = (context.clock.now(), &context.config.park);
                let (settled, audited) = (now - DAY * settings.keep_days, now - DAY * settings.audit_days);
                dead::forget(&context.pool, settled, audited).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = work.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "parked dead letters cannot be counted");
        }
    }
}

fn show(waiting: &[(String, i64)]) {
    for queue in Queue::ALL {
        let letters = waiting.iter().find(|(name, _)| name == queue.name()).map_or(0, |(_, letters)| *letters);
        metrics::gauge!("tolom_parked_dead_letters", "queue" => queue.name()).set(letters as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(body: &[u8]) -> Parcel {
        Parcel { id: "m".to_owned(), body: body.to_vec(), ..Parcel::default() }
    }

    #[test]
    fn what_is_masked_or_cut_cannot_be_replayed() {
        let good = letter(Queue::Record, &parcel(b"{\"type\":\"tolom.x.v1\",\"subject\":\"no-uuid\"}"));
        assert_eq!((good.unreplayable, good.payment), (None, None));
        assert_eq!(good.event_type.as_deref(), Some("tolom.x.v1"));
        let card = letter(Queue::Record, &parcel(b"4111111111111111"));
        assert_eq!(card.body, b"****************");
        assert!(card.unreplayable.unwrap().contains("a card number"));
        let mut before = parcel(b"****************");
        before.history.masked = Some("a card number".to_owned());
        assert!(letter(Queue::Record, &before).unreplayable.is_some());
        let long = letter(Queue::Record, &parcel(&vec![b'x'; LONGEST_BODY + 1]));
        assert_eq!(long.body.len(), LONGEST_BODY);
        assert!(long.unreplayable.unwrap().contains("cut"));
    }
}
