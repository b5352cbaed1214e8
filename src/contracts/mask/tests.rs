use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    contracts::{Event, OperationCompleted, PaymentRequested, Topic, schemas},
    payment::card::luhn,
};

const NUMBER: &str = "4111111111111111";

fn masked(text: &str) -> (String, Found) {
    mask_text(text.to_owned())
}

fn json_masked(value: &Value) -> (String, Found) {
    masked(&value.to_string())
}

/// Any 13 to 19 digits in a row that pass Luhn, in longer rows too: nothing that knows of escapes or separators.
fn naive(bytes: &[u8]) -> bool {
    let runs = bytes.split(|byte| !byte.is_ascii_digit());
    runs.map(|run| std::str::from_utf8(run).unwrap()).any(|run| {
        (13..=19).any(|length| (0..(run.len() + 1).saturating_sub(length)).any(|from| luhn(&run[from..from + length])))
    })
}

/// A number with its check digit, 13 to 19 digits.
fn numbers() -> impl Strategy<Value = String> {
    "[2-9][0-9]{11,17}".prop_map(|body| {
        let check = (0..10).find(|check| luhn(&format!("{body}{check}"))).unwrap();
        format!("{body}{check}")
    })
}

/// A number as people and programs write it.
fn written() -> impl Strategy<Value = Vec<u8>> {
    let gaps =
        prop::collection::vec(prop::sample::select(vec!["", "", "", "", " ", "-", " - ", ".", "\u{a0}", "–"]), 19);
    let plain = (numbers(), gaps).prop_map(|(number, gaps)| {
        let digits = number.chars().zip(gaps).map(|(digit, gap)| format!("{digit}{gap}"));
        digits.collect::<String>().into_bytes()
    });
    let each = |write: fn(char) -> String| {
        numbers().prop_map(move |number| number.chars().map(write).collect::<String>().into_bytes())
    };
    prop_oneof![
        plain,
        each(|digit| format!("\\u00{:02x}", u32::from(digit))),
        each(|digit| format!("%{:02X}", u32::from(digit))),
        each(|digit| format!("{digit}\0")),
        each(|digit| char::from_u32(u32::from(digit) - 0x30 + 0xFF10).unwrap().to_string()),
        each(|digit| if digit > '4' { digit.to_string() } else { format!("%3{digit}") }),
    ]
}

proptest! {
    #[test]
    fn no_number_survives_in_any_bytes(
        before in prop::collection::vec(any::<u8>(), 0..40), number in written(),
        after in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        // A letter on each side: else it may be read as an identifier's part, or another escape's.
        let mut bytes = [&before[..], b"x", &number, b"x", &after].concat();
        let length = bytes.len();
        prop_assert!(mask(&mut bytes).any());
        prop_assert_eq!(bytes.len(), length);
        prop_assert!(!naive(&bytes));
        prop_assert!(!bytes.windows(number.len()).any(|window| window == number));
    }

    #[test]
    fn no_number_survives_among_digits(bytes in "[0-9]{0,60}([ .-][0-9]{0,20}){0,4}") {
        let (text, _) = masked(&bytes);
        prop_assert!(!naive(text.as_bytes()), "{}", text);
        prop_assert!(!naive(text.replace([' ', '.', '-'], "").as_bytes()), "{}", text);
    }

    #[test]
    fn what_is_found_is_masked_and_what_holds_nothing_is_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut after = bytes.clone();
        let found = mask(&mut after);
        prop_assert_eq!(found.any(), after != bytes);
    }

    #[test]
    fn fewer_digits_than_a_number_has_are_no_number(text in "([a-z:/ ]{1,9}:[0-9]{1,12}){0,9}") {
        prop_assert_eq!(masked(&text), (text, Found::default()));
    }

    /// Identifiers, times and references of our own have many digits.
    #[test]
    fn our_own_events_are_left_alone(
        ids in prop::array::uniform3(any::<u128>()), at in 1_600_000_000_i64..2_000_000_000, nanos in 0_u32..1_000_000_000,
        bill in "1[0-9]{5,19}", amount in 1_i64..100_000_000_000, millis in 0_u64..(1 << 42),
    ) {
        let at = time::OffsetDateTime::from_unix_timestamp(at).unwrap().replace_nanosecond(nanos).unwrap();
        let version_7 = |bits: u128| uuid::Builder::from_unix_timestamp_millis(millis, &bits.to_be_bytes()[..10].try_into().unwrap());
        let [id, payment, operation] = ids.map(|bits| version_7(bits).into_uuid());
        let mut completed: OperationCompleted = data(Topic::OperationCompleted);
        (completed.payment, completed.operation, completed.amount.value) = (payment, operation, amount);
        completed.reference = operation.simple().to_string();
        let mut requested: PaymentRequested = data(Topic::PaymentRequested);
        requested.payment = payment;
        let request = requested.request.as_mut().unwrap();
        (request.bill, request.card.id) = (bill.parse().unwrap(), operation);
        for bytes in [
            Event::new(Topic::OperationCompleted, id, "/tolom/worker", payment, at, completed).to_bytes(),
            Event::new(Topic::PaymentRequested, id, "/sites/consulate", payment, at, requested).to_bytes(),
        ] {
            let mut after = bytes.clone();
            prop_assert!(!mask(&mut after).any(), "{}", String::from_utf8_lossy(&bytes));
            prop_assert_eq!(after, bytes);
        }
    }
}

