//! How often is too often, and how long to wait then: against people who try stolen cards or guess payment codes.
//!
//! Failures are counted, never successes: who pays for a whole family meets no limit. The waits grow with each further
//! failure, have a longest one, and end by themselves; nobody has to unlock anything.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Failures that are told apart at most. A rule that leaves more of them free is switched off.
pub const MOST_COUNTED: u32 = 100;

/// What failures are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The network address; of IPv6, the /64.
    Address,
    /// The client with a token.
    Client,
    /// The bill.
    Bill,
    /// The browser, by its cookie.
    Device,
    /// The card, by the keyed hash of its number.
    Card,
}

impl By {
    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Client => "client",
            Self::Bill => "bill",
            Self::Device => "device",
            Self::Card => "card",
        }
    }
}

/// So many failures within a window are free; each one from there on makes the next attempt wait. Configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Velocity {
    /// Failures within the window after which waiting begins.
    pub free: u32,
    /// How far back failures are counted, in seconds.
    pub window_s: u32,
    /// The wait after the last of the free failures, after the one that follows it, and so on, in seconds; the last one
    /// repeats.
    pub delays_s: Vec<u32>,
}

impl Velocity {
    /// Until when nothing more is tried, after so many failures within the window, the last of them at `last`; `None` if
    /// it may be tried now.
    pub fn shut_until(&self, failures: u32, last: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let over = usize::try_from(failures.checked_sub(self.free)?).unwrap_or(usize::MAX);
        let delay_s = self.delays_s.get(over).or(self.delays_s.last())?;
        // Another machine's clock may be ahead; nobody waits longer for that.
        let until = last.min(now) + Duration::seconds(i64::from(*delay_s));
        (until > now).then_some(until)
    }

    /// The window.
    pub fn window(&self) -> Duration {
        Duration::seconds(i64::from(self.window_s))
    }
}

/// Whole seconds from now until then, at least one: what `Retry-After` says.
pub fn wait_s(until: OffsetDateTime, now: OffsetDateTime) -> u32 {
    u32::try_from((until - now).whole_milliseconds().max(1).saturating_add(999) / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-27 12:00 UTC);

    fn rules() -> impl Strategy<Value = Velocity> {
        (1_u32..50, prop::collection::vec(1_u32..100_000, 1..8)).prop_map(|(free, mut delays_s)| {
            delays_s.sort_unstable();
            Velocity { free, window_s: 86_400, delays_s }
        })
    }

    fn ago(seconds: i64) -> OffsetDateTime {
        NOW - Duration::seconds(seconds)
    }

    #[test]
    fn the_first_ones_are_free_and_then_the_wait_grows_to_the_longest() {
        let rule = Velocity { free: 5, window_s: 86_400, delays_s: vec![600, 3_600, 86_400] };
        let waits: Vec<u32> =
            (0..10).map(|failures| rule.shut_until(failures, NOW, NOW).map_or(0, |until| wait_s(until, NOW))).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 600, 3_600, 86_400, 86_400, 86_400]);
        assert_eq!(rule.shut_until(5, ago(600), NOW), None, "the wait is over");
    }

    proptest! {
        #[test]
        fn a_further_failure_never_shortens_the_wait(rule in rules(), failures in 0_u32..200, since in 0_i64..200_000) {
            let wait = |failures| rule.shut_until(failures, ago(since), NOW);
            prop_assert!(wait(failures) <= wait(failures + 1));
        }

        #[test]
        fn a_later_failure_never_shortens_the_wait(rule in rules(), failures in 0_u32..200, since in 1_i64..200_000) {
            prop_assert!(rule.shut_until(failures, ago(since), NOW) <= rule.shut_until(failures, ago(since - 1), NOW));
        }

        #[test]
        fn no_wait_is_longer_than_the_longest_whatever_the_clocks_say(rule in rules(), failures: u32, ahead in -200_000_i64..200_000) {
            let longest = Duration::seconds(i64::from(*rule.delays_s.last().unwrap()));
            if let Some(until) = rule.shut_until(failures, ago(-ahead), NOW) {
                prop_assert!(until > NOW && until - NOW <= longest);
            }
        }

        #[test]
        fn every_wait_ends_by_itself(rule in rules(), failures: u32) {
            if let Some(until) = rule.shut_until(failures, NOW, NOW) {
                prop_assert_eq!(rule.shut_until(failures, NOW, until), None);
            }
        }

        #[test]
        fn who_comes_back_when_he_was_told_is_let_in(rule in rules(), failures: u32, since_ms in 0_i64..200_000_000) {
            let last = NOW - Duration::milliseconds(since_ms);
            if let Some(until) = rule.shut_until(failures, last, NOW) {
                let told = NOW + Duration::seconds(i64::from(wait_s(until, NOW)));
                prop_assert_eq!(rule.shut_until(failures, last, told), None);
            }
        }
    }
}
