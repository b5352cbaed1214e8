//! `tolom chaos`: the real roles as processes, broken in every way that can be thought of while payments come in, and
//! then held to account.
//!
//! Servers of its own, real ones; each role a process of its own, some of them twice; a proxy of ours between every
//! pair. Faults come by a plan that the seed alone decides. When they are over, everything accepted has to come to its
//! end by itself; then the books are compared: ours, the acquirer's, finance's, the mailbox's, and what payers heard.

pub mod cast;
mod faults;
pub mod kind;
mod load;
pub mod plan;
mod processes;
mod proxy;
mod reckon;
mod report;
mod wall_clock;
mod world;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

pub use self::report::Report;
use self::{
    cast::{Cast, Lane, Peer},
    faults::{Diary, Hands, Measures, by_lane, run_lane},
    load::Crowd,
    plan::Fault,
    reckon::Ending,
    world::World,
};
use crate::{app, broker, payer::Payer, stage, store::books, workers};

/// The most payments of a run: as many as the acquirer's simulator and the mail catcher are made to remember.
pub const MOST_PAYMENTS: usize = 10_000;
/// How long payers come after the last fault, so that its recovery is seen.
const AFTERMATH: Duration = Duration::from_secs(8);
/// How long the last requests may be repeated until they are answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// How long everything may take to come to its end, once all is well again. A row of the outbox waits a minute at most.
const QUIET_WITHIN: Duration = Duration::from_secs(240);
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Processes that ended by themselves, before the run is given up.
const MOST_DEATHS: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// How long faults come.
    pub length: Duration,
    /// What decides about the faults, and about who pays how.
    pub seed: u64,
    /// Payers a second.
    pub rate: f64,
    /// Settings, stronger than chaos's own quick ones; no addresses.
    pub flags: Vec<(String, String)>,
}

impl ChaosOptions {
    /// How many payers will come at most, a good deal of patience included.
    pub fn payments(&self) -> usize {
        // Faults that take their time make the run longer than planned.
        (self.rate * (self.length + Duration::from_secs(90)).as_secs_f64() * 1.2).ceil() as usize
    }

    /// The faults: the same for the same seed and length.
    pub fn plan(&self) -> Vec<Fault> {
        plan::plan(self.seed, self.length, &cast())
    }
}

fn cast() -> Cast {
    Cast::of(&workers::ALL.map(|role| role.name))
}

/// Runs the plan and removes what it made, but for the logs.
///
/// # Errors
/// When there are no servers, when something of its own cannot be made, or when it is interrupted. That something went
/// wrong with the payments is no error: the report says so.
pub async fn run(options: &ChaosOptions, say: impl Fn(&str)) -> anyhow::Result<Report> {
    tokio::select! {
        report = act(options, &say) => report,
        // What was made ends with the future that is dropped here.
        () = app::until_signalled() => Err(anyhow::anyhow!("interrupted")),
    }
}

async fn act(options: &ChaosOptions, say: &impl Fn(&str)) -> anyhow::Result<Report> {
    let mut world = World::make(options, &cast(), say).await?;
    say(&format!("the logs are in {}", world.directory.display()));
    let played = play(options, &mut world, say).await;
    say("taking everything down");
    world.strike().await;
    played
}

/// From the first payer to the last finding.
async fn play(options: &ChaosOptions, world: &mut World, say: &impl Fn(&str)) -> anyhow::Result<Report> {
    let diary = Diary::new(world.clock.clone(), &world.directory.join("faults.log"))?;
    let measures = Measures {
        drain: Duration::from_secs(world.config.shutdown.drain_s + 5),
        slow: world.config.acquirer.call_timeout() * 2,
    };
    ready(world, &diary).await?;
    let bills = stage::issue_bills(&world.pool, &world.config, 0..options.payments(), world.clock.now()).await?;
    let crowd = Crowd::new(world.sites()?, world.agency.clone(), world.config.clone(), world.clock.clone());
    let coming = crowd.clone().come(bills, options.rate, options.seed);
    let coming = AbortOnDropHandle::new(tokio::spawn(coming));
    let plan = options.plan();
    say(&format!("{} payers a second come; {} faults follow", options.rate, plan.len()));
    let began = Instant::now();
    tokio::select! {
        done = carry_out(plan, world, measures, began, &diary) => done?,
        stuck = tell(&crowd, &diary, say) => stuck?,
    }
    let mut ending = Ending { faults_s: began.elapsed().as_secs_f64(), ..Ending::default() };
    say("the faults are over");
    ending.streams_renewed = renew_stream(world, &diary, say).await?;
    watch(world, &diary, AFTERMATH, async |_| Ok(false)).await;
    crowd.close();
    watch(world, &diary, ANSWERED_WITHIN, async |_| Ok(crowd.waiting() == 0)).await;
    say(&format!("{} requests are unanswered; waiting until everything has come to its end", crowd.waiting()));
    let quiet = Instant::now();
    ending.quiet =
        watch(world, &diary, QUIET_WITHIN, async |world| Ok(books::on_their_way(&world.pool).await? == 0)).await;
    ending.quiet_s = quiet.elapsed().as_secs_f64();
    drop(coming);
    ending.undrained = end_processes(world, measures).await;
    reckon::reckon(options, world, &crowd.heard(), &diary, ending).await
}

