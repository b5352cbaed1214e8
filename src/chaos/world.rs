//! Where chaos happens: servers of its own, an acquirer and a mail server in this process, the roles in processes of
//! theirs, and a proxy between every pair.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::AbortOnDropHandle};
use url::Url;

use super::{
    ChaosOptions,
    cast::{Actor, Cast, Link, Peer},
    processes::{RoleProcess, log_of},
    proxy::Proxy,
};
use crate::{
    broker::Broker,
    clock::Clock,
    config::{Config, Secret},
    mail_catcher::MailCatcher,
    payer::Payer,
    services::{Services, SmallDisk, Wanted, ensure_packages, free_ports},
    simulator::{self, Simulator, SimulatorOptions},
    stage, store,
    store::scratch,
};

pub(super) const DATABASE: &str = "tolom_chaos";
/// A challenge that nobody confirms is over before anyone gets tired of waiting for it.
const CHALLENGE: Duration = Duration::from_secs(30);

/// What differs from the defaults, so that a claim's lease, a retry and a look at what is unknown take seconds and not
/// minutes: then a run of minutes sees each of them many times.
pub(super) const SETTINGS: [(&str, &str); 19] = [
    ("database.max_connections", "10"),
    ("broker.publish_timeout_ms", "3000"),
    ("broker.retry_delays_ms", "[500, 2000, 5000]"),
    ("intake.lookups_per_minute", "100000"),
    // One address and a few cards are declined all the time: that is the load, and nobody who tries stolen cards.
    ("limits.address.free", "1000000"),
    ("limits.bill.free", "1000000"),
    ("limits.card.free", "1000000"),
    ("acquirer.connect_timeout_ms", "500"),
    ("acquirer.answer_timeout_ms", "2000"),
    ("acquirer.send_within_ms", "4000"),
    ("acquirer.grace_ms", "1000"),
    ("resolve.poll_ms", "250"),
    ("resolve.schedule_s", "[1, 2, 4]"),
    ("resolve.stalled_after_s", "10"),
    ("notice.retry_s", "2"),
    ("mail.claim_s", "8"),
    ("sms.timeout_ms", "2000"),
    ("shutdown.drain_s", "10"),
    ("log.filter", "info"),
];

/// Everything that a run needs. Dropped, it ends and removes all but the logs; the processes go first.
pub(super) struct World {
    pub(super) processes: Vec<RoleProcess>,
    pub(super) proxies: BTreeMap<Link, Proxy>,
    pub(super) mail: MailCatcher,
    pub(super) simulator: Simulator,
    pub(super) config: Arc<Config>,
    pub(super) clock: Clock,
    pub(super) pool: PgPool,
    pub(super) broker: Broker,
    pub(super) agency: Secret,
    pub(super) disk: Option<SmallDisk>,
    /// Where the logs are.
    pub(super) directory: PathBuf,
    _simulating: (DropGuard, AbortOnDropHandle<std::io::Result<()>>),
    pub(super) services: Services,
}

/// The far ends, as they are without proxies.
struct Addresses {
    database: Url,
    broker: Url,
    acquirer: SocketAddr,
    mail: SocketAddr,
    sms: String,
    intakes: BTreeMap<Actor, SocketAddr>,
}

