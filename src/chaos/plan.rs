//! What is broken, when and for how long: a pure function of the seed, the length and who takes part.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    cast::{Cast, Lane, Peer, Target},
    kind::Kind,
};
use crate::clock::Dice;

/// Faults that may be under way at once. More would only hide each other.
const AT_ONCE: usize = 4;
/// Before the first fault: something has to be under way.
const QUIET_START: Duration = Duration::from_secs(2);
/// Between the beginnings of two faults, in milliseconds.
const GAP_MS: (u64, u64) = (1_000, 2_400);

/// A fault as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// From the beginning of the run.
    #[serde(rename = "at_s", serialize_with = "seconds")]
    pub at: Duration,
    /// What is done.
    pub kind: Kind,
    /// To whom.
    #[serde(serialize_with = "words")]
    pub target: Target,
    /// For how long; mending it takes its own time.
    #[serde(rename = "lasts_s", serialize_with = "seconds")]
    pub lasts: Duration,
    /// Where there is more than one way of it: which.
    pub variant: u64,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn words<S: serde::Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(target)
}

fn within(dice: &mut Dice, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(from + dice.below(to - from + 1))
}

fn pick<T: Clone>(dice: &mut Dice, from: &[T]) -> Option<T> {
    let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
    usize::try_from(dice.below(count)).ok().and_then(|at| from.get(at)).cloned()
}

/// The faults of a run, in the order of their beginning. Each is over before the run is; lanes never overlap.
pub fn plan(seed: u64, length: Duration, cast: &Cast) -> Vec<Fault> {
    let mut dice = Dice::new(seed);
    let total: u64 = Kind::ALL.iter().map(|kind| u64::from(kind.traits().share)).sum();
    // Each kind saves up its share, and whoever has saved most comes next: every kind comes, and never in the same order.
    let mut saved: BTreeMap<Kind, u64> = Kind::ALL.into_iter().map(|kind| (kind, dice.below(total))).collect();
    let mut busy: BTreeMap<Lane, Duration> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut at = QUIET_START;
    while at < length {
        let under_way = busy.values().filter(|until| **until > at).count();
        let mut kinds: Vec<(u64, Kind)> = saved.iter().map(|(kind, saved)| (*saved, *kind)).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        let chosen = kinds.into_iter().filter(|_| under_way < AT_ONCE).find_map(|(_, kind)| {
            let traits = kind.traits();
            let lasts = within(&mut dice, traits.lasts_ms);
            let until = at + lasts + Duration::from_millis(traits.mended_ms);
            let targets: Vec<Target> = cast.targets(kind);
            let free = targets.into_iter().filter(|target| busy.get(&target.lane()).is_none_or(|until| *until <= at));
            let target = pick_target(&mut dice, &free.collect::<Vec<_>>())?;
            (until <= length).then_some((Fault { at, kind, target, lasts, variant: 0 }, until))
        });
        if let Some((mut fault, until)) = chosen {
            fault.variant = dice.next() >> 32;
            for (kind, saved) in &mut saved {
                *saved += u64::from(kind.traits().share);
            }
            if let Some(spent) = saved.get_mut(&fault.kind) {
                *spent = spent.saturating_sub(total);
            }
            busy.insert(fault.target.lane(), until);
            faults.push(fault);
        }
        at += within(&mut dice, GAP_MS);
    }
    faults
}

/// Any of these, but of links each kind of peer as often as any other.
fn pick_target(dice: &mut Dice, free: &[Target]) -> Option<Target> {
    let peer = |target: &Target| match target {
        Target::Link(link) => Some(link.peer),
        _ => None,
    };
    let mut peers: Vec<Option<Peer>> = free.iter().map(peer).collect();
    peers.sort_unstable();
    peers.dedup();
    let chosen = pick(dice, &peers)?;
    let same: Vec<Target> = free.iter().filter(|target| peer(target) == chosen).cloned().collect();
    pick(dice, &same)
}

/// The plan for people.
pub fn table(faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let (at, lasts) = (fault.at.as_secs_f64(), fault.lasts.as_secs_f64());
        format!("  {at:>7.1} s  for {lasts:>4.1} s  {:<20} {}\n", fault.kind.word(), fault.target)
    };
    faults.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn cast() -> Cast {
        Cast::of(&["authorize", "record", "capture", "receipt", "resolve"])
    }

    fn end(fault: &Fault) -> Duration {
        fault.at + fault.lasts + Duration::from_millis(fault.kind.traits().mended_ms)
    }

    proptest! {
        #[test]
        fn a_seed_is_a_plan(seed: u64, seconds in 1_u64..400) {
            let length = Duration::from_secs(seconds);
            prop_assert_eq!(plan(seed, length, &cast()), plan(seed, length, &cast()));
        }

        #[test]
        fn five_minutes_have_a_hundred_faults_of_every_kind(seed: u64) {
            let faults = plan(seed, Duration::from_secs(300), &cast());
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
            prop_assert!(faults.len() >= 100, "{} faults", faults.len());
            prop_assert_eq!(kinds.len(), Kind::ALL.len());
        }

        #[test]
        fn no_lane_has_two_faults_at_once_and_all_are_over_in_time(seed: u64, seconds in 1_u64..400) {
            let length = Duration::from_secs(seconds);
            let faults = plan(seed, length, &cast());
            for (number, fault) in faults.iter().enumerate() {
                prop_assert!(end(fault) <= length);
                for later in &faults[number + 1..] {
                    prop_assert!(later.at >= fault.at);
                    prop_assert!(later.target.lane() != fault.target.lane() || later.at >= end(fault));
                }
                let at_once = faults[..number].iter().filter(|earlier| end(earlier) > fault.at).count();
                prop_assert!(at_once < AT_ONCE);
            }
        }
    }

    #[test]
    fn the_dice_are_splitmix64() {
        // The reference implementation's first numbers for seed 0.
        let mut dice = Dice::new(0);
        assert_eq!([dice.next(), dice.next()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn every_role_and_every_pair_can_be_hit() {
        let faults = plan(1, Duration::from_secs(3_600), &cast());
        let hit: BTreeSet<String> = faults.iter().map(|fault| fault.target.to_string()).collect();
        for actor in cast().actors {
            assert!(hit.contains(&actor.to_string()), "{actor}");
        }
        for link in cast().links {
            assert!(hit.contains(&link.to_string()), "{link}");
        }
    }
}
