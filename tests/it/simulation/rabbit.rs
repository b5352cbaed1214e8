//! The simulated broker: stores what it confirms, delivers in any order and more than once, and never loses anything.

use std::{collections::BTreeMap, time::Duration};

use time::OffsetDateTime;
use tolom::{
    broker::{Broker, Exchange, Outgoing, Parcel, Queue, Watch},
    contracts::Topic,
};

/// A message in a queue or in one of its tiers.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) parcel: Parcel,
    pub(super) ready_at: OffsetDateTime,
}

/// A delivery that is not acknowledged.
pub(super) struct Unacked {
    pub(super) queue: Queue,
    pub(super) stored: Stored,
    pub(super) process: usize,
    pub(super) actor: u32,
    /// None once a verdict came: what follows is between the session and the broker.
    pub(super) watch: Option<Watch>,
}

pub(super) struct Dead {
    pub(super) queue: Queue,
    pub(super) body: Vec<u8>,
    pub(super) attempt: u32,
    pub(super) reason: String,
}

pub(super) struct Rabbit {
    broker: Broker,
    queues: Vec<(Queue, Vec<Stored>)>,
    tiers: BTreeMap<String, (Queue, Duration)>,
    pub(super) unacked: BTreeMap<u32, Unacked>,
    pub(super) dead: Vec<Dead>,
    /// Facts as they came, for whoever listens.
    pub(super) facts: Vec<(Topic, Vec<u8>)>,
    delivered: u32,
}

impl Rabbit {
    pub(super) fn new(broker: Broker) -> Self {
        let mut tiers = BTreeMap::new();
        for queue in Queue::ALL {
            for delay in &broker.settings().retry_delays_ms {
                let delay_ms = Duration::from_millis(u64::from(*delay));
                tiers.insert(broker.names().tier(queue, *delay), (queue, delay_ms));
            }
        }
        Self {
            broker,
            queues: Queue::ALL.into_iter().map(|queue| (queue, Vec::new())).collect(),
            tiers,
            unacked: BTreeMap::new(),
            dead: Vec::new(),
            facts: Vec::new(),
            delivered: 0,
        }
    }

    pub(super) fn queue(&mut self, queue: Queue) -> &mut Vec<Stored> {
        &mut self.queues.iter_mut().find(|(name, _)| *name == queue).expect("every queue is there").1
    }

    /// Takes a message. Nothing confirmed is ever lost.
    pub(super) fn store(&mut self, message: &Outgoing, now: OffsetDateTime) {
        let parcel = Parcel {
            id: message.message_id.clone(),
            body: message.body.clone(),
            attempt: message.attempt,
            traceparent: message.traceparent.clone(),
            ..Parcel::default()
        };
        match message.exchange {
            Exchange::Commands | Exchange::Events => {
                let topic = Topic::from_routing_key(&message.routing_key).expect("a topic of ours");
                for queue in Queue::ALL.into_iter().filter(|queue| queue.topics().contains(&topic)) {
                    self.queue(queue).push(Stored { parcel: parcel.clone(), ready_at: now });
                }
                self.facts.push((topic, message.body.clone()));
            }
            Exchange::Direct => {
                let (queue, delay) = self.tiers[&message.routing_key];
                self.queue(queue).push(Stored { parcel, ready_at: now + delay });
            }
            Exchange::Dead => {
                let queue = Queue::ALL
                    .into_iter()
                    .find(|queue| self.broker.names().queue(*queue) == message.routing_key)
                    .expect("a dead letter of a queue of ours");
                let reason = message.reason.clone().unwrap_or_default();
                self.dead.push(Dead { queue, body: parcel.body, attempt: parcel.attempt, reason });
            }
        }
    }

    pub(super) fn ready(&self, queue: Queue, now: OffsetDateTime) -> Vec<usize> {
        let (_, stored) = self.queues.iter().find(|(name, _)| *name == queue).expect("every queue is there");
        (0..stored.len()).filter(|index| stored[*index].ready_at <= now).collect()
    }

    /// Hands a message out; the number is its delivery's.
    pub(super) fn deliver(&mut self, unacked: Unacked) {
        self.delivered += 1;
        self.unacked.insert(self.delivered, unacked);
    }

    /// Puts a delivery back, ready at once.
    pub(super) fn redeliver(&mut self, delivery: u32) {
        if let Some(Unacked { queue, stored, .. }) = self.unacked.remove(&delivery) {
            self.queue(queue).push(stored);
        }
    }

    /// When the next message of a tier is ready.
    pub(super) fn next(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let worked = [Queue::Authorize, Queue::Record, Queue::Capture];
        let queues = self.queues.iter().filter(|(queue, _)| worked.contains(queue));
        queues.flat_map(|(_, stored)| stored).map(|stored| stored.ready_at).filter(|at| *at > now).min()
    }

    /// What the queues with a worker still hold.
    pub(super) fn left(&self) -> usize {
        let worked = [Queue::Authorize, Queue::Record, Queue::Capture];
        self.queues.iter().filter(|(queue, _)| worked.contains(queue)).map(|(_, stored)| stored.len()).sum::<usize>()
            + self.unacked.len()
    }
}
