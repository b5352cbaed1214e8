//! PostgreSQL and RabbitMQ for the demo, the tests and the benchmark: the ones given, else the ones running, else
//! private ones started from installed packages, which are installed first where we may.
//!
//! Production names its servers in the configuration and never comes here. What is started here listens on the
//! loopback interface alone, lives in a directory of its own, and ends with us.

mod find;
mod install;
mod instance;
mod own;
mod postgres;
mod probe;
pub(crate) mod process;
mod rabbitmq;
mod run_dir;
mod small_disk;
mod wanted;

use std::{ffi::OsString, fmt, io, path::Path, time::Instant};

use url::Url;

pub(crate) use self::instance::free_ports;
use self::{find::masked, instance::Instance, run_dir::RunDir};
pub use self::{
    install::ensure_packages,
    own::Own,
    probe::ProbeError,
    small_disk::SmallDisk,
    wanted::{Given, Server, ServicesError, Wanted},
};

/// Two usable servers. Those that were started for us end with this value; the others are left alone.
pub struct Services {
    /// A maintenance database: connect here to create others. Whoever named it may have forbidden that.
    pub database_url: String,
    /// The broker's default virtual host, or the one that was named.
    pub amqp_url: String,
    database: Option<Instance>,
    broker: Option<Instance>,
    run: Option<RunDir>,
}

impl Services {
    /// Finds or starts both, each on its own, and tells `progress` what takes time.
    pub async fn ensure(wanted: &Wanted, progress: impl Fn(&str)) -> Result<Self, ServicesError> {
        let progress = &progress;
        let (database, broker) = tokio::try_join!(find::database(wanted, progress), find::broker(wanted, progress))?;
        let mut services = Self {
            database_url: database.clone().unwrap_or_default(),
            amqp_url: broker.clone().unwrap_or_default(),
            database: None,
            broker: None,
            run: None,
        };
        let mut missing = Vec::new();
        missing.extend(database.is_none().then_some(Server::Database));
        missing.extend(broker.is_none().then_some(Server::Broker));
        if !missing.is_empty() {
            services.start(wanted, &missing, progress).await?;
        }
        Ok(services)
    }

    async fn start(
        &mut self,
        wanted: &Wanted,
        missing: &[Server],
        progress: &impl Fn(&str),
    ) -> Result<(), ServicesError> {
        require_packages(wanted, missing, progress).await?;
        let run = make_run_dir(&wanted.directory).await?;
        let database = async {
            let wanted_here = missing.contains(&Server::Database);
            let Some(installed) = wanted_here.then(postgres::find).flatten() else { return Ok(None) };
            let began = Instant::now();
            let instance = postgres::start(installed, &run, wanted.durable, progress).await?;
            progress(&format!("PostgreSQL serves, after {:.1} s", began.elapsed().as_secs_f64()));
            Ok(Some(instance))
        };
        let broker = async {
            let wanted_here = missing.contains(&Server::Broker);
            let Some(script) = wanted_here.then(rabbitmq::find).flatten() else { return Ok(None) };
            let began = Instant::now();
            let instance = rabbitmq::start(script, &run, progress).await?;
            progress(&format!("RabbitMQ serves, after {:.1} s", began.elapsed().as_secs_f64()));
            Ok(Some(instance))
        };
        (self.database, self.broker) = tokio::try_join!(database, broker)?;
        self.run = Some(run);
        if let Some(database) = &self.database {
            self.database_url.clone_from(&database.url);
        }
        if let Some(broker) = &self.broker {
            self.amqp_url.clone_from(&broker.url);
        }
        Ok(())
    }

    /// The address of another database on the same server.
    pub fn url_of_database(&self, name: &str) -> String {
        // Every path here has been connected to, so it is a URL; were it not, connecting says so.
        Url::parse(&self.database_url).map_or_else(
            |_| self.database_url.clone(),
            |mut url| {
                url.set_path(name);
                url.into()
            },
        )
    }

    /// Whether the server was started for us.
    pub const fn is_ours(&self, server: Server) -> bool {
        match server {
            Server::Database => self.database.is_some(),
            Server::Broker => self.broker.is_some(),
        }
    }

    /// Ends a server of ours as a power cut would; its data stays.
    pub fn crash(&mut self, server: Server) -> Result<(), ServicesError> {
        self.one(server)?.crash();
        Ok(())
    }

    /// Shuts a server of ours down in order; its data stays.
    pub async fn shut_down(&mut self, server: Server) -> Result<(), ServicesError> {
        self.one(server)?.shut_down().await;
        Ok(())
    }

