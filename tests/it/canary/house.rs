//! A Tolom of real processes on servers of its own, everything that it writes in one folder.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    clock::Clock,
    config::Config,
    mail_catcher::MailCatcher,
    services::{Services, Wanted},
    simulator::{self, Simulator, SimulatorOptions, cards::Behaviour},
    workers,
};
use uuid::Uuid;

use crate::support::world::wait_for;

/// The house and all that lives in it; torn down with this value.
pub(super) struct House {
    pub(super) folder: PathBuf,
    pub(super) config: Arc<Config>,
    pub(super) pool: PgPool,
    pub(super) mail: MailCatcher,
    pub(super) roles: Vec<Role>,
    simulator: Simulator,
    services: Option<Services>,
    _simulator: DropGuard,
}

/// A role in a process of its own.
pub(super) struct Role {
    pub(super) name: String,
    /// Where it shows its metrics.
    pub(super) admin: String,
    child: Child,
}

impl Role {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl House {
    /// Servers, schema, topology, simulator, mailbox and every role, with everything logged that can be. `cards` are
    /// the numbers that the simulator does not approve.
    pub(super) async fn open(cards: Vec<(String, Behaviour)>) -> Self {
        // Fails when the process has a provider already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = std::env::temp_dir().join(format!("tolom-canary-{}", Uuid::new_v4().simple()));
        for name in ["logs", "tmp", "services"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        // As durable as in production, so that the write-ahead log has all that it has there.
        let wanted = Wanted { durable: true, ..Wanted::private(folder.join("services")) };
        let services = Services::ensure(&wanted, |step| eprintln!("{step}")).await.unwrap();
        let mut admin = PgConnection::connect(&services.database_url).await.unwrap();
        sqlx::query("CREATE DATABASE tolom").execute(&mut admin).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acquirer = listener.local_addr().unwrap();
        let options = SimulatorOptions { cards, ..SimulatorOptions::default() };
        let simulator = Simulator::with_options(Clock::system(), options);
        let stop = CancellationToken::new();
        tokio::spawn(simulator::serve(listener, simulator.clone(), stop.clone()));
        let mail = MailCatcher::start_whole().await.unwrap();

        let mut config = Config::defaults();
        config.database.url = services.url_of_database("tolom").into();
        config.broker.url = services.amqp_url.clone().into();
        config.acquirer.url = format!("http://{acquirer}");
        config.acquirer.answer_timeout_ms = 1_500;
        config.acquirer.grace_ms = 200;
        config.mail.url = format!("smtp://{}", mail.smtp_addr()).into();
        config.sealing.keys_dir = folder.join("keys").display().to_string();
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy(config.database.url.expose()).unwrap();
        let mut house = Self {
            folder,
            config: Arc::new(config),
            pool,
            mail,
            roles: Vec::new(),
            simulator,
            services: Some(services),
            _simulator: stop.drop_guard(),
        };
        for command in [&["migrate"][..], &["topology", "apply"]] {
            assert!(house.command("setup", command, &[]).status().unwrap().success(), "{command:?}");
        }
        for role in workers::ALL {
            house.start(role.name, &["worker", role.name], &[]);
        }
        house
    }

    /// Starts a role; its log is `logs/<name>.log`.
    pub(super) fn start(&mut self, name: &str, command: &[&str], settings: &[(&str, String)]) {
        let admin = free_address();
        let settings = [settings, &[("admin.listen", admin.clone())]].concat();
        let child = self.command(name, command, &settings).spawn().unwrap();
        self.roles.push(Role { name: name.to_owned(), admin, child });
    }

    /// Starts an intake: its address, once it has keys to seal with.
    pub(super) async fn intake(&mut self, name: &str, capture: &str) -> String {
        let address = free_address();
        let settings = [("intake.listen", address.clone()), ("acquirer.capture", capture.to_owned())];
        self.start(name, &["intake"], &settings);
        let payer = tolom::payer::Payer::new(&format!("http://{address}")).unwrap();
        wait_for(async || payer.keys().await.ok()).await;
        format!("http://{address}")
    }

    /// Ends a role in order, and waits until it is gone.
    pub(super) async fn end(&mut self, name: &str) {
        let place = self.roles.iter().position(|role| role.name == name).unwrap();
        let mut role = self.roles.remove(place);
        let pid = rustix::process::Pid::from_child(&role.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for(async || role.child.try_wait().unwrap()).await;
    }

    fn command(&self, name: &str, command: &[&str], settings: &[(&str, String)]) -> Command {
        let log = File::options().create(true).append(true).open(self.folder.join(format!("logs/{name}.log"))).unwrap();
        let config = &self.config;
        let ours = [
            ("database.url", config.database.url.expose().to_owned()),
            ("database.max_connections", "4".to_owned()),
            ("broker.url", config.broker.url.expose().to_owned()),
            ("broker.retry_delays_ms", "[200]".to_owned()),
            ("acquirer.url", config.acquirer.url.clone()),
            ("acquirer.answer_timeout_ms", config.acquirer.answer_timeout_ms.to_string()),
            ("acquirer.grace_ms", config.acquirer.grace_ms.to_string()),
            ("resolve.schedule_s", "[1]".to_owned()),
            ("mail.url", config.mail.url.expose().to_owned()),
            ("sms.url", self.mail.sms_url().unwrap()),
            ("sealing.keys_dir", config.sealing.keys_dir.clone()),
            ("intake.lookups_per_minute", "100000".to_owned()),
            ("log.filter", "trace".to_owned()),
        ];
        let mut process = Command::new(env!("CARGO_BIN_EXE_tolom"));
        process.args(command);
        for (key, value) in ours.into_iter().chain(settings.iter().map(|(key, value)| (*key, value.clone()))) {
            process.args(["--set", &format!("{key}={value}")]);
        }
        process
            .current_dir(self.folder.join("tmp"))
            .env("TMPDIR", self.folder.join("tmp"))
            .env("RUST_BACKTRACE", "full")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        process
    }

    /// Issues open bills of 510 som.
    pub(super) async fn bills(&self, codes: &[String]) {
        sqlx::query("INSERT INTO api_client (id, kind, name, token_hash) VALUES ('agency', 'agency', 'Agency', $1)")
            .bind(vec![7_u8; 32])
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until)
             SELECT code, 'agency', 'passport', 'Асанов Айбек', 51000, 'KGS', now() + interval '30 days'
             FROM unnest($1::text[]) code",
        )
        .bind(codes)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// How many dead letters are parked in the database.
    pub(super) async fn parked(&self) -> usize {
        let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letter").fetch_one(&self.pool).await.unwrap();
        usize::try_from(parked).unwrap()
    }

    /// Has the database write everything that it has to its files.
    pub(super) async fn checkpoint(&self) {
        sqlx::query("CHECKPOINT").execute(&self.pool).await.unwrap();
    }

    /// Every row of every table, as text: what a dump would show, sealed cards included.
    pub(super) async fn rows(&self) -> Vec<(String, String)> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT quote_ident(table_name) FROM information_schema.tables
             WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert!(tables.len() > 10, "{tables:?}");
        let mut rows = Vec::new();
        for table in tables {
            let of: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT t::text FROM {table} t")))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            rows.extend(of.into_iter().map(|row| (table.clone(), row)));
        }
        rows
    }