/// Carries out the plan, each lane by itself.
async fn carry_out(
    plan: Vec<Fault>,
    world: &mut World,
    measures: Measures,
    start: Instant,
    diary: &Diary,
) -> anyhow::Result<()> {
    let maintenance = world.services.database_url.clone();
    let (database, broker) = world.services.apart()?;
    let (mut database, mut broker) = (Some(database), Some(broker));
    let mut processes: BTreeMap<_, _> =
        world.processes.iter_mut().map(|process| (process.actor.clone(), process)).collect();
    let proxies = &world.proxies;
    let links = |peer: Peer| {
        proxies.iter().filter(|(link, _)| link.peer == peer).map(|(link, proxy)| (link.clone(), proxy)).collect()
    };
    let mut lanes = Vec::new();
    for (lane, faults) in by_lane(plan) {
        let hands = match &lane {
            Lane::Process(actor) => processes.remove(actor).map(Hands::Process),
            Lane::Link(link) => proxies.get(link).map(|proxy| Hands::Links([(link.clone(), proxy)].into())),
            Lane::Acquirer => Some(Hands::Links(links(Peer::Acquirer))),
            Lane::Mail => Some(Hands::Mail(links(Peer::Mail), &world.mail)),
            Lane::Database => database.take().map(|own| Hands::Database {
                own,
                maintenance: maintenance.clone(),
                disk: world.disk.as_ref(),
            }),
            Lane::Broker => broker.take().map(Hands::Broker),
        };
        let hands = hands.with_context(|| format!("nothing can be done to {lane:?}"))?;
        lanes.push(run_lane(faults, hands, measures, start, diary));
    }
    join_all(lanes).await;
    Ok(())
}

/// Tells now and then how it goes; ends only when it makes no sense to go on.
async fn tell(crowd: &Crowd, diary: &Diary, say: &impl Fn(&str)) -> anyhow::Result<()> {
    loop {
        sleep(TELL_EVERY).await;
        let (heard, faults, deaths) = (crowd.heard(), diary.faults().len(), diary.deaths());
        let last = deaths.last().map(String::as_str).unwrap_or_default();
        anyhow::ensure!(deaths.len() < MOST_DEATHS, "processes end by themselves again and again: {last}");
        say(&format!(
            "{} payments offered, {} accepted, {} requests being repeated; {faults} faults done",
            heard.offered,
            heard.accepted.len(),
            crowd.waiting(),
        ));
    }
}

/// Waits until payments can be made.
async fn ready(world: &mut World, diary: &Diary) -> anyhow::Result<()> {
    let sites = world.sites()?;
    let serving = async |_: &World| Ok(join_all(sites.iter().map(Payer::keys)).await.iter().all(Result::is_ok));
    let served = watch(world, diary, READY_WITHIN, serving).await;
    anyhow::ensure!(served, "the intakes do not serve: {} says why", world.directory.display());
    Ok(())
}

/// Keeps every process running until `done`, at most so long; says whether it came to that.
async fn watch(
    world: &mut World,
    diary: &Diary,
    at_most: Duration,
    mut done: impl AsyncFnMut(&World) -> anyhow::Result<bool>,
) -> bool {
    let deadline = Instant::now() + at_most;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < deadline {
        look.tick().await;
        world.processes.iter_mut().for_each(|process| diary.watch(process));
        // A server that has only just come back may need another moment.
        if done(world).await.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// RabbitMQ 3.10 may come back from a crash with a stream that has no writer. An operator deletes it and declares it
/// anew; the outbox still has whatever was not confirmed.
async fn renew_stream(world: &mut World, diary: &Diary, say: &impl Fn(&str)) -> anyhow::Result<u32> {
    let mut renewed = 0;
    let whole = async |world: &World| {
        if broker::stream_has_writer(&world.broker).await? {
            return Ok(true);
        }
        say("a crash has left the stream without a writer: it is declared anew");
        broker::renew_stream(&world.broker).await?;
        renewed += 1;
        Ok(false)
    };
    let whole = watch(world, diary, READY_WITHIN, whole).await;
    anyhow::ensure!(whole, "the stream confirms nothing, declared anew {renewed} times");
    Ok(renewed)
}

/// Ends every process in order; says which did not drain.
async fn end_processes(world: &mut World, measures: Measures) -> Vec<String> {
    let ended = world.processes.iter_mut().map(async |process| {
        let status = process.child.drain(measures.drain).await;
        (!status.is_some_and(|status| status.success())).then(|| format!("{}: {status:?}", process.actor))
    });
    join_all(ended).await.into_iter().flatten().collect()
}
