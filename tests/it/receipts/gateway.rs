//! Short messages over a real socket: what an answer means, what a lost one does, and what the gateway is told.

use std::time::Duration;

use serde_json::Value;
use tolom::{
    config::{self, Config},
    mail_catcher::{MailCatcher, SmsFault},
    notify::{Gateway, Sms, SmsError, SmsFault as Fault},
};
use uuid::Uuid;

use super::get;

/// A gateway that fails on demand, and settings that lead there.
async fn house() -> (MailCatcher, config::Sms) {
    let catcher = MailCatcher::start_whole().await.unwrap();
    let sms = config::Sms {
        url: catcher.sms_url().unwrap(),
        token: "hunter2".to_owned().into(),
        timeout_ms: 10_000,
        ..Config::defaults().sms
    };
    (catcher, sms)
}

fn gateway(sms: &config::Sms) -> Gateway {
    Gateway::new(sms).unwrap().unwrap()
}

fn sms(id: u128, text: &str) -> Sms {
    Sms { id: Uuid::from_u128(id), to: "+996555123456".into(), text: text.into() }
}

fn later(fault: Fault) -> Result<(), SmsError> {
    Err(SmsError::Transient { fault, after: None })
}

fn texts(catcher: &MailCatcher) -> Vec<(String, u64)> {
    catcher.sms().into_iter().map(|caught| (caught.text, caught.repeats)).collect()
}

