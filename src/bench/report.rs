//! What a run came to, for people and as one document.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    offer::{Answer, Offered},
    percentiles::Percentiles,
};
use crate::{config::CaptureMode, contracts::Topic, verify};

/// A run's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every rule is kept and every payment that was accepted came to its end.
    pub ok: bool,
    /// From the first payment's due time to the last settlement entry.
    pub end_to_end_payments_per_s: f64,
    /// From the first payment's due time to the last 202.
    pub accept_per_s: f64,
    /// Latencies from a payment's due time.
    pub latency_ms: Latencies,
    /// Payments offered.
    pub payments: usize,
    /// Payments answered 202.
    pub accepted: usize,
    /// Payments that were not captured, whatever the reason.
    pub failed: usize,
    /// Payments by what became of them.
    pub outcomes: BTreeMap<String, usize>,
    /// How it was measured.
    pub config: Setup,
    /// The rules of money, afterwards.
    pub verify: Verified,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// When the money is taken.
    pub capture: CaptureMode,
    /// Payments offered a second on schedule (open loop).
    pub rate: Option<f64>,
    /// Payers who each wait for their payment's end before the next (closed loop).
    pub concurrency: Option<usize>,
    /// What the acquirer simulator waits before it acts on a request.
    pub acquirer_latency_ms: u64,
    /// Payments made before the clock started.
    pub warm_up: usize,
    /// `dev` or `release`.
    pub profile: &'static str,
    /// Processors; servers, pipeline, acquirer and payers share them.
    pub cpus: usize,
}

/// Percentiles by stage; none where nothing was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latencies {
    /// Until the 202.
    pub accept: Option<Percentiles>,
    /// Until `payment.authorized` arrives; none when captured at authorization.
    pub accept_to_authorized: Option<Percentiles>,
    /// Until `payment.captured` arrives.
    pub accept_to_captured: Option<Percentiles>,
    /// Until `settlement.entry` arrives.
    pub accept_to_settlement_entry: Option<Percentiles>,
}

/// The rules of money.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Whether every rule is kept.
    pub ok: bool,
    /// Rule by rule.
    pub findings: Vec<verify::Finding>,
}

impl Report {
    pub(super) fn of(offered: &[Offered], config: Setup, findings: Vec<verify::Finding>) -> Self {
        let verify = Verified { ok: verify::all_kept(&findings), findings };
        let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
        for payment in offered {
            *outcomes.entry(outcome(&payment.answer)).or_default() += 1;
        }
        let count = |wanted: &[&str]| wanted.iter().filter_map(|outcome| outcomes.get(*outcome)).sum::<usize>();
        let (captured, shed) = (count(&[CAPTURED]), count(&[SHED]));
        let accepted: Vec<_> = offered.iter().filter(|payment| heard(payment).is_some()).collect();
        let start = offered.iter().map(|payment| payment.due).min();
        let rate = |count: usize, last: Option<Instant>| {
            let seconds = start.zip(last).map_or(0.0, |(start, last)| (last - start).as_secs_f64());
            if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
        };
        let settled = |payment: &Offered| heard(payment).and_then(|heard| heard.settled);
        Self {
            // What is shed is told at once and charges nobody; all else that is not captured is wrong here.
            ok: verify.ok && captured > 0 && captured + shed == offered.len(),
            end_to_end_payments_per_s: rate(captured, offered.iter().filter_map(settled).max()),
            accept_per_s: rate(accepted.len(), accepted.iter().map(|payment| payment.answered).max()),
            latency_ms: Latencies {
                accept: Percentiles::of(accepted.iter().map(|payment| payment.answered - payment.due)),
                accept_to_authorized: latency(offered, |payment| heard(payment)?.authorized),
                accept_to_captured: latency(offered, |payment| heard(payment)?.captured),
                accept_to_settlement_entry: latency(offered, settled),
            },
            payments: offered.len(),
            accepted: accepted.len(),
            failed: offered.len() - captured,
            outcomes,
            config,
            verify,
        }
    }

    /// The figures for people.
    pub fn text(&self) -> String {
        let load = match (self.config.rate, self.config.concurrency) {
            (Some(rate), _) => format!("{rate} a second on schedule"),
            (None, Some(1)) => "one at a time".to_owned(),
            (None, payers) => format!("{} at a time", payers.unwrap_or_default()),
        };
        let Setup { acquirer_latency_ms, warm_up, profile, cpus, .. } = self.config;
        let capture = match self.config.capture {
            CaptureMode::AfterRecording => "after recording",
            CaptureMode::AtAuthorization => "at authorization",
        };
        let mut text = format!(
            "\n  {} payments, {load}; captured {capture}; the acquirer takes {acquirer_latency_ms} ms; {warm_up} to warm \
             up; {profile} build, {cpus} CPUs for everything\n\n  {:<30} {:>9} {:>9} {:>9} {:>9}  ms\n",
            self.payments, "from the POST until", "p50", "p95", "p99", "max",
        );
        let Latencies { accept, accept_to_authorized, accept_to_captured, accept_to_settlement_entry } =
            self.latency_ms;
        let stages = [
            ("202 Accepted", accept),
            ("payment.authorized", accept_to_authorized),
            ("payment.captured", accept_to_captured),
            ("settlement.entry", accept_to_settlement_entry),
        ];
        for (stage, measured) in stages {
            if let Some(Percentiles { p50, p95, p99, max }) = measured {
                text.push_str(&format!("  {stage:<30} {p50:>9.1} {p95:>9.1} {p99:>9.1} {max:>9.1}\n"));
            }
        }
        text.push_str(&format!(
            "\n  {:>9} payments/s end to end\n  {:>9} accepts/s\n\n",
            self.end_to_end_payments_per_s, self.accept_per_s
        ));
        for (outcome, payments) in &self.outcomes {
            text.push_str(&format!("  {payments:>9} {outcome}\n"));
        }
        text.push('\n');
        text.push_str(&verify::table(&self.verify.findings));
        text
    }
}

const CAPTURED: &str = "captured";
const SHED: &str = "shed (503)";

fn outcome(answer: &Answer) -> String {
    match answer {
        Answer::Shed => SHED.to_owned(),
        Answer::Refused(why) => format!("refused: {why}"),
        Answer::Accepted(heard) => match (heard.captured, heard.settled, heard.ended) {
            (Some(_), Some(_), None) => CAPTURED.to_owned(),
            (Some(_), None, None) => "captured without a settlement entry".to_owned(),
            (_, _, Some(Topic::PaymentDeclined)) => "declined".to_owned(),
            (_, _, Some(Topic::PaymentReversed)) => "reversed".to_owned(),
            (_, _, Some(_)) => "failed".to_owned(),
            (None, _, None) => "missing".to_owned(),
        },
    }
}

fn heard(payment: &Offered) -> Option<super::arrivals::Heard> {
    match payment.answer {
        Answer::Accepted(heard) => Some(heard),
        Answer::Shed | Answer::Refused(_) => None,
    }
}

fn latency(offered: &[Offered], stage: impl Fn(&Offered) -> Option<Instant>) -> Option<Percentiles> {
    Percentiles::of(offered.iter().filter_map(|payment| Some(stage(payment)? - payment.due)))
}
