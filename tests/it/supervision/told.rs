//! What a process tells of its work on its operators' port.

use tolom::{
    broker::{Exchange, Outgoing, Publisher, Queue},
    telemetry::{Kind, METRICS},
};
use uuid::Uuid;

use super::{Process, WORKERS, ask, metric, wait_for_metric};
use crate::{processes::free_address, support::world::World};

/// Name and labels' names of a series, as it is told.
fn series(line: &str) -> (&str, Vec<&str>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0));
    (name, labels.collect())
}

fn is_listed(name: &str, labels: &[&str]) -> bool {
    METRICS.iter().any(|metric| {
        let mut listed = metric.labels.to_vec();
        let is_its = match (metric.kind, name.strip_prefix(metric.name)) {
            (Kind::Counter | Kind::Gauge, part) => part == Some(""),
            (Kind::Histogram, part) => {
                listed.extend((part == Some("_bucket")).then_some("le"));
                matches!(part, Some("_bucket" | "_sum" | "_count"))
            }
        };
        is_its && listed.len() == labels.len() && listed.iter().all(|label| labels.contains(label))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_counted_once_and_a_payers_minutes_at_the_bank_are_no_duration_of_ours() {
    let mut world = World::prepared(|_| ()).await;
    world.run(Vec::new()).await;
    let admin = free_address();
    let roles = [&WORKERS[..], &["park"]].concat();
    let _workers = Process::with(&world, &roles, None, &[("admin.listen", admin.clone())]);
    let bills = world.bills(&["1100000001".into(), "1100000002".into()]).await;
    assert_eq!(world.pay_to_the_end(&bills[0], "4111111111111111").await.1, "captured");
    let id = world.pay(&bills[1], "4000000000003220").await.id().unwrap();
    world.payer.follow_until(id, |news| news.payment["status"] == "challenged").await.unwrap();
    assert!(world.payer.challenge(id, &[("otp", "123456")]).await.unwrap().status.is_success());
    assert_eq!(world.end_of(id).await, "captured");
    let no_event = Outgoing {
        exchange: Exchange::Direct,
        routing_key: world.broker.names().queue(Queue::Authorize),
        message_id: Uuid::new_v4().to_string(),
        body: b"{}".to_vec(),
        attempt: 0,
        reason: None,
        traceparent: None,
        mandatory: true,
    };
    Publisher::start(world.broker.clone()).publish(no_event).await.unwrap();
    world.wait_until("SELECT count(*) FROM dead_letter WHERE state = 'parked'", 1).await;

    wait_for_metric(&admin, "tolom_payments_total{outcome=\"captured\"}", 2.0).await;
    wait_for_metric(&admin, "tolom_worker_messages_total{queue=\"tolom.authorize\",result=\"dead\"}", 1.0).await;
    let done = "tolom_worker_messages_total{queue=\"tolom.authorize\",result=\"done\"}";
    assert_eq!(metric(&admin, done).await, Some(3.0), "two requests and a confirmation");
    for stage in ["accept_to_authorized", "accept_to_captured"] {
        let count = format!("tolom_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert_eq!(metric(&admin, &count).await, Some(1.0), "{stage} of the one that was not confirmed");
    }
    let (_, text) = ask(&admin, "/metrics").await.unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = series(line);
        assert!(is_listed(name, &labels), "telemetry.rs does not list {line}");
    }
    world.finish().await;
}
