//! Which deliveries of a channel are settled, and how few frames acknowledge them.

use std::collections::VecDeque;

/// Which deliveries are settled. Delivery tags of a channel count up from 1 without gaps.
#[derive(Debug, Default)]
pub(super) struct Acks {
    slots: VecDeque<Slot>,
    /// The tag of the first slot.
    first: u64,
    /// Tags settled since the last flush.
    fresh: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Done,
    /// Acknowledged on its own, while an earlier one was still open.
    Acked,
}

impl Acks {
    /// A delivery has come; tags come in order.
    pub(super) fn delivered(&mut self, tag: u64) {
        if self.slots.is_empty() {
            self.first = tag;
        }
        self.slots.push_back(Slot::Open);
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot> {
        let index = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// A delivery is settled. Repeating it changes nothing.
    pub(super) fn done(&mut self, tag: u64) {
        if let Some(slot @ Slot::Open) = self.slot(tag) {
            *slot = Slot::Done;
            self.fresh.push(tag);
        }
    }

    /// Deliveries that are not acknowledged in order yet.
    pub(super) fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// What to acknowledge: the finished front in one `multiple` ack, finished ones behind an open one on their own.
    pub(super) fn flush(&mut self) -> Vec<(u64, bool)> {
        let mut acks = Vec::new();
        let mut front = None;
        while let Some(slot) = self.slots.front().copied()
            && slot != Slot::Open
        {
            if slot == Slot::Done {
                front = Some(self.first);
            }
            self.slots.pop_front();
            self.first += 1;
        }
        if let Some(tag) = front {
            acks.push((tag, true));
        }
        for tag in std::mem::take(&mut self.fresh) {
            if let Some(slot @ Slot::Done) = self.slot(tag) {
                *slot = Slot::Acked;
                acks.push((tag, false));
            }
        }
        acks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A broker that keeps its own books of what is unacknowledged.
        #[test]
        fn only_settled_messages_are_acknowledged_and_each_exactly_once(
            order in Just((1_u64..=40).collect::<Vec<_>>()).prop_shuffle(),
            flush_after in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut acks = Acks::default();
            (1..=40).for_each(|tag| acks.delivered(tag));
            let mut broker: BTreeSet<u64> = (1..=40).collect();
            let mut settled = BTreeSet::new();
            for (tag, flush) in order.into_iter().zip(flush_after) {
                acks.done(tag);
                acks.done(tag);
                settled.insert(tag);
                for (tag, multiple) in if flush { acks.flush() } else { Vec::new() } {
                    prop_assert!(broker.contains(&tag), "an unknown tag closes the channel");
                    let acked: Vec<u64> = if multiple { broker.range(..=tag).copied().collect() } else { vec![tag] };
                    for tag in acked {
                        prop_assert!(settled.contains(&tag));
                        broker.remove(&tag);
                    }
                }
            }
            for (tag, multiple) in acks.flush() {
                if multiple { broker.retain(|other| *other > tag) } else { broker.remove(&tag); }
            }
            prop_assert!(broker.is_empty());
            prop_assert_eq!(acks.outstanding(), 0);
        }
    }
}
