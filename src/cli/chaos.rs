//! `tolom chaos`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Failure, print, well};
use crate::chaos::{self, ChaosOptions, MOST_PAYMENTS, plan};

/// Addresses are chaos's own, and files may name others: what is broken here must be nobody else's.
const OWN: [&str; 8] = [
    "database.url",
    "broker.url",
    "acquirer.url",
    "mail.url",
    "sealing.keys_dir",
    "intake.listen",
    "admin.listen",
    "broker.prefix",
];

/// How long, and by what plan.
#[derive(Debug, Args)]
pub(super) struct Chaos {
    /// How long faults come.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    /// What decides about the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Payers a second.
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// Print the faults and do nothing.
    #[arg(long)]
    plan: bool,
}

/// Breaks everything and prints what it came to.
pub(super) async fn run(
    chaos: Chaos,
    json: bool,
    config_file: Option<PathBuf>,
    flags: Vec<(String, String)>,
) -> Result<(), Failure> {
    if config_file.is_some() {
        return Err(Failure::Unusable("chaos takes no settings file: it has servers of its own".to_owned()));
    }
    if let Some((key, _)) = flags.iter().find(|(key, _)| OWN.contains(&key.as_str()) || key.ends_with("_file")) {
        return Err(Failure::Unusable(format!("{key} cannot be set: chaos has servers and addresses of its own")));
    }
    let length = Duration::from_secs_f64(60.0 * chaos.minutes);
    let options = ChaosOptions { length, seed: chaos.seed, rate: chaos.rate, flags };
    if options.payments() > MOST_PAYMENTS {
        let why = format!(
            "{} a second for {} minutes: at most {MOST_PAYMENTS} payments can be offered",
            chaos.rate, chaos.minutes
        );
        return Err(Failure::Unusable(why));
    }
    if chaos.plan {
        let faults = options.plan();
        print(&if json { serde_json::to_string_pretty(&faults)? } else { plan::table(&faults) });
        return Ok(());
    }
    // A reader that has gone away is no failure, neither of progress nor of the report.
    let say = |text: &str| drop(std::io::Write::write_all(&mut std::io::stderr(), format!("  {text}\n").as_bytes()));
    let report = chaos::run(&options, say).await?;
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.text() });
    well(report.ok)
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=120.0).contains(minutes));
    minutes.ok_or_else(|| "a number from 0.1 to 120 is expected".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=500.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.1 to 500 is expected".to_owned())
}
