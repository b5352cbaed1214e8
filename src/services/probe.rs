//! Whether a server that answers can really carry the pipeline. An open port proves nothing: the account may not
//! create databases, the broker may stand in a disk alarm or be too old for quorum queues and streams.

use std::time::Duration;

use futures::FutureExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use sqlx::{
    Connection as _, Row as _,
    postgres::{PgConnectOptions, PgConnection},
};

/// The oldest version that everything is tested on.
pub(super) const OLDEST_POSTGRESQL: u32 = 15;

/// A healthy server answers each probe in milliseconds; one that needs longer is no base for a test or a demo.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection, no login, or the session broke.
    #[error("the database does not let us in")]
    Database(#[source] sqlx::Error),
    /// No connection, no login, or a queue was refused.
    #[error("the broker does not let us in")]
    Broker(#[source] lapin::Error),
    /// Connected or not, it said nothing in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It answers, and what it says rules it out.
    #[error("{0}")]
    Unusable(String),
}

/// Connects to PostgreSQL; with `may_create`, also asks for what a maintenance connection needs.
pub(super) async fn database(url: &str, may_create: bool) -> Result<(), ProbeError> {
    let look = async {
        let options: PgConnectOptions = url.parse().map_err(ProbeError::Database)?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(ProbeError::Database)?;
        let row = sqlx::query(
            "select current_setting('server_version_num')::int4 / 10000 as version, \
                    pg_is_in_recovery() as standby, \
                    (select rolcreatedb or rolsuper from pg_roles where rolname = current_user) as may_create",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(ProbeError::Database)?;
        let version = u32::try_from(row.get::<i32, _>("version")).unwrap_or(0);
        // Best effort: the answer is in hand, and the server notices a closed socket anyway.
        let _ = connection.close().await;
        if version < OLDEST_POSTGRESQL {
            return Err(ProbeError::Unusable(format!("PostgreSQL {version} is older than {OLDEST_POSTGRESQL}")));
        }
        if row.get("standby") {
            return Err(ProbeError::Unusable("it is a standby and takes no writes".to_owned()));
        }
        if may_create && !row.get::<bool, _>("may_create") {
            return Err(ProbeError::Unusable("the account may not create databases".to_owned()));
        }
        Ok(())
    };
    in_time(look.boxed()).await
}

/// Connects to RabbitMQ, declares a quorum queue and a stream, and has a message confirmed.
pub(super) async fn broker(url: &str) -> Result<(), ProbeError> {
    let look = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.map_err(ProbeError::Broker)?;
        let tried = try_queues(&connection).await;
        // Best effort: what was tried is what counts.
        let _ = connection.close(200, "probed".into()).await;
        tried
    };
    in_time(look.boxed()).await
}

/// A broker in a memory or disk alarm accepts a connection and a queue, then stops reading: only a confirmed message
/// shows that it works.
async fn try_queues(connection: &Connection) -> Result<(), ProbeError> {
    let channel = connection.create_channel().await.map_err(ProbeError::Broker)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(ProbeError::Broker)?;
    for kind in ["quorum", "stream"] {
        let name = format!("tolom.probe.{}", uuid::Uuid::now_v7());
        let tried = try_queue(&channel, &name, kind).await;
        // A queue that could not be declared needs no deletion, and its channel is closed.
        let _ = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await;
        tried.map_err(ProbeError::Broker)?;
    }
    Ok(())
}

async fn try_queue(channel: &Channel, name: &str, kind: &str) -> Result<(), lapin::Error> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await?;
    channel
        .basic_publish("".into(), name.into(), BasicPublishOptions::default(), b"", BasicProperties::default())
        .await?
        .await?;
    Ok(())
}

async fn in_time(look: impl std::future::Future<Output = Result<(), ProbeError>>) -> Result<(), ProbeError> {
    tokio::time::timeout(PATIENCE, look).await.unwrap_or(Err(ProbeError::Silent(PATIENCE)))
}
