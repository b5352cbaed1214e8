//! A row that the database refuses is alone in its fate: those that came in one batch with it are not even tried again.

use futures::future::join_all;
use tolom::workers::{self, Role};
use uuid::Uuid;

use crate::support::world::World;

/// Whoever is tried again waits longer than the test does.
const NEVER: u32 = 600_000;

const AUTHORIZED: &str = "SELECT count(*) FROM payment WHERE status = 'authorized'";
const CHALLENGED: &str = "SELECT count(*) FROM payment WHERE status = 'challenged'";

fn only(names: &[&str]) -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| names.contains(&role.name)).collect()
}

/// Payments that stand still, their messages waiting, until the next workers run.
async fn payments(world: &World, card: &str, question: &'static str) -> Vec<Uuid> {
    let codes: Vec<String> = (0..7).map(|number| format!("11000070{number:02}")).collect();
    let bills = world.bills(&codes).await;
    let payments = join_all(bills.iter().map(async |bill| world.pay(bill, card).await.id().unwrap())).await;
    world.wait_until(question, 7).await;
    payments
}

/// No operation of this kind can be stored for this payment.
async fn refuse(world: &World, kind: &str, payment: Uuid) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it is poison'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON operation FOR EACH ROW
         WHEN (NEW.kind = '{kind}' AND NEW.payment_id = '{payment}') EXECUTE FUNCTION refuse()"
    )))
    .execute(&world.pool)
    .await
    .unwrap();
}

/// The poisonous one is parked with its reason, at its first try.
async fn is_parked(world: &World, payment: Uuid) {
    world.wait_until("SELECT count(*) FROM dead_letter", 1).await;
    let (parked, attempts, reason): (Uuid, i32, String) =
        sqlx::query_as("SELECT payment, attempts, reason FROM dead_letter").fetch_one(&world.pool).await.unwrap();
    assert_eq!((parked, attempts), (payment, 0));
    assert!(reason.contains("it is poison"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_cannot_be_claimed_holds_up_no_other() {
    let mut world = World::prepared(|config| config.broker.retry_delays_ms = vec![NEVER]).await;
    world.run(only(&["authorize", "record"])).await;
    let payments = payments(&world, "4111111111111111", AUTHORIZED).await;
    world.stop().await;
    refuse(&world, "capture", payments[3]).await;
    world.run(only(&["capture", "record", "park"])).await;
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 6).await;
    is_parked(&world, payments[3]).await;
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_cannot_be_claimed_holds_up_no_other() {
    let mut world = World::prepared(|config| config.broker.retry_delays_ms = vec![NEVER]).await;
    world.run(only(&["authorize", "record"])).await;
    let payments = payments(&world, "4000000000003220", CHALLENGED).await;
    world.stop().await;
    world.run(only(&["record"])).await;
    for payment in &payments {
        assert!(world.payer.challenge(*payment, &[("otp", "123456")]).await.unwrap().status.is_success());
    }
    world.stop().await;
    refuse(&world, "complete_challenge", payments[3]).await;
    world.run(only(&["authorize", "record", "park"])).await;
    world.wait_until(AUTHORIZED, 6).await;
    is_parked(&world, payments[3]).await;
    world.finish_without_acquirer().await;
}
