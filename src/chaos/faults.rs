//! Carries the plan out: each lane by itself, one fault after the other, and every one of them mended.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    cast::{Lane, Link, Target},
    kind::Kind,
    plan::Fault,
    processes::RoleProcess,
    proxy::{Mode, Proxy},
    world::DATABASE,
};
use crate::{
    clock::Clock,
    mail_catcher::{Faults, MailCatcher},
    services::{Own, SmallDisk},
    store::scratch,
};

/// Between looks at whether a process still runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often a server is started, or an alarm ended, before that counts as trouble.
const ATTEMPTS: u32 = 3;

/// A fault as it was.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Broken {
    pub(super) kind: Kind,
    pub(super) target: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) began: OffsetDateTime,
    /// When everything was mended: connections may be made, the server serves, the process was started.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) over: OffsetDateTime,
    /// Why it could not be done, or what was not as it should be.
    pub(super) trouble: Option<String>,
}

/// What has happened so far; each fault is also a line of a file, for whoever reads the logs beside it.
pub(super) struct Diary {
    clock: Clock,
    file: Mutex<std::fs::File>,
    faults: Mutex<Vec<Broken>>,
    deaths: Mutex<Vec<String>>,
}

impl Diary {
    pub(super) fn new(clock: Clock, path: &Path) -> std::io::Result<Self> {
        let file = Mutex::new(std::fs::File::create(path)?);
        Ok(Self { clock, file, faults: Mutex::default(), deaths: Mutex::default() })
    }

