//! Servers of our own start beside whatever runs, serve, survive a crash, and leave nothing behind.

use std::{fs, net::TcpStream, path::PathBuf, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use sqlx::{Connection as _, PgConnection};
use tolom::services::{Given, Server, Services, ServicesError, Wanted};
use url::Url;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/services")
}

/// A zombie is gone too: nobody may be there to reap what detached itself.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_open(url: &str) -> bool {
    TcpStream::connect(("127.0.0.1", Url::parse(url).unwrap().port().unwrap())).is_ok()
}

async fn database_works(services: &Services, name: &str) {
    let mut maintenance = PgConnection::connect(&services.database_url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut maintenance).await.unwrap();
    let mut created = PgConnection::connect(&services.url_of_database(name)).await.unwrap();
    let (current,): (String,) = sqlx::query_as("select current_database()").fetch_one(&mut created).await.unwrap();
    assert_eq!(current, name);
}

async fn broker_works(services: &Services) {
    let broker = Connection::connect(&services.amqp_url, ConnectionProperties::default()).await.unwrap();
    let channel = broker.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare("tolom.test".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    broker.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn private_servers_serve_survive_a_crash_and_leave_nothing_behind() {
    let mut services = Services::ensure(&Wanted::private(directory()), |step| println!("{step}")).await.unwrap();
    assert!(services.is_ours(Server::Database) && services.is_ours(Server::Broker));
    for url in [&services.database_url, &services.amqp_url] {
        let port = Url::parse(url).unwrap().port().unwrap();
        assert!(![5432, 5672].contains(&port), "the private servers are on standard ports: {services:?}");
    }
    database_works(&services, "before").await;
    broker_works(&services).await;

    services.crash(Server::Database).unwrap();
    assert!(!is_open(&services.database_url));
    services.start_again(Server::Database).await.unwrap();
    PgConnection::connect(&services.url_of_database("before")).await.expect("what was committed survives the crash");

    let processes = services.processes();
    assert!(processes.iter().any(|pid| lives(*pid)));
    let urls = [services.database_url.clone(), services.amqp_url.clone()];
    services.stop().await;
    assert_eq!(processes.into_iter().filter(|pid| lives(*pid)).collect::<Vec<_>>(), Vec::<u32>::new());
    for url in urls {
        assert!(!is_open(&url), "{url} still answers");
    }
}

#[tokio::test]
async fn servers_that_are_named_must_answer_and_are_not_replaced() {
    let mut wanted = Wanted::private(directory());
    let nobody = "amqp://tolom:hunter2@127.0.0.1:1/%2f";
    wanted.broker = Some(Given { setting: "AMQP_URL".to_owned(), url: nobody.to_owned() });
    wanted.database = Some(Given {
        setting: "DATABASE_URL".to_owned(),
        url: "postgres://tolom:hunter2@127.0.0.1:1/tolom".to_owned(),
    });
    let began = std::time::Instant::now();
    let error = Services::ensure(&wanted, |_| ()).await.unwrap_err();
    assert!(matches!(error, ServicesError::Given { .. }), "{error}");
    let text = format!("{error:?} {error}");
    assert!(text.contains("_URL") && !text.contains("hunter2"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
