//! A private PostgreSQL: found among the installed ones, its cluster made anew, reachable from this machine only.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Server, ServicesError,
    instance::{Instance, free_ports},
    probe::OLDEST_POSTGRESQL,
    process::{Launch, Process, Stop, User, is_root},
    run_dir::{LOCALE, RunDir},
};

/// An installed PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    bin: PathBuf,
    version: u32,
}

/// The newest PostgreSQL that is installed and new enough.
pub(super) fn find() -> Option<Installed> {
    let mut places = Vec::new();
    for (parent, inner) in [
        // Debian and Ubuntu keep every major version beside the others, none of them in PATH.
        ("/usr/lib/postgresql", "bin"),
        // Homebrew, on both kinds of Mac.
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        places.extend(entries.map(|entry| entry.path().join(inner)));
    }
    places.push("/opt/homebrew/bin".into());
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places
        .into_iter()
        .filter(|bin| bin.join("initdb").is_file())
        .filter_map(|bin| Some(Installed { version: version(&bin.join("postgres"))?, bin }))
        .filter(|installed| installed.version >= OLDEST_POSTGRESQL)
        .max_by_key(|installed| installed.version)
}

/// The major version, from `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn version(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().nth(2)?;
    number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// Who the server runs as: it refuses to be root's.
pub(super) fn user() -> Option<User> {
    if is_root() { User::named("postgres") } else { None }
}

/// Makes a cluster and starts it.
pub(super) async fn start(
    installed: Installed,
    run: &RunDir,
    durable: bool,
    progress: impl Fn(&str),
) -> Result<Instance, ServicesError> {
    let trouble = |reason: String| ServicesError::DidNotStart { server: Server::Database, reason, log: String::new() };
    if is_root() && user().is_none() {
        return Err(trouble("it never runs as root, and there is no user `postgres` to run it as".to_owned()));
    }
    let mut instance = prepare(&installed, run, durable).map_err(|error| trouble(error.to_string()))?;
    progress(&format!("starting a PostgreSQL {} of our own on port {}", installed.version, instance.port));
    let initdb = init(&installed, &instance);
    let made = tokio::task::spawn_blocking(move || initdb.run()).await;
    match made.map_err(io::Error::other).and_then(|result| result) {
        Ok(true) => {}
        Ok(false) => return Err(instance.did_not_start("initdb failed")),
        Err(error) => return Err(instance.did_not_start(&format!("initdb cannot be run: {error}"))),
    }
    instance.start().await?;
    Ok(instance)
}

fn prepare(installed: &Installed, run: &RunDir, durable: bool) -> io::Result<Instance> {
    let [port] = free_ports()?;
    let user = user();
    let directory = run.for_server("postgres", user)?;
    let log = run.log("postgres")?;
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        // TCP serves everyone; a socket's path would not fit its 107 bytes in a deep directory.
        "unix_socket_directories=".to_owned(),
        // One database and one pool a test, many tests at a time.
        "max_connections=300".to_owned(),
    ];
    if !durable {
        // A killed process loses nothing by this, for the kernel still has every write; only a power cut would.
        settings.extend(["fsync=off".to_owned(), "full_page_writes=off".to_owned()]);
    } else {
        // As an installation is set up: room for the indexes in use, and checkpoints by the clock.
        let tuned = ["shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=15min"];
        settings.extend(tuned.map(str::to_owned));
        // What a benchmark asks about: when each transaction was committed, and how many statements there were.
        settings.push("track_commit_timestamp=on".to_owned());
        if has_statement_statistics(&installed.bin) {
            settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
            settings.push("pg_stat_statements.track=top".to_owned());
        }
    }
    let mut args: Vec<OsString> = vec!["-D".into(), directory.join("data").into()];
    args.extend(settings.into_iter().flat_map(|setting| ["-c".into(), OsString::from(setting)]));
    let launch = Launch {
        program: installed.bin.join("postgres"),
        args,
        env: run.env(&directory),
        directory,
        user,
        output: log.clone(),
        stop: Stop::Interrupt,
        patience: Duration::from_secs(20),
    };
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    Ok(Instance {
        server: Server::Database,
        url,
        port,
        launch,
        logs: vec![log],
        process: None::<Process>,
        companions: Vec::new(),
    })
}

/// Whether the module is there; a server that is to load one that is not does not start.
fn has_statement_statistics(bin: &Path) -> bool {
    // What stands in `PATH` may be a link into the installation.
    let program = fs::canonicalize(bin.join("postgres")).unwrap_or_default();
    let bin = program.parent().unwrap_or(bin);
    ["../lib/pg_stat_statements.so", "../lib/postgresql/pg_stat_statements.dylib"]
        .iter()
        .any(|module| bin.join(module).is_file())
}

/// Trust, because the server listens on the loopback interface alone and holds only what tests put there.
fn init(installed: &Installed, instance: &Instance) -> Launch {
    let fixed = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"];
    let mut args: Vec<OsString> = fixed.into_iter().map(OsString::from).collect();
    args.push(format!("--locale={LOCALE}").into());
    args.extend(["-D".into(), instance.launch.directory.join("data").into()]);
    Launch { program: installed.bin.join("initdb"), args, ..instance.launch.clone() }
}
