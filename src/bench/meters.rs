//! What a run costs: processor time and memory of every part, statements, commits, messages and WAL.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::machine::{Part, Processes, Usage};
use crate::{
    payer::Payer,
    stage::{Set, apart::Apart},
    store::measure::{self, Done},
};

/// What this process is called: payers, finance and the mailbox.
const LOAD: &str = "load";
const BROKER: &str = "broker";
const DATABASE: &str = "database";
const TOTAL: &str = "total";
/// How often the memory of servers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PUBLISHED: &str = "tolom_published_messages_total{result=\"confirmed\"}";

/// By part; none where it cannot be seen.
pub type ByPart = BTreeMap<String, Option<f64>>;

/// What a payment costs beside processor time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerPayment {
    /// Statements, `BEGIN` and `COMMIT` among them; none where the database does not count them.
    pub statements: Option<f64>,
    /// Transactions that wrote something, of the whole server; a statement that only reads stands alone and is none.
    pub commits: f64,
    /// Messages published and confirmed; the copy in finance's stream is not counted apart.
    pub messages: f64,
    /// Bytes of WAL, of the whole server.
    pub wal_bytes: f64,
}

/// What a run has cost.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cost {
    pub(super) cpu_ms: ByPart,
    pub(super) memory_at_start: ByPart,
    pub(super) memory_at_end: ByPart,
    pub(super) peak_memory: ByPart,
    pub(super) per_payment: PerPayment,
    /// The share of all processors that all parts together have kept busy, and that anything else has.
    pub(super) busy_share: f64,
    pub(super) foreign_share: f64,
}

/// Reads them all.
pub(super) struct Meters {
    parts: Vec<(&'static str, Option<Part>)>,
    operators: Vec<Payer>,
    counts_statements: bool,
}

/// What stood on the meters when a run began.
pub(super) struct Reading {
    used: Used,
    counted: Counted,
    /// Of the trees, since then.
    peaks: Arc<Mutex<BTreeMap<&'static str, f64>>>,
    _watching: AbortOnDropHandle<()>,
}

/// What the parts have used until a moment.
struct Used {
    at: Instant,
    parts: BTreeMap<&'static str, Option<Usage>>,
    busy_ms: f64,
}

impl Used {
    fn of(&self, part: &str) -> Option<Usage> {
        self.parts.get(part).copied().flatten()
    }
}

/// What the servers and the roles have counted until a moment.
struct Counted {
    done: Done,
    messages: f64,
}

impl Meters {
    pub(super) async fn new(set: &Set, apart: &Apart) -> anyhow::Result<Self> {
        let processes = Processes::look();
        let mut parts: Vec<_> = apart.pids().into_iter().map(|(name, pid)| (name, Some(Part::Process(pid)))).collect();
        // In the order of the flow: the simulator was started first.
        parts.rotate_left(1);
        parts.push((LOAD, Some(Part::Process(std::process::id()))));
        let tree = |url: &str, port| processes.listener(url, port).map(Part::Tree);
        parts.push((BROKER, tree(set.config.broker.url.expose(), 5672)));
        parts.push((DATABASE, tree(set.config.database.url.expose(), 5432)));
        let operators = apart.admins().iter().map(|admin| Payer::new(admin)).collect::<Result<_, _>>()?;
        Ok(Self { parts, operators, counts_statements: measure::count_statements(&set.pool).await })
    }

    /// Their names, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.parts.iter().map(|(name, _)| *name)
    }

    /// Begins. Asking costs something too: who works how long is looked at last here, and first at the end.
    pub(super) async fn start(&self, set: &Set) -> anyhow::Result<Reading> {
        let counted = self.counted(set).await?;
        let peaks = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let _watching = AbortOnDropHandle::new(tokio::spawn(watch(self.parts.clone(), Arc::clone(&peaks))));
        Ok(Reading { used: self.used(), counted, peaks, _watching })
    }

