//! The command line. Exit status: 0 well, 1 found wrong, 2 unusable arguments or settings.

mod admin;
mod bench;
mod chaos;
mod dead;
mod payment;
mod roles;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{
    clock::Clock,
    config::{Config, ConfigError},
    simulator::Latency,
    telemetry,
};

/// Of the runtime's own threads, which clone and drop what the broker client's thread has read (see `main`): that takes less.
const TASK_STACK_BYTES: usize = 64 * 1024 * 1024;

/// A year.
const MOST_GRACE_S: u64 = 366 * 86_400;

/// Takes card payments for state services through RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "tolom", version, about)]
struct Arguments {
    /// The settings file (default: tolom.toml, if it is there).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, for example `--set record.batch=100`; stronger than file and environment.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole pipeline at work, with nothing prepared.
    Demo {
        /// End after the findings.
        #[arg(long)]
        once: bool,
    },
    /// Measure latency and throughput of the whole pipeline, with nothing prepared.
    Bench(bench::Bench),
    /// Break the real roles and servers in every way while payments come in, and hold the books against each other.
    Chaos(chaos::Chaos),
    /// Bring the database schema up to date.
    Migrate,
    /// Serve the HTTP intake.
    Intake,
    /// Run workers by name.
    Worker {
        /// authorize, record, capture, receipt, notice, resolve, park.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Everything in one process: schema, topology, intake and every worker.
    All,
    /// Bills.
    #[command(subcommand)]
    Bills(admin::Bills),
    /// API clients: agencies, sites, finance.
    #[command(subcommand)]
    Clients(admin::Clients),
    /// One payment.
    #[command(subcommand)]
    Payment(payment::Payment),
    /// Dead letters: messages that could not be processed, parked in the database.
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Exchanges and queues.
    #[command(subcommand)]
    Topology(admin::Topology),
    /// Hold the rules of money against the database, the broker and the acquirer's books.
    Verify {
        /// Payments accepted within this many seconds may still be on their way.
        #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(..=MOST_GRACE_S))]
        grace_s: u64,
    },
    /// Sealing keys.
    #[command(subcommand)]
    Keys(admin::Keys),
    /// Settings.
    #[command(subcommand)]
    Config(admin::Settings),
    /// Serve an acquirer for tests, chosen by test card numbers.
    Simulator {
        /// What it waits before it acts on a request, in milliseconds: `20`, `50~20` (from 30 to 70) or `exp:50`.
        #[arg(long, value_name = "MS", default_value = "0")]
        latency: Latency,
        /// What decides about a distributed latency.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Serve a mailbox and an SMS gateway that keep what they are sent.
    MailCatcher {
        /// SMTP.
        #[arg(long, default_value = "127.0.0.1:1025")]
        listen: String,
        /// What was caught as web pages, and the gateway (POST /sms).
        #[arg(long, default_value = "127.0.0.1:8025")]
        http: String,
    },
}

/// How a command failed.
#[derive(Debug)]
enum Failure {
    /// Arguments or settings that cannot be used.
    Unusable(String),
    /// It looked, and has told what is wrong.
    Wrong,
    /// It could not be done, or what it is about is not there.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref::<ConfigError>() {
            Some(config) => Self::Unusable(config.to_string()),
            None => Self::Failed(error),
        }
    }
}

/// What a command works with.
struct Session {
    config: Arc<Config>,
    clock: Clock,
    json: bool,
}

impl Session {
    fn pool(&self) -> Result<sqlx::PgPool, crate::store::StoreError> {
        crate::store::connect(&self.config.database)
    }

    /// Prints a value as JSON, or as the text for people.
    fn print(&self, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        print(&text);
        Ok(())
    }
}

/// Parses the command line, runs the command and tells how it went.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // Ring alone, so that every TLS client of the process uses one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let json = arguments.json;
    let (message, status) = match on_threads(arguments) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Wrong) => return ExitCode::FAILURE,
        Err(Failure::Unusable(message)) => (message, 2),
        Err(Failure::Failed(error)) => (format!("{error:#}"), 1),
    };
    eprintln!("tolom: {message}");
    if json {
        print(&serde_json::json!({ "error": message }).to_string());
    }
    ExitCode::from(status)
}

/// A reader that has seen enough is no failure.
fn print(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{}\n", text.trim_end()).as_bytes());
}

/// Runs the command on threads with enough stack: a role alone on one, for it waits most of the time, and what crosses
/// threads costs more than a second one brings; everything else on as many as there are processors. Tokio's own variable
/// says otherwise.
fn on_threads(arguments: Arguments) -> Result<(), Failure> {
    let alone = match &arguments.command {
        Command::Intake => true,
        Command::Worker { names } => names.len() == 1,
        _ => false,
    };
    let mut runtime = if alone && std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.thread_stack_size(TASK_STACK_BYTES).enable_all().build().context("no runtime")?;
    let thread = std::thread::Builder::new().name("tolom".to_owned()).stack_size(TASK_STACK_BYTES);
    let command = thread.spawn(move || runtime.block_on(run(arguments))).context("no thread")?;
    command.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the command panicked").into()))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { config, set, json, command } = arguments;
    if let Command::Demo { once } = command {
        let options = crate::demo::DemoOptions { once, json, config_file: config, flags: set };
        return well(crate::demo::run(options).await?);
    }
    if let Command::Bench(bench) = command {
        return bench::run(bench, json, config, set).await;
    }
    if let Command::Chaos(chaos) = command {
        return chaos::run(chaos, json, config, set).await;
    }
    let config = Arc::new(Config::load(config.as_deref(), &set)?);
    telemetry::log(&config.log);
    telemetry::log_panics();
    let session = Session { config, clock: Clock::system(), json };
    match command {
        // These have been run above: they make settings of their own.
        Command::Demo { .. } | Command::Bench(_) | Command::Chaos(_) => Ok(()),
        Command::Migrate => roles::migrate(&session).await,
        Command::Intake => roles::intake(&session).await,
        Command::Worker { names } => roles::workers(&session, &names).await,
        Command::All => roles::all(&session).await,
        Command::Simulator { latency, seed } => roles::simulator(&session, latency, seed).await,
        Command::MailCatcher { listen, http } => roles::mail_catcher(&listen, &http).await,
        Command::Bills(command) => admin::bills(&session, command).await,
        Command::Clients(command) => admin::clients(&session, command).await,
        Command::Topology(command) => admin::topology(&session, command).await,
        Command::Keys(command) => admin::keys(&session, command).await,
        Command::Config(command) => admin::settings(&session, &command),
        Command::Verify { grace_s } => admin::verify(&session, grace_s).await,
        Command::Payment(command) => payment::run(&session, command).await,
        Command::Dead(command) => dead::run(&session, command).await,
    }
}

/// The account that runs this process: its name where the system's list has it, else its number.
fn os_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

/// Who does this: the name given, or the account's. Stands in journals, so it is short and in one line.
fn person(by: Option<String>) -> Result<String, Failure> {
    let name = by.unwrap_or_else(os_user);
    let fits = (1..=80).contains(&name.trim().chars().count()) && !name.chars().any(char::is_control);
    if fits {
        Ok(name.trim().to_owned())
    } else {
        Err(Failure::Unusable("--by: 1 to 80 characters in one line are allowed".to_owned()))
    }
}

fn well(well: bool) -> Result<(), Failure> {
    if well { Ok(()) } else { Err(Failure::Wrong) }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
