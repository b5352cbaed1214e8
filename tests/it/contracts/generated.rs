//! Events as the code makes them, with data of every shape: valid by the schema files, and read back the same.

use proptest::prelude::*;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tolom::{
    contracts::{
        CardRef, ChallengeCompleted, Event, ForeignRequest, OperationCompleted, Payer, PaymentFact, PaymentRefused,
        PaymentRequested, SettlementEntry, Topic,
    },
    payment::{
        Money, OperationKind, Outcome, PaymentCode, Status,
        card::{CardInput, DeclineReason, MaskedCard},
        ledger::PostingKind,
        operation::{Approval, Challenge, Decline, Undone},
    },
};
use uuid::Uuid;

use super::{reread, validator};

prop_compose! {
    fn uuids()(bits: u128) -> Uuid { Uuid::from_u128(bits) }
}

/// Years 0 to 9999, to the nanosecond.
fn times() -> impl Strategy<Value = OffsetDateTime> {
    (-62_167_219_200_i64..=253_402_300_799, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap().replace_nanosecond(nanos).unwrap()
    })
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9-]{1,20}", any::<String>()]
}

fn maybe<T: Clone + std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(some)
}

prop_compose! {
    fn amounts()(value in 1_i64.., currency in "[A-Z]{3}") -> Money { Money::new(value, currency.parse().unwrap()) }
}

prop_compose! {
    fn bills()(code in "[0-9]{6,20}") -> PaymentCode { code.parse().unwrap() }
}

/// Through the code that masks.
fn cards() -> impl Strategy<Value = MaskedCard> {
    "[0-9]{13,19}".prop_map(|number| {
        let (expiry_month, expiry_year, cvc, holder) = (12, 2030, "123".to_owned(), "A B".to_owned());
        CardInput { number, expiry_month, expiry_year, cvc, holder }.masked().unwrap()
    })
}

fn reasons() -> impl Strategy<Value = DeclineReason> {
    use DeclineReason as R;
    prop::sample::select(vec![
        R::InvalidNumber,
        R::ExpiredCard,
        R::InvalidCvc,
        R::InvalidHolder,
        R::UnsupportedNetwork,
        R::UnreadableCard,
        R::CardTimedOut,
        R::InsufficientFunds,
        R::LostOrStolen,
        R::LimitExceeded,
        R::AuthenticationFailed,
        R::SuspectedFraud,
        R::DoNotHonor,
        R::TooManyAttempts,
        R::Other,
    ])
}

prop_compose! {
    fn approvals()(
        references in prop::array::uniform3(maybe(words())), amount in amounts(), captured: bool, at in times(),
        undone in maybe(prop::sample::select(vec![Undone::Nothing, Undone::Hold, Undone::Capture])),
    ) -> Approval {
        let [acquirer_reference, authorization_code, rrn] = references;
        Approval { acquirer_reference, authorization_code, rrn, amount, captured, undone, at }
    }
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let fields = prop::collection::vec((words(), words()), 0..4);
    prop_oneof![
        approvals().prop_map(Outcome::Approved),
        (words(), fields, times())
            .prop_map(|(url, fields, expires_at)| { Outcome::Challenged(Challenge { url, fields, expires_at }) }),
        (reasons(), maybe(words())).prop_map(|(reason, code)| Outcome::Declined(Decline { reason, code })),
        words().prop_map(|why| Outcome::NotSent { why }),
        words().prop_map(|why| Outcome::Unknown { why }),
    ]
}

prop_compose! {
    fn requests()(
        bill in bills(), amount in amounts(), id in uuids(), name in "[a-z]{1,20}", phone in r"\+[1-9][0-9]{6,14}",
        locale in prop::sample::select(vec!["ky", "ru", "en"]), terms in "[0-9-]{1,10}",
    ) -> ForeignRequest {
        let payer = Payer { email: format!("{name}@example.kg"), phone };
        ForeignRequest { bill, amount, card: CardRef { id }, payer, locale: locale.to_owned(), terms }
    }
}

