//! An alarm at the broker: it blocks every connection that publishes, and tells so.

use std::{path::Path, time::Duration};

use tokio::time::Instant;
use tolom::{
    payer::Payer,
    services::{Services, Wanted},
};

use super::{Process, WORKERS, accept_all, ask, metric, requests, wait_for_metric};
use crate::{
    processes::free_address,
    support::world::{World, wait_for},
};

const BLOCKED: &str = "tolom_broker_blocked";

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_at_the_broker_is_seen_shown_and_survived() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services");
    let mut own = Services::ensure(&Wanted::private(directory), |step| eprintln!("{step}")).await.unwrap();
    let mut world = World::on_broker(&own.amqp_url, |_| ()).await;
    let [site, intake, workers] = std::array::from_fn(|_| free_address());
    world.payer = Payer::new(&format!("http://{site}")).unwrap();
    // So that windows break several times while the broker blocks.
    let settings = |admin: &str| vec![("admin.listen", admin.to_owned()), ("broker.publish_timeout_ms", "500".into())];
    let _intake = Process::with(&world, &["intake"], Some(&site), &settings(&intake));
    let _workers = Process::with(&world, &WORKERS, None, &settings(&workers));
    wait_for(async || world.payer.keys().await.ok()).await;
    let all = requests(&world, "110000", 40, "4111111111111111").await;
    accept_all(&world, &all[..20]).await;

    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.0000001"]).await.unwrap();
    accept_all(&world, &all[20..]).await;
    for admin in [&intake, &workers] {
        wait_for_metric(admin, BLOCKED, 1.0).await;
    }
    assert_eq!(ask(&intake, "/health/ready").await.unwrap().0, 200, "the outbox holds what it accepts");
    assert_eq!(ask(&workers, "/health/ready").await.unwrap(), (503, "the broker blocks publishing\n".to_owned()));
    // Longer than it takes to give a connection up: the alarm is shown for as long as it lasts.
    let until = Instant::now() + Duration::from_secs(26);
    while Instant::now() < until {
        for admin in [&intake, &workers] {
            assert_eq!(metric(admin, BLOCKED).await, Some(1.0));
        }
    }
    assert!(world.count("SELECT count(*) FROM outbox").await >= 20, "what was accepted is held");
    assert_eq!(world.count("SELECT coalesce(max(attempts), 0)::bigint FROM outbox").await, 0, "no row is to blame");

    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await.unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 40).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    for admin in [&intake, &workers] {
        wait_for_metric(admin, BLOCKED, 0.0).await;
        assert_eq!(ask(admin, "/health/ready").await.unwrap().0, 200);
    }
    world.finish().await;
    own.stop().await;
}
