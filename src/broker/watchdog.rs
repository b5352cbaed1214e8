//! The watchdog of a consumer: from time to time it asks the broker whether the two of them believe the same.
//!
//! A consumer may be gone at the broker and hear nothing of it, or be there and get nothing; on this side both look like
//! an empty queue. Heartbeats only tell that the connection lives.

use std::time::Duration;

use futures::{Stream, stream};
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use uuid::Uuid;

use super::BrokerError;

/// Far longer than a broker that is well takes to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the broker says of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Everybody's consumers.
    consumers: u32,
    /// Messages that no consumer holds.
    ready: u32,
}

/// What is wrong with a consumer that believes itself well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The broker does not answer on this connection.
    #[error("the broker does not answer")]
    Silent,
    /// The broker knows of no consumer. (Where other processes consume too, a lost one is found as stalled.)
    #[error("the broker does not count this consumer")]
    Missing,
    /// Messages wait and nothing comes.
    #[error("messages wait and none is delivered")]
    Stalled,
}

impl Complaint {
    /// The word for metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Missing => "missing",
            Self::Stalled => "stalled",
        }
    }
}

/// Judges look after look.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    suspected: Option<Complaint>,
    delivered: u64,
}

impl Watchdog {
    /// Judges a look (none: there was no answer) by what this side knows: deliveries in hand, and deliveries ever.
    ///
    /// Only a consumer that is idle is doubted, for only that one can be rebuilt without costing any message one of its
    /// deliveries. And one look proves nothing: a message may have come at that very moment, and for a queue whose
    /// leader is away or slow the broker answers zero. The same complaint twice in a row is an error.
    pub(super) fn judge(&mut self, look: Option<Look>, in_hand: usize, delivered: u64) -> Result<(), Complaint> {
        let nothing_came = std::mem::replace(&mut self.delivered, delivered) == delivered;
        let complaint = match look {
            _ if in_hand > 0 || !nothing_came => None,
            None => Some(Complaint::Silent),
            Some(Look { consumers: 0, .. }) => Some(Complaint::Missing),
            Some(Look { ready: 0, .. }) => None,
            Some(_) => Some(Complaint::Stalled),
        };
        match std::mem::replace(&mut self.suspected, complaint) {
            Some(before) if complaint == Some(before) => Err(before),
            _ => Ok(()),
        }
    }
}

/// Looks at a queue on this channel, for ever, `every` so often, give or take a quarter so that consumers that began
/// together do not ask together.
pub(super) fn looks(
    channel: Channel,
    queue: String,
    every: Duration,
) -> impl Stream<Item = Result<Option<Look>, BrokerError>> {
    stream::unfold((channel, queue), move |(channel, queue)| async move {
        let share = f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0;
        tokio::time::sleep(every.mul_f64(0.75 + share / 2.0)).await;
        let looked = look(&channel, &queue).await;
        Some((looked, (channel, queue)))
    })
}

async fn look(channel: &Channel, queue: &str) -> Result<Option<Look>, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue.into(), passive, FieldTable::default());
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(queue) => {
            let queue = queue?;
            Ok(Some(Look { consumers: queue.consumer_count(), ready: queue.message_count() }))
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn look(consumers: u32, ready: u32) -> Option<Look> {
        Some(Look { consumers, ready })
    }

    #[test]
    fn the_same_complaint_twice_in_a_row_is_an_error() {
        for (seen, complaint) in
            [(None, Complaint::Silent), (look(0, 0), Complaint::Missing), (look(1, 5), Complaint::Stalled)]
        {
            let mut watchdog = Watchdog::default();
            assert_eq!(watchdog.judge(seen, 0, 0), Ok(()), "once proves nothing");
            assert_eq!(watchdog.judge(seen, 0, 0), Err(complaint));
        }
    }

    #[test]
    fn a_good_look_or_another_complaint_in_between_begins_anew() {
        let mut watchdog = Watchdog::default();
        for seen in [look(0, 0), look(1, 0), look(0, 0), None, look(0, 0), look(2, 0), None] {
            assert_eq!(watchdog.judge(seen, 0, 0), Ok(()));
        }
    }

    #[test]
    fn only_an_idle_consumer_is_doubted() {
        for seen in [look(1, 1_000), look(0, 0), None] {
            let mut watchdog = Watchdog::default();
            for delivered in 1..10 {
                assert_eq!(watchdog.judge(seen, 0, delivered), Ok(()), "what comes proves that it lives");
            }
            for _ in 0..10 {
                assert_eq!(watchdog.judge(seen, 7, 9), Ok(()), "slow is not stalled");
            }
        }
        let mut watchdog = Watchdog::default();
        for _ in 0..10 {
            assert_eq!(watchdog.judge(look(3, 0), 0, 0), Ok(()), "an empty queue is well");
        }
    }
}
