use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::payment::{Money, card::DeclineReason};

const REFERENCE: &str = "ref-1";

fn operation(change: impl FnOnce(&mut Value)) -> Value {
    let mut answer = json!({
        "reference": REFERENCE, "kind": "authorize", "state": "approved", "id": "a-1",
        "amount": {"value": 51000, "currency": "KGS"}, "authorization_code": "123456", "rrn": "000000000001",
        "captured": false, "at": "2026-11-23T10:00:00Z",
    });
    change(&mut answer);
    answer
}

fn received(status: u16, retry_after: Option<u64>, body: &Value) -> Received {
    Received { status, retry_after: retry_after.map(Duration::from_secs), body: Ok(body.to_string().into_bytes()) }
}

fn problem(status: u16, code: &str) -> Value {
    json!({"type": "about:blank", "title": "No", "status": status, "code": code, "reference": REFERENCE})
}

fn call(kind: OperationKind, status: u16, body: &Value) -> String {
    match of_call(kind, REFERENCE, &received(status, None, body)) {
        Attempt::Done(outcome) => outcome.as_str().to_owned(),
        Attempt::Again { in_flight, .. } => format!("again, in flight: {in_flight}"),
    }
}

fn authorize(status: u16, change: impl FnOnce(&mut Value)) -> String {
    call(OperationKind::Authorize, status, &operation(change))
}

#[test]
fn a_result_counts_only_for_our_reference_and_kind() {
    assert_eq!(authorize(200, |_| ()), "approved");
    assert_eq!(authorize(200, |answer| answer["reference"] = json!("ref-2")), "unknown");
    assert_eq!(authorize(200, |answer| answer["kind"] = json!("capture")), "unknown");
    assert_eq!(authorize(200, |answer| answer["kind"] = json!("inquire")), "unknown");
    assert_eq!(authorize(200, |answer| answer["amount"] = Value::Null), "unknown");
    assert_eq!(authorize(200, |answer| answer["amount"]["value"] = json!(-1)), "unknown");
    assert_eq!(authorize(200, |answer| answer["amount"]["value"] = json!(510.0)), "unknown");
    assert_eq!(authorize(200, |answer| answer["state"] = json!("certainly")), "unknown");
    assert_eq!(authorize(200, |answer| answer["state"] = json!("pending")), "unknown");
    assert_eq!(authorize(200, |answer| answer["new_member"] = json!("ignored")), "approved");
    assert_eq!(authorize(402, |_| ()), "unknown", "a refusal with an approval in it contradicts itself");
    assert_eq!(authorize(302, |_| ()), "unknown");
    assert_eq!(authorize(500, |_| ()), "unknown");
}

#[test]
fn an_approval_carries_what_the_acquirer_acted_on_even_if_it_is_not_what_we_asked() {
    let answer = operation(|answer| answer["amount"]["value"] = json!(50_999));
    let Attempt::Done(Outcome::Approved(approval)) =
        of_call(OperationKind::Authorize, REFERENCE, &received(200, None, &answer))
    else {
        panic!("no approval");
    };
    assert_eq!(approval.amount, Money::new(50_999, crate::payment::Currency::KGS));
    assert_eq!(approval.acquirer_reference.as_deref(), Some("a-1"));
}

#[test]
fn a_closed_reference_proves_no_effect_only_if_nothing_was_undone() {
    let closed = |undone: Value| {
        authorize(200, |answer| {
            answer["state"] = json!("closed");
            answer["undone"] = undone;
        })
    };
    assert_eq!(closed(json!("nothing")), "not_sent");
    assert_eq!(closed(json!("hold")), "unknown");
    assert_eq!(closed(json!("capture")), "unknown");
    assert_eq!(closed(Value::Null), "unknown");
}

#[test]
fn each_status_proves_what_the_contract_says_and_no_more() {
    let authorize = |status| call(OperationKind::Authorize, status, &problem(status, "no"));
    for status in [400, 401, 403, 404, 422] {
        assert_eq!(authorize(status), "not_sent", "{status}");
        assert_eq!(call(OperationKind::Capture, status, &problem(status, "no")), "not_sent", "{status}");
        assert_eq!(call(OperationKind::Capture, status, &json!("<html>")), "unknown", "{status} from a proxy");
        assert_eq!(call(OperationKind::Capture, status, &problem(418, "no")), "unknown", "{status} of another");
    }
    assert_eq!(authorize(402), "declined");
    for status in [408, 409] {
        assert_eq!(authorize(status), "again, in flight: true");
    }
    for status in [425, 429] {
        assert_eq!(authorize(status), "again, in flight: false");
    }
    for status in [100, 301, 500, 502, 503, 504, 599] {
        assert_eq!(authorize(status), "unknown", "{status}");
    }
    let busy = of_call(OperationKind::Authorize, REFERENCE, &received(503, Some(3), &Value::Null));
    assert!(matches!(busy, Attempt::Again { in_flight: false, after: Some(wait), .. } if wait.as_secs() == 3));
}

#[test]
fn a_reversal_is_never_given_up_for_a_404_nor_an_operation_for_a_key_that_is_in_use() {
    assert_eq!(call(OperationKind::Reverse, 404, &problem(404, "not_found")), "unknown");
    assert_eq!(call(OperationKind::Authorize, 422, &problem(422, KEY_REUSED)), "unknown");
}

