//! `tolom bench`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{Failure, print, well};
use crate::{
    bench::{
        self, Amount, BenchOptions, Grown, LONGEST, Load, MOST_FAULTS, MOST_GROWN, MOST_LEFT_OVER, MOST_PAYERS,
        MOST_PAYMENTS, Topology,
    },
    simulator::Latency,
};

/// The benchmark, or a look at two of its reports.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    wanted: Wanted,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two reports of `bench --json` beside each other.
    Compare {
        /// The first.
        a: PathBuf,
        /// The second, whose figures are divided by the first's.
        b: PathBuf,
    },
}

/// How much is offered, and how.
#[derive(Debug, Args)]
struct Wanted {
    /// Payments to offer.
    #[arg(long, default_value_t = 100, conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=MOST_PAYMENTS as i64))]
    payments: u32,
    /// Offer payments for this long instead.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=LONGEST.as_secs()))]
    seconds: Option<u64>,
    /// Open loop: payments a second, on a schedule that waits for nobody.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Closed loop: payers who pay again when their last payment is over. With one, nothing waits for anything else.
    #[arg(long, default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=MOST_PAYERS as i64))]
    concurrency: u16,
    /// Measure as often, on the same set-up; tell the medians and how far the figures ranged.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=50))]
    runs: u8,
    /// What the acquirer waits before it acts on a request, in milliseconds: `20`, `50~20` (from 30 to 70) or `exp:50`.
    #[arg(long, value_name = "MS", default_value = "0")]
    acquirer_latency: Latency,
    /// The share of acquirer answers that are late, errors, cut off or lost, up to 0.5.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    fault_rate: f64,
    /// What decides about faults and distributed latencies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which processes do the work; the acquirer simulator has its own in any case.
    #[arg(long, value_enum, default_value_t = Topology::Processes)]
    topology: Topology,
    /// Start private servers, as durable as real ones, even if others run.
    #[arg(long)]
    private: bool,
    /// Fill the private database first, as it looks after a year with so many payments; it takes about 4 KB of disk for
    /// each.
    #[arg(long, value_name = "PAYMENTS", requires = "private", value_parser = clap::value_parser!(u64).range(1..=MOST_GROWN))]
    grown: Option<u64>,
    /// With `--grown`: so many messages wait in a retry tier all the while.
    #[arg(long, value_name = "MESSAGES", default_value_t = 0, requires = "grown", value_parser = clap::value_parser!(u64).range(..=MOST_LEFT_OVER))]
    backlog: u64,
    /// With `--grown`: so many dead letters are parked.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "grown", value_parser = clap::value_parser!(u64).range(..=MOST_LEFT_OVER))]
    dead_letters: u64,
    /// With `--rate`: stop the private broker for so many seconds while payments go on being offered, and start it again.
    #[arg(long, value_name = "SECONDS", requires = "private", requires = "rate", conflicts_with = "runs", value_parser = clap::value_parser!(u64).range(1..=LONGEST.as_secs()))]
    outage: Option<u64>,
    /// How long each part of the servers' ceiling is measured; 0: not at all.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    ceiling: f64,
}

/// Runs the benchmark and prints what it came to.
pub(super) async fn run(
    bench: Bench,
    json: bool,
    config_file: Option<PathBuf>,
    flags: Vec<(String, String)>,
) -> Result<(), Failure> {
    if let Some(Command::Compare { a, b }) = bench.command {
        let compared = bench::compare(&read(&a)?, &read(&b)?).map_err(Failure::Unusable)?;
        print(&if json { serde_json::to_string_pretty(&compared)? } else { compared.text() });
        return Ok(());
    }
    let options = bench.wanted.options(config_file, flags)?;
    // A reader that has gone away is no failure, neither of progress nor of the report.
    let say = |text: &str| drop(std::io::Write::write_all(&mut std::io::stderr(), format!("  {text}\n").as_bytes()));
    let report = bench::run(&options, say).await?;
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.text() });
    well(report.ok)
}

impl Wanted {
    fn options(self, config_file: Option<PathBuf>, flags: Vec<(String, String)>) -> Result<BenchOptions, Failure> {
        let amount = self.seconds.map_or(Amount::Payments(self.payments as usize), Amount::Seconds);
        let load = self.rate.map_or(Load::Concurrency(self.concurrency.into()), Load::Rate);
        if let Load::Rate(rate) = load {
            let (payments, seconds) = match amount {
                Amount::Payments(payments) => (payments as f64, payments as f64 / rate),
                Amount::Seconds(seconds) => (seconds as f64 * rate, seconds as f64),
            };
            if payments > MOST_PAYMENTS as f64 || seconds > LONGEST.as_secs_f64() {
                let (most, longest) = (MOST_PAYMENTS, LONGEST.as_secs());
                return Err(Failure::Unusable(format!(
                    "{payments} payments at {rate} a second: at most {most} within {longest} s can be offered"
                )));
            }
            let offered = Duration::from_secs_f64(seconds);
            if let Some(outage) = self.outage.filter(|outage| !bench::fits(Duration::from_secs(*outage), offered)) {
                return Err(Failure::Unusable(format!(
                    "--outage {outage}: payments are offered for {seconds} s; some must be due before the broker goes, a \
                     third of that but at most 10 s, and until it is started again"
                )));
            }
        }
        Ok(BenchOptions {
            amount,
            load,
            runs: self.runs.into(),
            acquirer_latency: self.acquirer_latency,
            fault_rate: self.fault_rate,
            seed: self.seed,
            topology: self.topology,
            private: self.private,
            grown: self.grown.map(|payments| Grown {
                payments,
                dead_letters: self.dead_letters,
                backlog: self.backlog,
            }),
            outage: self.outage.map(Duration::from_secs),
            ceiling: Duration::from_secs_f64(self.ceiling),
            config_file,
            flags,
        })
    }
}

fn read(path: &Path) -> Result<serde_json::Value, Failure> {
    let unusable = |why: String| Failure::Unusable(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))
}

fn positive(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.01 to 10000 is expected".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=MOST_FAULTS).contains(share));
    share.ok_or_else(|| format!("a number from 0 to {MOST_FAULTS} is expected"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=60.0).contains(seconds));
    seconds.ok_or_else(|| "a number from 0 to 60 is expected".to_owned())
}
