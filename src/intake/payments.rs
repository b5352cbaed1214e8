//! Submitting a payment, and reading one.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Intake,
    auth::Caller,
    extract::{ApiJson, PaymentId},
    idempotency::{IdempotencyKey, fingerprint},
    limits::{Admitted, ClientAddress, Device},
    problem::Problem,
    telemetry::Context,
    wire::{Amount, PaymentAccepted, PaymentView},
};
use crate::{
    clock::new_secret_id,
    config::CaptureMode,
    contracts::Payer,
    payment::{Money, PaymentCode, PublicStatus, Status},
    store::{
        accept::{Acceptance, CardSource, Idempotency, NewPayment, Refusal},
        payments,
        request::validate,
    },
};

/// A payment's request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PaymentBody {
    /// The bill's payment code.
    #[schema(value_type = String, pattern = "^[0-9]{6,20}$", example = "1100000001")]
    pub(super) bill: PaymentCode,
    /// Must equal the bill's amount.
    #[schema(value_type = Amount)]
    pub(super) amount: Money,
    pub(super) card: CardBody,
    pub(super) payer: Payer,
    /// The language of the receipt: `ky`, `ru` or `en`.
    pub(super) locale: String,
    /// The accepted version of the terms.
    pub(super) terms: String,
}

/// The card: either sealed, or the id of one that was stored before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CardBody {
    /// Compact JWE; see `POST /v1/cards`.
    #[schema(max_length = 4096)]
    pub(super) sealed: Option<String>,
    /// From `POST /v1/cards`.
    pub(super) id: Option<Uuid>,
}

/// Submit a payment. 202 means that it is kept and will come to an end; follow it at `Location`.
#[utoipa::path(post, path = "/v1/payments", tag = "payments", request_body = PaymentBody, security((), ("token" = [])),
    params(("Idempotency-Key" = String, Header, description = "A new one for each payment, the same one for its repetitions; at most 255 printable ASCII characters")),
    responses(
        (status = 202, body = PaymentAccepted, headers(
            ("Location" = String, description = "The payment"),
            ("Idempotency-Replayed" = String, description = "`true` on a repetition")),
            description = "Accepted now, or before under the same key"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "`malformed-json`, `idempotency-key-missing`, `idempotency-key-invalid`"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "`unauthorized`: an unknown token"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`bill-unknown`"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`bill-paid`, `bill-cancelled`, `bill-expired`, `payment-in-progress`; `request-in-flight` with Retry-After"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "`too-large`"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`invalid-field`, `terms-not-in-force`, `amount-differs`, `currency-differs`, `card-malformed`, `card-expired`, `card-key-unknown`, `card-of-other-bill`, `card-unknown`, `card-used`, `idempotency-key-reused`"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "`too-many-attempts`: of this bill, browser or address too many were declined; `rate-limited`: too many unknown codes from this address or under this token; see Retry-After"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`, `overloaded`; repeat with the same key after Retry-After"),
    ))]
#[expect(clippy::too_many_arguments, reason = "each is a part of the request, taken apart by axum")]
pub(super) async fn submit(
    State(intake): State<Intake>,
    _: Admitted,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    ClientAddress(address): ClientAddress,
    Device(device): Device,
    Extension(context): Extension<Context>,
    ApiJson(body): ApiJson<PaymentBody>,
) -> Result<Response, Problem> {
    caller.may_pay()?;
    let mut request = intake.new_payment(body, key, caller.id(), context.traceparent)?;
    request.origin = intake.origin(&caller, address, device).await?;
    let (id, answer) = (request.id, request.idempotency.as_ref().map(|it| it.answer.clone()).unwrap_or_default());
    match intake.batcher.submit(request).await? {
        Acceptance::New => Ok(accepted(id, answer, false)),
        Acceptance::Replayed { payment, answer } => Ok(accepted(payment, answer, true)),
        Acceptance::Refused(refusal) => Err(intake.tell_refusal(caller.asker(address), refusal)),
    }
}

fn accepted(id: Uuid, body: String, replayed: bool) -> Response {
    let mut response = (
        StatusCode::ACCEPTED,
        [(header::CONTENT_TYPE, "application/json".to_owned()), (header::LOCATION, format!("/v1/payments/{id}"))],
        body,
    )
        .into_response();
    if replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

impl Intake {
    /// Checks everything that will always be so; what may have changed since it came first is judged later.
    fn new_payment(
        &self,
        body: PaymentBody,
        key: String,
        caller: &str,
        traceparent: String,
    ) -> Result<NewPayment, Problem> {
        validate(body.amount, &body.payer, &body.locale)?;
        let id = new_secret_id();
        let card = match (body.card.sealed, body.card.id) {
            (Some(jwe), None) => {
                let card = self.sealed(jwe, "card.sealed")?;
                if card.bill != body.bill {
                    return Err(Refusal::CardOfOtherBill.into());
                }
                CardSource::Inline(card)
            }
            (None, Some(id)) => CardSource::Stored(id),
            _ => return Err(Problem::invalid_field("card", "either `sealed` or `id` is wanted")),
        };
        let answer = PaymentAccepted {
            id,
            status: Status::Accepted,
            public_status: PublicStatus::Processing,
            bill: body.bill.to_string(),
            amount: body.amount,
            accepted_at: self.clock.now(),
        };
        let answer = serde_json::to_string(&answer).map_err(|_| Problem::internal())?;
        let fingerprint = fingerprint(&body.bill, body.amount, &body.payer, &body.terms);
        Ok(NewPayment {
            id,
            bill: body.bill,
            amount: body.amount,
            card,
            payer: body.payer,
            locale: body.locale,
            terms: body.terms,
            acquirer: self.config.acquirer.name.clone(),
            capture_at_once: self.config.acquirer.capture == CaptureMode::AtAuthorization,
            caller: caller.to_owned(),
            idempotency: Some(Idempotency { key, fingerprint, answer }),
            event: None,
            origin: None,
            traceparent: Some(traceparent),
        })
    }
}

/// Read a payment. Its id, which nobody can guess, is the permission.
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "payments", params(("id" = Uuid, Path, description = "The payment's id")),
    responses(
        (status = 200, body = PaymentView, description = "The payment"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`payment-unknown`"),
    ))]
pub(super) async fn get_payment(
    State(intake): State<Intake>,
    PaymentId(id): PaymentId,
) -> Result<Json<PaymentView>, Problem> {
    let found = payments::read_with_timeline(&intake.pool, id).await?;
    let (payment, steps) = found.ok_or_else(Problem::payment_unknown)?;
    Ok(Json(PaymentView::new(payment, steps)))
}
