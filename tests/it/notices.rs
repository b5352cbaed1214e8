//! Notices to payers, through real servers: what is told, to whom, how often, and what happens while mail is away.

mod again;
mod planning;
mod slow;
mod sms;

use std::{sync::Arc, time::Duration};

use mail_parser::MessageParser;
use tokio_util::sync::CancellationToken;
use tolom::{
    config::Config,
    mail_catcher::{CaughtMail, Faults},
    notify::{Lease, Mailer, Sender, notice_mail},
    store::notices::{self, Due},
    workers::{self, Role},
};
use uuid::Uuid;

use crate::support::world::{PATIENCE, World, card};

const APPROVED_UNANSWERED: &str = "4000000000050031";
const NEVER_ARRIVED: &str = "4000000000050023";
const CAPTURE_DECLINED: &str = "4000000000050106";

/// Soon, and with short waits.
fn eager(config: &mut Config) {
    config.notice.poll_ms = 50;
    config.notice.unknown_after_s = 0;
    config.notice.retry_s = 1;
    config.notice.longest_retry_s = 1;
}

fn all() -> Vec<Role> {
    workers::ALL.to_vec()
}

fn without(names: &[&str]) -> Vec<Role> {
    workers::ALL.into_iter().filter(|role| !names.contains(&role.name)).collect()
}

/// Pays in a language; the payer's address is the bill's.
async fn pay(world: &World, code: &str, number: &str, locale: &str) -> Uuid {
    let bill = world.bill(code).await;
    let mut request = world.request_with(&bill, &card(number)).await;
    request.locale = locale.to_owned();
    request.payer.email = format!("{code}@mail.example");
    let submitted = world.payer.submit(&request, &Uuid::new_v4().to_string()).await.unwrap();
    submitted.id().unwrap_or_else(|| panic!("accepted: {submitted:?}"))
}

/// Waits until that many messages have come, to whomever.
async fn caught(world: &World, count: usize) -> Vec<Arc<CaughtMail>> {
    let waited = tokio::time::timeout(PATIENCE, world.mail.wait_for_count(count)).await;
    waited.unwrap_or_else(|_| panic!("{} of {count} messages came", world.mail.messages().len()))
}

