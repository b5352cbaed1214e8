//! The pipeline on a seeded scheduler, with a clock of its own.
//!
//! Real: the handlers of the workers, `resolve`'s rounds, the relay, admission, the state machine, sealing, all SQL, and
//! PostgreSQL itself. Simulated: the broker, the acquirer, time, and everybody outside. Every effect stands behind a
//! gate; one actor runs at a time; a seed decides who is next, what is lost, who crashes or sleeps, and when.
//!
//! After each run the faults end, the clock is moved until nothing moves any more, and the rules are asked for: by the
//! questions of `tolom verify`, by the bank's own books, and by what was true in the moments of sending and of acking.
//!
//! ```text
//! TOLOM_SIM_SEED=123 cargo test --test it simulation -- --nocapture      one seed, with its trace
//! TOLOM_SIM_SEEDS=5000 cargo test --test it simulation                   more than the usual thousand
//! ```
//!
//! # What is not simulated
//!
//! - **Races inside the database.** Gates are between transactions, never inside one, so two transactions never meet
//!   there: what locks are for is tested by `races`. One session does the work of all actors. Statements never fail, and
//!   commits are never in doubt.
//! - **PostgreSQL crashing or away.** `processes` and the intake's outages do that with a real one.
//! - **The broker's own protocol**: sessions, prefetch, flow control, `multiple` acks, publish windows. The model stores
//!   what it confirms and never loses it; `broker` and `processes` test against RabbitMQ.
//! - **HTTP**, both to the acquirer (`acquirer`: sockets that misbehave) and from payers (`intake`), with event streams
//!   and limits; payers call the store's functions as the intake does.
//! - **Receipts and mail**: the message that asks for a receipt is looked for, not what becomes of it.
//! - **Panics of the runtime, memory, disks**, and two versions of Tolom side by side.

mod acquirer;
mod bank;
mod begin;
mod chance;
mod checks;
mod database;
mod effects;
mod faults;
mod gates;
mod hear;
mod mishaps;
mod people;
mod process;
mod rabbit;
mod release;
mod run;
mod scheduler;
mod trace;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use run::{Harness, Ran};

const SEEDS: u64 = 1_000;
/// Each holds some twenty connections, of the hundred that a PostgreSQL usually gives; the other tests run beside them.
const THREADS: usize = 2;
/// Failing seeds after which there is no need for more.
const ENOUGH: usize = 3;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: a whole number is expected")))
}

/// Runs seeds on a thread of its own until they are used up.
fn work(seeds: u64, next: &AtomicU64, failed: &AtomicU64) -> Vec<Ran> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut harness = Harness::open().await;
        let mut all = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds || failed.load(Ordering::Relaxed) >= ENOUGH as u64 {
                return all;
            }
            let mut ran = harness.run(seed, false).await;
            if ran.broken.is_empty() {
                ran.lines.clear();
            } else {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            all.push(ran);
        }
    })
}

fn play(seeds: &[u64], live: bool) -> Vec<Ran> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut harness = Harness::open().await;
        let mut all = Vec::new();
        for seed in seeds {
            all.push(harness.run(*seed, live).await);
        }
        all
    })
}

#[test]
fn the_rules_hold_whatever_a_seed_makes_of_the_world() {
    if let Some(seed) = from_env("TOLOM_SIM_SEED") {
        let ran = play(&[seed], true).remove(0);
        assert!(ran.broken.is_empty(), "seed {seed}:\n{}", ran.broken.join("\n"));
        return;
    }
    let seeds = from_env("TOLOM_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(1), AtomicU64::new(0));
    let ran: Vec<Ran> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(seeds, &next, &failed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of seeds")).collect()
    });
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    ran.iter().flat_map(|ran| &ran.ends).for_each(|end| *ends.entry(end).or_default() += 1);
    let steps: u64 = ran.iter().map(|ran| u64::from(ran.steps)).sum();
    println!("{} seeds, {steps} steps; payments by end: {ends:?}", ran.len());
    let mut broken: Vec<&Ran> = ran.iter().filter(|ran| !ran.broken.is_empty()).collect();
    broken.sort_by_key(|ran| ran.seed);
    for ran in &broken {
        println!("--- seed {} (TOLOM_SIM_SEED={} replays it)\n{}", ran.seed, ran.seed, ran.lines.join("\n"));
    }
    let what: Vec<String> = broken.iter().map(|ran| format!("seed {}: {}", ran.seed, ran.broken.join("; "))).collect();
    assert!(what.is_empty(), "{}", what.join("\n"));
}

#[test]
fn a_seed_replays_to_the_letter() {
    let seeds = [1, 2, 3, 5, 8];
    // Each once after another one, so that nothing of a run is left for the next.
    let (first, second) = (play(&seeds, false), play(&[8, 1, 5, 3, 2], false));
    for ran in first {
        let again = second.iter().find(|again| again.seed == ran.seed).expect("it was played again");
        let differs = ran.lines.iter().zip(&again.lines).find(|(first, second)| first != second);
        assert_eq!(ran.hash, again.hash, "seed {}: {differs:?}", ran.seed);
        assert!(ran.steps > 50, "seed {} plays", ran.seed);
    }
}