fn data<T: serde::de::DeserializeOwned>(topic: Topic) -> T {
    serde_json::from_value(schemas::example(topic)["data"].clone()).unwrap()
}

#[test]
fn every_example_of_a_contract_is_left_alone() {
    for topic in Topic::ALL {
        let example = schemas::example(topic);
        for text in [example.to_string(), serde_json::to_string_pretty(&example).unwrap()] {
            assert_eq!(masked(&text), (text, Found::default()));
        }
    }
}

#[test]
fn card_fields_are_masked_wherever_they_stand() {
    for (value, secret) in [
        (json!({"data": {"card": {"number": NUMBER, "cvc": "123", "expiry_month": 12}}}), "123"),
        (json!({"data": {"cvc": "987"}}), "987"),
        (json!({"a": [{"b": {"CVV2": 987}}]}), "987"),
        (json!({"cardNumber": "4111 1111"}), "4111"),
        (json!({"card": {"anything": {"deeper": ["987"]}}}), "987"),
        (json!({"card": [{"anything": "987"}]}), "987"),
        (json!({"card": "4111 12/30 987"}), "987"),
        (json!({"expiry": "12/30"}), "12/30"),
        (json!({"card_exp_date": "1230"}), "1230"),
        (json!({"holder": "AIBEK ASANOV"}), "AIBEK"),
        (json!({"note": "{\"cvc\":\"987\"}"}), "987"),
        (json!({"note": "cvv=987&x=1"}), "987"),
    ] {
        let (text, found) = json_masked(&value);
        assert!(found.field && !text.contains(secret), "{value} -> {text}");
    }
    for text in
        ["number=4&cvc=987", "<cvv>987</cvv>", "x\" {\"cvc\": \"987\"", "{'cvc': '987'}", "cvc: 987", "{\"cvc\":\"987"]
    {
        let (text, found) = masked(text);
        assert!(found.field && !text.contains("987"), "{text}");
    }
}

#[test]
fn what_only_resembles_card_fields_stays() {
    for value in [
        json!({"card": {"id": "019ab0f2-58aa-7a01-9d37-77c0e1b2a3d4"}}),
        json!({"card": {"number": "411111******1111", "brand": "visa"}}),
        json!({"expires_at": "2026-11-23T09:15:02Z", "receipt_number": "TLM-0000000421", "authorization_code": "083412"}),
        json!({"cvc": null, "pan": "", "number": true}),
        json!({"data": {"bill": "1100000000000007"}}),
    ] {
        assert_eq!(json_masked(&value), (value.to_string(), Found::default()));
    }
    // Elsewhere the same digits may be anything.
    assert!(luhn("1100000000000007"));
    assert!(json_masked(&json!({"bill": "1100000000000007"})).1.number);
    assert!(json_masked(&json!({"data": {"bill": NUMBER}})).1.number);
}

#[test]
fn a_sealed_card_is_masked_by_name_and_by_form() {
    let jwe = "eyJhbGciOiJFQ0RILUVTIn0..c2l4dGVlbg.Y2lwaGVydGV4dA.dGFn";
    assert_eq!(masked(jwe), ("*".repeat(jwe.len()), Found { sealed: true, ..Found::default() }));
    let (text, found) = json_masked(&json!({"data": {"card": {"sealed": jwe}}}));
    assert!(found.any() && !text.contains("eyJ"));
}

#[test]
fn identifiers_without_a_letter_may_be_numbers() {
    let (text, found) = masked("41111111-1111-1111-8111-411111111111");
    assert!(found.number, "{text}");
    let id = "01912345-6789-7123-8123-45678901234f";
    assert_eq!(masked(id), (id.to_owned(), Found::default()));
}

#[test]
fn nothing_that_is_deep_or_long_is_too_much() {
    let deep = format!("{}\"cvc\":987", "{\"card\":[".repeat(20_000));
    assert!(!masked(&deep).0.contains("987"));
    let long = "0123456789".repeat(100_000);
    assert!(masked(&long).1.number);
}
