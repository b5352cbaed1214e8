//! Commands that run until they are told to stop.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Failure, Session, well};
use crate::{
    app::{App, Roles, until_signalled},
    broker::{self, Broker},
    mail_catcher,
    simulator::{self, Latency, Simulator, SimulatorOptions},
    store,
    workers::{self, CARDS_ROLE, Role},
};

pub(super) async fn migrate(session: &Session) -> Result<(), Failure> {
    let pool = session.pool()?;
    store::migrate(&pool).await.context("the schema cannot be brought up to date")?;
    session.print(&serde_json::json!({ "migrated": true }), || "the schema is up to date".to_owned())?;
    Ok(())
}

pub(super) async fn intake(session: &Session) -> Result<(), Failure> {
    let roles = Roles { intake: Some(listen(session, "intake").await?), ..Roles::default() };
    run(session, roles).await
}

pub(super) async fn workers(session: &Session, names: &[String]) -> Result<(), Failure> {
    let mut roles: Vec<Role> = Vec::with_capacity(names.len());
    for name in names {
        let role = workers::ALL.into_iter().find(|role| role.name == name);
        let role = role.ok_or_else(|| {
            let known = workers::ALL.map(|role| format!("{} ({})", role.name, role.about)).join(", ");
            Failure::Unusable(format!("there is no worker `{name}`; allowed are {known}"))
        })?;
        roles.push(role);
    }
    run(session, Roles { workers: roles, ..Roles::default() }).await
}

pub(super) async fn all(session: &Session) -> Result<(), Failure> {
    migrate(session).await?;
    broker::apply(&Broker::new(&session.config.broker)).await?;
    let intake = Some(listen(session, "intake").await?);
    run(session, Roles { intake, workers: workers::ALL.to_vec(), ..Roles::default() }).await
}

async fn run(session: &Session, roles: Roles) -> Result<(), Failure> {
    if roles.workers.iter().any(|role| role.name == CARDS_ROLE) {
        shut_memory()?;
    }
    let admin = Some(listen(session, "admin").await?);
    let app = App::start(session.config.clone(), session.clock.clone(), Roles { admin, ..roles })?;
    well(app.run(until_signalled()).await)
}

/// Keeps the memory of this process from everybody but root: no debugger of the same user, and no core dump even where
/// the kernel pipes them to a program, which a limit of size does not stop (core(5)). Only who opens cards does so: it
/// hides from ordinary users what a process has open, too.
#[cfg(target_os = "linux")]
fn shut_memory() -> anyhow::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("the memory cannot be shut")
}

#[cfg(not(target_os = "linux"))]
fn shut_memory() -> anyhow::Result<()> {
    Ok(())
}

async fn listen(session: &Session, section: &str) -> Result<TcpListener, Failure> {
    let address = match section {
        "intake" => &session.config.intake.listen,
        _ => &session.config.admin.listen,
    };
    TcpListener::bind(address).await.map_err(|error| Failure::Unusable(format!("{section}.listen: {address}: {error}")))
}

pub(super) async fn simulator(session: &Session, latency: Latency, seed: u64) -> Result<(), Failure> {
    let address = &session.config.simulator.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Unusable(format!("simulator.listen: {address}: {error}")))?;
    tracing::info!(address, "simulating an acquirer");
    let public_url = Some(session.config.simulator.public_url.clone()).filter(|url| !url.is_empty());
    let merchant = session.config.operator.name.clone();
    let options = SimulatorOptions { latency, seed, public_url, merchant, ..SimulatorOptions::default() };
    let simulator = Simulator::with_options(session.clock.clone(), options);
    simulator::serve(listener, simulator, stop_on_signal()).await?;
    Ok(())
}

pub(super) async fn mail_catcher(smtp: &str, http: &str) -> Result<(), Failure> {
    let bind = async |address: &str| {
        TcpListener::bind(address).await.map_err(|error| Failure::Unusable(format!("{address}: {error}")))
    };
    let (smtp, http) = (bind(smtp).await?, bind(http).await?);
    mail_catcher::serve(smtp, http, stop_on_signal()).await?;
    Ok(())
}

fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        until_signalled().await;
        signalled.cancel();
    });
    stop
}
