//! What the events carry.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::payment::{
    Money, OperationKind, Outcome, PaymentCode, PublicStatus, Status,
    card::{DeclineReason, MaskedCard},
    ledger::PostingKind,
};

/// `payment.requested`: authorize this payment.
///
/// For a payment that exists, its row is the truth and everything but `payment` is ignored. A foreign site fills in
/// the rest, all of it, with the id of a card that it has sealed and stored through `POST /v1/cards`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(extend("dependentRequired" = all_or_none(), "propertyNames" = no_card_data()))]
pub struct PaymentRequested {
    /// The payment's id, chosen by who publishes first.
    pub payment: Uuid,
    /// The request, from a foreign site.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ForeignRequest>,
}

/// A flattened `Option` would read a request with one wrong member as no request at all, and its sender would be told
/// that it had sent nothing. So the members are read one by one, and what is wrong is named.
impl<'de> Deserialize<'de> for PaymentRequested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Members {
            payment: Uuid,
            bill: Option<PaymentCode>,
            amount: Option<Money>,
            card: Option<CardRef>,
            payer: Option<Payer>,
            locale: Option<String>,
            terms: Option<String>,
        }
        fn need<T, E: Error>(member: Option<T>, name: &'static str) -> Result<T, E> {
            member.ok_or_else(|| E::missing_field(name))
        }
        let Members { payment, bill, amount, card, payer, locale, terms } = Members::deserialize(deserializer)?;
        if (&bill, &amount, &card, &payer, &locale, &terms) == (&None, &None, &None, &None, &None, &None) {
            return Ok(Self { payment, request: None });
        }
        let request = ForeignRequest {
            bill: need(bill, "bill")?,
            amount: need(amount, "amount")?,
            card: need(card, "card")?,
            payer: need(payer, "payer")?,
            locale: need(locale, "locale")?,
            terms: need(terms, "terms")?,
        };
        Ok(Self { payment, request: Some(request) })
    }
}

/// JSON Schema `dependentRequired`: one member of a request asks for all the others.
fn all_or_none() -> Value {
    let members = ["bill", "amount", "card", "payer", "locale", "terms"];
    let others = |name: &str| members.into_iter().filter(|other| *other != name).collect::<Vec<_>>();
    members.into_iter().map(|name| (name.to_owned(), Value::from(others(name)))).collect::<Map<_, _>>().into()
}

/// JSON Schema `propertyNames`: other members may be added, but never these.
fn no_card_data() -> Value {
    json!({"not": {"enum": ["number", "pan", "cvc", "cvv", "expiry_month", "expiry_year", "holder", "sealed", "track2"]}})
}

/// JSON Schema `properties` beside a reference to `Money`: more than nothing.
fn positive() -> Value {
    json!({"value": {"minimum": 1}})
}

/// JSON Schema `properties` beside a reference to `MaskedCard`: a whole number is never valid.
fn masked() -> Value {
    json!({"number": {"pattern": r"^[0-9]{6}\*{3,9}[0-9]{4}$"}})
}

/// What a foreign site asks, in the words of `POST /v1/payments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignRequest {
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// Must equal the bill's amount.
    #[schemars(extend("properties" = positive()))]
    pub amount: Money,
    /// The sealed card, stored before.
    pub card: CardRef,
    /// Who pays.
    pub payer: Payer,
    /// `ky`, `ru` or `en`.
    #[schemars(extend("enum" = ["ky", "ru", "en"]))]
    pub locale: String,
    /// The version of the terms the payer accepted.
    #[schemars(length(min = 1))]
    pub terms: String,
}

/// A sealed card that was stored through `POST /v1/cards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardRef {
    /// The id that the intake answered with.
    pub id: Uuid,
}

/// Where the receipt goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Payer {
    /// E-mail address.
    #[schemars(email, length(max = 254))]
    pub email: String,
    /// Phone number (ITU-T E.164), for example `+996555123456`.
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub phone: String,
}

impl std::fmt::Debug for Payer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payer(***)")
    }
}

/// `payment.challenge_completed`: the payer has come back from the bank; what it gave is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChallengeCompleted {
    /// The payment's id.
    pub payment: Uuid,
}

/// `operation.completed`: what a request to the acquirer came to. The record worker checks it against the operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationCompleted {
    /// The payment's id.
    pub payment: Uuid,
    /// The operation's id.
    pub operation: Uuid,
    /// What was asked.
    pub kind: OperationKind,
    /// Our reference, stored before it was sent.
    pub reference: String,
    /// The operation's amount.
    pub amount: Money,
    /// The card, masked; authorizations only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("properties" = masked()))]
    pub card: Option<MaskedCard>,
    /// What it came to.
    pub result: Outcome,
}

/// `payment.*`: a fact about a payment, already in the books.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentFact {
    /// The payment's id.
    pub payment: Uuid,
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// The payment's version: a fact of a lower version is stale.
    pub version: i32,
    /// Where the payment stands.
    pub status: Status,
    /// What the payer is told.
    pub public_status: PublicStatus,
    /// The payment's amount.
    pub amount: Money,
    /// The card, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("properties" = masked()))]
    pub card: Option<MaskedCard>,
    /// Why it was declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_reason: Option<DeclineReason>,
    /// The receipt's number, once paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_number: Option<String>,
}

/// `payment.refused`: a foreign site's request was not admitted, and nothing was stored or charged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefused {
    /// The id that the foreign site had chosen.
    pub payment: Uuid,
    /// The id of the event that asked.
    pub request: Uuid,
    /// The problem's type, as the intake would have answered (the last part of the problem+json `type`).
    pub reason: String,
    /// The same for people.
    pub detail: String,
}

/// `settlement.entry`: money moved; what finance books. One per movement, and the id is constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SettlementEntry {
    /// The payment's id.
    pub payment: Uuid,
    /// The operation's id.
    pub operation: Uuid,
    /// The bill's payment code.
    pub bill: PaymentCode,
    /// Whom the money is for.
    pub agency: String,
    /// The service paid for.
    pub service: String,
    /// What moved: `capture` to us; `reversal` and `refund` back to the payer.
    #[schemars(extend("enum" = ["capture", "reversal", "refund"]))]
    pub kind: PostingKind,
    /// Always positive; `kind` tells the direction.
    #[schemars(extend("properties" = positive()))]
    pub amount: Money,
    /// Which acquirer.
    pub acquirer: String,
    /// Our reference of the operation.
    pub reference: String,
    /// The acquirer's reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquirer_reference: Option<String>,
    /// The issuer's approval code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_code: Option<String>,
    /// Retrieval reference number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rrn: Option<String>,
    /// The acquirer's time of the movement.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
    /// The day it belongs to, in Asia/Bishkek, `YYYY-MM-DD`.
    #[schemars(extend("format" = "date"))]
    pub day: String,
}
