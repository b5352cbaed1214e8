//! Receipts as short messages, through the whole pipeline: once, apart from the mail, and with patience.

use std::time::Duration;

use tolom::{
    config::Config,
    mail_catcher::{CaughtSms, Faults, SmsFault},
    store::receipt_copies::{self, Kind},
};

use super::{all, caught, eager, pay, without};
use crate::support::world::{PATIENCE, World};

const GOOD: &str = "4111111111111111";

/// A world with a gateway, prepared with more settings; the gateway is the mail catcher's own.
async fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::prepared(|config| {
        eager(config);
        change(config);
    })
    .await;
    let mut config = Config::clone(&world.config);
    config.sms.url = world.mail.sms_url().unwrap();
    world.config = config.into();
    world
}

async fn caught_sms(world: &World, count: usize) -> Vec<CaughtSms> {
    let waited = tokio::time::timeout(PATIENCE, world.mail.wait_for_sms(|sms| sms.len() >= count)).await;
    waited.unwrap_or_else(|_| panic!("{} of {count} short messages came", world.mail.sms().len()))
}

const SENT: &str = "SELECT count(*) FROM receipt_copy WHERE kind = 'sms' AND sent_at IS NOT NULL";

#[tokio::test(flavor = "multi_thread")]
async fn every_receipt_goes_out_by_sms_once_in_the_payers_language() {
    let mut world = world(|_| ()).await;
    // Three of each: whoever claims a message first sends it, and no other does.
    let more = all().into_iter().filter(|role| ["receipt", "notice"].contains(&role.name)).cycle().take(4);
    world.run(all().into_iter().chain(more).collect()).await;
    for (code, locale) in [("1100000301", "ky"), ("1100000302", "ru"), ("1100000303", "en")] {
        let id = pay(&world, code, GOOD, locale).await;
        assert_eq!(world.end_of(id).await, "captured");
    }
    // Nothing was charged, so there is no receipt.
    let failed = pay(&world, "1100000304", "4000000000000002", "en").await;
    assert_eq!(world.end_of(failed).await, "declined");
    caught_sms(&world, 3).await;
    caught(&world, 3).await;
    world.wait_until(SENT, 3).await;
    world.stop().await;
    let sms = world.mail.sms();
    assert_eq!((sms.len(), world.mail.messages().len()), (3, 3));
    let numbers: Vec<(String, String)> =
        sqlx::query_as("SELECT p.locale, r.number FROM receipt r JOIN payment p ON p.id = r.payment_id")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    for (locale, number) in numbers {
        let link = format!("{}/{locale}/receipts/{number}", world.config.intake.public_url);
        let said = match locale.as_str() {
            "ky" => format!("510,00 сом төлөндү: Паспорт. Дүмүрчөк {number}: {link}"),
            "ru" => format!("Оплачено 510,00 сом: Паспорт. Квитанция {number}: {link}"),
            _ => format!("Paid 510.00 KGS: Passport. Receipt {number}: {link}"),
        };
        let [found] = &sms.iter().filter(|sms| sms.text.contains(&number)).collect::<Vec<_>>()[..] else {
            panic!("one message for {number}: {sms:?}")
        };
        assert_eq!((found.text.as_str(), found.to.as_str(), found.repeats), (said.as_str(), "+996555123456", 0));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_mail_nor_sms_waits_for_the_other_or_repeats_it() {
    let mut world = world(|config| {
        config.broker.retry_delays_ms = vec![20];
        config.notice.receipt_after_s = 0;
    })
    .await;
    // Mail is away: the short message goes out, once.
    world.mail.set_faults(Faults { busy: 1_000_000, ..Faults::default() });
    world.run(all()).await;
    let id = pay(&world, "1100000311", GOOD, "ru").await;
    assert_eq!(world.end_of(id).await, "captured");
    caught_sms(&world, 1).await;
    world.wait_until(SENT, 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 1).await;
    world.mail.set_faults(Faults::default());
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;

    // The gateway is away: the mail goes out, once.
    world.mail.set_sms_faults([SmsFault::Answer(503, None); 3]);
    let id = pay(&world, "1100000312", GOOD, "ru").await;
    assert_eq!(world.end_of(id).await, "captured");
    caught(&world, 2).await;
    caught_sms(&world, 2).await;
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE sent_at IS NOT NULL AND attempts = 4", 1).await;
    world.stop().await;
    assert_eq!((world.mail.messages().len(), world.mail.sms().len()), (2, 2));
    assert!(world.mail.sms().iter().all(|sms| sms.repeats == 0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_answer_or_a_dead_sender_repeats_has_the_same_id() {
    let mut world = world(|config| config.sms.timeout_ms = 500).await;
    world.mail.set_sms_faults([SmsFault::HangUpAfterKeeping, SmsFault::Stall, SmsFault::Answer(429, Some(1))]);
    world.run(without(&["notice"])).await;
    let id = pay(&world, "1100000321", GOOD, "en").await;
    assert_eq!(world.end_of(id).await, "captured");
    world.wait_until("SELECT count(*) FROM receipt_copy", 1).await;
    // A sender that claims, and is gone before it can do anything.
    let gone = receipt_copies::claim(&world.pool, Kind::Sms, world.clock.now(), Duration::from_secs(1), 10).await;
    assert_eq!(gone.unwrap().len(), 1);
    world.stop().await;
    world.run(all()).await;
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE sent_at IS NOT NULL AND attempts = 5", 1).await;
    world.stop().await;
    let [sms] = &world.mail.sms()[..] else { panic!("kept once") };
    assert_eq!(sms.repeats, 1, "what was lost after it was kept came again, and was known");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_cannot_be_sent_for_days_is_given_up_and_the_mail_is_not() {
    let mut world = world(|_| ()).await;
    world.mail.set_sms_faults([SmsFault::Answer(400, None)]);
    world.run(all()).await;
    let id = pay(&world, "1100000331", GOOD, "en").await;
    assert_eq!(world.end_of(id).await, "captured");
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE given_up_at IS NOT NULL AND attempts = 1", 1).await;

    world.mail.set_sms_faults([SmsFault::Answer(500, None); 1_000]);
    let id = pay(&world, "1100000332", GOOD, "en").await;
    assert_eq!(world.end_of(id).await, "captured");
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE given_up_at IS NULL AND attempts > 1", 1).await;
    sqlx::query("UPDATE receipt_copy SET created_at = now() - interval '4 days'").execute(&world.pool).await.unwrap();
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE given_up_at IS NOT NULL", 2).await;
    caught(&world, 2).await;
    world.stop().await;
    assert!(world.mail.sms().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_long_ago_is_no_news_and_nothing_is_planned_without_a_gateway() {
    let mut world = World::prepared(eager).await;
    world.run(all()).await;
    let id = pay(&world, "1100000341", GOOD, "en").await;
    assert_eq!(world.end_of(id).await, "captured");
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;
    assert_eq!(world.count("SELECT count(*) FROM receipt_copy").await, 0);
    let now = world.clock.now();
    receipt_copies::plan_sms(&world.pool, &[id], now, now).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM receipt_copy").await, 0);
    // Asked again and again, it is planned once.
    for _ in 0..3 {
        receipt_copies::plan_sms(&world.pool, &[id], now, now - time::Duration::days(1)).await.unwrap();
    }
    assert_eq!(world.count("SELECT count(*) FROM receipt_copy").await, 1);
    world.finish().await;
}