impl World {
    /// Makes everything, and starts every process.
    pub(super) async fn make(options: &ChaosOptions, cast: &Cast, say: &impl Fn(&str)) -> anyhow::Result<Self> {
        let directory = make_directory(options.seed)?;
        let clock = Clock::system();
        let wanted = Wanted { durable: true, ..Wanted::private(stage::target().join("services")) };
        let services = Services::ensure(&wanted, say).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mail = MailCatcher::start_whole().await?;
        let addresses = Addresses {
            database: services.url_of_database(DATABASE).parse()?,
            broker: services.amqp_url.parse()?,
            acquirer: listener.local_addr()?,
            mail: mail.smtp_addr(),
            sms: mail.sms_url().context("short messages have a gateway")?,
            intakes: intake_addresses(cast)?,
        };
        let simulated = SimulatorOptions { challenge: CHALLENGE, ..SimulatorOptions::default() };
        let simulator = Simulator::with_options(clock.clone(), simulated);
        let simulating = serve(listener, simulator.clone());
        let config = Arc::new(own_settings(options, &addresses, &directory)?);
        let agency = stage::furnish(&config, &services.database_url, DATABASE, say).await?;
        let disk = small_disk(&services, options, say).await?;
        let proxies = start_proxies(cast, &addresses).await?;
        if let Err(error) = ensure_packages(&[("faketime", "faketime")], say).await {
            say(&format!("{error}: no clock will be wrong"));
        }
        let mut processes = Vec::new();
        for actor in &cast.actors {
            let settings = role_settings(options, actor, &addresses, &proxies, &config)?;
            let mut process = RoleProcess::new(actor.clone(), &settings, &directory, services.mark())?;
            process.child.start().with_context(|| format!("{actor} cannot be started"))?;
            processes.push(process);
        }
        say(&format!("{} processes of {} roles started", processes.len(), cast.roles()));
        let (pool, broker) = (store::connect(&config.database)?, Broker::new(&config.broker));
        Ok(Self {
            processes,
            proxies,
            mail,
            simulator,
            config,
            clock,
            pool,
            broker,
            agency,
            disk,
            directory,
            _simulating: simulating,
            services,
        })
    }

    /// The sites, as payers reach them.
    pub(super) fn sites(&self) -> anyhow::Result<Vec<Payer>> {
        let sites = self.proxies.iter().filter(|(link, _)| link.peer == Peer::Payers);
        sites.map(|(_, proxy)| Ok(Payer::new(&format!("http://{}", proxy.address()))?)).collect()
    }

    /// Panics in the processes' logs.
    pub(super) fn panics(&self) -> Vec<String> {
        let log = |process: &RoleProcess| fs::read_to_string(log_of(&self.directory, &process.actor));
        let told = |process: &RoleProcess| {
            let text = log(process).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains("panicked"));
            lines.map(|line| format!("{}: {line}", process.actor)).collect::<Vec<_>>()
        };
        self.processes.iter().flat_map(told).collect()
    }

    /// Keeps the servers' logs beside the others, and takes everything down. The keys of a world that is no more go too.
    pub(super) async fn strike(self) {
        for log in self.services.logs() {
            if let Some(name) = log.file_name() {
                // A log that cannot be kept is no reason to fail.
                let _ = fs::copy(&log, self.directory.join(name));
            }
        }
        let _ = fs::remove_dir_all(&self.config.sealing.keys_dir);
        let Self { processes, services, .. } = self;
        drop(processes);
        services.stop().await;
    }
}

fn serve(listener: TcpListener, simulator: Simulator) -> (DropGuard, AbortOnDropHandle<std::io::Result<()>>) {
    let stop = CancellationToken::new();
    let serving: JoinHandle<std::io::Result<()>> = tokio::spawn(simulator::serve(listener, simulator, stop.clone()));
    (stop.drop_guard(), AbortOnDropHandle::new(serving))
}

