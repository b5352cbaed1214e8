//! The measuring itself: warm up, then run after run, then a look at what is left.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZero,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{
    Amount, BenchOptions, Ceiling, Load, MOST_PAYMENTS, ceiling,
    ends::Ends,
    line::{Answer, Site},
    meters::Meters,
    offer::{Crowd, Offered},
    outage,
    percentiles::Percentiles,
    prepare::{self, Cards},
    report::{Figures, GrownShown, Memory, Report, Servers, Setup, Stages, end_to_end},
};
use crate::{
    broker,
    config::CaptureMode,
    services::Own,
    simulator::SimulatorOptions,
    stage::{self, Set, apart::Apart},
    store::{books, grown, measure},
    verify,
};

/// How long the rest of the pipeline may take once the last payment has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// So long nobody must have looked through whole tables.
const REST: Duration = Duration::from_secs(3);
/// Longer than the database lets anybody.
const LOOKED_THROUGH_WITHIN: Duration = Duration::from_secs(20 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where it is measured.
pub(super) struct Ground<'a> {
    pub(super) apart: &'a Apart,
    /// Whether each server was started for the benchmark: the database, the broker.
    pub(super) private: [bool; 2],
    /// The broker, if it may be stopped.
    pub(super) broker: Option<Own<'a>>,
}

/// What stays the same from run to run.
struct Bench<'a> {
    options: &'a BenchOptions,
    set: &'a Set,
    crowd: Crowd,
    meters: Meters,
    /// Whether the database keeps the times of commits.
    by_commit: bool,
    /// Bills issued so far.
    issued: usize,
}

/// Warms up, measures so many runs, and looks at what is left.
pub(super) async fn all(
    options: &BenchOptions,
    set: &Set,
    mut ground: Ground<'_>,
    say: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let database = measure::server(&set.pool).await?;
    let ends = Arc::new(Ends::listen(&set.broker).await?);
    let patience = outage::patience(options.outage);
    let crowd = Crowd { site: Site::new(&set.config.intake.listen)?, ends, patience };
    let meters = Meters::new(set, ground.apart).await?;
    let by_commit = database.setting("track_commit_timestamp") == Some("on");
    let mut bench = Bench { options, set, crowd, meters, by_commit, issued: 0 };
    bench.undisturbed(say).await?;
    let pace = bench.warm_up().await?;
    say(&format!("warm after {} payments, {pace:.0} a second", bench.issued));
    let warm_up = bench.issued;
    fits_the_books(warm_up + options.runs * how_many(options, pace), set.config.acquirer.capture)?;
    let servers = Servers { database, broker: broker::ceiling::version(&set.broker).await, private: ground.private };
    let mut setup = setup(options, set, warm_up, servers);
    setup.recorded_by = if by_commit { "commit" } else { "transaction" };
    if let Some(grown) = options.grown {
        setup.grown = Some(GrownShown { grown, database_bytes: grown::size(&set.pool).await? });
    }
    let (mut runs, mut offered, mut queues) = (Vec::new(), Vec::new(), None);
    for number in 1..=options.runs {
        let (figures, payments) = bench.run(pace, queues, &mut ground, say).await?;
        queues = figures.ceiling.map(|ceiling: Ceiling| ceiling.quorum_queues);
        let rate = figures.end_to_end_payments_per_s;
        say(&format!("run {number} of {}: {rate:.1} payments a second", options.runs));
        runs.push(figures);
        offered.extend(payments);
    }
    if let Some(grown) = options.grown.filter(|grown| grown.backlog > 0) {
        let waiting = stage::grown::waiting(&set.broker).await?;
        anyhow::ensure!(waiting == grown.backlog, "of {} messages {waiting} still wait at the broker", grown.backlog);
    }
    let findings =
        verify::verify(&set.config, &set.pool, &set.broker, &set.clock, Duration::ZERO, set.books_from).await?;
    Report::of(runs, &offered, setup, findings, bench.meters.parts())
}

