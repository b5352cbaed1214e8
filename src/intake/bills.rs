//! Bills over HTTP: payers look them up, agencies issue, change and withdraw them.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    Intake,
    auth::{Agency, Caller},
    extract::{ApiJson, BillCode},
    limits::{Asker, ClientAddress},
    problem::Problem,
    wire::{Amount, BillView},
};
use crate::{
    clock::bishkek_day,
    payment::{BillStatus, Money, PaymentCode},
    store::{
        accept::Refusal,
        bills::{self, BillTerms, Change, ChangeRefused},
    },
};

/// A bill as its agency issues it; or `{"status": "paid"}` alone, when it was paid by another channel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BillBody {
    /// The applicant's full name.
    #[schema(max_length = 200)]
    applicant: Option<String>,
    /// What is owed.
    #[schema(value_type = Option<Amount>)]
    amount: Option<Money>,
    /// Until when a payment may be submitted.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) valid_until: Option<OffsetDateTime>,
    /// What is paid for. Follows from the code; if given, it must agree.
    service: Option<String>,
    /// `open`, or `paid` alone.
    status: Option<BillStatus>,
}

/// Look a bill up.
#[utoipa::path(get, path = "/v1/bills/{code}", tag = "bills", params(("code" = String, Path, description = "The payment code")),
    security((), ("token" = [])),
    responses(
        (status = 200, body = BillView, description = "The bill"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`bill-unknown`"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "`rate-limited`: too many look-ups from this address, or too many unknown codes from it or under this token; see Retry-After"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`, `overloaded`; see Retry-After"),
    ))]
pub(super) async fn get_bill(
    State(intake): State<Intake>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    BillCode(code): BillCode,
) -> Result<Json<BillView>, Problem> {
    let bill = intake.look_up(caller.asker(address), &code).await?;
    Ok(Json(intake.view(bill)))
}

/// Issue a bill, change it, or mark it as paid by another channel.
#[utoipa::path(put, path = "/v1/bills/{code}", tag = "bills", params(("code" = String, Path, description = "The payment code")),
    request_body = BillBody, security(("token" = [])),
    responses(
        (status = 200, body = BillView, description = "Changed, or so already"),
        (status = 201, body = BillView, description = "Issued"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "`forbidden`: another agency's bill, or no agency"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`bill-unknown`"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`payment-in-progress`, `bill-paid`"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`invalid-field`"),
    ))]
pub(super) async fn put_bill(
    State(intake): State<Intake>,
    Agency(agency): Agency,
    BillCode(code): BillCode,
    ApiJson(body): ApiJson<BillBody>,
) -> Result<Response, Problem> {
    let now = intake.clock.now();
    let change = if body.status == Some(BillStatus::Paid) {
        body.is_alone()?;
        bills::put_paid(&intake.pool, &agency.id, &code, now).await?
    } else {
        let terms = body.terms(&intake, code)?;
        bills::put(&intake.pool, &agency.id, &terms, now).await?
    };
    intake.answer(change)
}

/// Withdraw a bill.
#[utoipa::path(delete, path = "/v1/bills/{code}", tag = "bills", params(("code" = String, Path, description = "The payment code")),
    security(("token" = [])),
    responses(
        (status = 200, body = BillView, description = "Withdrawn, or so already"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "`forbidden`"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`bill-unknown`"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`payment-in-progress`, `bill-paid`"),
    ))]
pub(super) async fn delete_bill(
    State(intake): State<Intake>,
    Agency(agency): Agency,
    BillCode(code): BillCode,
) -> Result<Response, Problem> {
    let change = bills::cancel(&intake.pool, &agency.id, &code, intake.clock.now()).await?;
    intake.answer(change)
}

impl Intake {
    /// A bill for who asks, as long as they do not guess.
    pub(super) async fn look_up(&self, asker: impl Into<Asker>, code: &PaymentCode) -> Result<bills::Bill, Problem> {
        let asker = asker.into();
        self.may_look_up(asker.clone())?;
        self.tell(asker, bills::get(&self.pool, code, self.clock.now()).await?)
    }

    fn view(&self, bill: bills::Bill) -> BillView {
        BillView::new(bill, self.terms_in_force())
    }

    /// The version of the terms in force today, in Asia/Bishkek.
    pub(super) fn terms_in_force(&self) -> &str {
        self.config.terms_in_force(bishkek_day(self.clock.now()))
    }

    fn answer(&self, change: Change) -> Result<Response, Problem> {
        match change {
            Change::Issued(bill) => Ok((StatusCode::CREATED, Json(self.view(bill))).into_response()),
            Change::Done(bill) => Ok(Json(self.view(bill)).into_response()),
            Change::Refused(refused) => Err(match refused {
                ChangeRefused::Unknown => Problem::bill_unknown(),
                ChangeRefused::NotYours => Problem::forbidden("this bill is another agency's"),
                ChangeRefused::BeingPaid => Problem::bill_being_paid(),
                ChangeRefused::Paid => Refusal::BillPaid.into(),
            }),
        }
    }
}

impl BillBody {
    /// `paid` says nothing else of the bill, so that nothing is changed in passing.
    fn is_alone(&self) -> Result<(), Problem> {
        let others = [
            ("applicant", self.applicant.is_some()),
            ("amount", self.amount.is_some()),
            ("valid_until", self.valid_until.is_some()),
            ("service", self.service.is_some()),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(Problem::invalid_field(*field, "cannot be changed together with status `paid`")),
            None => Ok(()),
        }
    }

    fn terms(self, intake: &Intake, code: PaymentCode) -> Result<BillTerms, Problem> {
        if let Some(status) = self.status
            && status != BillStatus::Open
        {
            return Err(Problem::invalid_field("status", "must be open or paid; withdraw a bill with DELETE"));
        }
        let missing = |field| Problem::invalid_field(field, "is missing");
        let Some(service) = intake.config.service_of(&code) else {
            return Err(Problem::invalid_field("code", "no service has codes that begin like this"));
        };
        if self.service.is_some_and(|given| given != service) {
            return Err(Problem::invalid_field("service", format!("codes that begin like this are for {service}")));
        }
        let applicant = self.applicant.ok_or_else(|| missing("applicant"))?;
        if !bills::is_applicant(&applicant) {
            return Err(Problem::invalid_field("applicant", "1 to 200 characters without line ends are wanted"));
        }
        let amount = self.amount.ok_or_else(|| missing("amount"))?;
        if amount.value <= 0 {
            return Err(Problem::invalid_field("amount.value", "must be a positive number of minor units"));
        }
        let valid_until = self.valid_until.ok_or_else(|| missing("valid_until"))?;
        let valid_until = bills::whole_second(valid_until)
            .ok_or_else(|| Problem::invalid_field("valid_until", "is not a date of this century"))?;
        Ok(BillTerms { code, service: service.to_owned(), applicant, amount, valid_until })
    }
}
