//! Errors as problem details (RFC 9457). Nothing internal leaves in one: the cause is logged, once, here.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};

use crate::store::{StoreError, accept::Refusal, request::Invalid};

/// What every problem's `type` starts with; the rest names it.
pub const PROBLEM_BASE: &str = "https://tolom.example/problems/";

/// After this many seconds a request that was refused for now is worth repeating.
const RETRY_AFTER_S: u32 = 2;
/// The same, where the cause does not pass in a moment.
const RETRY_LATER_S: u32 = 30;

/// A problem (RFC 9457), as `application/problem+json`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Problem {
    /// Names the kind of problem, for example `https://tolom.example/problems/bill-paid`.
    #[serde(rename = "type", serialize_with = "as_type")]
    #[schema(value_type = String, format = "uri")]
    name: &'static str,
    /// The same for people; constant for a `type`.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// The member at fault, for example `payer.email`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn as_type<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{PROBLEM_BASE}{name}"))
}

/// The name of the problem that a response tells, for what stands around the handlers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named(pub(super) &'static str);

impl Problem {
    fn new(name: &'static str, status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { name, title, status: status.as_u16(), detail: detail.into(), field: None, headers: Vec::new() }
    }

    fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn header(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        self.headers.extend(value.try_into().ok().map(|value| (name, value)));
        self
    }

    fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, seconds.to_string())
    }

    pub(super) fn malformed_json() -> Self {
        Self::new("malformed-json", StatusCode::BAD_REQUEST, "Malformed JSON", "the body is not JSON (RFC 8259)")
    }

    pub(super) fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = field.into();
        let problem = Self::new("invalid-field", StatusCode::UNPROCESSABLE_ENTITY, "Invalid field", detail);
        if field.is_empty() { problem } else { problem.field(field) }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have {limit} bytes");
        Self::new("too-large", StatusCode::PAYLOAD_TOO_LARGE, "Body too large", detail)
            .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn not_json() -> Self {
        let detail = "send application/json";
        Self::new("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail)
    }

    pub(super) fn unfinished_body() -> Self {
        Self::new("unfinished-body", StatusCode::BAD_REQUEST, "Unfinished body", "the body ended before its time")
    }

    pub(super) fn slow_body(limit_s: u64) -> Self {
        let detail = format!("the body has to arrive within {limit_s} s");
        Self::new("slow-body", StatusCode::REQUEST_TIMEOUT, "Body too slow", detail)
            .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn key_missing() -> Self {
        let detail = "send an Idempotency-Key header: a new one for each payment, the same one for its repetitions";
        Self::new("idempotency-key-missing", StatusCode::BAD_REQUEST, "Idempotency-Key missing", detail)
    }

    pub(super) fn key_invalid() -> Self {
        let detail = "one Idempotency-Key of 1 to 255 printable ASCII characters is wanted";
        Self::new("idempotency-key-invalid", StatusCode::BAD_REQUEST, "Idempotency-Key invalid", detail)
    }

    pub(super) fn bill_unknown() -> Self {
        Refusal::BillUnknown.into()
    }

    pub(super) fn payment_unknown() -> Self {
        Self::new("payment-unknown", StatusCode::NOT_FOUND, "No such payment", "there is no payment with this id")
    }

    pub(super) fn receipt_unavailable() -> Self {
        let detail = "there is no receipt of this payment: it is not paid, or not yet";
        Self::new("receipt-unavailable", StatusCode::NOT_FOUND, "No receipt", detail)
    }

    pub(super) fn not_acceptable(offered: &str) -> Self {
        let detail = format!("offered are {offered}");
        Self::new("not-acceptable", StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail)
    }

    pub(super) fn challenge_over() -> Self {
        let detail = "the bank does not wait for this confirmation any more; look at the payment's status";
        Self::new("challenge-over", StatusCode::CONFLICT, "No confirmation is awaited", detail)
    }

    pub(super) fn bill_being_paid() -> Self {
        let detail = "a payment of this bill is on its way; it can be changed once that has ended";
        Self::new("payment-in-progress", StatusCode::CONFLICT, "Payment in progress", detail)
    }

    pub(super) fn unauthorized(challenge: &'static str) -> Self {
        let detail = "a bearer token of a known client is wanted";
        Self::new("unauthorized", StatusCode::UNAUTHORIZED, "Unauthorized", detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub(super) fn forbidden(detail: &'static str) -> Self {
        let challenge = "Bearer realm=\"tolom\", error=\"insufficient_scope\"";
        Self::new("forbidden", StatusCode::FORBIDDEN, "Forbidden", detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub(super) fn rate_limited(wait_s: u32) -> Self {
        let detail = "too many requests";
        Self::new("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail).retry_after(wait_s)
    }

    pub(super) fn overloaded() -> Self {
        let detail = "too much to do at the moment; nothing was done";
        Self::new("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Overloaded", detail).retry_after(RETRY_AFTER_S)
    }

    /// The same problem, worth repeating only after a while.
    pub(super) fn after_a_while(mut self) -> Self {
        self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
        self.retry_after(RETRY_LATER_S)
    }

    pub(super) fn unavailable() -> Self {
        Refusal::Unavailable.into()
    }

    pub(super) fn no_sealing_key() -> Self {
        let detail = "no card can be sealed at the moment";
        Self::new("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not available", detail).retry_after(RETRY_AFTER_S)
    }

    pub(super) fn card_malformed(detail: impl Into<String>, field: &'static str) -> Self {
        let title = "Sealed card malformed";
        Self::new("card-malformed", StatusCode::UNPROCESSABLE_ENTITY, title, detail).field(field)
    }

    pub(super) fn no_such_page() -> Self {
        Self::new("not-found", StatusCode::NOT_FOUND, "Not found", "there is nothing at this address")
    }

    pub(super) fn cross_site() -> Self {
        let detail = "a page of another site sent this; only pages of this site may";
        Self::new("cross-site", StatusCode::FORBIDDEN, "Cross-site request", detail)
    }

    pub(super) fn internal() -> Self {
        let detail = "something is wrong here; it has been logged";
        Self::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, title) = match refusal {
            Refusal::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "Idempotency-Key reused"),
            Refusal::InFlight => (StatusCode::CONFLICT, "Request in flight"),
            Refusal::BillUnknown => (StatusCode::NOT_FOUND, "No such bill"),
            Refusal::BillPaid => (StatusCode::CONFLICT, "Bill paid"),
            Refusal::BillCancelled => (StatusCode::CONFLICT, "Bill cancelled"),
            Refusal::BillExpired => (StatusCode::CONFLICT, "Bill expired"),
            Refusal::PaymentLive => (StatusCode::CONFLICT, "Payment in progress"),
            Refusal::TermsNotInForce => (StatusCode::UNPROCESSABLE_ENTITY, "Terms not in force"),
            Refusal::AmountDiffers => (StatusCode::UNPROCESSABLE_ENTITY, "Amount differs"),
            Refusal::CurrencyDiffers => (StatusCode::UNPROCESSABLE_ENTITY, "Currency differs"),
            Refusal::CardKeyUnknown => (StatusCode::UNPROCESSABLE_ENTITY, "Sealing key not in use"),
            Refusal::CardUnknown => (StatusCode::UNPROCESSABLE_ENTITY, "No such sealed card"),
            Refusal::CardExpired => (StatusCode::UNPROCESSABLE_ENTITY, "Sealed card expired"),
            Refusal::CardOfOtherBill => (StatusCode::UNPROCESSABLE_ENTITY, "Sealed card of another bill"),
            Refusal::CardUsed => (StatusCode::UNPROCESSABLE_ENTITY, "Sealed card used"),
            Refusal::TooManyAttempts { .. } => (StatusCode::TOO_MANY_REQUESTS, "Too many attempts"),
            Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not available"),
            Refusal::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        };
        let problem = Self::new(refusal.problem(), status, title, refusal.detail());
        let problem = match refusal {
            Refusal::InFlight => problem.retry_after(1),
            Refusal::TooManyAttempts { wait_s, .. } => problem.retry_after(wait_s),
            Refusal::Unavailable => problem.retry_after(RETRY_AFTER_S),
            _ => problem,
        };
        match refusal.field() {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_field(invalid.field, invalid.detail)
    }
}

impl From<StoreError> for Problem {
    /// The database is away (503, nothing was done), or it refuses what this build asks (500).
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database is not available");
            return Self::unavailable();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
        Self::internal()
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (headers, name) = (std::mem::take(&mut self.headers), self.name);
        let mut response = (status, Json(self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response.headers_mut().extend(headers);
        response.extensions_mut().insert(Named(name));
        response
    }
}

/// No route has this path.
pub(super) async fn no_such_route() -> Problem {
    Problem::no_such_page()
}

/// The route does not know this method; axum adds `Allow`.
pub(super) async fn no_such_method() -> Problem {
    let detail = "this address does not take this method; see the Allow header";
    Problem::new("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
}

/// A handler panicked: the request fails, the process goes on. The panic hook has logged it.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}