    /// What the simulator shows of its books.
    pub(super) fn books(&self) -> String {
        serde_json::to_string(&self.simulator.books()).unwrap()
    }

    /// The metrics of every role.
    pub(super) async fn metrics(&self) -> Vec<(String, String)> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        let mut metrics = Vec::new();
        for role in &self.roles {
            let answer = client.get(format!("http://{}/metrics", role.admin)).send().await.unwrap();
            metrics.push((role.name.clone(), answer.text().await.unwrap()));
        }
        metrics
    }

    /// The mail that was caught: as it came, and its texts decoded; and the short messages.
    pub(super) fn mails(&self) -> Vec<Vec<u8>> {
        let mut mails = Vec::new();
        for mail in self.mail.messages() {
            let parsed = mail_parser::MessageParser::default().parse(&mail.raw).unwrap();
            let mut decoded = mail.subject.clone();
            for part in 0..parsed.parts.len() {
                decoded.extend(
                    parsed.body_text(part).into_iter().chain(parsed.body_html(part)).map(|text| text.into_owned()),
                );
            }
            mails.extend([mail.raw.clone(), decoded.into_bytes()]);
        }
        mails.extend(self.mail.sms().into_iter().map(|sms| sms.text.into_bytes()));
        mails
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of the one run of private servers.
    pub(super) fn servers(&self) -> PathBuf {
        let entries = fs::read_dir(self.folder.join("services")).unwrap().flatten().map(|entry| entry.path());
        let runs: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        assert_eq!(runs.len(), 1, "the servers keep their files in the house");
        runs[0].clone()
    }

    /// Ends everything and removes the folder.
    pub(super) async fn close(mut self) {
        self.roles.clear();
        self.pool.close().await;
        if let Some(services) = self.services.take() {
            services.stop().await;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.roles.clear();
        self.services = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The writable memory of a process of ours, piece by piece, as far as it can be read; none if only
/// root may look into it.
#[cfg(target_os = "linux")]
pub(super) fn memory_of(pid: u32) -> Option<Vec<Vec<u8>>> {
    use std::os::unix::fs::FileExt as _;
    let memory = match File::open(format!("/proc/{pid}/mem")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        opened => opened.unwrap(),
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut pieces = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut piece = vec![0; usize::try_from(to - from).unwrap()];
        // Special mappings cannot be read; nothing of ours is in them.
        if memory.read_exact_at(&mut piece, from).is_ok() {
            pieces.push(piece);
        }
    }
    Some(pieces)
}

/// A port that no other test gets by chance: below those that the system gives away.
fn free_address() -> String {
    loop {
        let port = 10_000 + Uuid::new_v4().as_u128() % 10_000;
        let address = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Whether a text stands in a file of a folder.
pub(super) fn stands_in(text: &str, folder: &Path) -> bool {
    !super::needles::Needles::text(text).find_in_files(folder).is_empty()
}
