//! A running process: builds what its roles need, runs them until it is told to stop, and drains.
//!
//! Stopping has two stages. Soft: no new work; what is under way is finished, committed and published, within
//! `shutdown.drain_s`. Hard: the rest is cut, and nothing is lost, for the broker delivers it again.

mod admin;
mod figures;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acquirer::{Circuit, http::HttpAcquirer},
    broker::{self, Broker, Publisher},
    clock::{self, Clock},
    config::Config,
    intake::{self, Intake},
    relay::Relay,
    store,
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
        let pool = store::connect(&config.database)?;
        let broker = Broker::new(&config.broker);
        let publisher = Publisher::start(broker.clone());
        let (stop, stop_relay) = (CancellationToken::new(), CancellationToken::new());
        let (relay, relay_task) = Relay::start(pool.clone(), publisher.clone(), stop_relay.clone());
        let circuit = Circuit::new(&config.acquirer);
        let acquirer = HttpAcquirer::new(&config.acquirer, clock.clone(), circuit.clone()).context("acquirer")?;
        let context = Context {
            config: Arc::clone(&config),
            pool: pool.clone(),
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
            stop_relay,
            relay: relay_task,
            drain: Duration::from_secs(config.shutdown.drain_s),
            failed: Arc::default(),
        };
        if let Some(listener) = roles.admin {
            // An intake accepts while the broker is away: the outbox holds what it promises.
            let needs_broker = roles.intake.is_none();
            app.supervise("admin", admin::serve(listener, context.clone(), needs_broker));
        }
        if let Some(listener) = roles.intake {
            app.start_intake(&context, listener);
        }
        for role in roles.workers {
            app.supervise(role.name, (role.run)(context.clone()));
            // The books are looked at by one role, wherever it runs.
            if role.name == workers::FIGURES_ROLE {
                app.tasks.spawn(figures::keep(context.clone()));
            }
        }
        app.tasks.close();
        Ok(app)
    }

    fn start_intake(&self, context: &Context, listener: TcpListener) {
        let (feed, _) = broadcast::channel(LIVE_BACKLOG);
        self.tasks.spawn(broker::live::follow(context.broker.clone(), feed.clone(), self.stop.clone()));
        let intake = Intake::start(
            context.pool.clone(),
            Arc::clone(&context.config),
            context.clock.clone(),
            context.relay.clone(),
            feed,
        );
        let stop = self.stop.clone();
        self.supervise("intake", async move { Ok(intake::serve(listener, intake, stop).await?) });
    }

    /// Runs a role; one that ends with an error, which only unusable settings cause, ends the process.
    fn supervise(&self, name: &'static str, role: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let failed = Arc::clone(&self.failed);
        self.tasks.spawn(async move {
            if let Err(error) = role.await {
                tracing::error!(role = name, error = format!("{error:#}"), "cannot go on");
                failed.notify_one();
            }
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

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}

/// Ends at the first Ctrl-C or SIGTERM; the second one ends the process at once.
pub async fn until_signalled() {
    signalled().await;
    tracing::info!("draining; a second signal ends at once");
    tokio::spawn(async {
        signalled().await;
        end_at_once();
    });
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for exactly that: no drain")]
fn end_at_once() -> ! {
    std::process::exit(130)
}

async fn signalled() {
    let interrupt = tokio::signal::ctrl_c();
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        let _ = interrupt.await;
        return;
    };
    tokio::select! {
        _ = interrupt => {}
        _ = terminate.recv() => {}
    }
}
