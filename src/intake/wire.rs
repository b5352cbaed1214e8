//! The bodies of answers, and the shape that OpenAPI shows for amounts.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    contracts::PaymentFact,
    payment::{
        BillStatus, Money, PublicStatus, Status,
        card::{DeclineReason, MaskedCard},
        operation::Challenge,
    },
    store::{bills::Bill, payments},
};

/// An amount in minor units: 510 som are `{"value": 51000, "currency": "KGS"}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used: that of `Money` would forbid answers any further member")]
pub(super) struct Amount {
    /// Minor units (tyiyn for KGS).
    #[schema(minimum = 1)]
    value: i64,
    /// ISO 4217 alphabetic code.
    #[schema(pattern = "^[A-Z]{3}$", example = "KGS")]
    currency: String,
}

/// A bill.
#[derive(Serialize, ToSchema)]
pub(super) struct BillView {
    /// The payment code.
    #[schema(pattern = "^[0-9]{6,20}$", example = "1100000001")]
    code: String,
    /// What is paid for, for example `passport`.
    service: String,
    /// The applicant's full name.
    applicant: String,
    /// What is owed.
    #[schema(value_type = Amount)]
    amount: Money,
    /// Where it stands.
    status: BillStatus,
    /// A payment is on its way: another one is not accepted, and the bill cannot be changed.
    being_paid: bool,
    /// Until when a payment may be submitted.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    valid_until: OffsetDateTime,
    /// The version of the terms in force; send it with the payment.
    terms: String,
}

impl BillView {
    pub(super) fn new(bill: Bill, terms_in_force: &str) -> Self {
        Self {
            code: bill.terms.code.to_string(),
            service: bill.terms.service,
            applicant: bill.terms.applicant,
            amount: bill.terms.amount,
            status: bill.status,
            being_paid: bill.being_paid,
            valid_until: bill.terms.valid_until,
            terms: terms_in_force.to_owned(),
        }
    }
}

/// The answer to an accepted payment. A repetition gets the very same bytes.
#[derive(Serialize, ToSchema)]
pub(super) struct PaymentAccepted {
    /// The payment's id.
    pub(super) id: Uuid,
    /// `accepted`.
    pub(super) status: Status,
    /// `processing`.
    pub(super) public_status: PublicStatus,
    /// The bill's payment code.
    pub(super) bill: String,
    /// The amount.
    #[schema(value_type = Amount)]
    pub(super) amount: Money,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(super) accepted_at: OffsetDateTime,
}

/// Where a payment stands: the data of a `status` event.
#[derive(Serialize, ToSchema)]
pub(super) struct PaymentState {
    /// The payment's id.
    id: Uuid,
    /// The bill's payment code.
    bill: String,
    /// Grows with every change.
    version: i32,
    /// Where it stands.
    status: Status,
    /// What the payer is told. `unknown`: do not pay again.
    public_status: PublicStatus,
    /// The amount.
    #[schema(value_type = Amount)]
    amount: Money,
    /// The card, masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<MaskedCard>,
    /// Why it was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_reason: Option<DeclineReason>,
    /// The confirmation the bank asks for, while `public_status` is `confirm`: post the fields to the url.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<Challenge>,
    /// The receipt's number, once paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_number: Option<String>,
}

impl From<payments::Payment> for PaymentState {
    fn from(payment: payments::Payment) -> Self {
        Self {
            id: payment.id,
            bill: payment.bill,
            version: payment.version,
            status: payment.status,
            public_status: payment.public_status,
            amount: payment.amount,
            card: payment.card,
            decline_reason: payment.decline_reason,
            challenge: payment.challenge,
            receipt_number: payment.receipt_number,
        }
    }
}

impl From<&PaymentFact> for PaymentState {
    fn from(fact: &PaymentFact) -> Self {
        Self {
            id: fact.payment,
            bill: fact.bill.to_string(),
            version: fact.version,
            status: fact.status,
            public_status: fact.public_status,
            amount: fact.amount,
            card: fact.card.clone(),
            decline_reason: fact.decline_reason,
            challenge: None,
            receipt_number: fact.receipt_number.clone(),
        }
    }
}

/// A step of a payment's life.
#[derive(Serialize, ToSchema)]
pub(super) struct StepView {
    /// What happened.
    event: String,
    /// Where the payment stood then.
    status: Status,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: OffsetDateTime,
}

/// A payment with its timeline.
#[derive(Serialize, ToSchema)]
pub(super) struct PaymentView {
    #[serde(flatten)]
    state: PaymentState,
    /// What was given back of it by refunds, in minor units.
    refunded: i64,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    accepted_at: OffsetDateTime,
    /// When it changed last.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: OffsetDateTime,
    /// What happened, the oldest step first.
    timeline: Vec<StepView>,
}

impl PaymentView {
    pub(super) fn new(payment: payments::Payment, steps: Vec<payments::Step>) -> Self {
        let (refunded, accepted_at, updated_at) = (payment.refunded, payment.accepted_at, payment.updated_at);
        let timeline =
            steps.into_iter().map(|step| StepView { event: step.event, status: step.status, at: step.at }).collect();
        Self { state: payment.into(), refunded, accepted_at, updated_at, timeline }
    }
}