    pub(super) fn faults(&self) -> Vec<Broken> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Processes that ended although nobody had ended them.
    pub(super) fn deaths(&self) -> Vec<String> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn broken(&self, fault: Broken) {
        let line = serde_json::to_string(&fault).unwrap_or_default();
        // The file is for people; the report does not need it.
        let _ = writeln!(self.file.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Notes a process that has died of itself, and starts it again.
    pub(super) fn watch(&self, process: &mut RoleProcess) {
        if let Some(status) = process.child.ended_by_itself() {
            let death = format!("{} ended by itself at {}: {status}", process.actor, self.clock.now());
            self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(death);
            // Tried again at the next look.
            let _ = process.child.start();
        }
    }
}

/// What a lane lays hands on.
pub(super) enum Hands<'a> {
    Process(&'a mut RoleProcess),
    Links(BTreeMap<Link, &'a Proxy>),
    Mail(BTreeMap<Link, &'a Proxy>, &'a MailCatcher),
    Database { own: Own<'a>, maintenance: String, disk: Option<&'a SmallDisk> },
    Broker(Own<'a>),
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measures {
    /// Longer than a role may take to drain.
    pub(super) drain: Duration,
    /// Longer than anyone waits for the acquirer.
    pub(super) slow: Duration,
}

/// Carries out the faults of one lane.
pub(super) async fn run_lane(
    faults: Vec<Fault>,
    mut hands: Hands<'_>,
    measures: Measures,
    start: Instant,
    diary: &Diary,
) {
    for fault in faults {
        wait_until(start + fault.at, &mut hands, diary).await;
        let began = diary.clock.now();
        let done = carry_out(&fault, &mut hands, measures).await;
        let over = diary.clock.now();
        diary.broken(Broken {
            kind: fault.kind,
            target: fault.target.to_string(),
            began,
            over,
            trouble: done.err().map(|error| format!("{error:#}")),
        });
    }
}

async fn wait_until(due: Instant, hands: &mut Hands<'_>, diary: &Diary) {
    let Hands::Process(process) = hands else { return sleep_until(due).await };
    while Instant::now() < due {
        diary.watch(process);
        sleep_until(due.min(Instant::now() + LOOK_EVERY)).await;
    }
}

async fn carry_out(fault: &Fault, hands: &mut Hands<'_>, measures: Measures) -> anyhow::Result<()> {
    match hands {
        Hands::Process(process) => befall_process(fault, process, measures).await,
        Hands::Links(proxies) => {
            befall_links(fault, proxies, measures).await;
            Ok(())
        }
        Hands::Mail(proxies, catcher) => {
            if fault.kind == Kind::MailFails {
                catcher.set_faults(mail_faults(fault.variant));
                sleep(fault.lasts).await;
                catcher.set_faults(Faults::default());
            } else {
                befall_links(fault, proxies, measures).await;
            }
            Ok(())
        }
        Hands::Database { own, maintenance, disk } => befall_database(fault, own, maintenance, *disk).await,
        Hands::Broker(own) => befall_broker(fault, own).await,
    }
}

async fn befall_process(fault: &Fault, process: &mut RoleProcess, measures: Measures) -> anyhow::Result<()> {
    match fault.kind {
        Kind::Freeze | Kind::FreezeLong => {
            process.child.freeze();
            sleep(fault.lasts).await;
            process.child.thaw();
            Ok(())
        }
        Kind::ClockWrong => {
            let clock = process.clock.as_ref().ok_or_else(|| anyhow::anyhow!("there is no libfaketime"))?;
            let seconds = 5 + i64::try_from(fault.variant % 36).unwrap_or(0);
            clock.set(if fault.variant.is_multiple_of(2) { seconds } else { -seconds })?;
            sleep(fault.lasts).await;
            Ok(clock.set(0)?)
        }
        Kind::Drain => {
            let ended = process.child.drain(measures.drain).await;
            sleep(fault.lasts).await;
            process.child.start()?;
            match ended {
                Some(status) if status.success() => Ok(()),
                Some(status) => Err(anyhow::anyhow!("the drain was cut: {status}")),
                None => Err(anyhow::anyhow!("it did not end within {} s of SIGTERM", measures.drain.as_secs())),
            }
        }
        _ => {
            process.child.kill();
            sleep(fault.lasts).await;
            Ok(process.child.start()?)
        }
    }
}

async fn befall_links(fault: &Fault, proxies: &BTreeMap<Link, &Proxy>, measures: Measures) {
    let mode = match fault.kind {
        Kind::Delay => Mode::Delay(Duration::from_millis(50 + fault.variant % 750)),
        Kind::Throttle => Mode::Throttle(u32::try_from(1_000 + fault.variant % 7_000).unwrap_or(1_000)),
        Kind::BlackHole => Mode::BlackHole,
        Kind::AnswersLost => Mode::AnswersLost,
        Kind::HalfOpen => Mode::HalfOpen,
        Kind::AcquirerSlow => Mode::Delay(measures.slow),
        _ => Mode::Cut,
    };
    let befallen = |link: &Link| match &fault.target {
        Target::Link(target) => link == target,
        _ => true,
    };
    let set = |mode: Mode| proxies.iter().filter(|(link, _)| befallen(link)).for_each(|(_, proxy)| proxy.set(mode));
    set(mode);
    sleep(fault.lasts).await;
    set(Mode::Pass);
}

/// Some of each way in which a mail server fails, a different mixture every time.
fn mail_faults(variant: u64) -> Faults {
    let some = |bits: u32| usize::try_from((variant >> bits) % 4).unwrap_or(0);
    Faults {
        busy: some(0),
        hang_up_before_reply: some(2) + 1,
        hang_up_after_reply: some(4),
        stall: some(6).min(1),
        ..Faults::default()
    }
}

async fn befall_database(
    fault: &Fault,
    own: &mut Own<'_>,
    maintenance: &str,
    disk: Option<&SmallDisk>,
) -> anyhow::Result<()> {
    match fault.kind {
        Kind::SessionsEnded => Ok(scratch::end_sessions(maintenance, DATABASE).await?),
        Kind::DiskFull => {
            let disk = disk.ok_or_else(|| anyhow::anyhow!("there is no small disk: only root may mount one"))?;
            disk.fill()?;
            sleep(fault.lasts).await;
            Ok(disk.free()?)
        }
        Kind::DatabaseKilled => {
            own.crash();
            sleep(fault.lasts).await;
            start_again(own).await
        }
        _ => {
            own.shut_down().await;
            sleep(fault.lasts).await;
            start_again(own).await
        }
    }
}

async fn befall_broker(fault: &Fault, own: &mut Own<'_>) -> anyhow::Result<()> {
    let alarm = async |set: [&str; 2], restored: [&str; 2]| {
        let raised = own.rabbitmqctl(&set).await;
        sleep(fault.lasts).await;
        // Whatever became of the first command, the alarm must end.
        let mut ended = own.rabbitmqctl(&restored).await;
        for _ in 1..ATTEMPTS {
            if ended.is_err() {
                ended = own.rabbitmqctl(&restored).await;
            }
        }
        ended.and(raised)
    };
    match fault.kind {
        Kind::ConnectionsClosed => Ok(own.rabbitmqctl(&["close_all_connections", "closed by the operator"]).await?),
        Kind::MemoryAlarm => {
            let command = "set_vm_memory_high_watermark";
            Ok(alarm([command, "0.0000001"], [command, "0.4"]).await?)
        }
        Kind::DiskAlarm => {
            let command = "set_disk_free_limit";
            Ok(alarm([command, "1000000GB"], [command, "50MB"]).await?)
        }
        Kind::BrokerKilled => {
            own.crash();
            sleep(fault.lasts).await;
            start_again(own).await
        }
        _ => {
            own.shut_down().await;
            sleep(fault.lasts).await;
            start_again(own).await
        }
    }
}

/// Starts a server, again and again: on a machine that is busy it may take longer than anyone waits.
async fn start_again(own: &mut Own<'_>) -> anyhow::Result<()> {
    let mut started = own.start_again().await;
    for _ in 1..ATTEMPTS {
        if started.is_err() {
            started = own.start_again().await;
        }
    }
    Ok(started?)
}

/// The plan, lane by lane.
pub(super) fn by_lane(faults: Vec<Fault>) -> BTreeMap<Lane, Vec<Fault>> {
    let mut lanes: BTreeMap<Lane, Vec<Fault>> = BTreeMap::new();
    for fault in faults {
        lanes.entry(fault.target.lane()).or_default().push(fault);
    }
    lanes
}