#[tokio::test]
async fn a_message_arrives_as_it_was_written() {
    let (catcher, settings) = house().await;
    let messages = [sms(1, "510,00 сом төлөндү: Паспорт"), sms(2, "Paid 510.00 KGS")];
    assert_eq!(gateway(&settings).send(&messages).await, [Ok(()), Ok(())]);
    let mut caught = catcher.sms();
    caught.sort_by_key(|caught| caught.id);
    for (caught, sent) in caught.iter().zip(&messages) {
        let arrived = (caught.id, caught.from.as_str(), caught.to.as_str(), caught.text.as_str(), caught.repeats);
        assert_eq!(arrived, (sent.id, "Tolom", "+996555123456", sent.text.as_str(), 0));
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_for_ever_and_what_may_go_better_is_not() {
    let (catcher, settings) = house().await;
    let gateway = gateway(&settings);
    for status in [400, 409, 410, 413, 415, 422] {
        catcher.set_sms_faults([SmsFault::Answer(status, None)]);
        assert_eq!(gateway.send(&[sms(1, "a")]).await, [Err(SmsError::Permanent(Fault::Reply(status)))]);
    }
    // About the moment; about us; about the gateway.
    for status in [408, 425, 429, 401, 402, 403, 404, 405, 500, 502, 503, 504, 301, 307] {
        catcher.set_sms_faults([SmsFault::Answer(status, None)]);
        assert_eq!(gateway.send(&[sms(1, "a")]).await, [later(Fault::Reply(status))]);
    }
    assert_eq!(texts(&catcher), []);
    assert_eq!(gateway.send(&[sms(1, "a")]).await, [Ok(())]);
}

#[tokio::test]
async fn a_gateway_that_asks_for_a_pause_is_heard_within_reason() {
    let (catcher, settings) = house().await;
    let gateway = gateway(&settings);
    for (asked, heard) in [(7, 7), (1_000_000, 3_600)] {
        catcher.set_sms_faults([SmsFault::Answer(429, Some(asked))]);
        let after = Some(Duration::from_secs(heard));
        let expected = Err(SmsError::Transient { fault: Fault::Reply(429), after });
        assert_eq!(gateway.send(&[sms(1, "a")]).await, [expected]);
    }
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_sent_again_and_kept_once() {
    let (catcher, settings) = house().await;
    let gateway = gateway(&settings);
    catcher.set_sms_faults([SmsFault::HangUpAfterKeeping]);
    assert_eq!(gateway.send(&[sms(1, "a")]).await, [later(Fault::Lost)]);
    assert_eq!(texts(&catcher), [("a".to_owned(), 0)]);
    assert_eq!(gateway.send(&[sms(1, "a")]).await, [Ok(())]);
    assert_eq!(texts(&catcher), [("a".to_owned(), 1)]);
    // Another text under the id would be another message: a mistake of ours, which no repeat mends.
    assert_eq!(gateway.send(&[sms(1, "b")]).await, [Err(SmsError::Permanent(Fault::Reply(409)))]);
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_or_is_not_there_holds_nobody_for_long() {
    let (catcher, settings) = house().await;
    let impatient = gateway(&config::Sms { timeout_ms: 200, ..settings.clone() });
    catcher.set_sms_faults([SmsFault::Stall]);
    assert_eq!(impatient.send(&[sms(1, "a")]).await, [later(Fault::Deadline)]);
    let nowhere = gateway(&config::Sms { url: "http://127.0.0.1:1/sms".to_owned(), ..settings });
    assert_eq!(nowhere.send(&[sms(1, "a")]).await, [later(Fault::Unreachable)]);
}

#[tokio::test]
async fn one_bad_number_does_not_fail_its_neighbours_and_is_in_no_error() {
    let (catcher, settings) = house().await;
    let bad = Sms { to: "0555123456".into(), ..sms(2, "b") };
    let results = gateway(&settings).send(&[sms(1, "a"), bad.clone(), sms(3, "c")]).await;
    assert_eq!(results, [Ok(()), Err(SmsError::Permanent(Fault::Reply(400))), Ok(())]);
    let mut texts: Vec<String> = texts(&catcher).into_iter().map(|(text, _)| text).collect();
    texts.sort();
    assert_eq!(texts, ["a", "c"]);
    let shown = format!("{results:?} {bad:?} {}", results[1].unwrap_err());
    assert!(!shown.contains("0555") && !shown.contains("\"b\""), "{shown}");
}

#[tokio::test]
async fn what_is_sent_and_answered_is_what_the_contract_says() {
    let document: Value = serde_json::from_str(include_str!("../../../schemas/sms.openapi.json")).unwrap();
    let schema = |name: &str| {
        let mut root = document.clone();
        root["$ref"] = format!("#/components/schemas/{name}").into();
        jsonschema::options().should_validate_formats(true).build(&root).unwrap()
    };
    schema("Message").validate(&document["components"]["schemas"]["Message"]["examples"][0]).unwrap();

    // The request, as a listener that knows nothing of ours hears it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, mut settings) = house().await;
    settings.url = format!("http://{}/any/path", listener.local_addr().unwrap());
    let messages = [sms(7, "Paid")];
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = hear(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        heard
    };
    let gateway = gateway(&settings);
    let (sent, (head, body)) = tokio::join!(gateway.send(&messages), heard);
    assert_eq!(sent, [Ok(())]);
    schema("Message").validate(&body).unwrap();
    let head = head.to_ascii_lowercase();
    for line in [
        "post /any/path http/1.1",
        "content-type: application/json",
        "authorization: bearer hunter2",
        &format!("idempotency-key: {}", messages[0].id),
    ] {
        assert!(head.lines().any(|said| said == line), "{line} is not in {head}");
    }

    // The answers, as our own gateway gives them.
    let (catcher, _) = house().await;
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |key: &str, body: Value| {
        let request = web.post(catcher.sms_url().unwrap()).header("Idempotency-Key", key).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    let key = Uuid::from_u128(9).to_string();
    let good = serde_json::json!({ "id": key, "to": "+996555123456", "text": "a" });
    let (status, taken) = post(&key, good.clone()).await;
    assert_eq!(status, 202);
    schema("Taken").validate(&taken).unwrap();
    for (key, member, value, expected) in [
        (Uuid::from_u128(8).to_string(), "text", "a", 400),
        (key.clone(), "to", "+0", 400),
        (key.clone(), "text", "", 400),
        (key.clone(), "text", "another", 409),
        (key.clone(), "id", "no uuid", 422),
    ] {
        let mut bad = good.clone();
        bad[member] = value.into();
        let (status, problem) = post(&key, bad).await;
        assert_eq!(status, expected, "{member}: {problem}");
        schema("Problem").validate(&problem).unwrap();
    }
    assert_eq!(catcher.sms().len(), 1);
}

/// Reads one request with a body of known length.
async fn hear(stream: &mut tokio::net::TcpStream) -> (String, Value) {
    let mut bytes = Vec::new();
    loop {
        assert!(tokio::io::AsyncReadExt::read_buf(stream, &mut bytes).await.unwrap() > 0, "ended early");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(body) = serde_json::from_str(body) {
            return (head.to_owned(), body);
        }
    }
}

#[tokio::test]
async fn caught_messages_can_be_looked_at() {
    let (catcher, settings) = house().await;
    assert_eq!(gateway(&settings).send(&[sms(1, "<b>Төлөндү</b>")]).await, [Ok(())]);
    let address = settings.url.trim_start_matches("http://").trim_end_matches("/sms").parse().unwrap();
    let page = get(address, "/").await;
    assert!(page.contains("+996555123456") && page.contains("&#60;b&#62;Төлөндү&#60;/b&#62;"), "{page}");
    let json = get(address, "/sms").await;
    assert!(json.contains("\"text\":\"<b>Төлөндү</b>\"") && json.contains("\"repeats\":0"), "{json}");
    drop(catcher);
}
