//! `tolom bench`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Failure, well};
use crate::bench::{self, Amount, BenchOptions, LONGEST, Load, MOST_PAYMENTS};

/// Requests that the intake takes at a time by default; more payers would measure its refusals.
const MOST_PAYERS: i64 = 2_000;

/// How much is offered, and how.
#[derive(Debug, Args)]
pub(super) struct Bench {
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
    #[arg(long, default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=MOST_PAYERS))]
    concurrency: u16,
    /// What the acquirer waits before it acts on a request.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=20_000))]
    acquirer_latency: u64,
}

/// Runs the benchmark and prints what it came to.
pub(super) async fn run(
    bench: Bench,
    json: bool,
    config_file: Option<PathBuf>,
    flags: Vec<(String, String)>,
) -> Result<(), Failure> {
    let amount = bench.seconds.map_or(Amount::Payments(bench.payments as usize), Amount::Seconds);
    let load = bench.rate.map_or(Load::Concurrency(bench.concurrency.into()), Load::Rate);
    if let Load::Rate(rate) = load {
        let (payments, seconds) = match amount {
            Amount::Payments(payments) => (payments as f64, payments as f64 / rate),
            Amount::Seconds(seconds) => (seconds as f64 * rate, seconds as f64),
        };
        if payments > MOST_PAYMENTS as f64 || seconds > LONGEST.as_secs_f64() {
            let (most, longest) = (MOST_PAYMENTS, LONGEST.as_secs());
            let why =
                format!("{payments} payments at {rate} a second: at most {most} within {longest} s can be offered");
            return Err(Failure::Unusable(why));
        }
    }
    let acquirer_latency = Duration::from_millis(bench.acquirer_latency);
    let options = BenchOptions { amount, load, acquirer_latency, config_file, flags };
    // A reader that has gone away is no failure, neither of progress nor of the report.
    let say = |text: &str| drop(std::io::Write::write_all(&mut std::io::stderr(), format!("  {text}\n").as_bytes()));
    let report = bench::run(&options, say).await?;
    let text = if json { serde_json::to_string_pretty(&report)? } else { report.text() };
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
    well(report.ok)
}

fn positive(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.01 to 10000 is expected".to_owned())
}
