//! A mail server that takes its time: a mail is sent by whose claim it is, and a drain leaves none unmarked.

use std::{collections::HashSet, time::Duration};

use tolom::{mail_catcher::Faults, workers::Role};

use super::{World, caught, eager, pay, without};

const RECEIPTS: usize = 48;
const ALL_SENT: &str = "SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL";

fn only(names: &[&str]) -> Vec<Role> {
    without(&[]).into_iter().filter(|role| names.contains(&role.name)).collect()
}

/// Captures payments whose receipts nobody sends yet.
async fn capture(world: &mut World) {
    world.run(without(&["receipt", "notice"])).await;
    for number in 0..RECEIPTS {
        pay(world, &format!("11000003{number:02}"), "4111111111111111", "en").await;
    }
    world.wait_until("SELECT count(*) FROM receipt", RECEIPTS as i64).await;
}

/// Sees that every receipt has arrived, and once.
async fn each_came_once(world: &World) {
    world.wait_until(ALL_SENT, RECEIPTS as i64).await;
    let mails = caught(world, RECEIPTS).await;
    let ids: HashSet<_> = mails.iter().map(|mail| mail.message_id.clone()).collect();
    assert_eq!((mails.len(), ids.len()), (RECEIPTS, RECEIPTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_waits_for_its_turn_is_not_sent_by_two() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.broker.max_attempts = 1_000;
        config.notice.receipt_after_s = 0;
        config.mail.claim_s = 6;
    })
    .await;
    capture(&mut world).await;
    // Longer for all of them than a claim lasts.
    world.mail.set_faults(Faults { slow: Duration::from_millis(1_200), ..Faults::default() });
    world.run_too(only(&["receipt", "notice"])).await;
    each_came_once(&world).await;
    world.stop_workers().await;
    each_came_once(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_among_slow_mails_marks_what_went_out_and_begins_no_more() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.shutdown.drain_s = 3;
    })
    .await;
    capture(&mut world).await;
    world.mail.set_faults(Faults { slow: Duration::from_secs(1), ..Faults::default() });
    world.run_too(only(&["receipt"])).await;
    // Not the first few, which may be a batch of their own.
    caught(&world, 12).await;
    world.stop_workers().await;
    let sent = world.mail.messages().len();
    assert!(sent < RECEIPTS, "{sent}");
    world.wait_until(ALL_SENT, sent as i64).await;
    world.mail.set_faults(Faults::default());
    world.run_too(only(&["receipt"])).await;
    each_came_once(&world).await;
    world.finish().await;
}
