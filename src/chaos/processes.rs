//! The roles as processes of their own: this very program, started, frozen, killed and started again.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{cast::Actor, wall_clock::WallClock};
use crate::services::process::{Launch, Process, Stop};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One role's process. Dropped, it is killed; so it is by the kernel should this program be.
#[derive(Debug)]
pub(super) struct RoleProcess {
    pub(super) actor: Actor,
    /// None where its clock cannot be moved.
    pub(super) clock: Option<WallClock>,
    launch: Launch,
    process: Option<Process>,
}

impl RoleProcess {
    /// Prepares a role with these settings, to run in `directory` and to write its log there.
    pub(super) fn new(
        actor: Actor,
        settings: &[(String, String)],
        directory: &Path,
        mark: Option<(&'static str, OsString)>,
    ) -> io::Result<Self> {
        let mut args: Vec<OsString> = match actor.role {
            "intake" => vec!["intake".into()],
            worker => vec!["worker".into(), worker.into()],
        };
        for (key, value) in settings {
            args.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        // Nothing of this machine's own settings: `TOLOM_*` could lead to servers that are not ours.
        let path = std::env::var_os("PATH").map(|path| ("PATH", path));
        let clock = WallClock::set_up(&directory.join(format!("{actor}.clock")))?;
        let clock_settings = clock.iter().flat_map(WallClock::environment);
        let launch = Launch {
            program: std::env::current_exe()?,
            args,
            env: path.into_iter().chain(mark).chain(clock_settings).collect(),
            directory: directory.to_owned(),
            user: None,
            output: log_of(directory, &actor),
            stop: Stop::Kill,
            patience: Duration::from_secs(2),
        };
        Ok(Self { actor, clock, launch, process: None })
    }

    /// Starts it, unless it runs.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.process.is_none() {
            self.process = Some(Process::start(&self.launch)?);
        }
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.crash();
        }
    }

    /// SIGSTOP: it stands still and keeps all it holds.
    pub(super) fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// SIGTERM, and waits until it has drained; how it ended, or nothing if it had to be killed after `patience`.
    pub(super) async fn drain(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        process.signal(Signal::TERM);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = process.ended() {
                return Some(status);
            }
            sleep(LOOK_EVERY).await;
        }
        process.crash();
        None
    }

    /// Whether it has ended although nobody ended it, and how. To be asked when no fault is at it.
    pub(super) fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.ended()?;
        self.process = None;
        Some(status)
    }
}

/// Where a process writes its log, through all its lives.
pub(super) fn log_of(directory: &Path, actor: &Actor) -> PathBuf {
    directory.join(format!("{actor}.log"))
}
