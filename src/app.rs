//! A running process: builds what its roles need, runs them until it is told to stop, and drains.
//!
//! Stopping has two stages. Soft: no new work; what is under way is finished, committed and published, within
//! `shutdown.drain_s`. Hard: the rest is cut, and nothing is lost, for the broker delivers it again.

mod admin;
mod figures;

use std::{io, sync::Arc, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::PgPool;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::broadcast,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acquirer::{Circuit, http::HttpAcquirer},
    broker::{self, Broker, Publisher},
    clock::{self, Clock},
    config::Config,
    intake::{self, Intake},
    relay::Relay,
    store::{self, sessions::Sessions},
    supervision::Supervisor,
    worker::Context,
    workers::{self, Role},
};

/// Open pages that may lag behind by this many facts before they read the database again.
const LIVE_BACKLOG: usize = 4_096;

/// What a process does.
#[derive(Default)]
pub struct Roles {
    /// Serves the intake's HTTP API on this listener.
    pub intake: Option<TcpListener>,
    /// Serves the operators' port on this listener.
    pub admin: Option<TcpListener>,
    /// Runs these workers.
    pub workers: Vec<Role>,
}

/// A process that is running.
pub struct App {
    /// PostgreSQL.
    pub pool: PgPool,
    /// RabbitMQ.
    pub broker: Broker,
    stop: CancellationToken,
    tasks: TaskTracker,
    supervisor: Supervisor,
    stop_relay: CancellationToken,
    relay: tokio::task::JoinHandle<()>,
    drain: Duration,
    failed: Arc<tokio::sync::Notify>,
}

