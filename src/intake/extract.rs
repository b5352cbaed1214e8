//! What handlers take from a request, refused with a problem that names the member at fault.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Intake, problem::Problem};
use crate::{contracts::shown, payment::PaymentCode};

/// From the end of the headers to the end of the body. Who sends a byte now and then would hold a place for nothing.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A JSON body of at most `intake.max_body_bytes`.
pub(super) struct ApiJson<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Intake> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, intake: &Intake) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::not_json());
        }
        let body = read_body(request, intake.config.intake.max_body_bytes).await?;
        parse(&body).map(Self)
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Gives a body the time that it has to arrive.
pub(super) async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(BODY_WITHIN, reading).await.map_err(|_| Problem::slow_body(BODY_WITHIN.as_secs()))
}

pub(super) async fn read_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(Problem::too_large(limit));
    }
    match in_time(http_body_util::Limited::new(request.into_body(), limit).collect()).await? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::too_large(limit)),
        Err(_) => Err(Problem::unfinished_body()),
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        use serde_json::error::Category;
        match error.inner().classify() {
            Category::Data => describe(&error),
            Category::Syntax | Category::Eof | Category::Io => Problem::malformed_json(),
        }
    })?;
    reader.end().map_err(|_| Problem::malformed_json())?;
    Ok(value)
}

/// Names the member and what was expected; the value itself is not repeated, it may be a card's.
fn describe(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let message = error.inner().to_string();
    // The last one here and below: what was found may hold these words.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let path = error.path().to_string();
    // The path of an unknown member ends with its name, and that is foreign.
    let field = if path == "." { String::new() } else { shown(&path) };
    // Of these two the reader's path names only the object around.
    for (start, what) in [("missing field `", "is missing"), ("duplicate field `", "is there twice")] {
        if let Some(name) = message.strip_prefix(start).and_then(|rest| rest.split('`').next()) {
            let field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            return Problem::invalid_field(field, what);
        }
    }
    let detail = match message.rsplit_once(", expected ") {
        Some((what, _)) if what.starts_with("unknown field") => "is not known here".to_owned(),
        Some((_, expected)) => format!("{expected} is expected"),
        None if message.starts_with("unknown field") => "is not known here".to_owned(),
        None => "has a value that is not allowed".to_owned(),
    };
    Problem::invalid_field(field, detail)
}

/// A part of the path by its name in the route.
async fn param(parts: &mut Parts, intake: &Intake, wanted: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, intake).await.ok()?;
    params.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
}

/// The payment code of the path; what is no code names no bill.
pub(super) struct BillCode(pub(super) PaymentCode);

impl FromRequestParts<Intake> for BillCode {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        param(parts, intake, "code")
            .await
            .and_then(|text| text.parse().ok())
            .map(Self)
            .ok_or_else(Problem::bill_unknown)
    }
}

/// The payment's id of the path; what is no id names no payment.
pub(super) struct PaymentId(pub(super) Uuid);

impl FromRequestParts<Intake> for PaymentId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        param(parts, intake, "id")
            .await
            .and_then(|text| text.parse().ok())
            .map(Self)
            .ok_or_else(Problem::payment_unknown)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::payment::Money;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Body {
        amount: Money,
        bill: PaymentCode,
    }

    fn problem(text: &str) -> serde_json::Value {
        serde_json::to_value(parse::<Body>(text.as_bytes()).unwrap_err()).unwrap()
    }

    #[test]
    fn a_problem_names_the_member_and_never_repeats_the_value() {
        for (text, status, field) in [
            ("{", 400, None),
            ("", 400, None),
            ("{\"bill\": tru}", 400, None),
            ("[]", 422, None),
            ("{\"bill\": 4111111111111111}", 422, Some("bill")),
            ("{\"bill\": \"4111-1111\"}", 422, Some("bill")),
            ("{\"amount\": {\"value\": \"4111111111111111\"}}", 422, Some("amount.value")),
            ("{\"amount\": {\"value\": 1}}", 422, Some("amount.currency")),
            ("{\"amount\": {\"value\": 1, \"currency\": \"4111111111\"}}", 422, Some("amount.currency")),
            ("{\"amount\": {\"value\": 1, \"currency\": \"KGS\", \"tip\": 4111}}", 422, Some("amount.tip")),
            ("{\"amount\": {\"value\": 1, \"currency\": \"KGS\"}}", 422, Some("bill")),
            ("{\"4111111111111111\": 1}", 422, Some("****************")),
            ("{\"amount\": \", expected 4111 at line \"}", 422, Some("amount")),
            ("{\"bill\": \"110000\", \"bill\": \"110000\"}", 422, Some("bill")),
            ("{\"amount\":{\"value\":1,\"currency\":\"KGS\"},\"bill\":\"110000\"} x", 400, None),
        ] {
            let problem = problem(text);
            assert_eq!((problem["status"].as_u64(), problem["field"].as_str()), (Some(status), field), "{text}");
            assert!(!problem.to_string().contains("4111"), "{problem}");
        }
    }
}
