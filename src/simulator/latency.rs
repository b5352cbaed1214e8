//! How long an acquirer thinks: always as long, or distributed.

use std::{fmt, str::FromStr, time::Duration};

use crate::clock::Dice;

/// The longest mean, in milliseconds.
const LONGEST_MS: u64 = 20_000;
/// An exponential wait is cut at so many times its mean: one of 22,000 is longer.
const CUT: f64 = 10.0;

/// How long a request waits before it is acted on. Written `MS`, `MEAN~SPREAD` or `exp:MEAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// `20`: always as long.
    Fixed(Duration),
    /// `50~20`: anything from 30 to 70 ms, evenly.
    Even {
        /// The mean.
        mean: Duration,
        /// How far to either side; at most the mean.
        spread: Duration,
    },
    /// `exp:50`: exponential, as if each request were served after a random queue: most are quick, a few take long.
    Exponential(Duration),
}

impl Latency {
    /// None at all.
    pub const NONE: Self = Self::Fixed(Duration::ZERO);

    /// The `number`-th wait under this seed.
    pub(super) fn draw(self, seed: u64, number: u64) -> Duration {
        match self {
            Self::Fixed(latency) => latency,
            Self::Even { mean, spread } => (mean - spread) + spread.mul_f64(2.0 * chance(seed, number)),
            Self::Exponential(mean) => mean.mul_f64((-(1.0 - chance(seed, number)).ln()).min(CUT)),
        }
    }
}

/// From 0 to below 1, the same for the same seed and number.
pub(crate) const fn chance(seed: u64, number: u64) -> f64 {
    Dice::after(seed, number).fraction()
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "MS, MEAN~SPREAD (evenly) or exp:MEAN is expected, in milliseconds up to 20000".to_owned();
        let millis = |text: &str| match text.parse() {
            Ok(ms) if ms <= LONGEST_MS => Ok(Duration::from_millis(ms)),
            _ => Err(allowed()),
        };
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential(millis(mean)?));
        }
        match text.split_once('~') {
            None => Ok(Self::Fixed(millis(text)?)),
            Some((mean, spread)) => {
                let (mean, spread) = (millis(mean)?, millis(spread)?);
                if spread > mean { Err(allowed()) } else { Ok(Self::Even { mean, spread }) }
            }
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(latency) => write!(f, "{}", latency.as_millis()),
            Self::Even { mean, spread } => write!(f, "{}~{}", mean.as_millis(), spread.as_millis()),
            Self::Exponential(mean) => write!(f, "exp:{}", mean.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for text in ["0", "20", "50~20", "exp:50"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "20001", "20~30", "exp:", "exp:20001", "1.5"] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }

    #[test]
    fn waits_have_the_mean_that_is_asked_for_and_repeat_under_a_seed() {
        for text in ["40", "40~30", "exp:40"] {
            let latency: Latency = text.parse().unwrap();
            let waits: Vec<f64> = (0..10_000).map(|number| latency.draw(7, number).as_secs_f64() * 1e3).collect();
            let mean = waits.iter().sum::<f64>() / 10_000.0;
            assert!((39.0..41.0).contains(&mean), "{text}: {mean}");
            assert!(waits.iter().all(|wait| (0.0..=400.0).contains(wait)));
            assert_eq!(latency.draw(7, 3), latency.draw(7, 3));
        }
    }
}
