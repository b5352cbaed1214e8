//! Receipts, from data to the payer's mailbox, over real SMTP.

mod gateway;
mod paper;

use std::{sync::Arc, time::Duration};

use mail_parser::{Message, MessageParser, MimeHeaders};
use time::macros::datetime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tolom::{
    config::Config,
    mail_catcher::{self, CaughtMail, Faults, MailCatcher},
    notify::{Lease, Locale, Mail, MailError, MailFault, Mailer, Receipt},
    payment::{Currency, Money, card::MaskedCard},
};
use uuid::Uuid;

const PUBLIC_URL: &str = "https://pay.example";

fn mailer(smtp: std::net::SocketAddr) -> Mailer {
    mailer_to(format!("smtp://{smtp}"))
}

fn mailer_to(url: String) -> Mailer {
    let mut mail = Config::defaults().mail;
    mail.url = url.into();
    Mailer::new(&mail).unwrap()
}

/// More time than any test takes.
fn lease() -> Lease {
    Lease::begin(&Config::defaults(), &CancellationToken::new())
}

fn receipt(number: u32, locale: Locale) -> Receipt {
    Receipt {
        number: format!("TLM-{number:010}"),
        payment: Uuid::from_u128(u128::from(number)),
        bill: "1100000017".parse().unwrap(),
        service: "passport".into(),
        applicant: "Үсөнова Өкүм Ыңтымаковна".into(),
        amount: Money::new(51_000, Currency::KGS),
        card: MaskedCard { number: "411111******1111".into(), brand: "visa".into() },
        authorization_code: Some("A1B2C3".into()),
        rrn: Some("632800000017".into()),
        paid_at: datetime!(2026-11-22 20:05:09 UTC),
        locale,
    }
}

fn mail(number: u32, locale: Locale, to: &str) -> Mail {
    receipt(number, locale).mail(to, &Config::defaults().operator, PUBLIC_URL).unwrap()
}

fn one(number: u32) -> Vec<Mail> {
    vec![mail(number, Locale::En, "payer@mail.example")]
}

/// The first `count` messages; a test that waits for what never comes fails.
async fn caught(catcher: &MailCatcher, count: usize) -> Vec<Arc<CaughtMail>> {
    tokio::time::timeout(Duration::from_secs(10), catcher.wait_for_count(count)).await.expect("mail came too late")
}

fn parsed(mail: &CaughtMail) -> Message<'_> {
    MessageParser::new().parse(&mail.raw).unwrap()
}

#[tokio::test]
async fn text_and_page_arrive_in_each_language() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let messages: Vec<_> =
        (1..).zip(Locale::ALL).map(|(number, locale)| mail(number, locale, "payer@mail.example")).collect();
    assert_eq!(mailer(catcher.smtp_addr()).send(messages.clone(), &lease()).await, [Ok(()); 3]);
    let mut arrived = caught(&catcher, 3).await;
    arrived.sort_by_key(|mail| mail.message_id.clone());
    for ((mail, locale), sent) in arrived.iter().zip(Locale::ALL).zip(&messages) {
        assert_eq!(
            (mail.from.as_str(), mail.to.as_slice()),
            ("receipts@tolom.example", &["payer@mail.example".to_owned()][..])
        );
        assert_eq!(mail.subject, sent.subject);
        let message = parsed(mail);
        assert_eq!(message.subject(), Some(sent.subject.as_str()));
        assert_eq!(message.to().and_then(|to| to.first()?.address()), Some("payer@mail.example"));
        assert!(message.date().is_some());
        assert_eq!(message.content_type().unwrap().subtype(), Some("alternative"));
        assert_eq!((message.text_body_count(), message.html_body_count()), (1, 1));
        let (text, html) = (message.body_text(0).unwrap(), message.body_html(0).unwrap());
        assert_eq!(text.replace("\r\n", "\n"), sent.text);
        assert_eq!(html.replace("\r\n", "\n"), sent.html);
        let of_language = match locale {
            Locale::Ky => ["Төлөндү", "510,00 сом", "Паспорт", "Арыз берүүчү"],
            Locale::Ru => ["Оплачено", "510,00 сом", "Паспорт", "Заявитель"],
            Locale::En => ["Paid", "510.00 KGS", "Passport", "Applicant"],
        };
        let fields =
            ["TLM-000000000", "1100000017", "Үсөнова Өкүм Ыңтымаковна", "Visa **** 1111", "A1B2C3", "632800000017"];
        for words in fields.iter().chain(&of_language).chain(&["23.11.2026 02:05 (UTC+6)"]) {
            assert!(text.contains(words) && html.contains(words), "{locale}: {words}");
        }
    }
}

