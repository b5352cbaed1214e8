//! A private RabbitMQ: a node of its own name, ports, cookie and directories, with an epmd of its own, so that it
//! neither meets nor disturbs a broker that runs on this machine.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Server, ServicesError,
    instance::{Instance, free_ports},
    process::{Launch, Process, Stop, User, is_root},
    run_dir::{RunDir, give},
};

/// The server's start script, if RabbitMQ is installed.
pub(super) fn find() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = vec![
        // Before PATH: Debian's command there is a wrapper that insists on the system's own broker and user.
        "/usr/lib/rabbitmq/bin".into(),
        "/opt/homebrew/opt/rabbitmq/sbin".into(),
        "/usr/local/opt/rabbitmq/sbin".into(),
    ];
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places.into_iter().map(|place| place.join("rabbitmq-server")).find(|script| script.is_file())
}

/// Who the server runs as: the package's user rather than root, where there is one.
pub(super) fn user() -> Option<User> {
    if is_root() { User::named("rabbitmq") } else { None }
}

/// Starts a node and waits until it confirms messages.
pub(super) async fn start(script: PathBuf, run: &RunDir, progress: impl Fn(&str)) -> Result<Instance, ServicesError> {
    let trouble = |error: io::Error| ServicesError::DidNotStart {
        server: Server::Broker,
        reason: error.to_string(),
        log: String::new(),
    };
    let (mut instance, epmd) = prepare(script, run).map_err(trouble)?;
    progress(&format!("starting a RabbitMQ of our own on port {}, which takes a while", instance.port));
    if let Some(epmd) = epmd {
        instance.companions.push(Process::start(&epmd).map_err(trouble)?);
    }
    instance.start().await?;
    Ok(instance)
}

fn prepare(script: PathBuf, run: &RunDir) -> io::Result<(Instance, Option<Launch>)> {
    let [port, distribution, epmd_port] = free_ports()?;
    let user = user();
    let directory = run.for_server("rabbitmq", user)?;
    let output = run.log("rabbitmq")?;
    write_files(&directory, port, user)?;
    let launch = Launch {
        program: script,
        args: Vec::new(),
        env: environment(run, &directory, port, distribution, epmd_port),
        directory: directory.clone(),
        user,
        output: output.clone(),
        stop: Stop::Terminate,
        patience: Duration::from_secs(20),
    };
    let epmd = find_epmd().map(|program| Launch {
        program,
        args: ["-address", "127.0.0.1", "-port"]
            .map(OsString::from)
            .into_iter()
            .chain([epmd_port.to_string().into()])
            .collect(),
        patience: Duration::from_secs(2),
        ..launch.clone()
    });
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let logs = vec![output, directory.join("node.log")];
    let instance = Instance { server: Server::Broker, url, port, launch, logs, process: None, companions: Vec::new() };
    Ok((instance, epmd))
}

fn write_files(directory: &Path, port: u16, user: Option<User>) -> io::Result<()> {
    let settings = format!("listeners.tcp.local = 127.0.0.1:{port}\nlog.console = false\n");
    let files = [
        ("rabbitmq.conf", settings.as_str()),
        ("advanced.config", "[].\n"),
        ("enabled_plugins", "[].\n"),
        ("conf.d/00-none.conf", ""),
    ];
    fs::create_dir(directory.join("conf.d"))?;
    give(&directory.join("conf.d"), user)?;
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text)?;
        give(&path, user)?;
    }
    Ok(())
}

fn environment(
    run: &RunDir,
    directory: &Path,
    port: u16,
    distribution: u16,
    epmd: u16,
) -> Vec<(&'static str, OsString)> {
    let mut env = run.env(directory);
    let mut set = |name: &'static str, value: OsString| env.push((name, value));
    set("RABBITMQ_NODENAME", format!("tolom-{port}@localhost").into());
    set("RABBITMQ_DIST_PORT", distribution.to_string().into());
    set("ERL_EPMD_PORT", epmd.to_string().into());
    set("ERL_EPMD_ADDRESS", "127.0.0.1".into());
    set("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".into());
    for (name, file) in [
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "."),
        ("RABBITMQ_LOGS", "node.log"),
        ("RABBITMQ_PID_FILE", "node.pid"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_CONFIG_FILES", "conf.d"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        // Not there: the system's own settings are for the system's own broker.
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
    ] {
        set(name, directory.join(file).into());
    }
    // Has the start script become the node instead of standing before it, so that signals reach the node.
    set("RUNNING_UNDER_SYSTEMD", "true".into());
    env
}

/// Erlang's port mapper. Started by us it ends with us; started by the node it would detach itself and stay.
fn find_epmd() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = vec!["/usr/lib/erlang/bin".into(), "/opt/homebrew/opt/erlang/lib/erlang/bin".into()];
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places.into_iter().map(|place| place.join("epmd")).find(|program| program.is_file())
}