/// What came to the payer of a bill, in order: subject, text and page of each message.
fn told(world: &World, code: &str) -> Vec<(String, String, String)> {
    let to = [format!("{code}@mail.example")];
    let mails: Vec<_> = world.mail.messages().into_iter().filter(|mail| mail.to == to).collect();
    let read = |mail: &Arc<CaughtMail>| {
        let message = MessageParser::new().parse(&mail.raw).unwrap();
        let body = |text: Option<std::borrow::Cow<'_, str>>| text.unwrap().replace("\r\n", "\n");
        (mail.subject.clone(), body(message.body_text(0)), body(message.body_html(0)))
    };
    mails.iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_is_told_that_it_is_unknown_once_and_then_how_it_ended() {
    let mut world = World::prepared(eager).await;
    world.run(without(&["resolve"])).await;
    let failing = [("1100000101", "ky"), ("1100000102", "ru"), ("1100000103", "en")];
    for (code, locale) in failing {
        pay(&world, code, NEVER_ARRIVED, locale).await;
    }
    let paid = pay(&world, "1100000104", APPROVED_UNANSWERED, "en").await;
    caught(&world, 4).await;
    let unknown = [
        ["510,00 сом", "1100000101", "азырынча билбейбиз", "кайра төлөбөңүз", "30 күндүн ичинде"],
        ["510,00 сом", "1100000102", "пока не знаем", "не платите повторно", "в течение 30 дней"],
        ["510.00 KGS", "1100000103", "do not know yet", "do not pay again", "within 30 days"],
    ];
    for ((code, _), words) in failing.iter().zip(unknown) {
        let [(subject, text, page)] = &told(&world, code)[..] else { panic!("one message to {code}") };
        assert!(subject.contains(words[0]), "{subject}");
        for word in words.iter().chain(&["Visa **** 0023", "help@tolom.example"]) {
            assert!(text.contains(word) && page.contains(word), "{word} is not in {text}");
        }
        for secret in ["Асанов", "400000"] {
            assert!(!text.contains(secret) && !page.contains(secret), "{secret} is in {text}");
        }
    }

    // The bank is asked at last.
    world.stop().await;
    world.run(all()).await;
    caught(&world, 8).await;
    for ((code, _), word) in
        failing.iter().zip(["Картаңыздан акча алынган жок", "Деньги с карты не списаны", "Nothing was charged"])
    {
        let [_, (_, text, page)] = &told(&world, code)[..] else { panic!("two messages to {code}") };
        assert!(text.contains(word) && page.contains(word), "{text}");
        assert!(page.contains(&format!("/bills/{code}\"")), "no way to pay again: {page}");
    }
    assert_eq!(world.end_of(paid).await, "captured");
    let [_, (subject, ..)] = &told(&world, "1100000104")[..] else { panic!("a notice and a receipt") };
    assert!(subject.starts_with("Payment receipt"), "{subject}");
    world.wait_until("SELECT count(*) FROM notice WHERE kind = 'unknown' AND answered_at IS NOT NULL", 4).await;
    world.stop().await;
    assert_eq!(world.mail.messages().len(), 8);
    assert_eq!(world.count("SELECT count(*) FROM notice").await, 7);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_who_saw_a_hold_is_told_that_it_goes_back() {
    let mut world = World::with(|config| {
        eager(config);
        config.notice.unknown_after_s = 3_600;
    })
    .await;
    let reversed = pay(&world, "1100000111", CAPTURE_DECLINED, "ru").await;
    assert_eq!(world.end_of(reversed).await, "reversed");
    // Never known to be charged, and never told to be unknown: nothing to tell.
    let failed = pay(&world, "1100000112", NEVER_ARRIVED, "ru").await;
    assert_eq!(world.end_of(failed).await, "failed");
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL", 1).await;
    world.stop().await;
    let [(subject, text, page)] = &told(&world, "1100000111")[..] else { panic!("one message") };
    assert!(subject.contains("отменён: деньги вернутся к вам"), "{subject}");
    assert!(text.contains("Вы можете заплатить ещё раз") && page.contains("/ru/bills/1100000111\""), "{text}");
    assert_eq!(world.mail.messages().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pollers_at_once_send_one_mail() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.notice.batch = 3;
    })
    .await;
    let pollers = all().into_iter().filter(|role| role.name == "notice").cycle().take(3);
    let roles: Vec<Role> = without(&["resolve", "notice"]).into_iter().chain(pollers).collect();
    world.run(roles.clone()).await;
    for number in 0..12 {
        pay(&world, &format!("11000001{number:02}"), NEVER_ARRIVED, "en").await;
    }
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL", 12).await;
    world.stop().await;
    world.run(roles.into_iter().chain(all().into_iter().filter(|role| role.name == "resolve")).collect()).await;
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL AND kind = 'not_charged'", 12).await;
    world.stop().await;
    let mut ids: Vec<_> = world.mail.messages().iter().map(|mail| mail.message_id.clone()).collect();
    assert_eq!(ids.len(), 24);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 24);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_mail_server_is_away_a_notice_waits_and_goes_out_once() {
    let mut world = World::prepared(eager).await;
    world.mail.set_faults(Faults { busy: 2, ..Faults::default() });
    world.run(all()).await;
    let id = pay(&world, "1100000131", CAPTURE_DECLINED, "en").await;
    assert_eq!(world.end_of(id).await, "reversed");
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL AND attempts = 3", 1).await;
    world.stop().await;
    assert_eq!(world.mail.messages().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_will_not_take_mail_from_us_costs_no_payer_his_mail() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.broker.max_attempts = 1_000;
    })
    .await;
    world.run(all()).await;
    // The account is suspended; the host is blocked, which is said as late as at RCPT.
    let suspended = Faults { refused: ["receipts@tolom.example".to_owned()].into(), ..Faults::default() };
    let blocked = Faults { blocked: true, ..Faults::default() };
    for (number, faults) in (1..).zip([suspended, blocked]) {
        world.mail.set_faults(faults);
        let reversed = pay(&world, &format!("110000018{number}"), CAPTURE_DECLINED, "en").await;
        assert_eq!(world.end_of(reversed).await, "reversed");
        let captured = pay(&world, &format!("110000019{number}"), "4111111111111111", "en").await;
        assert_eq!(world.end_of(captured).await, "captured");
        world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NULL AND attempts > 1", 1).await;
        world.mail.set_faults(Faults::default());
        caught(&world, 2 * number).await;
        world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
        world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NULL", 0).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM dead_letter").await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_cannot_be_sent_for_days_is_given_up() {
    let mut world = World::prepared(eager).await;
    let refused = ["1100000141@mail.example".to_owned()].into();
    world.mail.set_faults(Faults { refused, busy: 100, ..Faults::default() });
    world.run(all()).await;
    for code in ["1100000141", "1100000142"] {
        let id = pay(&world, code, CAPTURE_DECLINED, "en").await;
        assert_eq!(world.end_of(id).await, "reversed");
    }
    world.wait_until("SELECT count(*) FROM notice WHERE given_up_at IS NOT NULL AND attempts = 1", 1).await;
    world.wait_until("SELECT count(*) FROM notice WHERE given_up_at IS NULL AND attempts > 1", 1).await;
    sqlx::query("UPDATE notice SET created_at = now() - interval '8 days'").execute(&world.pool).await.unwrap();
    world.wait_until("SELECT count(*) FROM notice WHERE given_up_at IS NOT NULL", 2).await;
    world.mail.set_faults(Faults::default());
    world.stop().await;
    assert!(world.mail.messages().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_its_queue_could_not_send_is_sent_later_and_once() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.broker.retry_delays_ms = vec![20];
        config.broker.max_attempts = 1;
        config.notice.receipt_after_s = 3_600;
    })
    .await;
    world.mail.set_faults(Faults { busy: 1_000, ..Faults::default() });
    world.run(all()).await;
    let id = pay(&world, "1100000151", "4111111111111111", "ky").await;
    assert_eq!(world.end_of(id).await, "captured");
    world.wait_until("SELECT count(*) FROM dead_letter", 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sending_until IS NULL AND attempts = 0", 1).await;

    // An hour later the mail server is still away, and then back.
    sqlx::query("UPDATE receipt SET issued_at = now() - interval '2 hours'").execute(&world.pool).await.unwrap();
    world.wait_until("SELECT count(*) FROM receipt WHERE attempts = 2", 1).await;
    world.mail.set_faults(Faults::default());
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;
    world.stop().await;
    let number: String = sqlx::query_scalar("SELECT number FROM receipt").fetch_one(&world.pool).await.unwrap();
    let ids: Vec<_> = world.mail.messages().iter().filter_map(|mail| mail.message_id.clone()).collect();
    assert_eq!(ids, [format!("<{number}@tolom.example>")]);
    let (subject, ..) = &told(&world, "1100000151")[0];
    assert!(subject.starts_with("Төлөм дүмүрчөгү"), "{subject}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_cannot_be_sent_for_days_is_given_up() {
    let mut world = World::prepared(|config| {
        eager(config);
        config.broker.retry_delays_ms = vec![20];
        config.broker.max_attempts = 1;
    })
    .await;
    world.mail.set_faults(Faults { busy: 1_000, ..Faults::default() });
    world.run(all()).await;
    let id = pay(&world, "1100000161", "4111111111111111", "ru").await;
    assert_eq!(world.end_of(id).await, "captured");
    sqlx::query("UPDATE receipt SET issued_at = now() - interval '8 days'").execute(&world.pool).await.unwrap();
    world.wait_until("SELECT count(*) FROM receipt WHERE given_up_at IS NOT NULL AND sent_at IS NULL", 1).await;
    world.wait_until("SELECT count(*) FROM dead_letter", 1).await;
    world.stop().await;
    assert!(world.mail.messages().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_answer_was_lost_is_repeated_with_the_same_message_id() {
    let mut world = World::prepared(eager).await;
    world.mail.set_faults(Faults { hang_up_before_reply: 1, ..Faults::default() });
    world.run(all()).await;
    let id = pay(&world, "1100000171", CAPTURE_DECLINED, "en").await;
    assert_eq!(world.end_of(id).await, "reversed");
    let mails = caught(&world, 2).await;
    assert_eq!(mails[0].message_id, mails[1].message_id);
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL", 1).await;
    world.stop().await;
    assert_eq!(world.mail.messages().len(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_died_is_followed_and_its_mail_has_the_same_message_id() {
    let mut world = World::prepared(eager).await;
    world.run(without(&["notice"])).await;
    let id = pay(&world, "1100000181", CAPTURE_DECLINED, "en").await;
    assert_eq!(world.end_of(id).await, "reversed");
    // A sender that claims, sends, and is gone before it can mark.
    let now = world.clock.now();
    let due = Due { now, unknown_since: now, reversed_after: now - time::Duration::days(1), limit: 10 };
    notices::plan(&world.pool, &due).await.unwrap();
    let claimed = notices::claim(&world.pool, now, Duration::from_secs(1), 10).await.unwrap();
    let config = &world.config;
    let sender = Sender { operator: &config.operator, public_url: &config.intake.public_url, hold_days: 30 };
    let mail = notice_mail(&claimed[0], &sender).unwrap();
    let lease = Lease::begin(config, &CancellationToken::new());
    assert_eq!(Mailer::new(&config.mail).unwrap().send(vec![mail], &lease).await, [Ok(())]);

    world.stop().await;
    world.run(all()).await;
    world.wait_until("SELECT count(*) FROM notice WHERE sent_at IS NOT NULL AND attempts = 2", 1).await;
    world.stop().await;
    let ids: Vec<_> = world.mail.messages().iter().map(|mail| mail.message_id.clone()).collect();
    let expected = Some(format!("<notice-{}@tolom.example>", claimed[0].id));
    assert_eq!(ids, [expected.clone(), expected]);
    world.finish().await;
}