#[tokio::test]
async fn a_receipt_sent_again_has_the_same_message_id() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let mailer = mailer(catcher.smtp_addr());
    for _ in 0..2 {
        assert_eq!(mailer.send(one(7), &lease()).await, [Ok(())]);
    }
    let ids: Vec<_> = caught(&catcher, 2).await.iter().map(|mail| mail.message_id.clone()).collect();
    assert_eq!(
        ids,
        [Some("<TLM-0000000007@tolom.example>".to_owned()), Some("<TLM-0000000007@tolom.example>".to_owned())]
    );
}

#[tokio::test]
async fn a_busy_server_is_transient_and_a_refused_address_permanent() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    catcher.set_faults(Faults { busy: 1, refused: ["gone@mail.example".to_owned()].into(), ..Faults::default() });
    let mailer = mailer(catcher.smtp_addr());
    let refused = mailer.send(vec![mail(1, Locale::Ru, "gone@mail.example")], &lease()).await;
    assert_eq!(refused, [Err(MailError::Permanent(MailFault::Reply(550)))]);
    assert!(!format!("{refused:?} {}", refused[0].unwrap_err()).contains("gone"), "the address is in the error");
    assert_eq!(mailer.send(one(2), &lease()).await, [Err(MailError::Transient(MailFault::Reply(451)))]);
    assert_eq!(mailer.send(one(2), &lease()).await, [Ok(())]);
    assert_eq!(caught(&catcher, 1).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_the_sender_is_transient() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let mailer = mailer(catcher.smtp_addr());
    let suspended = Faults { refused: ["receipts@tolom.example".to_owned()].into(), ..Faults::default() };
    for (faults, code) in [(suspended, 550), (Faults { blocked: true, ..Faults::default() }, 554)] {
        catcher.set_faults(faults);
        assert_eq!(mailer.send(one(1), &lease()).await, [Err(MailError::Transient(MailFault::Reply(code)))]);
    }
    catcher.set_faults(Faults::default());
    assert_eq!(mailer.send(one(1), &lease()).await, [Ok(())]);
}

#[tokio::test]
async fn one_bad_address_does_not_fail_its_neighbours() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let addresses =
        ["a@mail.example", "a@mail.example\r\nRCPT TO:<b@mail.example>", "ө@mail.example", "b@mail.example"];
    let messages = (1..).zip(addresses).map(|(number, to)| mail(number, Locale::Ky, to)).collect();
    let bad = Err(MailError::Permanent(MailFault::Address));
    assert_eq!(mailer(catcher.smtp_addr()).send(messages, &lease()).await, [Ok(()), bad, bad, Ok(())]);
    let mut to: Vec<_> = caught(&catcher, 2).await.iter().flat_map(|mail| mail.to.clone()).collect();
    to.sort();
    assert_eq!(to, ["a@mail.example", "b@mail.example"]);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_transient_though_the_mail_has_come() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    catcher.set_faults(Faults { hang_up_before_reply: 1, ..Faults::default() });
    let mailer = mailer(catcher.smtp_addr());
    assert_eq!(mailer.send(one(1), &lease()).await, [Err(MailError::Transient(MailFault::Lost))]);
    assert_eq!(mailer.send(one(1), &lease()).await, [Ok(())]);
    let caught = caught(&catcher, 2).await;
    assert_eq!(caught[0].message_id, caught[1].message_id);
}

#[tokio::test]
async fn a_connection_lost_after_the_answer_costs_nothing() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    catcher.set_faults(Faults { hang_up_after_reply: 1, ..Faults::default() });
    let mailer = mailer(catcher.smtp_addr());
    assert_eq!(mailer.send(one(1), &lease()).await, [Ok(())]);
    assert_eq!(mailer.send(one(2), &lease()).await, [Ok(())]);
    assert_eq!(caught(&catcher, 2).await.len(), 2);
}

