//! Random numbers that can be had again.

/// SplitMix64 (Steele, Lea, Flood 2014): small, well mixed, and the same everywhere for ever. Whoever has seen one number
/// knows the next: for simulations and load, never for a secret.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// Dice that always fall the same for a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The same after so many numbers.
    pub const fn after(seed: u64, numbers: u64) -> Self {
        Self(seed.wrapping_add(numbers.wrapping_mul(Self::STEP)))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From 0 to below 1.
    pub const fn fraction(&mut self) -> f64 {
        // 53 bits are what a float holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_its_authors() {
        // The first ones of seed 1234567, as their reference implementation gives them.
        let mut dice = Dice::new(1_234_567);
        let first = [(); 3].map(|()| dice.next());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(Dice::after(1_234_567, 2).next(), first[2]);
        assert!((0.0..1.0).contains(&dice.fraction()));
    }
}
