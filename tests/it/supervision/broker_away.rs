//! A relay whose broker is away neither spins nor grows: the rows stay as they are, and go out when it is back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tolom::{
    broker::{self, Broker, Publisher},
    contracts::Topic,
    relay::Relay,
    store::outbox::{self, OutboxRow},
    supervision::Supervisor,
};
use uuid::Uuid;

use super::proxy::Proxy;
use crate::{
    broker::fresh,
    processes::free_address,
    support::{database::TestDatabase, world::wait_for},
};

const ROWS: usize = 2_000;

#[tokio::test]
async fn a_relay_without_a_broker_leaves_the_rows_alone_until_it_is_back() {
    let database = TestDatabase::fresh().await;
    let broker = fresh().await;
    let mut settings = broker.settings().clone();
    let address = free_address();
    settings.url = format!("amqp://guest:guest@{address}/%2f").into();
    let topics = [Topic::PaymentRequested, Topic::PaymentCaptured, Topic::SettlementEntry, Topic::PaymentDeclined];
    let rows: Vec<OutboxRow> = (0..ROWS)
        .map(|number| OutboxRow {
            id: Uuid::now_v7(),
            topic: topics[number % topics.len()],
            body: b"{}".to_vec(),
            traceparent: None,
        })
        .collect();
    let mut transaction = database.pool.begin().await.unwrap();
    outbox::insert(&mut transaction, &rows).await.unwrap();
    sqlx::query("UPDATE outbox SET publish_after = '2026-01-01'").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let stop = CancellationToken::new();
    let publisher = Publisher::start(Broker::new(&settings));
    let (relay, running) = Relay::start(database.pool.clone(), publisher, stop.clone(), Supervisor::default());
    // More than it has room for; announcing never waits.
    for _ in 0..5_000 {
        relay.announce(rows[..10].to_vec());
    }
    // Several sweeps' time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count =
        async |question: &'static str| -> i64 { sqlx::query_scalar(question).fetch_one(&database.pool).await.unwrap() };
    let untouched = "SELECT count(*) FROM outbox WHERE publish_after = '2026-01-01' AND attempts = 0";
    assert_eq!(count(untouched).await, ROWS as i64);

    let _proxy = Proxy::at(&address, broker.settings()).await;
    wait_for(async || (count("SELECT count(*) FROM outbox").await == 0).then_some(())).await;
    stop.cancel();
    running.await.unwrap();
    broker::remove(&broker).await.unwrap();
}
