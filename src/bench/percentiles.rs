//! Percentiles of latencies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Percentiles by nearest rank (each is a value that was measured), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Percentiles {
    /// Of these latencies, in any order; none of nothing.
    pub fn of(latencies: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut sorted: Vec<Duration> = latencies.into_iter().collect();
        sorted.sort_unstable();
        let at = |percent| nearest_rank(&sorted, percent).map(millis);
        Some(Self { p50: at(50)?, p95: at(95)?, p99: at(99)?, max: at(100)? })
    }
}

/// The smallest value that at least `percent` of 100 values do not exceed.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Milliseconds with microseconds behind the point: more is noise.
fn millis(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn the_ranks_are_those_of_the_textbook() {
        let hundred = Percentiles::of(ms((1..=100).rev())).unwrap();
        assert_eq!(hundred, Percentiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        let five = Percentiles::of(ms([15, 20, 35, 40, 50])).unwrap();
        assert_eq!((five.p50, five.p95), (35.0, 50.0));
        assert_eq!(Percentiles::of(ms([7])).unwrap(), Percentiles { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Percentiles::of([]), None);
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
            mut values in prop::collection::vec(0_u64..1_000, 1..200),
            percent in 1_usize..=100,
        ) {
            values.sort_unstable();
            let rank = nearest_rank(&ms(values.clone()), percent).unwrap().as_millis() as u64;
            let within = |limit: u64| values.iter().filter(|value| **value <= limit).count() * 100;
            prop_assert!(values.contains(&rank));
            prop_assert!(within(rank) >= percent * values.len());
            prop_assert!(rank == 0 || within(rank - 1) < percent * values.len());
        }

        #[test]
        fn percentiles_rise_and_order_makes_no_difference(values in prop::collection::vec(0_u64..1_000, 1..200)) {
            let one = Percentiles::of(ms(values.clone())).unwrap();
            prop_assert!(one.p50 <= one.p95 && one.p95 <= one.p99 && one.p99 <= one.max);
            prop_assert_eq!(one, Percentiles::of(ms(values.into_iter().rev())).unwrap());
        }
    }
}
