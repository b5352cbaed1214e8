//! The contracts as files: a JSON Schema (2020-12) for each topic, envelope included, with an example.
//!
//! Other systems build on the files in `schemas/`; this module generates them from the types that read and write the
//! messages, so that they cannot say something else than the code does. A test holds the files to it.
//!
//! A schema asks for what a reader of ours needs and lets anything be added, as readers ignore what they do not know.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::datetime};
use uuid::{Uuid, uuid};

use super::{
    CardRef, ChallengeCompleted, Event, ForeignRequest, OperationCompleted, Payer, PaymentFact, PaymentRefused,
    PaymentRequested, SettlementEntry, Topic,
};
use crate::payment::{
    Currency, Money, OperationKind, Outcome, PaymentCode, Status,
    card::{DeclineReason, MaskedCard},
    ledger::PostingKind,
    operation::Approval,
};

const EVENT: Uuid = uuid!("019ab0f2-6c21-7d3a-9c1e-5f0a4b7d2e10");
const REQUEST: Uuid = uuid!("019ab0f2-5d02-7c44-8a6b-2b1f9e3c7a01");
const PAYMENT: Uuid = uuid!("019ab0f2-5d00-7b10-8f21-6c4e0d9a3b55");
const OPERATION: Uuid = uuid!("019ab0f2-61f8-7e92-b0d4-1a2c3e4f5061");
const CARD: Uuid = uuid!("019ab0f2-58aa-7a01-9d37-77c0e1b2a3d4");
const NOW: OffsetDateTime = datetime!(2026-11-23 09:15:02.481 UTC);
const AMOUNT: Money = Money::new(51_000, Currency::KGS);
const REFERENCE: &str = "T0000000421";

/// The name of the topic's file in `schemas/`, for example `payment.requested.v1.json`.
pub fn file_name(topic: Topic) -> String {
    format!("{}.v1.json", topic.routing_key())
}

/// The JSON Schema of the topic's whole event, with one example.
pub fn schema(topic: Topic) -> Value {
    contract(topic).0
}

/// A valid event of the topic, the same in every build.
pub fn example(topic: Topic) -> Value {
    contract(topic).1
}

/// The schema as the text of its file. The order of members does not depend on how `serde_json` was built.
pub fn render(schema: &Value) -> String {
    let text = serde_json::to_string_pretty(&Ordered(schema));
    text.expect("a JSON value has text keys, and nothing in it can fail to be written") + "\n"
}

/// Schema and example: the one place that says which type a topic carries.
fn contract(topic: Topic) -> (Value, Value) {
    match topic {
        Topic::PaymentRequested => of(topic, "Authorize this payment.", "/sites/consulate", requested()),
        Topic::PaymentChallengeCompleted => {
            let about = "The payer has come back from the bank: go on with the authorization.";
            of(topic, about, "/tolom/intake", ChallengeCompleted { payment: PAYMENT })
        }
        Topic::OperationCompleted => {
            of(topic, "A request to the acquirer came to something: record it.", "/tolom/worker", completed())
        }
        Topic::PaymentRefused => {
            let about = "A foreign site's payment.requested was not admitted; nothing was stored or charged.";
            of(topic, about, "/tolom/authorize", refused())
        }
        Topic::PaymentChallenged => {
            fact(topic, "The bank wants the payer's confirmation (3-D Secure).", Status::Challenged)
        }
        Topic::PaymentAuthorized => fact(topic, "The money is held on the card; not paid yet.", Status::Authorized),
        Topic::PaymentDeclined => fact(topic, "Refused; nothing is charged.", Status::Declined),
        Topic::PaymentFailed => fact(topic, "Provably nothing was charged; the payer may try again.", Status::Failed),
        Topic::PaymentUnknown => {
            fact(topic, "What came of the payment is not known yet: the payer must not pay again.", Status::Unknown)
        }
        Topic::PaymentCaptured => fact(topic, "Paid: the money has moved.", Status::Captured),
        Topic::PaymentReversed => fact(topic, "What was held or taken has been given back.", Status::Reversed),
        Topic::SettlementEntry => {
            let about = "Money moved: what finance books. Repeats have the same id; take each id once.";
            of(topic, about, "/tolom/record", settlement())
        }
    }
}