    /// Starts a server of ours again, on the same port and data, and waits until it serves.
    pub async fn start_again(&mut self, server: Server) -> Result<(), ServicesError> {
        self.one(server)?.start_again().await
    }

    /// Runs the broker's own `rabbitmqctl` against the one of ours; it gives up by itself after half a minute.
    pub async fn rabbitmqctl(&mut self, arguments: &[&str]) -> io::Result<()> {
        self.one(Server::Broker).map_err(io::Error::other)?.rabbitmqctl(arguments).await
    }

    /// Both servers, each by itself, for whoever breaks them side by side: the database, then the broker.
    pub fn apart(&mut self) -> Result<(Own<'_>, Own<'_>), ServicesError> {
        let own = |instance, server| Own::of(instance, server);
        Ok((own(&mut self.database, Server::Database)?, own(&mut self.broker, Server::Broker)?))
    }

    /// A server of ours, to be broken and mended.
    pub fn one(&mut self, server: Server) -> Result<Own<'_>, ServicesError> {
        match server {
            Server::Database => Own::of(&mut self.database, server),
            Server::Broker => Own::of(&mut self.broker, server),
        }
    }

    /// A disk of so many megabytes for a database of ours, which can be filled up; only root may have one.
    pub(crate) fn small_disk(&self, megabytes: u64) -> std::io::Result<SmallDisk> {
        let run = self.run.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        run.small_disk(megabytes, postgres::user())
    }

    /// What has a process count as one of these servers' run: it ends with them, and if we are killed, the next run
    /// ends it.
    pub(crate) fn mark(&self) -> Option<(&'static str, OsString)> {
        self.run.as_ref().map(RunDir::mark)
    }

    /// Where the servers that were started for us say what is wrong.
    pub(crate) fn logs(&self) -> Vec<std::path::PathBuf> {
        [&self.database, &self.broker].into_iter().flatten().flat_map(|instance| instance.logs.clone()).collect()
    }

    /// The processes started for us and not ended yet, children's children included (where there is a `/proc`).
    pub fn processes(&self) -> Vec<u32> {
        self.run.as_ref().map(RunDir::processes).unwrap_or_default()
    }

    /// Ends what was started and waits until it is gone.
    pub async fn stop(self) {
        // A panic in there has been reported, and leaves nothing to be done here.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Services {
    /// Blocks for as long as the servers take to end.
    fn drop(&mut self) {
        // Both at once; then one after the other is waited for.
        for instance in [&self.broker, &self.database].into_iter().flatten() {
            instance.ask_to_end();
        }
        (self.broker, self.database, self.run) = (None, None, None);
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("database_url", &masked(&self.database_url))
            .field("amqp_url", &masked(&self.amqp_url))
            .finish_non_exhaustive()
    }
}

/// Installs what is needed and not there; afterwards it is there.
async fn require_packages(wanted: &Wanted, servers: &[Server], progress: &impl Fn(&str)) -> Result<(), ServicesError> {
    let absent = || -> Vec<Server> {
        let there = |server: &Server| match server {
            Server::Database => postgres::find().is_some(),
            Server::Broker => rabbitmq::find().is_some(),
        };
        servers.iter().copied().filter(|server| !there(server)).collect()
    };
    let mut missing = absent();
    if !missing.is_empty() && wanted.install_missing && install::possible() {
        install::install(|| absent().iter().map(|server| server.package()).collect(), progress).await?;
        missing = absent();
    }
    if missing.is_empty() {
        return Ok(());
    }
    let join = |words: Vec<String>, by: &str| words.join(by);
    Err(ServicesError::Missing {
        servers: join(missing.iter().map(ToString::to_string).collect(), " and "),
        packages: join(missing.iter().map(|server| server.package().to_owned()).collect(), " "),
        settings: join(missing.iter().map(|server| server.settings()[1].to_owned()).collect(), " and "),
    })
}

/// Cleaning up after dead runs may wait for processes to end, so it stays off the runtime's threads.
async fn make_run_dir(directory: &Path) -> Result<RunDir, ServicesError> {
    let path = directory.to_owned();
    let users = [postgres::user(), rabbitmq::user()];
    let made = tokio::task::spawn_blocking(move || RunDir::new(&path, &users)).await;
    made.map_err(std::io::Error::other)
        .and_then(|result| result)
        .map_err(|source| ServicesError::Directory { path: directory.to_owned(), source })
}
