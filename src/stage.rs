//! What the demo, the benchmark and chaos play on: servers, a database, queues and addresses of their own, and their removal.

pub(crate) mod apart;
pub(crate) mod grown;
mod ports;

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use sqlx::PgPool;
use time::{Date, OffsetDateTime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::grown::Grown;
use self::{
    apart::{Apart, Orders},
    ports::{Listeners, Post, take_ports},
};
use crate::{
    app::{App, Roles},
    broker::{self, Broker},
    clock::Clock,
    config::{Config, Secret},
    mail_catcher::MailCatcher,
    payer::Payer,
    payment::{Currency, Money, PaymentCode, card::CardInput},
    sealing::{self, KeyDir},
    services::{Given, Own, Server, Services, Wanted},
    simulator::{self, Simulator, SimulatorOptions},
    store::{
        self,
        bills::{self, BillTerms},
        clients::{self, Client, ClientKind},
        scratch,
    },
    telemetry, workers,
};

/// The agency that issues the bills.
pub(crate) const AGENCY: &str = "stage-agency";
/// What each bill is about.
pub(crate) const AMOUNT: Money = Money::new(51_000, Currency::KGS);
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is to be played.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// One lower-case word: the log, the database, the queues and the keys are named after it.
    pub(crate) name: &'static str,
    /// The settings file.
    pub(crate) config_file: Option<PathBuf>,
    /// The play's own settings, weaker than those that were asked for.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Settings that were asked for, stronger than everything but the stage's own addresses and names.
    pub(crate) flags: Vec<(String, String)>,
    /// How the acquirer behaves beyond what its test cards say.
    pub(crate) simulator: SimulatorOptions,
    /// Whether receipts go out as short messages too, to a gateway beside the mail catcher.
    pub(crate) short_messages: bool,
    /// Whether a private database must survive a power cut too: slower, and what a benchmark must measure.
    pub(crate) durable: bool,
    /// Whether servers that run already are left alone, and private ones started.
    pub(crate) private: bool,
    /// Which processes do the work.
    pub(crate) topology: Topology,
    /// What there is before anything is played.
    pub(crate) grown: Option<Grown>,
}

/// Which processes do the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// This one, with the acquirer simulator.
    Here,
    /// One for each role, and the acquirer simulator's.
    Processes,
    /// One for all roles, and the acquirer simulator's.
    One,
}

/// Where everything is, for people and scripts.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Addresses {
    /// The intake: API and pages.
    pub(crate) site: String,
    /// Prometheus metrics.
    pub(crate) metrics: String,
    /// The acquirer's books.
    pub(crate) books: String,
    /// The mail and the short messages caught.
    pub(crate) mail: String,
    /// The log of this run.
    pub(crate) log: PathBuf,
    /// The database.
    pub(crate) database: String,
    /// What the names of exchanges and queues begin with.
    pub(crate) queues: String,
}

/// A stage that is set. A clone is another handle on it.
#[derive(Clone)]
pub(crate) struct Set {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) pool: PgPool,
    pub(crate) broker: Broker,
    pub(crate) mail: Arc<MailCatcher>,
    pub(crate) addresses: Addresses,
    /// The day on which the acquirer's books begin, where ours are older.
    pub(crate) books_from: Option<Date>,
}

/// Whatever has been made so far; each part stands here before it is made, so that nothing is forgotten.
#[derive(Default)]
pub(crate) struct Stage {
    services: Option<Services>,
    database: Option<(String, String)>,
    broker: Option<Broker>,
    keys: Option<PathBuf>,
    simulator: Option<(CancellationToken, JoinHandle<std::io::Result<()>>)>,
    mail: Option<Arc<MailCatcher>>,
    app: Option<App>,
    apart: Option<Apart>,
    /// How long the roles may take to drain.
    drain: Duration,
}

/// What runs.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    app: Option<&'a App>,
    /// The processes apart, where the topology has some.
    pub(crate) apart: Option<&'a Apart>,
}

impl Running<'_> {
    /// Ends when a part of the pipeline cannot go on; before it has started, never.
    pub(crate) async fn failed(self) {
        match (self.app, self.apart) {
            (Some(app), _) => app.failed().await,
            (None, Some(apart)) => apart.failed().await,
            (None, None) => std::future::pending().await,
        }
    }
}

