//! A backlog that waits at the broker for longer than anybody measures: for a benchmark's own queues.

use futures::future::try_join_all;
use lapin::{options::QueueDeclareOptions, types::FieldTable};

use super::{Broker, BrokerError, Parcel, Publisher, Queue, Verdict, onward, set_up};

/// Messages whose confirms are awaited together.
const TOGETHER: usize = 2_000;

/// Sends messages through a queue's last retry tier, as a worker does that has tried them in vain so often that no other
/// tier is left, and waits until each is confirmed. How many that were.
pub async fn fill(
    broker: &Broker,
    queue: Queue,
    why: &str,
    messages: impl Iterator<Item = Parcel>,
) -> Result<u64, BrokerError> {
    let publisher = Publisher::start(broker.clone());
    let tried = u32::try_from(broker.settings().retry_delays_ms.len()).unwrap_or(u32::MAX);
    let (mut messages, mut confirmed) = (messages.peekable(), 0);
    while messages.peek().is_some() {
        let together = messages.by_ref().take(TOGETHER).map(|parcel| {
            let tried = Parcel { attempt: tried, ..parcel };
            let (message, history, _) = onward(broker, queue, tried, Verdict::Retry(why.to_owned()));
            publisher.publish_with(message, history.to_headers())
        });
        confirmed += try_join_all(together).await?.len() as u64;
    }
    Ok(confirmed)
}

/// How many messages wait in a queue's last retry tier.
pub async fn waiting(broker: &Broker, queue: Queue) -> Result<u64, BrokerError> {
    let delay_ms = broker.settings().retry_delays_ms.last().copied().unwrap_or_default();
    let tier = broker.names().tier(queue, delay_ms);
    let connection = broker.connect("backlog").await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let tier = set_up(async {
        let channel = connection.create_channel().await?;
        Ok(channel.queue_declare(tier.into(), passive, FieldTable::default()).await?)
    })
    .await?;
    super::close(&connection).await;
    Ok(tier.message_count().into())
}
