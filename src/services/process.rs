//! A server process that ends with us: in order when it is dropped, by the kernel's hand when we are killed.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Which system user a server runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// The user of this name, if the system has it.
    pub(super) fn named(name: &str) -> Option<Self> {
        let ask = |what: &str| -> Option<u32> {
            let output = Command::new("id").args([what, name]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { uid: ask("-u")?, gid: ask("-g")? })
    }
}

/// Whether we are root.
pub(super) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// What to run, as whom, where its output goes and which signal ends it well.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// The whole environment: what this process inherited (`PGDATA`, `RABBITMQ_*`) would steer the servers.
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) directory: PathBuf,
    pub(crate) user: Option<User>,
    pub(crate) output: PathBuf,
    pub(crate) stop: Stop,
    /// How long it may take to end before it is killed.
    pub(crate) patience: Duration,
}

/// The signals that end a server in good order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// PostgreSQL: fast shutdown (its manual, section 19.5).
    Interrupt,
    /// RabbitMQ and epmd.
    Terminate,
    /// A role of ours, which has to bear it at any moment. It ends one that is frozen, too.
    Kill,
}

impl Stop {
    const fn signal(self) -> Signal {
        match self {
            Self::Interrupt => Signal::INT,
            Self::Terminate => Signal::TERM,
            Self::Kill => Signal::KILL,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
        }
    }
}

impl Launch {
    /// Runs it to its end and says whether that was well.
    pub(crate) fn run(&self) -> io::Result<bool> {
        Ok(spawn_from_keeper(self.clone())?.wait()?.success())
    }

    fn spawn(&self) -> io::Result<Child> {
        let output = File::options().create(true).append(true).open(&self.output)?;
        let mut command = match watchdog() {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", self.stop.name(), "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A terminal sends Ctrl-C to the whole group; the servers must outlive our own drain.
            .process_group(0);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.spawn()
    }
}

/// `setpriv` of util-linux, which has the kernel signal the child when its parent dies. Where there is none (macOS),
/// a killed parent leaves its servers to the next run's clean-up.
fn watchdog() -> Option<&'static Path> {
    ["/usr/bin/setpriv", "/bin/setpriv"].iter().map(Path::new).find(|path| path.exists())
}

type Order = (Launch, mpsc::Sender<io::Result<Child>>);

/// Spawns from one thread that lives as long as this process: the kernel's death signal goes by the *thread* that
/// forked, and a test's thread ends long before the servers it shares with other tests may.
fn spawn_from_keeper(launch: Launch) -> io::Result<Child> {
    static KEEPER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, todo) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (launch, answer) in todo {
                // The one who asked waits for the answer below.
                let _ = answer.send(launch.spawn());
            }
        });
        orders
    });
    let (answer, spawned) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts servers is gone");
    keeper.send((launch, answer)).map_err(|_| gone())?;
    spawned.recv().map_err(|_| gone())?
}

/// A running server; dropping it ends it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stop: Stop,
    patience: Duration,
}

impl Process {
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let child = spawn_from_keeper(launch.clone())?;
        Ok(Self { child, stop: launch.stop, patience: launch.patience })
    }

    /// Its number at the kernel.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end and returns at once.
    pub(crate) fn ask_to_end(&self) {
        signal(self.child.id(), self.stop.signal());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, how: Signal) {
        signal(self.child.id(), how);
    }

    /// Ends it as a power cut would.
    pub(crate) fn crash(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.ask_to_end();
        if !wait_until(self.patience, || self.ended().is_some()) {
            // Errors mean that it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal; a process that is gone already is as good.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Blocks until something holds; says whether it came to hold in time.
pub(super) fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