impl Stage {
    /// Makes everything and starts it. What was made before an error is there for [`Stage::strike`].
    pub(crate) async fn raise(&mut self, plan: &Plan, say: impl Fn(&str)) -> anyhow::Result<Set> {
        let mut config = settings(plan)?;
        if let Some(grown) = plan.grown {
            grown.make_room(&mut config);
        }
        let log = target().join(format!("{}.log", plan.name));
        std::fs::create_dir_all(target())
            .and_then(|()| telemetry::log_to_file(&config.log, &log))
            .with_context(|| format!("the log {} cannot be written", log.display()))?;
        let found = Services::ensure(&wanted(&config, plan), &say).await?;
        let services = self.services.insert(found);
        // Random, so that runs side by side on one server keep out of each other's way.
        let run = uuid::Uuid::new_v4().simple().to_string();
        let database = format!("tolom_{}_{}", plan.name, &run[..8]);
        config.database.url = services.url_of_database(&database).into();
        config.broker.url = services.amqp_url.clone().into();
        config.broker.prefix = format!("{}-{}.", plan.name, &run[..8]);
        let keys = std::env::temp_dir().join(format!("tolom-{}-{}", plan.name, &run[..8]));
        config.sealing.keys_dir = keys.to_string_lossy().into_owned();
        self.database = Some((services.database_url.clone(), database));
        self.keys = Some(keys);
        self.drain = Duration::from_secs(config.shutdown.drain_s + 5);
        let here = if plan.topology == Topology::Here { Some(Listeners::take(&mut config).await?) } else { None };
        let post = Post::take(&mut config, plan.short_messages).await?;
        let ports = if here.is_none() { take_ports(&mut config)? } else { Vec::new() };
        let config = Arc::new(config);
        self.broker = Some(Broker::new(&config.broker));
        let (maintenance, name) = self.database.as_ref().context("a database is named first")?;
        furnish(&config, maintenance, name, &say).await?;
        let books_from = match plan.grown {
            Some(grown) => Some(grown.fill(&config, &say).await?),
            None => None,
        };
        let (database, mail_address) = (name.clone(), post.view.local_addr()?);
        let mail = Arc::clone(self.mail.insert(Arc::new(MailCatcher::with_view(post.smtp, post.view)?)));
        let (pool, broker) = match here {
            Some(listeners) => self.start_here(&config, listeners, plan).await?,
            None => self.start_apart(&config, &ports, plan, &run[..8]).await?,
        };
        say("intake, workers, acquirer simulator and mail catcher run");
        let addresses = Addresses {
            site: config.intake.public_url.clone(),
            metrics: format!("http://{}/metrics", config.admin.listen),
            books: format!("{}/books", config.acquirer.url),
            mail: format!("http://{mail_address}/"),
            log,
            database,
            queues: config.broker.prefix.clone(),
        };
        Ok(Set { config, clock: Clock::system(), pool, broker, mail, addresses, books_from })
    }

    /// Everything in this process.
    async fn start_here(
        &mut self,
        config: &Arc<Config>,
        listeners: Listeners,
        plan: &Plan,
    ) -> anyhow::Result<(PgPool, Broker)> {
        let clock = Clock::system();
        let simulator = SimulatorOptions { merchant: config.operator.name.clone(), ..plan.simulator.clone() };
        let stop = CancellationToken::new();
        let bank =
            simulator::serve(listeners.simulator, Simulator::with_options(clock.clone(), simulator), stop.clone());
        self.simulator = Some((stop, tokio::spawn(bank)));
        let roles =
            Roles { intake: Some(listeners.intake), admin: Some(listeners.admin), workers: workers::ALL.to_vec() };
        let app = self.app.insert(App::start(Arc::clone(config), clock, roles)?);
        ready(&format!("http://{}", config.admin.listen)).await?;
        Ok((app.pool.clone(), app.broker.clone()))
    }

    /// The roles and the acquirer simulator in processes of theirs.
    async fn start_apart(
        &mut self,
        config: &Arc<Config>,
        ports: &[u16],
        plan: &Plan,
        run: &str,
    ) -> anyhow::Result<(PgPool, Broker)> {
        let names: Vec<&'static str> = match plan.topology {
            Topology::One => vec!["all"],
            _ => std::iter::once("intake").chain(workers::ALL.map(|role| role.name)).collect(),
        };
        let roles = names.into_iter().zip(ports.iter().copied()).collect();
        let mark = self.services.as_ref().and_then(Services::mark);
        let settings = std::env::temp_dir().join(format!("tolom-{}-{run}.toml", plan.name));
        let logs = target().join(plan.name).join(run);
        let orders = Orders { config, simulator: &plan.simulator, roles, settings, logs, mark };
        self.apart.insert(Apart::start(&orders)?).ready().await?;
        Ok((store::connect(&config.database)?, Broker::new(&config.broker)))
    }

    /// What runs, to be watched, and beside it the broker that was started for us, to be stopped and started again.
    pub(crate) fn hands(&mut self) -> (Running<'_>, Option<Own<'_>>) {
        let Self { services, app, apart, .. } = self;
        let broker = services.as_mut().and_then(|services| services.one(Server::Broker).ok());
        (Running { app: app.as_ref(), apart: apart.as_ref() }, broker)
    }

    /// Whether a server was started for us.
    pub(crate) fn is_ours(&self, server: Server) -> bool {
        self.services.as_ref().is_some_and(|services| services.is_ours(server))
    }

    /// Ends when a part of the pipeline cannot go on; before it has started, never.
    pub(crate) async fn failed(&self) {
        Running { app: self.app.as_ref(), apart: self.apart.as_ref() }.failed().await;
    }

    /// Ends and removes everything. What cannot be removed is told, and does not keep the rest.
    pub(crate) async fn strike(self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(app) = self.app
            && !app.stop().await
        {
            left.push("the pipeline did not drain in time and was cut".to_owned());
        }
        if let Some(apart) = self.apart {
            left.extend(apart.stop(self.drain).await);
        }
        drop(self.mail);
        if let Some((stop, simulator)) = self.simulator {
            stop.cancel();
            if let Ok(Err(error)) = simulator.await {
                left.push(format!("the acquirer simulator: {error}"));
            }
        }
        if let Some(broker) = self.broker
            && let Err(error) = broker::remove(&broker).await
        {
            left.push(format!("queues {}*: {:#}", broker.settings().prefix, anyhow::Error::from(error)));
        }
        if let Some((maintenance, name)) = self.database
            && let Err(error) = scratch::drop_database(&maintenance, &name).await
        {
            left.push(format!("database {name}: {:#}", anyhow::Error::from(error)));
        }
        if let Some(keys) = self.keys
            && let Err(error) = std::fs::remove_dir_all(&keys)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            left.push(format!("sealing keys in {}: {error}", keys.display()));
        }
        if let Some(services) = self.services {
            services.stop().await;
        }
        left
    }
}

