//! `tolom bench`: how quick the pipeline is, and how much it takes, measured from outside.
//!
//! Everything runs in this process over real sockets: payers, intake, workers, an acquirer of a fixed latency, a mailbox.
//! Payments go in over HTTP; their facts are taken from the broker, as any other system would take them. Afterwards the
//! rules of money are held against the books: a figure of a pipeline that loses payments is worth nothing.

mod arrivals;
mod offer;
mod percentiles;
mod prepare;
mod report;

use std::{num::NonZero, path::PathBuf, sync::Arc, thread::available_parallelism, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::{arrivals::Arrivals, offer::Crowd};
pub use self::{
    percentiles::Percentiles,
    report::{Latencies, Report, Setup, Verified},
};
use crate::{
    app,
    payer::Payer,
    simulator::SimulatorOptions,
    stage::{Plan, Set, Stage},
    store::books,
    verify,
};

/// Cards are sealed before the clock starts and expire ten minutes later; a longer run would measure refusals.
pub const LONGEST: Duration = Duration::from_secs(300);
/// The most payments of a run: each request is in memory, sealed, before the clock starts.
pub const MOST_PAYMENTS: usize = 200_000;
/// How long the rest of the pipeline may take once the last payment has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const SETTINGS: [(&str, &str); 2] = [("shutdown.drain_s", "30"), ("intake.lookups_per_minute", "6000")];

/// How much is offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many payments; at most [`MOST_PAYMENTS`].
    Payments(usize),
    /// For so many seconds; at most [`LONGEST`].
    Seconds(u64),
}

/// How it is offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Open loop: so many payments a second, positive, on a schedule that waits for nobody.
    Rate(f64),
    /// Closed loop: so many payers, at least one, each of whom pays again when the last payment is over.
    Concurrency(usize),
}

/// What the benchmark is asked for.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// How much.
    pub amount: Amount,
    /// How.
    pub load: Load,
    /// What the acquirer waits before it acts on a request.
    pub acquirer_latency: Duration,
    /// The settings file.
    pub config_file: Option<PathBuf>,
    /// Settings, stronger than everything but the benchmark's own addresses and names.
    pub flags: Vec<(String, String)>,
}

/// Runs the benchmark and removes what it made.
///
/// # Errors
/// When there is no database or no broker, when something of its own cannot be made or removed, or when it is
/// interrupted.
pub async fn run(options: &BenchOptions, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let mut stage = Stage::default();
    let acted = tokio::select! {
        acted = act(options, &mut stage, &say) => acted,
        () = app::until_signalled() => Err(anyhow::anyhow!("interrupted")),
    };
    say("taking everything down");
    let left = stage.strike().await;
    let report = acted?;
    anyhow::ensure!(left.is_empty(), "left behind: {}", left.join("; "));
    Ok(report)
}

async fn act(options: &BenchOptions, stage: &mut Stage, say: &impl Fn(&str)) -> anyhow::Result<Report> {
    let plan = Plan {
        name: "bench",
        config_file: options.config_file.clone(),
        settings: &SETTINGS,
        flags: options.flags.clone(),
        simulator: SimulatorOptions { latency: options.acquirer_latency, ..SimulatorOptions::default() },
        short_messages: false,
        durable: true,
    };
    let set = stage.raise(&plan, say).await?;
    tokio::select! {
        report = measure(options, &set, say) => report,
        () = stage.failed() => Err(anyhow::anyhow!("a part of the pipeline cannot go on; see {}", set.addresses.log.display())),
    }
}

/// Warms up, prepares, measures, and looks at what is left.
async fn measure(options: &BenchOptions, set: &Set, say: &impl Fn(&str)) -> anyhow::Result<Report> {
    let arrivals = Arc::new(Arrivals::listen(&set.broker).await?);
    let crowd = Crowd { payer: Payer::new(&set.addresses.site)?, arrivals };
    let (warm_up, pace) = warm_up(options.load, set, &crowd).await?;
    say(&format!("warm after {warm_up} payments"));
    let count = how_many(options, pace);
    let requests = prepare::requests(set, &crowd.payer, warm_up, count).await?;
    say(&format!("{count} bills issued, {count} cards sealed"));
    let until = match (options.amount, options.load) {
        (Amount::Seconds(seconds), Load::Concurrency(_)) => Some(Instant::now() + Duration::from_secs(seconds)),
        _ => None,
    };
    let offered = crowd.offer(requests, options.load, until).await;
    say("offered; waiting until all is quiet");
    // What does not come to rest is for the findings to tell.
    let _ = quiet(set).await?;
    let findings = verify::verify(&set.config, &set.pool, &set.broker, &set.clock, Duration::ZERO).await?;
    Ok(Report::of(&offered, setup(options, set, warm_up), findings))
}

/// Fills connection pools, statement caches and key caches. How many payments that took, and how many a second.
async fn warm_up(load: Load, set: &Set, crowd: &Crowd) -> anyhow::Result<(usize, f64)> {
    let payers = match load {
        Load::Concurrency(payers) => payers,
        // A tenth of a second's worth at a time is more than will be under way at once.
        Load::Rate(rate) => (rate / 10.0).clamp(1.0, 100.0) as usize,
    };
    let count = (4 * payers).clamp(20, 1_000);
    let requests = prepare::requests(set, &crowd.payer, 0, count).await?;
    let began = Instant::now();
    crowd.offer(requests, Load::Concurrency(payers), None).await;
    let seconds = began.elapsed().as_secs_f64();
    quiet(set).await?.then_some(()).context("the warm-up did not come to an end; nothing was measured")?;
    Ok((count, count as f64 / seconds))
}

/// How many payments to prepare: for a closed loop on time twice what the warm-up's pace would take, for it is slow.
/// Should they be used up early, the run is shorter, and its figures are as right.
fn how_many(options: &BenchOptions, pace: f64) -> usize {
    let count = match (options.amount, options.load) {
        (Amount::Payments(count), _) => count,
        (Amount::Seconds(seconds), Load::Rate(rate)) => (seconds as f64 * rate).ceil() as usize,
        (Amount::Seconds(seconds), Load::Concurrency(payers)) => (seconds as f64 * pace * 2.0).ceil() as usize + payers,
    };
    count.clamp(1, MOST_PAYMENTS)
}

/// Waits until no payment, operation, receipt or message is on its way; false if that takes too long.
async fn quiet(set: &Set) -> anyhow::Result<bool> {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = Instant::now() + QUIET_WITHIN;
    while Instant::now() < deadline {
        look.tick().await;
        if books::on_their_way(&set.pool).await? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn setup(options: &BenchOptions, set: &Set, warm_up: usize) -> Setup {
    let (rate, concurrency) = match options.load {
        Load::Rate(rate) => (Some(rate), None),
        Load::Concurrency(payers) => (None, Some(payers)),
    };
    Setup {
        capture: set.config.acquirer.capture,
        rate,
        concurrency,
        acquirer_latency_ms: u64::try_from(options.acquirer_latency.as_millis()).unwrap_or(u64::MAX),
        warm_up,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        cpus: available_parallelism().map_or(1, NonZero::get),
    }
}
