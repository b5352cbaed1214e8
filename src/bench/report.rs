//! What the runs came to, as one document.

mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Ceiling, Grown, Outage, Range, Topology,
    line::Answer,
    meters::{ByPart, PerPayment},
    offer::Offered,
    percentiles::Percentiles,
    spread,
};
use crate::{config::CaptureMode, contracts::Topic, store::measure, verify};

/// Percentiles by stage; what was not measured is not there. `accept`: until the 202. `accept_to_authorized`: until the
/// acquirer approved. `accept_to_recorded`: until the books had it. `accept_to_settlement`: until finance had its entry.
pub(super) type Stages = BTreeMap<String, Percentiles>;

/// What was measured; of many runs, the medians.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// From the first payment's due time to the last settlement entry.
    pub end_to_end_payments_per_s: f64,
    /// From the first payment's due time to the last 202.
    pub accept_per_s: f64,
    /// Payments end to end for each message that the broker's ceiling would let through.
    pub share: Option<f64>,
    /// From the first payment's due time to the last settlement entry.
    pub seconds: f64,
    /// How long after that the rest (receipts, confirms) was done too; none if it took too long.
    pub quiet_after_s: Option<f64>,
    /// Latencies from a payment's due time.
    pub latency_ms: BTreeMap<String, Percentiles>,
    /// The most that the servers give here.
    pub ceiling: Option<Ceiling>,
    /// Processor time of an accepted payment, until all is quiet, in milliseconds.
    pub cpu_ms_per_payment: ByPart,
    /// The share of all processors that these parts kept busy meanwhile.
    pub cpu_busy_share: f64,
    /// The share that anything else on the machine kept busy: what disturbs the figures.
    pub cpu_foreign_share: f64,
    /// Memory when the clock started, and when all was quiet.
    pub memory_mb: Memory,
    /// The most that each part had.
    pub peak_memory_mb: ByPart,
    /// What else an accepted payment takes.
    pub per_payment: PerPayment,
    /// What became of payments while the broker was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
}

/// Memory in megabytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Memory {
    pub start: ByPart,
    pub end: ByPart,
}

/// What the benchmark came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every rule is kept and every payment that was accepted came to its end.
    pub ok: bool,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// How far each figure ranged over the runs; empty for a single one.
    pub range: Range,
    /// Payments offered, in all runs.
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
    /// The parts, in the order of the flow.
    #[serde(skip)]
    parts: Vec<&'static str>,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// When the money is taken.
    pub capture: CaptureMode,
    /// Which processes do the work.
    pub topology: Topology,
    /// Payments offered a second on schedule (open loop).
    pub rate: Option<f64>,
    /// Payers who each wait for their payment's end before the next (closed loop).
    pub concurrency: Option<usize>,
    /// How often it was measured.
    pub runs: usize,
    /// What the acquirer simulator waits before it acts on a request, as it was asked for.
    pub acquirer_latency: String,
    /// The share of acquirer answers that go wrong.
    pub fault_rate: f64,
    /// What decides about latencies and faults.
    pub seed: u64,
    /// Payments made before the clock started.
    pub warm_up: usize,
    /// `dev` or `release`.
    pub profile: &'static str,
    /// Processors; servers, pipeline, acquirer and payers share them.
    pub cpus: usize,
    /// What `accept_to_recorded` goes by: `commit`, or where the database keeps no times of commits the `transaction`'s
    /// beginning.
    pub recorded_by: &'static str,
    /// What the books and the queues held before the first payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grown: Option<GrownShown>,
    /// How long the broker was to be away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage_s: Option<u64>,
    /// PostgreSQL and RabbitMQ.
    #[serde(flatten)]
    pub servers: ServersShown,
}

/// What there was before the first payment.
#[derive(Debug, Clone, Serialize)]
pub struct GrownShown {
    /// As it was asked for.
    #[serde(flatten)]
    pub grown: Grown,
    /// The database's size after the warm-up.
    pub database_bytes: u64,
}

/// The servers, as they were found.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    pub(super) database: measure::Server,
    pub(super) broker: Option<String>,
    /// Whether each was started for the benchmark: the database, the broker.
    pub(super) private: [bool; 2],
}

/// The servers.
#[derive(Debug, Clone, Serialize)]
pub struct ServersShown {
    /// PostgreSQL.
    pub database: ServerShown,
    /// RabbitMQ.
    pub broker: ServerShown,
}