/// Makes the database with an agency and a sealing key, and the queues. The agency's token.
pub(crate) async fn furnish(
    config: &Config,
    maintenance: &str,
    name: &str,
    say: &impl Fn(&str),
) -> anyhow::Result<Secret> {
    scratch::create_database(maintenance, name).await.with_context(|| {
        format!("the database {name} cannot be created: may this account of PostgreSQL create databases?")
    })?;
    let pool = store::connect(&config.database)?;
    store::migrate(&pool).await.context("the schema cannot be made")?;
    say(&format!("database {name} and its schema are there"));
    broker::apply(&Broker::new(&config.broker)).await.context("the queues cannot be made")?;
    say(&format!("exchanges and queues {}* are there", config.broker.prefix));
    let agency = Client { id: AGENCY.to_owned(), kind: ClientKind::Agency, name: "Agency".to_owned() };
    let token = clients::add(&pool, &agency).await?;
    let keys = KeyDir::open(&config.sealing.keys_dir)?;
    sealing::ensure_current(&pool, &keys, &config.sealing, Clock::system().now()).await?;
    pool.close().await;
    Ok(token)
}

/// Issues open bills of these numbers, all of the same amount.
pub(crate) async fn issue_bills(
    pool: &PgPool,
    config: &Config,
    numbers: Range<usize>,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<PaymentCode>> {
    let service = config.services.first().context("no service is configured")?;
    let bill = |number| {
        Ok(BillTerms {
            code: format!("{}{number:010}", service.prefix).parse()?,
            service: service.service.clone(),
            applicant: "Асанов Айбек Маратович".to_owned(),
            amount: AMOUNT,
            valid_until: now + time::Duration::days(30),
        })
    };
    let terms: Vec<BillTerms> = numbers.map(bill).collect::<anyhow::Result<_>>()?;
    bills::import(pool, AGENCY, &terms, now).await?;
    Ok(terms.into_iter().map(|terms| terms.code).collect())
}

/// A card of this number that is good otherwise.
pub(crate) fn card(number: &str, today: Date) -> CardInput {
    CardInput {
        number: number.to_owned(),
        expiry_month: 12,
        expiry_year: u16::try_from(today.year() + 3).unwrap_or(u16::MAX),
        cvc: "123".to_owned(),
        holder: "AIBEK ASANOV".to_owned(),
    }
}

async fn ready(admin: &str) -> anyhow::Result<()> {
    let operator = Payer::new(admin)?;
    let asked = async {
        while !operator.has_page(&["health", "ready"]).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, asked).await.context("the pipeline is not ready; the log says why")
}

fn settings(plan: &Plan) -> anyhow::Result<Config> {
    let own = plan.settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let flags: Vec<_> = own.chain(plan.flags.iter().cloned()).collect();
    Ok(Config::load(plan.config_file.as_deref(), &flags)?)
}

/// The servers that the environment or the settings name, else whatever can be had.
fn wanted(config: &Config, plan: &Plan) -> Wanted {
    let directory = target().join("services");
    if plan.private {
        return Wanted { durable: plan.durable, ..Wanted::private(directory) };
    }
    let mut wanted = Wanted { durable: plan.durable, ..Wanted::from_env(directory) };
    let defaults = Config::defaults();
    let named = |setting: &str, url: &str, default: &str, given: &mut Option<Given>| {
        if url != default && given.as_ref().is_none_or(|given| given.url != url) {
            *given = Some(Given { setting: setting.to_owned(), url: url.to_owned() });
        }
    };
    named("database.url", config.database.url.expose(), defaults.database.url.expose(), &mut wanted.database);
    named("broker.url", config.broker.url.expose(), defaults.broker.url.expose(), &mut wanted.broker);
    wanted
}

/// Cargo's folder for what may be thrown away.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}