    fn used(&self) -> Used {
        let processes = Processes::look();
        let usage = |part: &Option<Part>| part.and_then(|part| processes.usage(part));
        let parts = self.parts.iter().map(|(name, part)| (*name, usage(part))).collect();
        Used { at: Instant::now(), parts, busy_ms: processes.busy_ms() }
    }

    async fn counted(&self, set: &Set) -> anyhow::Result<Counted> {
        Ok(Counted { done: measure::done(&set.pool, self.counts_statements).await?, messages: self.messages().await? })
    }

    /// Messages that the roles have published and the broker has confirmed.
    async fn messages(&self) -> anyhow::Result<f64> {
        let mut messages = 0.0;
        for operator in &self.operators {
            let text = operator.page(&["metrics"]).await?;
            let line = text.lines().find_map(|line| line.strip_prefix(PUBLISHED));
            messages += line.map_or(Ok(0.0), |value| value.trim().parse()).context(PUBLISHED)?;
        }
        Ok(messages)
    }

    /// What was used since `start`, over so many payments.
    pub(super) async fn cost(&self, set: &Set, start: &Reading, payments: usize) -> anyhow::Result<Cost> {
        let used = self.used();
        let peaks = start.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counted = self.counted(set).await?;
        let payments = payments.max(1) as f64;
        let cpu = |name: &str| Some(used.of(name)?.cpu_ms - start.used.of(name)?.cpu_ms);
        let mut cpu_ms = by_part(&self.parts, |name, _| cpu(name).map(|ms| ms / payments));
        let total = cpu_ms.values().copied().sum();
        cpu_ms.insert(TOTAL.to_owned(), total);
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let all_ms = (used.at - start.used.at).as_secs_f64() * 1e3 * processors;
        let ours_ms: f64 = self.parts().filter_map(cpu).sum();
        let foreign_ms = used.busy_ms - start.used.busy_ms - ours_ms;
        let peak = |name: &'static str, part: Part| match part {
            Part::Process(_) => Some(used.of(name)?.peak_mb),
            Part::Tree(_) => Some(peaks.get(name)?.max(used.of(name)?.memory_mb)),
        };
        Ok(Cost {
            cpu_ms,
            memory_at_start: by_part(&self.parts, |name, _| Some(start.used.of(name)?.memory_mb)),
            memory_at_end: by_part(&self.parts, |name, _| Some(used.of(name)?.memory_mb)),
            peak_memory: by_part(&self.parts, |name, part| peak(name, part?)),
            per_payment: counted.since(&start.counted, payments),
            busy_share: ours_ms / all_ms,
            foreign_share: (foreign_ms / all_ms).max(0.0),
        })
    }
}

impl Counted {
    fn since(&self, start: &Self, payments: f64) -> PerPayment {
        let statements = self.done.statements.zip(start.done.statements);
        PerPayment {
            statements: statements.map(|(end, start)| (end - start) as f64 / payments),
            commits: (self.done.commits - start.done.commits) as f64 / payments,
            messages: (self.messages - start.messages) / payments,
            wal_bytes: (self.done.wal_bytes - start.done.wal_bytes) as f64 / payments,
        }
    }
}

fn by_part(
    parts: &[(&'static str, Option<Part>)],
    value: impl Fn(&'static str, Option<Part>) -> Option<f64>,
) -> ByPart {
    parts.iter().map(|(name, part)| ((*name).to_owned(), value(name, *part))).collect()
}

/// Keeps the most memory that each tree had.
async fn watch(parts: Vec<(&'static str, Option<Part>)>, peaks: Arc<Mutex<BTreeMap<&'static str, f64>>>) {
    let trees: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, part)| Some((name, part?)))
        .filter(|(_, part)| matches!(part, Part::Tree(_)))
        .collect();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let processes = Processes::look();
        let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, part) in &trees {
            if let Some(usage) = processes.usage(*part) {
                let peak = peaks.entry(name).or_insert(0.0);
                *peak = peak.max(usage.memory_mb);
            }
        }
    }
}