prop_compose! {
    fn completions()(
        (payment, operation) in (uuids(), uuids()), reference in words(), amount in amounts(), card in maybe(cards()),
        kind in prop::sample::select(OperationKind::MONEY_MOVING.to_vec()), result in outcomes(),
    ) -> OperationCompleted {
        OperationCompleted { payment, operation, kind, reference, amount, card, result }
    }
}

prop_compose! {
    fn facts()(
        payment in uuids(), bill in bills(), version in 0_i32.., amount in amounts(), card in maybe(cards()),
        status in prop::sample::select(Status::ALL.to_vec()), decline_reason in maybe(reasons()),
        receipt_number in maybe(words()),
    ) -> PaymentFact {
        let public_status = status.public();
        PaymentFact { payment, bill, version, status, public_status, amount, card, decline_reason, receipt_number }
    }
}

prop_compose! {
    fn entries()(
        (payment, operation) in (uuids(), uuids()), bill in bills(), amount in amounts(), at in times(),
        words in prop::array::uniform4(words()), references in prop::array::uniform3(maybe(words())),
        kind in prop::sample::select(vec![PostingKind::Capture, PostingKind::Reversal, PostingKind::Refund]),
    ) -> SettlementEntry {
        let [agency, service, acquirer, reference] = words;
        let [acquirer_reference, authorization_code, rrn] = references;
        let day = at.date().to_string();
        SettlementEntry {
            payment, operation, bill, agency, service, kind, amount, acquirer, reference, acquirer_reference,
            authorization_code, rrn, at, day,
        }
    }
}

const FACTS: [Topic; 7] = [
    Topic::PaymentChallenged,
    Topic::PaymentAuthorized,
    Topic::PaymentDeclined,
    Topic::PaymentFailed,
    Topic::PaymentUnknown,
    Topic::PaymentCaptured,
    Topic::PaymentReversed,
];

/// A topic and the bytes of an event of it.
pub(super) fn events() -> impl Strategy<Value = (Topic, Vec<u8>)> {
    fn made<T: Serialize + std::fmt::Debug>(
        topics: &[Topic],
        data: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<(Topic, Vec<u8>)> {
        let source = prop::sample::select(vec!["/tolom/intake", "/tolom/record", "/sites/consulate"]);
        (prop::sample::select(topics.to_vec()), uuids(), source, uuids(), times(), data)
            .prop_map(|(topic, id, source, payment, time, data)| {
                (topic, Event::new(topic, id, source, payment, time, data).to_bytes())
            })
            .boxed()
    }
    let requested = (uuids(), maybe(requests())).prop_map(|(payment, request)| PaymentRequested { payment, request });
    let refused = (uuids(), uuids(), words(), words());
    prop_oneof![
        made(&[Topic::PaymentRequested], requested),
        made(&[Topic::PaymentChallengeCompleted], uuids().prop_map(|payment| ChallengeCompleted { payment })),
        made(&[Topic::OperationCompleted], completions()),
        made(
            &[Topic::PaymentRefused],
            refused.prop_map(|(payment, request, reason, detail)| PaymentRefused { payment, request, reason, detail }),
        ),
        made(&FACTS, facts()),
        made(&[Topic::SettlementEntry], entries()),
    ]
}

proptest! {
    #[test]
    fn what_the_code_publishes_is_valid_and_read_back_the_same(events in prop::collection::vec(events(), 1..12)) {
        thread_local! {
            static VALIDATORS: Vec<(Topic, jsonschema::Validator)> =
                Topic::ALL.into_iter().map(|topic| (topic, validator(topic))).collect();
        }
        for (topic, bytes) in events {
            let event: Value = serde_json::from_slice(&bytes).unwrap();
            VALIDATORS.with(|all| {
                let (_, validator) = all.iter().find(|(other, _)| *other == topic).unwrap();
                validator.validate(&event).map_err(|error| TestCaseError::fail(format!("{error}: {event}")))
            })?;
            prop_assert_eq!(Topic::of(&bytes), Ok(topic));
            prop_assert_eq!(reread(topic, &bytes), Ok(event));
        }
    }
}