/// A server.
#[derive(Debug, Clone, Serialize)]
pub struct ServerShown {
    /// Its version.
    pub version: Option<String>,
    /// Whether it was started for the benchmark. One that was not may have had other work: its processor time and its
    /// WAL are those of all its work.
    pub private: bool,
    /// The settings that matter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// The rules of money.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Whether every rule is kept.
    pub ok: bool,
    /// Rule by rule.
    pub findings: Vec<verify::Finding>,
}

impl From<Servers> for ServersShown {
    fn from(servers: Servers) -> Self {
        let Servers { database, broker, private } = servers;
        let settings = database.settings.into_iter().collect();
        Self {
            database: ServerShown { version: Some(database.version), private: private[0], settings },
            broker: ServerShown { version: broker, private: private[1], settings: BTreeMap::new() },
        }
    }
}

impl Report {
    pub(super) fn of(
        runs: Vec<Figures>,
        offered: &[Offered],
        config: Setup,
        findings: Vec<verify::Finding>,
        parts: impl Iterator<Item = &'static str>,
    ) -> anyhow::Result<Self> {
        let verify = Verified { ok: verify::all_kept(&findings), findings };
        let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
        for payment in offered {
            *outcomes.entry(outcome(payment)).or_default() += 1;
        }
        let count = |wanted: &str| outcomes.get(wanted).copied().unwrap_or_default();
        let (captured, shed) = (count(CAPTURED), count(SHED));
        // What is shed is told at once and charges nobody. Where answers go wrong, a payment may be given back.
        let undone = if config.fault_rate > 0.0 { count(REVERSED) + count(FAILED) } else { 0 };
        let documents = runs.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            ok: verify.ok
                && captured > 0
                && runs.iter().all(|run| run.outage.is_none_or(|outage| outage.lost == 0))
                && captured + shed + undone == offered.len(),
            figures: serde_json::from_value(spread::medians(&documents))?,
            range: if documents.len() > 1 { spread::range(&documents) } else { Range::new() },
            payments: offered.len(),
            accepted: offered.iter().filter(|payment| matches!(payment.answer, Answer::Accepted(_))).count(),
            failed: offered.len() - captured,
            outcomes,
            config,
            verify,
            parts: parts.collect(),
        })
    }
}

const CAPTURED: &str = "captured";
const SHED: &str = "shed (503)";
const REVERSED: &str = "reversed";
const FAILED: &str = "failed";

fn outcome(payment: &Offered) -> String {
    match (&payment.answer, payment.end.map(|end| end.how)) {
        (Answer::Shed, _) => SHED.to_owned(),
        (Answer::Refused(why), _) => format!("refused: {why}"),
        (Answer::Accepted(_), Some(Topic::SettlementEntry)) => CAPTURED.to_owned(),
        (Answer::Accepted(_), Some(Topic::PaymentDeclined)) => "declined".to_owned(),
        (Answer::Accepted(_), Some(Topic::PaymentReversed)) => REVERSED.to_owned(),
        (Answer::Accepted(_), Some(_)) => FAILED.to_owned(),
        (Answer::Accepted(_), None) => "missing".to_owned(),
    }
}

impl Offered {
    /// When finance had its settlement entry.
    pub(super) fn captured_at(&self) -> Option<Instant> {
        self.end.filter(|end| end.how == Topic::SettlementEntry).map(|end| end.at)
    }
}

/// Payments a second to the last settlement entry, accepts a second to the last 202, and seconds to the last entry.
pub(super) fn end_to_end(offered: &[Offered]) -> (f64, f64, f64) {
    let start = offered.iter().map(|payment| payment.due).min();
    let rate = |moments: Vec<Instant>| {
        let seconds = start.zip(moments.iter().max()).map_or(0.0, |(start, last)| (*last - start).as_secs_f64());
        (if seconds > 0.0 { moments.len() as f64 / seconds } else { 0.0 }, seconds)
    };
    let accepted = offered.iter().filter(|payment| matches!(payment.answer, Answer::Accepted(_)));
    let (accepts, _) = rate(accepted.map(|payment| payment.answered).collect());
    let (payments, seconds) = rate(offered.iter().filter_map(Offered::captured_at).collect());
    (payments, accepts, seconds)
}
