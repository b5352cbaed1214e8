//! What the broker gives at most: the measure beside which a pipeline's own figures mean something.
//!
//! Persistent messages of a kilobyte through quorum queues: published in windows whose confirms are awaited, consumed
//! and acknowledged at the same time, by nobody who does anything else with them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{join_all, try_join, try_join_all},
};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{Broker, BrokerError, close, set_up};

/// About what an event of ours takes.
const BODY: [u8; 1_024] = [b'x'; 1_024];
/// Messages that go out before their confirms are awaited.
const WINDOW: u64 = 500;
/// Channels that publish to a queue, each with a window of its own: while one is confirmed, the other goes out.
const CHANNELS: usize = 2;
const PREFETCH: u16 = 2_000;

/// Messages a second through so many queues, each with connections of its own for publishing and consuming: from the
/// first publish to the last acknowledgement.
pub async fn through(broker: &Broker, queues: usize, lasts: Duration) -> Result<f64, BrokerError> {
    let names: Vec<String> = (0..queues).map(|number| name(broker, number)).collect();
    let result = async {
        set_up(declare(broker, &names)).await?;
        let (began, until) = (Instant::now(), Instant::now() + lasts);
        let passed = try_join_all(names.iter().map(|name| one_queue(broker, name, until))).await?;
        Ok(passed.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
    }
    .await;
    set_up(delete(broker, &names)).await?;
    result
}

/// How long each of some messages took to be confirmed, published one at a time.
pub async fn one_by_one(broker: &Broker, lasts: Duration) -> Result<Vec<Duration>, BrokerError> {
    let names = [name(broker, 0)];
    let result = async {
        set_up(declare(broker, &names)).await?;
        let connection = broker.connect("ceiling").await?;
        let channel = confirming(&connection).await?;
        let (until, mut took) = (Instant::now() + lasts, Vec::new());
        while Instant::now() < until {
            let began = Instant::now();
            publish_window(&channel, &names[0], 1).await?;
            took.push(began.elapsed());
        }
        close(&connection).await;
        Ok(took)
    }
    .await;
    set_up(delete(broker, &names)).await?;
    result
}

fn name(broker: &Broker, number: usize) -> String {
    format!("{}ceiling.{number}", broker.settings().prefix)
}

async fn declare(broker: &Broker, names: &[String]) -> Result<(), BrokerError> {
    let connection = broker.connect("ceiling").await?;
    let channel = connection.create_channel().await?;
    for name in names {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments).await?;
    }
    close(&connection).await;
    Ok(())
}

async fn delete(broker: &Broker, names: &[String]) -> Result<(), BrokerError> {
    let connection = broker.connect("ceiling").await?;
    let channel = connection.create_channel().await?;
    for name in names {
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    close(&connection).await;
    Ok(())
}

/// Publishes until then, and consumes until all of it is acknowledged. How many messages that were.
async fn one_queue(broker: &Broker, name: &str, until: Instant) -> Result<u64, BrokerError> {
    let (publishing, consuming) =
        try_join(broker.connect("ceiling publisher"), broker.connect("ceiling consumer")).await?;
    let channels = try_join_all((0..CHANNELS).map(|_| confirming(&publishing))).await?;
    let (published, consumed) = (AtomicU64::new(0), AtomicU64::new(0));
    let publish = try_join_all(channels.iter().map(async |channel| {
        while Instant::now() < until {
            published.fetch_add(publish_window(channel, name, WINDOW).await?, Ordering::Relaxed);
        }
        Ok(())
    }));
    let consumer = set_up(async {
        let channel = consuming.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(name.into(), "ceiling".into(), options, FieldTable::default()).await?;
        Ok((channel, consumer))
    })
    .await?;
    let consume = consume(consumer, &consumed);
    let all = async {
        let publish: Result<Vec<()>, BrokerError> = publish.await;
        publish?;
        // Everything that is confirmed comes.
        while consumed.load(Ordering::Relaxed) < published.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<(), BrokerError>(())
    };
    tokio::select! {
        all = all => all?,
        ended = consume => ended?,
    }
    join_all([close(&publishing), close(&consuming)]).await;
    Ok(consumed.into_inner())
}

/// Takes what is there and acknowledges it together, until an error.
async fn consume((channel, mut consumer): (Channel, lapin::Consumer), consumed: &AtomicU64) -> Result<(), BrokerError> {
    loop {
        let mut tag = consumer.next().await.ok_or(BrokerError::Ended)??.delivery_tag;
        while let Some(delivery) = consumer.next().now_or_never().flatten().transpose()? {
            tag = delivery.delivery_tag;
        }
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        // Tags count from one.
        consumed.store(tag, Ordering::Relaxed);
    }
}

async fn confirming(connection: &lapin::Connection) -> Result<Channel, BrokerError> {
    set_up(async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    })
    .await
}

/// Publishes so many and awaits their confirms; how many were taken.
async fn publish_window(channel: &Channel, queue: &str, count: u64) -> Result<u64, BrokerError> {
    let mut confirms = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    for _ in 0..count {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        confirms.push(channel.basic_publish("".into(), queue.into(), options, &BODY, properties).await?);
    }
    let mut taken = 0;
    for confirm in confirms {
        taken += u64::from(matches!(confirm.await?, Confirmation::Ack(_)));
    }
    Ok(taken)
}

/// The version that a broker tells whoever connects; none where it cannot be asked in clear.
pub async fn version(broker: &Broker) -> Option<String> {
    let url = url::Url::parse(broker.settings().url.expose()).ok().filter(|url| url.scheme() == "amqp")?;
    let ask = async {
        let mut stream = TcpStream::connect((url.host_str()?, url.port().unwrap_or(5672))).await.ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
        // A frame (AMQP 0-9-1, section 2.3.5): type, channel, size; then the method connection.start.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.ok()?;
        let size = u32::from_be_bytes(head[3..].try_into().ok()?).min(64 * 1024);
        let mut start = vec![0; usize::try_from(size).ok()?];
        stream.read_exact(&mut start).await.ok()?;
        text_field(&start, b"\x07versionS")
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.ok().flatten()
}

/// The text behind a field's name in a table.
fn text_field(table: &[u8], name: &[u8]) -> Option<String> {
    let at = table.windows(name.len()).position(|window| window == name)? + name.len();
    let length = u32::from_be_bytes(table.get(at..at + 4)?.try_into().ok()?);
    let text = table.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_from_a_table_and_nothing_beyond_its_end() {
        let table = b"\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x043.10";
        assert_eq!(text_field(table, b"\x07versionS").as_deref(), Some("3.10"));
        assert_eq!(text_field(&table[..table.len() - 1], b"\x07versionS"), None);
        assert_eq!(text_field(b"", b"\x07versionS"), None);
    }
}