impl App {
    /// Builds and starts the roles. Neither the database nor the broker need be there yet: what needs them waits.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn start(config: Arc<Config>, clock: Clock, roles: Roles) -> anyhow::Result<Self> {
        crate::telemetry::metrics();
        allow_connections();
        let pool = store::connect(&config.database)?;
        let broker = Broker::new(&config.broker);
        let publisher = Publisher::start(broker.clone());
        let (stop, stop_relay) = (CancellationToken::new(), CancellationToken::new());
        let supervisor = broker.supervisor().clone();
        let (relay, relay_task) = Relay::start(pool.clone(), publisher.clone(), stop_relay.clone(), supervisor.clone());
        let circuit = Circuit::new(&config.acquirer);
        let acquirer = HttpAcquirer::new(&config.acquirer, clock.clone(), circuit.clone()).context("acquirer")?;
        let context = Context {
            config: Arc::clone(&config),
            pool: pool.clone(),
            sessions: Sessions::new(pool.clone()),
            broker: broker.clone(),
            publisher,
            relay,
            acquirer: Arc::new(acquirer),
            circuit,
            clock,
            owner: format!("{}/{}", host(), clock::new_id()).into(),
            stop: stop.clone(),
        };
        let app = Self {
            pool,
            broker,
            stop,
            tasks: TaskTracker::new(),
            supervisor,
            stop_relay,
            relay: relay_task,
            drain: Duration::from_secs(config.shutdown.drain_s),
            failed: Arc::default(),
        };
        if let Some(listener) = roles.admin {
            // An intake accepts while the broker is away: the outbox holds what it promises.
            let needs_broker = roles.intake.is_none();
            let (listener, context) = (for_every_life(listener)?, context.clone());
            app.supervise("admin", move || {
                let (listener, context) = (listener(), context.clone());
                async move { admin::serve(listener?, context, needs_broker).await }
            });
        }
        if let Some(listener) = roles.intake {
            app.start_intake(&context, listener)?;
        }
        for role in roles.workers {
            let worker = context.clone();
            app.supervise(role.name, move || (role.run)(worker.clone()));
            // The books are looked at by one role, wherever it runs.
            if role.name == workers::FIGURES_ROLE {
                let context = context.clone();
                app.supervise("figures", move || figures::keep(context.clone()));
            }
        }
        app.tasks.close();
        Ok(app)
    }

    fn start_intake(&self, context: &Context, listener: TcpListener) -> anyhow::Result<()> {
        intake::Documents::read(&context.config).map(drop).context("site.documents_dir")?;
        let settings = &context.config.intake;
        // Else all payers would share what one address may do.
        anyhow::ensure!(
            !settings.public_url.starts_with("https:") || !settings.proxies.is_empty(),
            "intake.proxies: intake.public_url is https, so name the network of the proxy that speaks TLS"
        );
        let (feed, _) = broadcast::channel(LIVE_BACKLOG);
        let intake = Intake::start(
            context.pool.clone(),
            Arc::clone(&context.config),
            context.clock.clone(),
            context.relay.clone(),
            feed.clone(),
            self.supervisor.clone(),
        );
        let (listener, stop) = (for_every_life(listener)?, self.stop.clone());
        self.supervise("intake", move || {
            let (listener, intake, stop) = (listener(), intake.clone(), stop.clone());
            async move { Ok(intake::serve(listener?, intake, stop).await?) }
        });
        let (broker, stop) = (context.broker.clone(), self.stop.clone());
        self.supervise("live pages", move || {
            let (broker, feed, stop) = (broker.clone(), feed.clone(), stop.clone());
            async move {
                broker::live::follow(broker, feed, stop).await;
                Ok(())
            }
        });
        Ok(())
    }

    /// Keeps a role running. One that ends with an error, which only unusable settings cause, or before it is told to
    /// stop, ends the process: it would stand there without it.
    fn supervise<F>(&self, name: &'static str, role: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (failed, supervisor, stop) = (Arc::clone(&self.failed), self.supervisor.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            match supervisor.keep(name, role).await {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => tracing::error!(role = name, "ended before its time"),
                Err(error) => tracing::error!(role = name, error = format!("{error:#}"), "cannot go on"),
            }
            failed.notify_one();
        });
    }

    /// Runs until `until` ends or a role cannot go on, then drains. False if a role failed or the drain was cut.
    pub async fn run(self, until: impl Future<Output = ()>) -> bool {
        let well = tokio::select! {
            () = until => true,
            () = self.failed() => false,
        };
        self.stop().await && well
    }

    /// Ends when a role cannot go on; while all of them can, never.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Drains and ends. False if it took too long and was cut.
    pub async fn stop(self) -> bool {
        self.stop.cancel();
        let drained = tokio::time::timeout(self.drain, async {
            self.tasks.wait().await;
            // The relay is last: it publishes what the others have just committed.
            self.stop_relay.cancel();
            let _ = self.relay.await;
        })
        .await;
        if drained.is_err() {
            tracing::warn!(after_s = self.drain.as_secs(), "the drain was cut; unfinished work is delivered again");
        }
        self.stop_relay.cancel();
        // Connections that a hung task holds are not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.close()).await;
        drained.is_ok()
    }
}

/// A descriptor a connection: for this process and those that it starts, as many as the system's hard limit allows.
pub fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    // What then does not fit fails with an error of its own.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// One listening socket for every life of the one who serves it: connections go on queueing while it is built anew.
fn for_every_life(listener: TcpListener) -> io::Result<impl Fn() -> io::Result<TcpListener> + Send> {
    let listener = listener.into_std()?;
    Ok(move || TcpListener::from_std(listener.try_clone()?))
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}

/// Ends at the first Ctrl-C or SIGTERM; the second one ends the process at once.
pub async fn until_signalled() {
    let mut signals = Signals::listen();
    signals.next().await;
    tracing::info!("draining; a second signal ends at once");
    tokio::spawn(async move {
        signals.next().await;
        end_at_once();
    });
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for exactly that: no drain")]
fn end_at_once() -> ! {
    std::process::exit(130)
}

/// Ctrl-C and SIGTERM. One value for both signals that are waited for, so that none is lost between the two.
struct Signals([Option<Signal>; 2]);

impl Signals {
    fn listen() -> Self {
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok()))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            Some(()) = of(interrupt) => {}
            Some(()) = of(terminate) => {}
            // Nothing can be listened to: the system's own way of ending a process remains.
            else => std::future::pending().await,
        }
    }
}

async fn of(signal: &mut Option<Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}
