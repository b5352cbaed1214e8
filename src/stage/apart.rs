//! The roles and the acquirer simulator as processes of their own.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use tokio::time::{MissedTickBehavior, interval};

use super::ready;
use crate::{
    child::{Child, role_arguments},
    config::Config,
    simulator::SimulatorOptions,
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Set before they begin, so that they need not start themselves once more (see `main`).
const STACK: (&str, &str) = ("RUST_MIN_STACK", "268435456");
/// What the simulator is called among the others.
pub(crate) const SIMULATOR: &str = "simulator";

/// Processes that run. Dropped, they are killed.
pub(crate) struct Apart {
    children: Mutex<Vec<(&'static str, Child)>>,
    admins: Vec<String>,
    settings: PathBuf,
    logs: PathBuf,
}

/// What they are started with.
pub(super) struct Orders<'a> {
    pub(super) config: &'a Config,
    pub(super) simulator: &'a SimulatorOptions,
    /// The roles with the ports of their operators.
    pub(super) roles: Vec<(&'static str, u16)>,
    /// A file that is not there yet, for their settings.
    pub(super) settings: PathBuf,
    /// A directory that is not there yet, for their logs.
    pub(super) logs: PathBuf,
    pub(super) mark: Option<(&'static str, OsString)>,
}

impl Apart {
    /// Starts them; whoever calls waits until they are [`ready`](Self::ready).
    pub(super) fn start(orders: &Orders<'_>) -> anyhow::Result<Self> {
        let (settings, logs) = (orders.settings.clone(), std::path::absolute(&orders.logs)?);
        fs::create_dir_all(&logs).with_context(|| format!("{} cannot be made", logs.display()))?;
        write_for_us(&settings, &orders.config.to_toml()?)
            .with_context(|| format!("{} cannot be written", settings.display()))?;
        let admins = orders.roles.iter().map(|(_, port)| format!("http://127.0.0.1:{port}")).collect();
        let apart = Self { children: Mutex::default(), admins, settings, logs };
        let mut simulator: Vec<OsString> = vec![SIMULATOR.into()];
        let SimulatorOptions { latency, seed, .. } = orders.simulator;
        simulator.extend(["--latency".into(), latency.to_string().into(), "--seed".into(), seed.to_string().into()]);
        apart.add(SIMULATOR, simulator, orders)?;
        for (role, port) in &orders.roles {
            let own = [("admin.listen".to_owned(), format!("127.0.0.1:{port}"))];
            apart.add(role, role_arguments(role, &own), orders)?;
        }
        Ok(apart)
    }

    fn add(&self, name: &'static str, mut args: Vec<OsString>, orders: &Orders<'_>) -> anyhow::Result<()> {
        args.extend(["--config".into(), self.settings.clone().into()]);
        let environment = orders.mark.clone().into_iter().chain([(STACK.0, STACK.1.into())]);
        let log = self.logs.join(format!("{name}.log"));
        // Here, so that paths in the settings mean what they mean to us.
        let mut child = Child::new(args, environment, &std::env::current_dir()?, log)?;
        child.start().with_context(|| format!("{name} cannot be started"))?;
        self.lock().push((name, child));
        Ok(())
    }

    /// Waits until every one of them is ready.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        let all = try_join_all(self.admins.iter().map(|admin| ready(admin)));
        tokio::select! {
            all = all => all.map(drop),
            () = self.failed() => anyhow::bail!("a role ended at once; see {}", self.logs.display()),
        }
    }

    /// Their names and numbers at the kernel.
    pub(crate) fn pids(&self) -> Vec<(&'static str, u32)> {
        self.lock().iter().filter_map(|(name, child)| Some((*name, child.pid()?))).collect()
    }

    /// Their operators' addresses.
    pub(crate) fn admins(&self) -> &[String] {
        &self.admins
    }

    /// Ends when one of them has.
    pub(super) async fn failed(&self) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            for (name, child) in self.lock().iter_mut() {
                if let Some(status) = child.ended_by_itself() {
                    tracing::error!(name, %status, logs = %self.logs.display(), "ended by itself");
                    return;
                }
            }
        }
    }

    /// Ends them in order; says which did not drain.
    pub(super) async fn stop(self, patience: Duration) -> Vec<String> {
        let children = std::mem::take(&mut *self.lock());
        let (mut simulators, mut roles): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|(name, _)| *name == SIMULATOR);
        // The roles may still be asking the acquirer.
        let mut left = drain(&mut roles, patience).await;
        left.extend(drain(&mut simulators, patience).await);
        if let Err(error) = fs::remove_file(&self.settings) {
            left.push(format!("{}: {error}", self.settings.display()));
        }
        self.remove_empty_logs();
        left
    }

    /// A log that says nothing is not kept; nor is their directory, if it is empty then.
    fn remove_empty_logs(&self) {
        let logs = fs::read_dir(&self.logs).into_iter().flatten().flatten();
        for log in logs.filter(|log| log.metadata().is_ok_and(|found| found.len() == 0)) {
            // What stays is untidy, and no more.
            let _ = fs::remove_file(log.path());
        }
        let _ = fs::remove_dir(&self.logs);
    }

    /// No change leaves the list half-done when it panics.
    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Child)>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drain(children: &mut [(&'static str, Child)], patience: Duration) -> Vec<String> {
    let ended = children.iter_mut().map(async |(name, child)| {
        let status = child.drain(patience).await;
        let undrained = !status.is_some_and(|status| status.success());
        undrained.then(|| format!("{name} did not end well: {status:?}"))
    });
    join_all(ended).await.into_iter().flatten().collect()
}

/// A fresh file that nobody else can read: it has the addresses of servers, passwords and all.
fn write_for_us(path: &Path, text: &str) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
