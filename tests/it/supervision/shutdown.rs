//! Shutdown: in order, cut, or at once; either way nothing is lost.

use rustix::process::Signal;
use tolom::payer::Payer;

use super::{Process, WORKERS, accept_all, ask, metric, requests};
use crate::{
    processes::free_address,
    support::world::{World, wait_for},
};

/// Booked as approved and never answered.
const NEVER_ANSWERED: &str = "4000000000050031";
const ANSWERED: &str = "4111111111111111";
const IN_HAND: &str = "tolom_worker_in_flight{queue=\"tolom.authorize\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_told_to_stop_drains_or_is_cut_or_ends_at_once_and_nothing_is_lost() {
    let mut world = World::prepared(|_| ()).await;
    let site = free_address();
    world.payer = Payer::new(&format!("http://{site}")).unwrap();
    world.make_sealing_key().await;
    let mut intake = Process::start(&world, &["intake"], Some(&site));
    wait_for(async || world.payer.keys().await.ok()).await;
    for (number, (drain_s, signals, status)) in [("20", 1, 0), ("1", 1, 1), ("20", 2, 130)].into_iter().enumerate() {
        let answered = requests(&world, &format!("11000{number}"), 5, ANSWERED).await;
        let never = requests(&world, &format!("16000{number}"), 5, NEVER_ANSWERED).await;
        let admin = free_address();
        let settings = [
            ("admin.listen", admin.clone()),
            ("acquirer.answer_timeout_ms", "6000".to_owned()),
            ("shutdown.drain_s", drain_s.to_owned()),
        ];
        let mut workers = Process::with(&world, &WORKERS, None, &settings);
        accept_all(&world, &answered).await;
        accept_all(&world, &never).await;
        // Calls that will not end for six seconds: all of them have arrived.
        let calls = || world.simulator.books().iter().filter(|row| row.kind.as_str() == "authorize").count();
        wait_for(async || (calls() >= 10 * (number + 1)).then_some(())).await;
        wait_for(async || metric(&admin, IN_HAND).await.filter(|in_hand| *in_hand >= 5.0)).await;
        workers.signal(Signal::TERM);
        if signals == 2 {
            wait_for(async || ask(&admin, "/health/live").await.is_none().then_some(())).await;
            workers.signal(Signal::TERM);
        }
        assert_eq!(workers.ended().await.code(), Some(status), "drain_s {drain_s}, {signals} signals");
    }
    let _workers = Process::start(&world, &WORKERS, None);
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 30).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    intake.signal(Signal::TERM);
    assert_eq!(intake.ended().await.code(), Some(0));
    world.finish().await;
}