/// A fresh directory for the logs of this run.
fn make_directory(seed: u64) -> anyhow::Result<PathBuf> {
    let directory = stage::target().join("chaos").join(format!("seed-{seed}-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    Ok(directory.canonicalize()?)
}

/// Ports for the intakes, which are killed and started again on the same one.
fn intake_addresses(cast: &Cast) -> anyhow::Result<BTreeMap<Actor, SocketAddr>> {
    let intakes = cast.actors.iter().filter(|actor| actor.role == "intake");
    let mut addresses = BTreeMap::new();
    for (actor, port) in intakes.zip(free_ports::<8>()?) {
        addresses.insert(actor.clone(), SocketAddr::from(([127, 0, 0, 1], port)));
    }
    Ok(addresses)
}

/// What was asked for, over what is quick.
fn flags(options: &ChaosOptions) -> Vec<(String, String)> {
    let own = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    own.chain(options.flags.iter().cloned()).collect()
}

/// The settings of this process, which looks at everything directly.
fn own_settings(options: &ChaosOptions, addresses: &Addresses, directory: &Path) -> anyhow::Result<Config> {
    let mut config = Config::apart(&flags(options))?;
    config.database.url = addresses.database.to_string().into();
    config.broker.url = addresses.broker.to_string().into();
    config.acquirer.url = format!("http://{}", addresses.acquirer);
    config.mail.url = format!("smtp://{}", addresses.mail).into();
    config.sms.url.clone_from(&addresses.sms);
    config.sealing.keys_dir = directory.join("keys").to_string_lossy().into_owned();
    Ok(config)
}

/// The settings of a role: every address is that of a proxy.
fn role_settings(
    options: &ChaosOptions,
    actor: &Actor,
    addresses: &Addresses,
    proxies: &BTreeMap<Link, Proxy>,
    config: &Config,
) -> anyhow::Result<Vec<(String, String)>> {
    let near =
        |peer: Peer, far: SocketAddr| proxies.get(&Link { actor: actor.clone(), peer }).map_or(far, Proxy::address);
    let through = |url: &Url, peer: Peer| {
        let mut url = url.clone();
        let port = near(peer, SocketAddr::from(([127, 0, 0, 1], url.port().unwrap_or_default()))).port();
        url.set_port(Some(port)).map_err(|()| anyhow::anyhow!("{url} has no port"))?;
        anyhow::Ok(url.to_string())
    };
    let intake = addresses.intakes.get(actor).map_or_else(|| "127.0.0.1:0".to_owned(), ToString::to_string);
    let mut settings = flags(options);
    let own = [
        ("database.url", through(&addresses.database, Peer::Database)?),
        ("broker.url", through(&addresses.broker, Peer::Broker)?),
        ("acquirer.url", format!("http://{}", near(Peer::Acquirer, addresses.acquirer))),
        ("mail.url", format!("smtp://{}", near(Peer::Mail, addresses.mail))),
        ("sms.url", addresses.sms.clone()),
        ("sealing.keys_dir", config.sealing.keys_dir.clone()),
        ("intake.listen", intake),
        ("admin.listen", "127.0.0.1:0".to_owned()),
    ];
    settings.extend(own.map(|(key, value)| (key.to_owned(), value)));
    Ok(settings)
}

async fn start_proxies(cast: &Cast, addresses: &Addresses) -> anyhow::Result<BTreeMap<Link, Proxy>> {
    let mut proxies = BTreeMap::new();
    for link in &cast.links {
        let server = |url: &Url| SocketAddr::from(([127, 0, 0, 1], url.port().unwrap_or_default()));
        let far = match link.peer {
            Peer::Database => server(&addresses.database),
            Peer::Broker => server(&addresses.broker),
            Peer::Acquirer => addresses.acquirer,
            Peer::Mail => addresses.mail,
            Peer::Payers => *addresses.intakes.get(&link.actor).context("an intake has an address")?,
        };
        proxies.insert(link.clone(), Proxy::start(far).await?);
    }
    Ok(proxies)
}

/// Puts the tables on a disk that can be filled up, where that can be had.
async fn small_disk(
    services: &Services,
    options: &ChaosOptions,
    say: &impl Fn(&str),
) -> anyhow::Result<Option<SmallDisk>> {
    // An empty database, and all that a payment leaves behind.
    let megabytes = 64 + options.payments() as u64 / 20;
    let disk = match services.small_disk(megabytes) {
        Ok(disk) => disk,
        Err(error) => {
            say(&format!("no small disk can be mounted ({error}): the disk will not be full"));
            return Ok(None);
        }
    };
    scratch::move_database(&services.database_url, DATABASE, disk.data()).await?;
    say(&format!("its tables are on a disk of {megabytes} MB"));
    Ok(Some(disk))
}
