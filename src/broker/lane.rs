//! Lanes: messages are published side by side by where they end, so that a queue that does not confirm (its leader is
//! away, a stream has no writer) holds up its own messages and nobody else's.

use super::{Exchange, Outgoing, Queue};
use crate::contracts::Topic;

/// Messages that wait for the same queue; or facts that are in no queue of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(Option<Queue>);

impl Lane {
    /// How many there are.
    pub(super) const COUNT: usize = Queue::ALL.len() + 1;

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Queue::ALL.into_iter().map(Some).chain([None]).map(Self)
    }

    /// The lane of an event.
    pub fn of(topic: Topic) -> Self {
        Self(Queue::ALL.into_iter().find(|queue| queue.topics().contains(&topic)))
    }

    /// The events on it.
    pub fn topics(self) -> impl Iterator<Item = Topic> {
        Topic::ALL.into_iter().filter(move |topic| Self::of(*topic) == self)
    }

    /// The lane of a message.
    pub(super) fn of_message(message: &Outgoing) -> Self {
        match message.exchange {
            Exchange::Commands | Exchange::Events => {
                Topic::from_routing_key(&message.routing_key).map_or(Self(None), Self::of)
            }
            // Tiers and dead letters bear the name of their queue.
            Exchange::Dead | Exchange::Direct => {
                Self(Queue::ALL.into_iter().find(|queue| message.routing_key.contains(queue.name())))
            }
        }
    }

    /// The queue that its messages wait for.
    pub(super) const fn queue(self) -> Option<Queue> {
        self.0
    }

    pub(super) fn index(self) -> usize {
        Self::all().position(|lane| lane == self).unwrap_or(Self::COUNT - 1)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::broker::Names;

    #[test]
    fn every_event_is_on_one_lane_and_a_queues_tiers_and_dead_letters_are_on_its_own() {
        assert_eq!(Lane::all().count(), Lane::COUNT);
        let mut topics: Vec<_> = Lane::all().flat_map(Lane::topics).map(Topic::routing_key).collect();
        topics.sort_unstable();
        let mut all = Topic::ALL.map(Topic::routing_key);
        all.sort_unstable();
        assert_eq!(topics, all);
        let names = Names::new("test.");
        for queue in Queue::ALL {
            let event = Outgoing::event(queue.topics()[0], Uuid::nil(), Vec::new(), None);
            let tier = Outgoing { exchange: Exchange::Direct, routing_key: names.tier(queue, 1_000), ..event.clone() };
            let dead = Outgoing { exchange: Exchange::Dead, routing_key: names.queue(queue), ..event.clone() };
            for message in [event, tier, dead] {
                assert_eq!(Lane::of_message(&message), Lane(Some(queue)), "{message:?}");
            }
        }
        let declined = Outgoing::event(Topic::PaymentDeclined, Uuid::nil(), Vec::new(), None);
        assert_eq!(Lane::of_message(&declined).index(), Lane::COUNT - 1);
    }
}
