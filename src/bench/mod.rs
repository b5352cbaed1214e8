//! `tolom bench`: how quick the pipeline is, how much it takes and what that costs, measured from outside.
//!
//! The roles run as processes of their own, and so does the acquirer; this process has the payers, finance and the
//! mailbox. Payments go in over HTTP, and each is over when finance has its settlement entry. In the same run the
//! servers' own ceiling is measured, so that a figure says as much on another machine. Afterwards the rules of money
//! are held against the books: a figure of a pipeline that loses payments is worth nothing.

mod ceiling;
mod compare;
mod ends;
mod line;
mod machine;
mod measure;
mod meters;
mod offer;
mod outage;
mod percentiles;
mod prepare;
mod report;
mod spread;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use self::measure::Ground;
pub use self::{
    ceiling::Ceiling,
    compare::{Comparison, compare},
    meters::{ByPart, PerPayment},
    outage::{Outage, fits},
    percentiles::Percentiles,
    report::{Figures, GrownShown, Memory, Report, Setup, Verified},
    spread::Range,
};
pub use crate::stage::Grown;
use crate::{
    app,
    services::Server,
    simulator::{Latency, SimulatorOptions},
    stage::{self, Plan, Stage},
    store::grown,
};

/// Cards are sealed before the clock starts and expire ten minutes later; a longer run would measure refusals.
pub const LONGEST: Duration = Duration::from_secs(300);
/// The most payments of a run: each request is in memory, sealed, before the clock starts.
pub const MOST_PAYMENTS: usize = 200_000;
/// The most payments that the books hold from the beginning.
pub const MOST_GROWN: u64 = grown::MOST_PAYMENTS;
/// The most messages that wait at the broker, and the most dead letters that are parked, from the beginning.
pub const MOST_LEFT_OVER: u64 = 4_000_000;
/// The most payers of the closed loop.
pub const MOST_PAYERS: usize = 4_000;
/// More acquirer answers than these cannot go wrong: the circuit breaker would measure itself.
pub const MOST_FAULTS: f64 = 0.5;

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

/// Which processes do the work. The acquirer simulator is one of its own in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// One for each role.
    Processes,
    /// One for all roles.
    One,
}

/// What the benchmark is asked for.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// How much.
    pub amount: Amount,
    /// How.
    pub load: Load,
    /// How often the same is measured.
    pub runs: usize,
    /// What the acquirer waits before it acts on a request.
    pub acquirer_latency: Latency,
    /// The share of acquirer answers that go wrong, at most [`MOST_FAULTS`].
    pub fault_rate: f64,
    /// What decides about latencies and faults.
    pub seed: u64,
    /// Which processes do the work.
    pub topology: Topology,
    /// Whether servers that run already are left alone, and private ones started.
    pub private: bool,
    /// What the books and the queues hold before the first payment; only private servers may be filled.
    pub grown: Option<Grown>,
    /// How long the broker is away during the run, which must be a single one in an open loop into which that
    /// [`fits`]; only a private broker may be.
    pub outage: Option<Duration>,
    /// How long each part of the ceiling is measured; zero: not at all.
    pub ceiling: Duration,
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
    app::allow_connections();
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
        settings: settings(options),
        flags: options.flags.clone(),
        simulator: SimulatorOptions {
            latency: options.acquirer_latency,
            seed: options.seed,
            ..SimulatorOptions::default()
        },
        short_messages: false,
        durable: true,
        private: options.private,
        topology: match options.topology {
            Topology::Processes => stage::Topology::Processes,
            Topology::One => stage::Topology::One,
        },
        grown: options.grown,
    };
    let set = stage.raise(&plan, say).await?;
    let private = [Server::Database, Server::Broker].map(|server| stage.is_ours(server));
    let (running, broker) = stage.hands();
    let ground = Ground { apart: running.apart.context("the benchmark's roles run apart")?, private, broker };
    tokio::select! {
        report = measure::all(options, &set, ground, say) => report,
        () = running.failed() => Err(anyhow::anyhow!("a part of the pipeline cannot go on; see {}", set.addresses.log.display())),
    }
}

/// What differs from the defaults.
fn settings(options: &BenchOptions) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("shutdown.drain_s", "30".to_owned()),
        ("intake.lookups_per_minute", "6000".to_owned()),
        // Payers have addresses of their own, which a proxy would tell.
        ("intake.proxies", "[\"127.0.0.0/8\"]".to_owned()),
        ("log.filter", "warn".to_owned()),
    ];
    if let Load::Concurrency(payers) = options.load {
        // Who comes at once is let in: refusing is quick, and not what is asked about.
        settings.push(("intake.max_in_flight", payers.max(2_000).to_string()));
    }
    if options.fault_rate > 0.0 {
        // What an answer that never comes holds up is over within a run.
        let quick = [("acquirer.answer_timeout_ms", "3000"), ("acquirer.grace_ms", "1000")];
        settings.extend(quick.map(|(key, value)| (key, value.to_owned())));
    }
    settings
}
