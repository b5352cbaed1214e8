//! Databases that live as long as a demo or a test.

use sqlx::{Connection, PgConnection};

use super::StoreError;

/// Whether a text is a name of ours: it stands in statements where no parameter can.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

async fn execute(maintenance_url: &str, name: &str, statement: String) -> Result<(), StoreError> {
    if !is_name(name) {
        return Err(StoreError::Unreadable(format!("`{name}` is no name for a database")));
    }
    let mut connection = PgConnection::connect(maintenance_url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    // The statement is done; the server notices a closed socket anyway.
    let _ = connection.close().await;
    Ok(())
}

/// Creates a database; the account of `maintenance_url` must be allowed to. Names have lower-case letters, digits and
/// `_`.
pub async fn create_database(maintenance_url: &str, name: &str) -> Result<(), StoreError> {
    execute(maintenance_url, name, format!("CREATE DATABASE {name}")).await
}

/// Keeps a database's tables in another directory, an empty one that belongs to the server's user. Nobody may be
/// connected to it.
pub async fn move_database(maintenance_url: &str, name: &str, directory: &std::path::Path) -> Result<(), StoreError> {
    let place = directory.to_string_lossy().replace('\'', "''");
    execute(maintenance_url, name, format!("CREATE TABLESPACE {name} LOCATION '{place}'")).await?;
    execute(maintenance_url, name, format!("ALTER DATABASE {name} SET TABLESPACE {name}")).await
}

/// Drops a database with whoever is connected to it; well when it is gone already.
pub async fn drop_database(maintenance_url: &str, name: &str) -> Result<(), StoreError> {
    execute(maintenance_url, name, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// Ends every session with a database but the asking one, as an operator would.
pub async fn end_sessions(maintenance_url: &str, name: &str) -> Result<(), StoreError> {
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    execute(maintenance_url, name, end).await
}
