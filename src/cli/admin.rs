//! Commands of operators that end at once.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Session, well};
use crate::{
    bills_csv::{self, Faults, ImportError},
    broker::{self, Broker},
    sealing::{self, KeyDir},
    store::clients::{self, Client, ClientKind},
    verify as rules,
};

#[derive(Debug, Subcommand)]
pub(super) enum Bills {
    /// Import bills, all or none. Safe to repeat.
    Import {
        /// CSV with a header: code, applicant, amount, valid_until; optional: service, currency.
        file: PathBuf,
        /// The agency that issues them.
        #[arg(long)]
        agency: String,
    },
}

pub(super) async fn bills(session: &Session, Bills::Import { file, agency }: Bills) -> Result<(), Failure> {
    let reader =
        std::fs::File::open(&file).map_err(|error| Failure::Unusable(format!("{}: {error}", file.display())))?;
    let pool = session.pool()?;
    match bills_csv::import(&pool, &session.config, &agency, reader).await {
        Ok(report) => Ok(session.print(&report, || report.to_string())?),
        // A script is told line by line, too.
        Err(ImportError::Faults(Faults { told, more })) if session.json => {
            let error = "nothing was imported";
            session.print(&json!({ "error": error, "faults": told, "more": more }), || error.to_owned())?;
            Err(Failure::Wrong)
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Clients {
    /// Add a client; its token is shown once and stored hashed.
    Add {
        /// A short name: lower-case letters, digits and `-`.
        id: String,
        /// agency, site or finance.
        #[arg(long)]
        kind: ClientKind,
        /// The name for people.
        #[arg(long)]
        name: String,
    },
}

pub(super) async fn clients(session: &Session, Clients::Add { id, kind, name }: Clients) -> Result<(), Failure> {
    let token = clients::add(&session.pool()?, &Client { id: id.clone(), kind, name }).await?;
    let token = token.expose().to_owned();
    session.print(&json!({ "id": id, "token": token }), || token.clone())?;
    Ok(())
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Topology {
    /// Declare exchanges, queues and bindings. Safe to repeat.
    Apply,
    /// Compare what exists with what this build declares.
    Verify,
}

pub(super) async fn topology(session: &Session, command: Topology) -> Result<(), Failure> {
    let broker = Broker::new(&session.config.broker);
    if let Topology::Apply = command {
        broker::apply(&broker).await?;
        session.print(&json!({ "applied": true }), || "the topology is declared".to_owned())?;
        return Ok(());
    }
    let findings = broker::verify(&broker).await?;
    session.print(&findings, || {
        let line = |finding: &broker::Finding| {
            format!("  {}  {}  {}\n", if finding.ok { "ok   " } else { "WRONG" }, finding.name, finding.detail)
        };
        findings.iter().map(line).collect()
    })?;
    well(findings.iter().all(|finding| finding.ok))
}

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a sealing key and offer it.
    New,
    /// Stop offering a key; it is destroyed once the last card sealed with it has expired.
    Retire {
        /// The key's name.
        kid: sealing::Kid,
    },
}

pub(super) async fn keys(session: &Session, command: Keys) -> Result<(), Failure> {
    let pool = session.pool()?;
    let now = session.clock.now();
    match command {
        Keys::New => {
            let dir = KeyDir::open(&session.config.sealing.keys_dir)?;
            let kid = sealing::create(&pool, &dir, &session.config.sealing, now).await?;
            session.print(&json!({ "kid": kid.to_string() }), || kid.to_string())?;
            Ok(())
        }
        Keys::Retire { kid } => {
            if !sealing::retire(&pool, &kid, now).await? {
                return Err(anyhow::anyhow!("there is no key {kid}").into());
            }
            session.print(&json!({ "retired": kid.to_string() }), || format!("{kid} is offered no more"))?;
            Ok(())
        }
    }
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Settings {
    /// Print the settings in force; secrets are masked.
    Show,
    /// Check the settings and say nothing if they are well.
    Check,
}

pub(super) fn settings(session: &Session, command: &Settings) -> Result<(), Failure> {
    match command {
        // Reading them was the check.
        Settings::Check => Ok(()),
        Settings::Show => {
            let text = serde_json::to_string_pretty(&*session.config)?;
            session.print(&*session.config, || text)?;
            Ok(())
        }
    }
}

pub(super) async fn verify(session: &Session, grace_s: u64) -> Result<(), Failure> {
    let (pool, broker) = (session.pool()?, Broker::new(&session.config.broker));
    let grace = Duration::from_secs(grace_s);
    let findings = rules::verify(&session.config, &pool, &broker, &session.clock, grace, None).await?;
    session.print(&findings, || rules::table(&findings))?;
    well(rules::all_kept(&findings))
}
