//! How much waits where, and a look at it that takes nothing away.

use std::time::Duration;

use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{Broker, BrokerError, Names, Parcel, Queue, message::parcel};

/// Far longer than a broker that is well takes to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Watches how many messages wait.
pub struct Depths {
    connection: Connection,
    names: Names,
}

impl Depths {
    /// Opens a connection to watch on.
    pub async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let connection = broker.connect("depths").await?;
        Ok(Self { connection, names: broker.names().clone() })
    }

    /// Messages waiting in each queue and in its dead letters: (queue, waiting, dead).
    pub async fn read(&self) -> Result<Vec<(Queue, u32, u32)>, BrokerError> {
        let mut depths = Vec::new();
        for queue in Queue::ALL {
            let waiting = self.count(self.names.queue(queue)).await?;
            depths.push((queue, waiting, self.count(self.names.dead(queue)).await?));
        }
        Ok(depths)
    }

    /// Dead letters that were set aside because no client can read them.
    pub async fn unreadable(&self) -> Result<u32, BrokerError> {
        self.count(self.names.unreadable()).await
    }

    /// Messages waiting in the queue of this name at the broker. Asks on a channel of its own, for the answer that there
    /// is no such queue closes it.
    pub async fn count(&self, queue: String) -> Result<u32, BrokerError> {
        let ask = async {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let channel = self.connection.create_channel().await?;
            let count = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?.message_count();
            channel.close(200, "done".into()).await?;
            Ok(count)
        };
        tokio::time::timeout(ANSWER_WITHIN, ask).await.unwrap_or(Err(BrokerError::TimedOut(ANSWER_WITHIN)))
    }
}

/// Looks at dead letters without taking them: up to `limit` of each queue, (queue, letter). They go back when the
/// connection closes.
pub async fn peek_dead_letters(broker: &Broker, limit: usize) -> Result<Vec<(String, Parcel)>, BrokerError> {
    let connection = broker.connect("dead letters").await?;
    let channel = connection.create_channel().await?;
    let mut letters = Vec::new();
    for queue in Queue::ALL {
        let name = broker.names().dead(queue);
        let found = look(&channel, &name, limit).await?;
        letters.extend(found.into_iter().map(|letter| (name.clone(), parcel(&letter.properties, letter.data, true))));
    }
    connection.close(200, "done".into()).await?;
    Ok(letters)
}

/// Looks at what waits in a queue without taking it: up to `limit` bodies, which go back when this is done.
pub async fn peek(broker: &Broker, queue: Queue, limit: usize) -> Result<Vec<Vec<u8>>, BrokerError> {
    let connection = broker.connect("peek").await?;
    let channel = connection.create_channel().await?;
    let found = look(&channel, &broker.names().queue(queue), limit).await?;
    connection.close(200, "done".into()).await?;
    Ok(found.into_iter().map(|message| message.data).collect())
}

async fn look(channel: &Channel, name: &str, limit: usize) -> Result<Vec<Delivery>, BrokerError> {
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(message) = channel.basic_get(name.into(), BasicGetOptions::default()).await?
    {
        found.push(message.delivery);
    }
    Ok(found)
}