impl Bench<'_> {
    /// Fills connection pools, statement caches and key caches. How many payments a second it made.
    async fn warm_up(&mut self) -> anyhow::Result<f64> {
        let payers = match self.options.load {
            Load::Concurrency(payers) => payers,
            // A tenth of a second's worth at a time is more than will be under way at once.
            Load::Rate(rate) => (rate / 10.0).clamp(1.0, 100.0) as usize,
        };
        let count = (4 * payers).clamp(20, 2_000);
        let cards = Cards { fault_rate: 0.0, seed: 0 };
        let requests = prepare::requests(self.set, self.issued, count, cards).await?;
        self.issued += count;
        let load = Load::Concurrency(payers);
        let lines = self.crowd.lines(load).await?;
        let began = Instant::now();
        self.crowd.offer(lines, requests, load, None).await;
        let seconds = began.elapsed().as_secs_f64();
        self.quiet().await?.then_some(()).context("the warm-up did not come to an end; nothing was measured")?;
        self.crowd.ends.forget();
        Ok(count as f64 / seconds)
    }

    /// One run, from the ceiling to the books.
    async fn run(
        &mut self,
        pace: f64,
        queues: Option<usize>,
        ground: &mut Ground<'_>,
        say: &impl Fn(&str),
    ) -> anyhow::Result<(Figures, Vec<Offered>)> {
        let Self { options, set, .. } = *self;
        let ceiling = if options.ceiling.is_zero() {
            None
        } else {
            let ceiling = ceiling::measure(set, options.ceiling, queues).await?;
            say(&format!("the servers' ceiling: {:.0} messages a second", ceiling.quorum_messages_per_s));
            Some(ceiling)
        };
        let count = how_many(options, pace);
        let cards = Cards { fault_rate: options.fault_rate, seed: options.seed };
        let requests = prepare::requests(set, self.issued, count, cards).await?;
        self.issued += count;
        say(&format!("{count} bills issued, {count} cards sealed"));
        measure::analyze(&set.pool).await?;
        self.undisturbed(say).await?;
        let lines = self.crowd.lines(options.load).await?;
        let start = self.meters.start(set).await?;
        // One moment on both clocks.
        let (began, began_at) = (Instant::now(), set.clock.now());
        let until = match (options.amount, options.load) {
            (Amount::Seconds(seconds), Load::Concurrency(_)) => Some(began + Duration::from_secs(seconds)),
            _ => None,
        };
        let away = async {
            let Some(lasts) = options.outage else { return Ok(None) };
            let broker = ground.broker.as_mut().context("only a broker of our own is stopped")?;
            let goes = outage::goes_after(offered_for(count, options.load));
            outage::befall(broker, began + goes, lasts, say).await.map(Some)
        };
        let (offered, away) = tokio::join!(self.crowd.offer(lines, requests, options.load, until), away);
        let (over, away) = (Instant::now(), away?);
        // What does not come to rest is for the findings to tell.
        let quiet = self.quiet().await?;
        let quiet_after_s = quiet.then(|| over.elapsed().as_secs_f64());
        let accepted = offered.iter().filter(|payment| matches!(payment.answer, Answer::Accepted(_))).count();
        let cost = self.meters.cost(set, &start, accepted).await?;
        let latency_ms = self.latencies(&offered, began, began_at).await?;
        let outage = match away {
            Some(away) => Some(away.reckon(&offered, began, self.ended(&offered).await?)),
            None => None,
        };
        self.crowd.ends.forget();
        let (end_to_end_payments_per_s, accept_per_s, seconds) = end_to_end(&offered);
        let figures = Figures {
            end_to_end_payments_per_s,
            accept_per_s,
            share: ceiling.map(|ceiling| end_to_end_payments_per_s / ceiling.quorum_messages_per_s),
            seconds,
            quiet_after_s,
            latency_ms,
            ceiling,
            cpu_ms_per_payment: cost.cpu_ms,
            cpu_busy_share: cost.busy_share,
            cpu_foreign_share: cost.foreign_share,
            memory_mb: Memory { start: cost.memory_at_start, end: cost.memory_at_end },
            peak_memory_mb: cost.peak_memory,
            per_payment: cost.per_payment,
            outage,
        };
        Ok((figures, offered))
    }

    /// Latencies by stage, all from when the payment was due: to the 202 and to finance by our own clock, to what lies
    /// between by what the books have of it.
    async fn latencies(&self, offered: &[Offered], began: Instant, began_at: OffsetDateTime) -> anyhow::Result<Stages> {
        let mut due: HashMap<Uuid, OffsetDateTime> = HashMap::with_capacity(offered.len());
        let (mut accept, mut settlement) = (Vec::new(), Vec::new());
        for payment in offered {
            if let Answer::Accepted(id) = payment.answer {
                due.insert(id, began_at + (payment.due - began));
                accept.push(payment.answered - payment.due);
                settlement.extend(payment.captured_at().map(|at| at - payment.due));
            }
        }
        let (mut authorized, mut recorded) = (Vec::new(), Vec::new());
        let payments: Vec<Uuid> = due.keys().copied().collect();
        measure::passages(&self.set.pool, &payments, self.by_commit, |passage| {
            let Some(due) = due.get(&passage.payment) else { return };
            let since = |at: OffsetDateTime| (at - *due).try_into().unwrap_or(Duration::ZERO);
            authorized.extend(passage.authorized.map(since));
            recorded.extend(passage.recorded.map(since));
        })
        .await?;
        let stages = [
            ("accept", accept),
            ("accept_to_authorized", authorized),
            ("accept_to_recorded", recorded),
            ("accept_to_settlement", settlement),
        ];
        let percentiles = stages.map(|(stage, latencies)| Some((stage.to_owned(), Percentiles::of(latencies)?)));
        Ok(percentiles.into_iter().flatten().collect::<BTreeMap<_, _>>())
    }

    /// How many of the accepted payments have an end in the books.
    async fn ended(&self, offered: &[Offered]) -> anyhow::Result<usize> {
        let accepted = offered.iter().filter_map(|payment| match payment.answer {
            Answer::Accepted(id) => Some(id),
            Answer::Shed | Answer::Refused(_) => None,
        });
        Ok(measure::ended(&self.set.pool, &accepted.collect::<Vec<_>>()).await?)
    }

    /// Where the books are large, waits until nobody looks through all of them: the roles that have just started do, and
    /// those of an installation in use do so for a hundredth of the time.
    async fn undisturbed(&self, say: &impl Fn(&str)) -> anyhow::Result<()> {
        if self.options.grown.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut rest, mut disturbed) = (began, false);
        // What is short now may turn out to be long.
        while rest.elapsed() < REST {
            look.tick().await;
            anyhow::ensure!(began.elapsed() < LOOKED_THROUGH_WITHIN, "the roles still look through the whole books");
            if measure::long_looks(&self.set.pool).await? > 0 {
                (rest, disturbed) = (Instant::now(), true);
            }
        }
        if disturbed {
            say(&format!("the roles have looked through the books, after {:.0} s", began.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    /// Waits until no payment, operation, receipt or message is on its way; false if that takes too long.
    async fn quiet(&self) -> anyhow::Result<bool> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = Instant::now() + QUIET_WITHIN;
        while Instant::now() < deadline {
            look.tick().await;
            if books::on_their_way(&self.set.pool).await? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
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

/// The acquirer simulator forgets nothing and refuses what is beyond its books: payments would wait for it for ever.
fn fits_the_books(payments: usize, capture: CaptureMode) -> anyhow::Result<()> {
    let requests = match capture {
        CaptureMode::AtAuthorization => 1,
        CaptureMode::AfterRecording => 2,
    };
    let most = SimulatorOptions::default().max_operations / requests;
    anyhow::ensure!(
        payments <= most,
        "{payments} payments in all runs: the acquirer simulator's books hold {most}; ask for fewer, or for fewer runs"
    );
    Ok(())
}

/// How long an open loop takes to offer so many payments.
fn offered_for(count: usize, load: Load) -> Duration {
    match load {
        Load::Rate(rate) => Duration::from_secs_f64(count as f64 / rate),
        Load::Concurrency(_) => Duration::ZERO,
    }
}

fn setup(options: &BenchOptions, set: &Set, warm_up: usize, servers: Servers) -> Setup {
    let (rate, concurrency) = match options.load {
        Load::Rate(rate) => (Some(rate), None),
        Load::Concurrency(payers) => (None, Some(payers)),
    };
    Setup {
        capture: set.config.acquirer.capture,
        topology: options.topology,
        rate,
        concurrency,
        runs: options.runs,
        acquirer_latency: options.acquirer_latency.to_string(),
        fault_rate: options.fault_rate,
        seed: options.seed,
        warm_up,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        cpus: available_parallelism().map_or(1, NonZero::get),
        recorded_by: "",
        grown: None,
        outage_s: options.outage.map(|outage| outage.as_secs()),
        servers: servers.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_offered_than_the_acquirers_books_hold() {
        assert!(fits_the_books(1_000_000, CaptureMode::AtAuthorization).is_ok());
        assert!(fits_the_books(500_000, CaptureMode::AfterRecording).is_ok());
        let refused = fits_the_books(500_001, CaptureMode::AfterRecording).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "500001 payments in all runs: the acquirer simulator's books hold 500000; ask for fewer, or for fewer runs"
        );
    }
}
