//! All the chance there is in a run: one stream of numbers from one seed.

use tolom::clock::Dice;

pub(super) struct Chance(Dice);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams.
        let mut dice = Dice::after(seed ^ 0x70_6F6C_6F6D, 1);
        Self(Dice::new(dice.next()))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// 0 to `below - 1`.
    pub(super) fn below(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % below as u64).unwrap()
    }

    /// Both ends included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.next() % 100 < u64::from(percent)
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// One of these, as often as its weight says. At least one has a weight.
    pub(super) fn weighted<T: Clone>(&mut self, from: &[(u32, T)]) -> T {
        let total: u64 = from.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut left = self.next() % total;
        for (weight, item) in from {
            if left < u64::from(*weight) {
                return item.clone();
            }
            left -= u64::from(*weight);
        }
        unreachable!("the weights add up to their total")
    }
}