#[test]
fn a_decline_has_its_reason_and_code() {
    for (code, reason) in [("51", DeclineReason::InsufficientFunds), ("N7", DeclineReason::InvalidCvc)] {
        let answer = operation(|answer| {
            answer["state"] = json!("declined");
            answer["decline"] = json!({"code": code, "message": "no"});
        });
        let decline = Decline { reason, code: Some(code.to_owned()) };
        for (status, body) in [(200, &answer), (402, &answer), (402, &problem(402, code))] {
            let read = of_call(OperationKind::Authorize, REFERENCE, &received(status, None, body));
            assert_eq!(read, Attempt::Done(Outcome::Declined(decline.clone())));
        }
    }
}

#[test]
fn a_challenge_must_lead_to_a_web_address() {
    let challenged = |url: &str| {
        authorize(200, |answer| {
            answer["state"] = json!("challenged");
            answer["challenge"] = json!({"url": url, "fields": [["creq", "x"]], "expires_at": "2026-11-23T10:10:00Z"});
        })
    };
    assert_eq!(challenged("https://acs.example/"), "challenged");
    assert_eq!(challenged("javascript:alert(1)"), "unknown");
    assert_eq!(challenged(""), "unknown");
}

#[test]
fn what_is_kept_of_a_foreign_text_is_short_and_plain() {
    let answer = operation(|answer| answer["id"] = json!(format!("\u{0}{}\n", "x".repeat(1000))));
    let Attempt::Done(Outcome::Approved(approval)) =
        of_call(OperationKind::Authorize, REFERENCE, &received(200, None, &answer))
    else {
        panic!("no approval");
    };
    assert_eq!(approval.acquirer_reference, Some("x".repeat(64)));
    let quoting = of_call(OperationKind::Authorize, REFERENCE, &received(400, None, &problem(400, "4111111111111111")));
    assert!(!format!("{quoting:?}").contains("4111"));
}

#[test]
fn not_found_must_name_our_reference() {
    let inquire = |status, body: &Value| of_inquiry(OperationKind::Authorize, REFERENCE, &received(status, None, body));
    assert_eq!(inquire(404, &problem(404, "not_found")), Inquiry::NotFound);
    assert!(matches!(inquire(404, &json!({"title": "no such page", "status": 404})), Inquiry::NoAnswer { .. }));
    assert!(matches!(inquire(500, &problem(500, "x")), Inquiry::NoAnswer { .. }));
    assert!(matches!(inquire(200, &operation(|_| ())), Inquiry::Found(Outcome::Approved(_))));
    assert_eq!(inquire(200, &operation(|answer| answer["state"] = json!("pending"))), Inquiry::Pending);
    let other = operation(|answer| (answer["reference"], answer["state"]) = (json!("ref-2"), json!("pending")));
    assert!(matches!(inquire(200, &other), Inquiry::NoAnswer { .. }));
}

/// Operation objects that are nearly right.
fn nearly() -> impl Strategy<Value = Value> {
    let text = |words: &'static [&'static str]| prop::sample::select(words).prop_map(|word| json!(word));
    (
        text(&[REFERENCE, "ref-2", ""]),
        text(&["authorize", "complete_challenge", "capture", "reverse", "refund", "inquire", "x"]),
        text(&["approved", "challenged", "declined", "pending", "closed", "x"]),
        prop_oneof![Just(json!({"value": 1, "currency": "KGS"})), Just(json!({"value": 1})), Just(Value::Null)],
        prop_oneof![text(&["nothing", "hold", "capture"]), Just(Value::Null)],
        any::<bool>(),
    )
        .prop_map(|(reference, kind, state, amount, undone, captured)| {
            json!({
                "reference": reference, "kind": kind, "state": state, "amount": amount, "undone": undone,
                "captured": captured, "at": "2026-11-23T10:00:00Z",
            })
        })
}

fn bodies() -> impl Strategy<Value = Result<Vec<u8>, String>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Ok),
        "\\PC{0,80}".prop_map(|text| Ok(text.into_bytes())),
        nearly().prop_map(|answer| Ok(answer.to_string().into_bytes())),
        nearly().prop_map(|answer| Err(answer.to_string())),
    ]
}

proptest! {
    #[test]
    fn no_answer_panics_and_none_is_an_approval_without_our_reference_kind_and_an_amount(
        status in prop_oneof![Just(200_u16), Just(402), 100_u16..600, any::<u16>()],
        retry_after in prop::option::of(0_u64..10),
        body in bodies(),
        kind in prop::sample::select(&OperationKind::MONEY_MOVING[..]),
    ) {
        let received = Received { status, retry_after: retry_after.map(Duration::from_secs), body };
        let attempt = of_call(kind, REFERENCE, &received);
        let named = received.json::<Value>().unwrap_or_default();
        if let Attempt::Done(Outcome::Approved(_)) = attempt {
            prop_assert!((200..300).contains(&status));
            prop_assert_eq!(&named["reference"], &json!(REFERENCE));
            prop_assert_eq!(&named["kind"], &json!(kind.as_str()));
            prop_assert!(named["amount"]["value"].is_i64());
        }
        if let Inquiry::Found(Outcome::Approved(_)) = of_inquiry(OperationKind::Authorize, REFERENCE, &received) {
            prop_assert_eq!(&named["reference"], &json!(REFERENCE));
            prop_assert!(named["amount"]["value"].is_i64());
        }
    }
}
