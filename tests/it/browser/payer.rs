//! What the payer's walks need: everything running, bills, and a bank at another site's address.

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tolom::workers::{self, Role};

use super::run::walk;
use crate::support::world::World;

/// A world whose bank has another host name than the site, as banks have; two worlds never share a bill.
async fn world(bills: usize) -> (World, Value) {
    let mut world = World::prepared(|config| {
        config.acquirer.url = config.acquirer.url.replace("127.0.0.1", "localhost");
    })
    .await;
    world.make_sealing_key().await;
    let codes: Vec<String> = (0..bills).map(|number| format!("1100{number:08}")).collect();
    world.bills(&codes).await;
    world.run(Vec::new()).await;
    let stage = json!({ "site": world.site, "bank": world.config.acquirer.url, "bills": codes });
    (world, stage)
}

/// Bills that cannot be paid, by why.
async fn closed(world: &World) -> Value {
    let closed = json!({ "cancelled": "160000000001", "expired": "160000000002", "elsewhere": "160000000003" });
    let codes: Vec<String> =
        closed.as_object().unwrap().values().map(|code| code.as_str().unwrap().to_owned()).collect();
    world.bills(&codes).await;
    for change in [
        "UPDATE bill SET status = 'cancelled' WHERE code = '160000000001'",
        "UPDATE bill SET valid_until = now() - interval '1 day' WHERE code = '160000000002'",
        "UPDATE bill SET status = 'paid', paid_at = now() WHERE code = '160000000003'",
    ] {
        sqlx::query(change).execute(&world.pool).await.unwrap();
    }
    closed
}

#[tokio::test]
async fn the_payers_way_can_be_walked_in_each_language() {
    let (mut world, mut stage) = world(60).await;
    stage["closed"] = closed(&world).await;
    world.run_too(workers::ALL.to_vec()).await;
    walk("payer.mjs", stage).await;
    world.finish().await;
}

#[tokio::test]
async fn a_browser_that_keeps_nothing_a_network_that_breaks_and_a_bank_that_redirects_hold_up_no_payer() {
    let (mut world, stage) = world(8).await;
    world.run_too(workers::ALL.to_vec()).await;
    walk("unlucky.mjs", stage).await;
    world.finish().await;
}

/// Waits for the walk's sign, which is held until this is dropped.
async fn sign(signal: &TcpListener) -> TcpStream {
    signal.accept().await.unwrap().0
}

async fn signal(stage: &mut Value) -> TcpListener {
    let signal = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage["signal"] = signal.local_addr().unwrap().port().into();
    signal
}

/// The worker that finds out what became of a payment, and all others.
fn resolve_and_others() -> (Vec<Role>, Vec<Role>) {
    workers::ALL.into_iter().partition(|role| role.name == "resolve")
}

#[tokio::test]
async fn what_is_unknown_is_resolved_while_its_page_is_open() {
    let (mut world, mut stage) = world(6).await;
    let signal = signal(&mut stage).await;
    let (resolve, others) = resolve_and_others();
    let starting = async {
        for workers in [others, resolve] {
            let _held = sign(&signal).await;
            world.run_too(workers).await;
        }
    };
    tokio::join!(walk("unknown.mjs", stage), starting);
    world.finish().await;
}

#[tokio::test]
async fn who_comes_back_from_the_bank_is_told_how_it_stands() {
    let (mut world, mut stage) = world(6).await;
    let signal = signal(&mut stage).await;
    let (_, others) = resolve_and_others();
    world.run_too(others).await;
    let pausing = async {
        let held = sign(&signal).await;
        world.stop_workers().await;
        drop(held);
        let _held = sign(&signal).await;
        world.run_too(workers::ALL.to_vec()).await;
    };
    tokio::join!(walk("back.mjs", stage), pausing);
    world.finish().await;
}
