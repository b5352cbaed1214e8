//! The database goes while messages are in every queue: they wait, and it costs them nothing.

use std::time::Duration;

use tolom::{
    broker::Depths,
    workers::{self, Role},
};

use super::{Process, WORKERS, accept_all, metric, requests, wait_for_metric};
use crate::{
    processes::free_address,
    support::world::{World, wait_for},
};

const QUEUES: [&str; 4] = ["tolom.authorize", "tolom.record", "tolom.capture", "tolom.receipt"];
const EACH: usize = 10;

/// The workers of these names.
fn only(names: &[&str]) -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| names.contains(&role.name)).collect()
}

async fn wait_for_depth(depths: &Depths, queue: &str, messages: usize) {
    wait_for(async || {
        let all = depths.read().await.unwrap();
        all.into_iter().find(|(each, waiting, _)| each.name() == queue && *waiting as usize == messages)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_messages_wait_and_lose_neither_attempts_nor_deliveries() {
    // A message that took a tier would be seen: it would come back too late.
    let mut world = World::prepared(|config| config.broker.retry_delays_ms = vec![600_000]).await;
    let depths = Depths::open(&world.broker).await.unwrap();
    // The last queue of the way first: whoever fills it runs, whoever empties it does not.
    let fillers: [&[&str]; 4] = [&[], &["authorize"], &["authorize", "record"], &["authorize", "record", "capture"]];
    for (number, (queue, running)) in QUEUES.into_iter().zip(fillers).enumerate().rev() {
        world.run(only(running)).await;
        let requests = requests(&world, &format!("11000{number}"), EACH, "4111111111111111").await;
        accept_all(&world, &requests).await;
        wait_for_depth(&depths, queue, EACH).await;
        world.stop().await;
    }

    world.take_database_away().await;
    let admin = free_address();
    let settings = [
        ("admin.listen", admin.clone()),
        ("broker.retry_delays_ms", "[600000]".to_owned()),
        ("resolve.stalled_after_s", "60".to_owned()),
    ];
    let _workers = Process::with(&world, &WORKERS, None, &settings);
    for queue in QUEUES {
        wait_for_metric(&admin, &format!("tolom_worker_in_flight{{queue=\"{queue}\"}}"), EACH as f64).await;
    }
    // Several attempts of every worker fail meanwhile.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for queue in QUEUES {
        let in_hand = metric(&admin, &format!("tolom_worker_in_flight{{queue=\"{queue}\"}}")).await;
        assert_eq!(in_hand, Some(EACH as f64), "{queue} waits");
    }

    world.give_database_back().await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 4 * EACH as i64).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    for queue in QUEUES {
        for result in ["retry", "dead", "postponed"] {
            let series = format!("tolom_worker_messages_total{{queue=\"{queue}\",result=\"{result}\"}}");
            assert_eq!(metric(&admin, &series).await, Some(0.0), "{series}");
        }
        for reason in ["error", "ended", "silent", "missing", "stalled"] {
            let series = format!("tolom_consumer_rebuilds_total{{queue=\"{queue}\",reason=\"{reason}\"}}");
            assert_eq!(metric(&admin, &series).await, Some(0.0), "redelivered: {series}");
        }
    }
    assert!(depths.read().await.unwrap().iter().all(|(_, _, dead)| *dead == 0));
    world.finish().await;
}
