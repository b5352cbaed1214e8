//! Answers of an acquirer: any status, `Retry-After` and body.

use std::time::Duration;

use time::{OffsetDateTime, macros::datetime};
use tolom::{
    acquirer::{Attempt, http::Answer},
    contracts::{Event, OperationCompleted, Topic},
    payment::{
        Currency, Money, OperationKind, Outcome,
        operation::{Inquiry, Undone},
    },
};
use uuid::Uuid;

const REFERENCE: &str = "ref-1";
const NOW: OffsetDateTime = datetime!(2026-11-23 10:00 UTC);
const DAY: Duration = Duration::from_secs(86_400);
const LONGEST_REASON: usize = 200;

/// The first line is the operation's kind, the status and perhaps `Retry-After`; the rest is the body.
///
/// An answer is no proof of more than the contract says: not sent only where the acquirer itself says that it did not
/// process the request, approved only for our reference and kind. Whatever it comes to can be published and stored.
pub fn target(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mut text = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let kind = text().and_then(|word| word.parse::<OperationKind>().ok()).unwrap_or(OperationKind::Authorize);
    let status = text().and_then(|word| word.parse::<u16>().ok()).unwrap_or(200);
    let retry_after = words.next();
    let answer = Answer { status, retry_after, body };
    let said = serde_json::from_slice(body).unwrap_or_default();
    match answer.of_call(kind, REFERENCE, NOW) {
        Attempt::Done(outcome) => is_proven(kind, status, &said, &outcome),
        Attempt::Again { why, in_flight, after } => {
            assert!(matches!(status, 408 | 409 | 425 | 429) || status == 503 && retry_after.is_some());
            assert_eq!(in_flight, matches!(status, 408 | 409));
            assert!(after.is_none_or(|wait| wait <= DAY));
            assert!(why.len() <= LONGEST_REASON);
        }
    }
    match answer.of_inquiry(kind, REFERENCE, NOW) {
        Inquiry::Found(outcome) => {
            assert!((200..300).contains(&status));
            is_ours(kind, &said);
            is_proven(kind, status, &said, &outcome);
        }
        Inquiry::Pending => is_ours(kind, &said),
        Inquiry::NotFound => assert_eq!((status, said["reference"].as_str()), (404, Some(REFERENCE))),
        Inquiry::NoAnswer { why } => assert!(why.len() <= LONGEST_REASON),
    }
}

fn is_ours(kind: OperationKind, said: &serde_json::Value) {
    assert_eq!((said["reference"].as_str(), said["kind"].as_str()), (Some(REFERENCE), Some(kind.as_str())));
}

fn is_proven(kind: OperationKind, status: u16, said: &serde_json::Value, outcome: &Outcome) {
    let authorization = matches!(kind, OperationKind::Authorize | OperationKind::CompleteChallenge);
    match outcome {
        Outcome::Approved(approval) => {
            assert!((200..300).contains(&status));
            is_ours(kind, said);
            assert!(kind != OperationKind::Inquire && approval.amount.value >= 0);
            assert_eq!(Some(approval.amount.value), said["amount"]["value"].as_i64());
            assert_eq!(approval.undone.is_some(), kind == OperationKind::Reverse);
            assert!(authorization || !approval.captured);
            for text in
                [&approval.acquirer_reference, &approval.authorization_code, &approval.rrn].into_iter().flatten()
            {
                assert!((1..=64).contains(&text.chars().count()), "{text}");
            }
        }
        Outcome::Challenged(challenge) => {
            assert!(authorization && (200..300).contains(&status));
            is_ours(kind, said);
            assert!(challenge.url.starts_with("https://") || challenge.url.starts_with("http://"), "{}", challenge.url);
            assert!(challenge.fields.len() <= 32);
        }
        Outcome::Declined(decline) => {
            assert!(status == 402 || (200..300).contains(&status));
            assert!(said["reference"].as_str().is_none_or(|named| named == REFERENCE));
            assert!(decline.code.as_ref().is_none_or(|code| (1..=32).contains(&code.chars().count())));
        }
        Outcome::NotSent { .. } if status == 402 || (200..300).contains(&status) => {
            is_ours(kind, said);
            assert!(authorization && said["state"] == "closed");
            assert_eq!(said["undone"], serde_json::to_value(Undone::Nothing).expect("a word"));
        }
        Outcome::NotSent { .. } => {
            assert!((400..500).contains(&status) && !matches!(status, 408 | 409 | 425 | 429));
            assert_eq!(said["status"].as_u64(), Some(status.into()), "only the acquirer's own word is proof");
            assert!(!(kind == OperationKind::Reverse && status == 404));
            assert!(!(status == 422 && said["code"] == "key_reused"));
        }
        Outcome::Unknown { why } => assert!(why.len() <= LONGEST_REASON),
    }
    if let Outcome::NotSent { why } | Outcome::Unknown { why } = outcome {
        super::tells_no_number(why);
    }
    can_be_stored(kind, outcome);
}

/// What it came to crosses the broker whole, and holds nothing that PostgreSQL's `text` and `jsonb` refuse.
fn can_be_stored(kind: OperationKind, outcome: &Outcome) {
    let data = OperationCompleted {
        payment: Uuid::nil(),
        operation: Uuid::nil(),
        kind,
        reference: REFERENCE.to_owned(),
        amount: Money::new(51_000, Currency::KGS),
        card: None,
        result: outcome.clone(),
    };
    let topic = Topic::OperationCompleted;
    let bytes = Event::new(topic, Uuid::nil(), "/fuzz", Uuid::nil(), NOW, data.clone()).to_bytes();
    assert_eq!(Event::read(topic, &bytes).map(|event| event.data), Ok(data));
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    assert!(!text.replace("\\\\", "").contains("\\u0000"), "a zero character: {text}");
}
