//! `tolom verify` sees what is broken: here where no other test breaks it.

use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use tolom::{
    broker::Queue,
    verify::{Finding, verify},
};
use uuid::Uuid;

use crate::support::world::World;

async fn finding(world: &World, rule: u8) -> Finding {
    let findings = verify(&world.config, &world.pool, &world.broker, &world.clock, Duration::ZERO, None).await.unwrap();
    findings.into_iter().find(|finding| finding.rule == rule).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_beyond_its_time_and_what_grows_beyond_its_limit_is_named() {
    let world = World::prepared(|config| config.intake.max_outbox_rows = 1).await;
    let well = finding(&world, 9).await;
    assert!(well.ok && well.checked > 10, "{well:?}");
    sqlx::query(
        "INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer, created_at)
         VALUES ('public', 'k', decode(repeat('00', 32), 'hex'), $1, '{}', now() - interval '40 days')",
    )
    .bind(Uuid::nil())
    .execute(&world.pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO outbox (id, routing_key, body)
         SELECT gen_random_uuid(), 'payment.requested', '{}'::bytea FROM generate_series(1, 2)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let broken = finding(&world, 9).await;
    assert!(!broken.ok);
    for what in ["idempotency keys kept beyond their time: 1", "messages in the outbox: 2"] {
        assert!(broken.offending.iter().any(|text| text.contains(what)), "{what}: {:?}", broken.offending);
    }
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_is_named() {
    let world = World::prepared(|_| ()).await;
    let well = finding(&world, 8).await;
    assert!(well.ok && well.checked > 10, "{well:?}");
    let connection = world.broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let tier = world.broker.names().tier(Queue::Record, world.config.broker.retry_delays_ms[0]);
    channel.queue_delete(tier.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let broken = finding(&world, 8).await;
    assert!(!broken.ok && broken.offending.iter().any(|text| text.contains(&tier)), "{broken:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_hang_on_nothing_are_named() {
    let world = World::start().await;
    let (_, status) = world.pay_to_the_end(&world.bill("1100009001").await, "4111111111111111").await;
    assert_eq!(status, "captured");
    world.mail.wait_for_count(1).await;
    assert!(finding(&world, 5).await.ok && finding(&world, 6).await.ok);
    for orphan in [
        "INSERT INTO journal (payment_id, version, event, to_status, actor) VALUES ($1, 1, 'accepted', 'accepted', 'test')",
        "UPDATE settlement_entry SET payment_id = $1",
    ] {
        sqlx::query(orphan).bind(Uuid::nil()).execute(&world.pool).await.unwrap();
    }
    let (journal, books) = (finding(&world, 5).await, finding(&world, 6).await);
    assert!(journal.offending.iter().any(|text| text.ends_with("is of no payment")), "{journal:?}");
    assert!(books.offending.iter().any(|text| text.contains("names another payment")), "{books:?}");
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_in_any_company_is_named_and_a_random_name_is_not() {
    let world = World::prepared(|_| ()).await;
    let write = "INSERT INTO journal (payment_id, version, event, to_status, actor, detail) VALUES ($1, 1, 'e', 's', 'test', $2)";
    let write = async |detail: &str| {
        sqlx::query(write).bind(Uuid::nil()).bind(detail).execute(&world.pool).await.unwrap();
    };
    write("as 24b465ae54447769296873613b3b4285 said").await;
    let well = finding(&world, 7).await;
    assert!(well.ok, "{well:?}");
    for detail in ["x4111111111111111y", "a5555555555554444"] {
        write(detail).await;
    }
    let broken = finding(&world, 7).await;
    assert!(broken.offending.iter().any(|text| text.contains("4111111111111111")), "{broken:?}");
    assert!(broken.offending.iter().any(|text| text.contains("5555555555554444")), "{broken:?}");
    world.finish_without_acquirer().await;
}
