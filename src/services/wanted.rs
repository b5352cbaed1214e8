//! What a caller asks for, and what it is told when that cannot be had.

use std::{fmt, path::PathBuf};

use super::probe::ProbeError;

/// One of the two servers the pipeline stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Database,
    /// RabbitMQ.
    Broker,
}

impl Server {
    /// The Debian package.
    pub(super) const fn package(self) -> &'static str {
        match self {
            Self::Database => "postgresql",
            Self::Broker => "rabbitmq-server",
        }
    }

    /// The settings that give one, the most particular first.
    pub(super) const fn settings(self) -> [&'static str; 2] {
        match self {
            Self::Database => ["TOLOM_DATABASE__URL", "DATABASE_URL"],
            Self::Broker => ["TOLOM_BROKER__URL", "AMQP_URL"],
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "PostgreSQL",
            Self::Broker => "RabbitMQ",
        })
    }
}

/// A server that somebody named: it must answer, and no other is looked for.
#[derive(Clone)]
pub struct Given {
    /// Which setting named it, for error messages.
    pub setting: String,
    /// Its address, which may hold a password.
    pub url: String,
}

/// What to find or start, and what may be done for it.
#[derive(Clone)]
pub struct Wanted {
    /// The database to use.
    pub database: Option<Given>,
    /// The broker to use.
    pub broker: Option<Given>,
    /// Whether servers that run on this machine's standard ports will do.
    pub reuse_running: bool,
    /// Whether missing packages may be installed (only ever as root, on Debian and its kin).
    pub install_missing: bool,
    /// Whether a private database survives a power cut too: slower, and what a benchmark must measure.
    pub durable: bool,
    /// Where private servers keep their files: `target/services`.
    pub directory: PathBuf,
}

impl Wanted {
    /// What the environment names (`DATABASE_URL`, `AMQP_URL`, or the pipeline's own `TOLOM_DATABASE__URL` and
    /// `TOLOM_BROKER__URL`), else whatever can be had.
    pub fn from_env(directory: impl Into<PathBuf>) -> Self {
        let given = |server: Server| {
            server.settings().into_iter().find_map(|setting| {
                let url = std::env::var(setting).ok().filter(|url| !url.is_empty())?;
                Some(Given { setting: setting.to_owned(), url })
            })
        };
        Self {
            database: given(Server::Database),
            broker: given(Server::Broker),
            reuse_running: true,
            install_missing: true,
            durable: false,
            directory: directory.into(),
        }
    }

    /// Servers of our own, whatever else runs: for those who crash them.
    pub fn private(directory: impl Into<PathBuf>) -> Self {
        Self {
            database: None,
            broker: None,
            reuse_running: false,
            install_missing: true,
            durable: false,
            directory: directory.into(),
        }
    }
}

/// Why there are no servers.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// A server was named and cannot be used.
    #[error("{server} at {url} (from {setting}) cannot be used")]
    Given {
        /// Which one.
        server: Server,
        /// Where its address came from.
        setting: String,
        /// Its address, without the password.
        url: String,
        /// What happened.
        source: Box<ProbeError>,
    },
    /// None runs, none is installed, and we may not install any.
    #[error(
        "{servers} not found, neither running on this machine nor installed. Install what is missing (Debian, Ubuntu: \
         `apt-get install {packages}`; macOS: `brew install {packages}`), or run `docker compose up --detach database \
         broker`, or name servers of your own in {settings}"
    )]
    Missing {
        /// Their names.
        servers: String,
        /// What to install.
        packages: String,
        /// What would name them.
        settings: String,
    },
    /// Programs are not installed, and we may not install any.
    #[error("{programs} not found. Install what is missing (Debian, Ubuntu: `apt-get install {packages}`)")]
    MissingPrograms {
        /// Their names.
        programs: String,
        /// What to install.
        packages: String,
    },
    /// The packages could not be installed.
    #[error("installation failed: {0}")]
    Install(String),
    /// A private server failed.
    #[error("{server} did not start: {reason}\n{log}")]
    DidNotStart {
        /// Which one.
        server: Server,
        /// What we saw of it.
        reason: String,
        /// The end of what it wrote.
        log: String,
    },
    /// Private servers have nowhere to keep their files.
    #[error("{} cannot be used for the servers' files", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Only what we started may be crashed or restarted.
    #[error("{0} is not ours to stop")]
    NotOurs(Server),
}