fn of<T: Serialize + JsonSchema>(topic: Topic, about: &str, source: &str, data: T) -> (Value, Value) {
    let example = json!(Event::new(topic, EVENT, source, PAYMENT, NOW, data));
    let mut schema = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<Event<T>>();
    schema.insert("$id".to_owned(), format!("urn:tolom:{}:v1", topic.routing_key()).into());
    schema.insert("title".to_owned(), topic.event_type().into());
    schema.insert("description".to_owned(), about.into());
    schema.insert("examples".to_owned(), json!([&example]));
    let mut schema = schema.to_value();
    schema["properties"]["type"]["const"] = topic.event_type().into();
    (schema, example)
}

fn requested() -> PaymentRequested {
    let payer = Payer { email: "aibek@example.kg".to_owned(), phone: "+996555123456".to_owned() };
    let (card, locale, terms) = (CardRef { id: CARD }, "ky".to_owned(), "2026-01-01".to_owned());
    PaymentRequested {
        payment: PAYMENT,
        request: Some(ForeignRequest { bill: bill(), amount: AMOUNT, card, payer, locale, terms }),
    }
}

fn completed() -> OperationCompleted {
    let result = Outcome::Approved(Approval {
        acquirer_reference: Some("P-7730021".to_owned()),
        authorization_code: Some("083412".to_owned()),
        rrn: Some("632709083412".to_owned()),
        amount: AMOUNT,
        captured: false,
        undone: None,
        at: NOW,
    });
    let (kind, reference) = (OperationKind::Authorize, REFERENCE.to_owned());
    OperationCompleted {
        payment: PAYMENT,
        operation: OPERATION,
        kind,
        reference,
        amount: AMOUNT,
        card: Some(card()),
        result,
    }
}

fn refused() -> PaymentRefused {
    let (reason, detail) = ("bill-paid".to_owned(), "this bill is paid".to_owned());
    PaymentRefused { payment: PAYMENT, request: REQUEST, reason, detail }
}

fn fact(topic: Topic, about: &str, status: Status) -> (Value, Value) {
    let data = PaymentFact {
        payment: PAYMENT,
        bill: bill(),
        version: 3,
        status,
        public_status: status.public(),
        amount: AMOUNT,
        card: Some(card()),
        decline_reason: (status == Status::Declined).then_some(DeclineReason::InsufficientFunds),
        receipt_number: (status == Status::Captured).then(|| "TLM-0000000421".to_owned()),
    };
    of(topic, about, "/tolom/record", data)
}

fn settlement() -> SettlementEntry {
    SettlementEntry {
        payment: PAYMENT,
        operation: OPERATION,
        bill: bill(),
        agency: "infocom".to_owned(),
        service: "passport".to_owned(),
        kind: PostingKind::Capture,
        amount: AMOUNT,
        acquirer: "simulator".to_owned(),
        reference: REFERENCE.to_owned(),
        acquirer_reference: Some("P-7730022".to_owned()),
        authorization_code: Some("083412".to_owned()),
        rrn: Some("632709083412".to_owned()),
        at: NOW,
        day: "2026-11-23".to_owned(),
    }
}

fn bill() -> PaymentCode {
    "11000000421".parse().expect("eleven digits are a payment code")
}

fn card() -> MaskedCard {
    MaskedCard { number: "411111******1111".to_owned(), brand: "visa".to_owned() }
}

/// JSON with its members in an order for readers: what it is, then the rest by name, definitions and examples last.
struct Ordered<'a>(&'a Value);

impl Ordered<'_> {
    fn place(name: &str) -> usize {
        const FIRST: [&str; 15] = [
            "$schema",
            "$id",
            "$ref",
            "title",
            "description",
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "datacontenttype",
            "data",
            "payment",
            "operation",
        ];
        const LAST: [&str; 2] = ["$defs", "examples"];
        let last = || LAST.iter().position(|other| *other == name).map(|place| FIRST.len() + 1 + place);
        FIRST.iter().position(|other| *other == name).or_else(last).unwrap_or(FIRST.len())
    }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(name, _)| (Self::place(name), *name));
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            plain => plain.serialize(serializer),
        }
    }
}
