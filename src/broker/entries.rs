//! Finance's settlement entries, read as finance reads them: from its own queue, each acknowledged once it is had.

use futures::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

use super::{Broker, BrokerError, Queue, set_up};

/// Entries delivered and not acknowledged, at most.
const PREFETCH: u16 = 2_000;

/// Settlement entries as they come, until this value is dropped.
pub struct Entries {
    deliveries: Consumer,
    channel: Channel,
    // Closes with the last handle.
    _connection: Connection,
}

impl Entries {
    /// Begins to consume.
    pub async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        set_up(async {
            let connection = broker.connect("finance").await?;
            let channel = connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let queue = broker.names().queue(Queue::Settlement);
            let options = BasicConsumeOptions::default();
            let deliveries =
                channel.basic_consume(queue.into(), "finance".into(), options, FieldTable::default()).await?;
            Ok(Self { deliveries, channel, _connection: connection })
        })
        .await
    }

    /// Takes the next entry and all that have come with it, whole CloudEvents, and acknowledges them together.
    pub async fn next(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), BrokerError> {
        let mut delivery = self.deliveries.next().await.ok_or(BrokerError::Ended)??;
        loop {
            take(&delivery.data);
            match self.deliveries.next().now_or_never().flatten().transpose()? {
                Some(next) => delivery = next,
                None => break,
            }
        }
        let options = BasicAckOptions { multiple: true };
        self.channel.basic_ack(delivery.delivery_tag, options).await?;
        Ok(())
    }
}
