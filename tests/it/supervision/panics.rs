//! A task that panics is built anew; one that goes on panicking is told by the readiness of its process.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::net::TcpListener;
use tolom::{
    app::{App, Roles},
    payer::Payer,
    workers::{self, Role},
};

use super::ask;
use crate::support::world::{World, wait_for};

static LIVES: AtomicU32 = AtomicU32::new(0);

/// Panics twice, and is well from then on.
const UNLUCKY: Role = Role {
    name: "unlucky",
    about: "panics twice",
    run: |context| {
        Box::pin(async move {
            assert!(LIVES.fetch_add(1, Ordering::SeqCst) >= 2, "bad luck");
            context.stop.cancelled().await;
            Ok(())
        })
    },
};

/// Panics in every life.
const BROKEN: Role = Role { name: "broken", about: "panics", run: |_| Box::pin(async { panic!("always") }) };

async fn start(world: &mut World, extra: Role) -> (App, String) {
    let (intake, admin) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await);
    world.payer = Payer::new(&format!("http://{}", intake.local_addr().unwrap())).unwrap();
    let admin = admin.unwrap();
    let address = admin.local_addr().unwrap().to_string();
    let workers = workers::ALL.into_iter().chain([extra]).collect();
    let roles = Roles { intake: Some(intake), admin: Some(admin), workers };
    (App::start(Arc::clone(&world.config), world.clock.clone(), roles).unwrap(), address)
}

#[tokio::test]
async fn a_role_that_panics_now_and_then_is_built_anew_and_the_process_stays_ready() {
    let mut world = World::prepared(|_| ()).await;
    let (app, admin) = start(&mut world, UNLUCKY).await;
    wait_for(async || (LIVES.load(Ordering::SeqCst) == 3).then_some(())).await;
    wait_for(async || ask(&admin, "/health/ready").await.filter(|(status, _)| *status == 200)).await;
    assert!(app.stop().await, "what is well after its panics drains as ever");
    world.finish().await;
}

#[tokio::test]
async fn a_role_that_panics_again_and_again_is_named_and_the_others_go_on() {
    let mut world = World::prepared(|config| config.shutdown.drain_s = 5).await;
    let (app, admin) = start(&mut world, BROKEN).await;
    let ready = wait_for(async || ask(&admin, "/health/ready").await.filter(|(_, text)| text.contains("panicking")));
    assert_eq!(ready.await, (503, "panicking again and again: broken\n".to_owned()));
    assert_eq!(ask(&admin, "/health/live").await.unwrap().0, 200, "restarting the process would not help");
    let bill = world.bill("1100000001").await;
    assert_eq!(world.pay_to_the_end(&bill, "4111111111111111").await.1, "captured");
    assert!(!app.stop().await, "what never ends well cannot drain, and is cut");
    world.finish().await;
}