#[tokio::test]
async fn a_message_past_its_deadline_never_passes_for_the_next_one() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    catcher.set_faults(Faults { stall: 1, ..Faults::default() });
    let mailer = mailer(catcher.smtp_addr()).with_deadline(Duration::from_millis(300));
    assert_eq!(mailer.send(one(1), &lease()).await, [Err(MailError::Transient(MailFault::Deadline))]);
    let mailer = mailer.with_deadline(Duration::from_secs(10));
    assert_eq!(mailer.send(one(2), &lease()).await, [Ok(())]);
    let ids: Vec<_> = catcher.messages().iter().map(|mail| mail.message_id.clone()).collect();
    assert_eq!(ids, [Some("<TLM-0000000002@tolom.example>".to_owned())]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let address = catcher.smtp_addr();
    drop(catcher);
    // The port is free once the listener's task has been told.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(mailer(address).send(one(1), &lease()).await, [Err(MailError::Transient(MailFault::Unreachable))]);
}

#[tokio::test]
async fn a_server_without_tls_gets_nothing_where_tls_is_required() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let address = catcher.smtp_addr();
    for url in [format!("smtp://{address}?tls=required"), format!("smtps://{address}")] {
        assert_eq!(mailer_to(url).send(one(1), &lease()).await, [Err(MailError::Transient(MailFault::Unreachable))]);
    }
    assert!(catcher.messages().is_empty());
}

#[tokio::test]
async fn a_batch_is_sent_whole_over_few_connections() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let messages = (0..50).map(|number| mail(number, Locale::Ky, "payer@mail.example")).collect();
    assert!(mailer(catcher.smtp_addr()).send(messages, &lease()).await.iter().all(Result::is_ok));
    let mut ids: Vec<_> = caught(&catcher, 50).await.iter().map(|mail| mail.message_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[tokio::test]
async fn a_hostile_name_reaches_the_mailbox_as_plain_words() {
    let catcher = MailCatcher::start("127.0.0.1:0").await.unwrap();
    let applicant = "<script>alert(1)</script>\r\nBcc: victim@mail.example\r\n.\r\nQUIT\r\n\u{202e}".to_owned();
    let hostile = Receipt { applicant, ..receipt(1, Locale::Ru) };
    let mail = hostile.mail("payer@mail.example", &Config::defaults().operator, PUBLIC_URL).unwrap();
    assert_eq!(mailer(catcher.smtp_addr()).send(vec![mail], &lease()).await, [Ok(())]);
    let arrived = caught(&catcher, 1).await;
    let message = parsed(&arrived[0]);
    assert_eq!((arrived[0].to.len(), message.bcc().is_none()), (1, true));
    let (text, html) = (message.body_text(0).unwrap(), message.body_html(0).unwrap());
    assert!(html.contains("&#60;script&#62;alert(1)&#60;/script&#62; Bcc: victim@mail.example . QUIT<"), "{html}");
    let line = "Заявитель: <script>alert(1)</script> Bcc: victim@mail.example . QUIT";
    assert!(text.lines().any(|shown| shown == line), "{text}");
}

/// One HTTP/1.1 request without a client library, for this test needs no more.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: catcher\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn caught_mail_can_be_looked_at_and_the_server_stops_when_told() {
    let (smtp, http) = (
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let (smtp_addr, http_addr, stop) =
        (smtp.local_addr().unwrap(), http.local_addr().unwrap(), CancellationToken::new());
    let server = tokio::spawn(mail_catcher::serve(smtp, http, stop.clone()));
    let mailer = mailer(smtp_addr);
    assert_eq!(
        mailer
            .send(
                vec![mail(1, Locale::Ky, "payer+<b>@mail.example"), mail(2, Locale::Ky, "payer@mail.example")],
                &lease()
            )
            .await,
        [Err(MailError::Permanent(MailFault::Address)), Ok(())]
    );
    let list = get(http_addr, "/").await;
    assert!(
        list.starts_with("HTTP/1.1 200")
            && list.contains("Төлөм дүмүрчөгү № TLM-0000000002")
            && list.contains("href=\"/messages/1\""),
        "{list}"
    );
    let json = get(http_addr, "/messages").await;
    assert!(
        json.contains("\"message_id\":\"<TLM-0000000002@tolom.example>\"")
            && json.contains("\"to\":[\"payer@mail.example\"]"),
        "{json}"
    );
    let raw = get(http_addr, "/messages/1").await.to_ascii_lowercase();
    assert!(
        raw.contains("content-type: text/plain") && raw.contains("nosniff") && raw.contains("multipart/alternative"),
        "{raw}"
    );
    assert!(get(http_addr, "/messages/2").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), server).await.expect("does not stop").unwrap().unwrap();
}
