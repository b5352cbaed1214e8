//! This very program as a process of its own: started, frozen, killed and started again.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::services::process::{Launch, Process, Stop};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One process of ours. Dropped, it is killed; so it is by the kernel should this program be.
#[derive(Debug)]
pub(crate) struct Child {
    launch: Launch,
    process: Option<Process>,
}

impl Child {
    /// Prepares `tolom` with these arguments, to run in `directory` and to write its log to `log`. `environment` comes
    /// beside `PATH`, and is all it has: this machine's own `TOLOM_*` could lead to servers that are not ours.
    pub(crate) fn new(
        args: Vec<OsString>,
        environment: impl IntoIterator<Item = (&'static str, OsString)>,
        directory: &Path,
        log: PathBuf,
    ) -> io::Result<Self> {
        let path = std::env::var_os("PATH").map(|path| ("PATH", path));
        let launch = Launch {
            program: std::env::current_exe()?,
            args,
            env: path.into_iter().chain(environment).collect(),
            directory: directory.to_owned(),
            user: None,
            output: log,
            stop: Stop::Kill,
            patience: Duration::from_secs(2),
        };
        Ok(Self { launch, process: None })
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if self.process.is_none() {
            self.process = Some(Process::start(&self.launch)?);
        }
        Ok(())
    }

    /// Its number at the kernel, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.crash();
        }
    }

    /// SIGSTOP: it stands still and keeps all it holds.
    pub(crate) fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// SIGTERM, and waits until it has drained; how it ended, or nothing if it had to be killed after `patience`.
    pub(crate) async fn drain(&mut self, patience: Duration) -> Option<ExitStatus> {
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
    pub(crate) fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.ended()?;
        self.process = None;
        Some(status)
    }
}

/// A role's words on the command line.
pub(crate) fn role_arguments(role: &str, settings: &[(String, String)]) -> Vec<OsString> {
    let mut args: Vec<OsString> = match role {
        "intake" | "all" => vec![role.into()],
        worker => vec!["worker".into(), worker.into()],
    };
    for (key, value) in settings {
        args.extend(["--set".into(), format!("{key}={value}").into()]);
    }
    args
}
