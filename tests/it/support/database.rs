//! A database of its own for every test, cloned from a migrated template.

use std::str::FromStr;

use sha2::Digest;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, migrate::Migrator, postgres::PgConnectOptions,
};
use tokio::sync::OnceCell;
use tolom::{config, store};

use super::services::services;

static MIGRATOR: Migrator = sqlx::migrate!();
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// A migrated, empty database that is dropped with this value.
pub(crate) struct TestDatabase {
    name: String,
    /// Its address, for a role that opens a pool of its own.
    pub(crate) url: String,
    pub(crate) pool: PgPool,
}

/// Where databases may be made.
async fn maintenance() -> PgConnectOptions {
    let url = &services().await.database_url;
    PgConnectOptions::from_str(url).expect("a server's address").disable_statement_logging()
}

impl TestDatabase {
    /// Makes one.
    pub(crate) async fn fresh() -> Self {
        let template = TEMPLATE.get_or_init(template).await;
        Self::of(template).await
    }

    /// Makes one without tables.
    pub(crate) async fn bare() -> Self {
        Self::of("template0").await
    }

    async fn of(template: &str) -> Self {
        let name = format!("tolom_test_{}", uuid::Uuid::now_v7().simple());
        let mut admin = connect().await;
        run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = services().await.url_of_database(&name);
        let pool = store::connect(&config::Database { url: url.clone().into(), max_connections: 8 }).unwrap();
        Self { name, url, pool }
    }

    /// Takes the database away, as a crash or a cut network does.
    pub(crate) async fn take_away(&self) {
        let mut admin = connect().await;
        run(&mut admin, format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)).await;
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", self.name);
        run(&mut admin, end).await;
    }

    /// Gives it back.
    pub(crate) async fn give_back(&self) {
        run(&mut connect().await, format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name)).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A drop cannot await, and may run inside a runtime: hence a thread with a runtime of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { run(&mut connect().await, statement).await });
        });
        let _ = dropped.join();
    }
}

/// The migrated template, named after its migrations so that test processes share one; made under a lock.
async fn template() -> String {
    let checksums: Vec<u8> = MIGRATOR.iter().flat_map(|migration| migration.checksum.to_vec()).collect();
    let digest = sha2::Sha256::digest(&checksums);
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let (name, building) = (format!("tolom_template_{hash}"), format!("tolom_building_{hash}"));
    let mut admin = connect().await;
    run(&mut admin, format!("SELECT pg_advisory_lock(hashtextextended('{name}', 0))")).await;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut admin)
        .await
        .expect("the list of databases");
    if !exists {
        run(&mut admin, format!("DROP DATABASE IF EXISTS {building} WITH (FORCE)")).await;
        run(&mut admin, format!("CREATE DATABASE {building}")).await;
        let mut inside =
            PgConnection::connect_with(&maintenance().await.database(&building)).await.expect("the template");
        MIGRATOR.run(&mut inside).await.expect("the migrations run");
        inside.close().await.expect("the template is left");
        run(&mut admin, format!("ALTER DATABASE {building} RENAME TO {name}")).await;
    }
    // The lock ends with the connection.
    admin.close().await.expect("the lock is given back");
    name
}

async fn connect() -> PgConnection {
    PgConnection::connect_with(&maintenance().await).await.expect("PostgreSQL is needed: set DATABASE_URL")
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.expect("a statement of the test's own");
}
