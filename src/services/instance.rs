//! A private server: how it was launched, its processes, and the wait until it serves.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Server, ServicesError,
    probe::{self, ProbeError},
    process::{Launch, Process},
};

/// RabbitMQ takes 11 to 15 s on two idle cores; busy ones take their time.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Lines of a log that an error quotes: enough for the reason, little enough to read.
const QUOTED_LINES: usize = 25;

/// A server of our own on a free port of the loopback interface.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) server: Server,
    pub(super) url: String,
    pub(super) port: u16,
    pub(super) launch: Launch,
    /// Where the server says what is wrong; more than one file, for RabbitMQ logs apart from its output.
    pub(super) logs: Vec<PathBuf>,
    pub(super) process: Option<Process>,
    /// Dropped after the server itself: epmd.
    pub(super) companions: Vec<Process>,
}

impl Instance {
    /// Starts the process and waits until the server does its work.
    pub(super) async fn start(&mut self) -> Result<(), ServicesError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match self.start_once(deadline).await {
                // After a crash the old server's children may hold its memory or its port for a moment.
                Err(Trouble::Ended(_)) if Instant::now() + START_PATIENCE / 2 < deadline && self.restarted() => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(trouble) => {
                    self.process = None;
                    return Err(self.did_not_start(&trouble.to_string()));
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn start_once(&mut self, deadline: Instant) -> Result<(), Trouble> {
        self.process = Some(Process::start(&self.launch).map_err(Trouble::NotSpawned)?);
        let mut last = None;
        while Instant::now() < deadline {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(Trouble::Ended(status));
            }
            // Probing a port that nobody listens on yet would only fill the log of the broker's handshake errors.
            if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                match self.probe().await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = Some(error),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Trouble::Late(last))
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        match self.server {
            Server::Database => probe::database(&self.url, true).await,
            Server::Broker => probe::broker(&self.url).await,
        }
    }

    /// Whether it has run before: then its data directory is not fresh.
    fn restarted(&self) -> bool {
        self.launch.directory.join(RAN_BEFORE).exists()
    }

    /// Ends the server without warning, as a power cut would.
    pub(super) fn crash(&mut self) {
        if let Some(process) = self.take_process() {
            process.crash();
        }
    }

    /// Gives the process away, to be ended by dropping it; its data stays.
    pub(super) fn take_process(&mut self) -> Option<Process> {
        // Only changes how patient the next start is.
        let _ = std::fs::write(self.launch.directory.join(RAN_BEFORE), "");
        self.process.take()
    }

    pub(super) fn ask_to_end(&self) {
        if let Some(process) = &self.process {
            process.ask_to_end();
        }
    }

    pub(super) fn did_not_start(&self, reason: &str) -> ServicesError {
        let log = self.logs.iter().map(|path| tail(path)).filter(|text| !text.is_empty()).collect::<Vec<_>>();
        ServicesError::DidNotStart { server: self.server, reason: reason.to_owned(), log: log.join("\n") }
    }
}

const RAN_BEFORE: &str = "crashed";

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("its program cannot be run: {0}")]
    NotSpawned(io::Error),
    #[error("it ended at once ({0})")]
    Ended(std::process::ExitStatus),
    #[error("it did not serve within {} s{}", START_PATIENCE.as_secs(), .0.as_ref().map_or_else(String::new, |error| format!(": {}", crate::chain::chain(error))))]
    Late(Option<ProbeError>),
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

/// Free ports on the loopback interface, all different. Below the range from which the system takes ports for
/// outgoing connections, so that none of these slips in between our looking and the server's listening.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    let start = uuid::Uuid::new_v4().as_u128() % u128::from(COUNT);
    // The remainder is below COUNT.
    let start = u16::try_from(start).unwrap_or(0);
    let mut held = Vec::with_capacity(N);
    for step in 0..COUNT {
        if held.len() == N {
            break;
        }
        let port = FIRST + (start + step) % COUNT;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    ports.try_into().map_err(|_| io::Error::other("no free ports between 20000 and 32000"))
}
