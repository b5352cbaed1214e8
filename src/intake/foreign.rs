//! The intake's readers of foreign bytes without a socket around them, for the fuzz targets.
//!
//! The same functions that the handlers call, and what they made of their input, in types that everybody has.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    auth, bills::BillBody, cards::SealedCard, challenge::ChallengeBody, extract, idempotency, limits,
    payments::PaymentBody, problem::Problem, receipt, telemetry,
};
use crate::store::request::validate;

/// What was read, or the problem document that is answered.
pub type Read<T> = Result<T, Value>;

/// What a request's headers say.
#[derive(Debug)]
pub struct Headers {
    /// `Idempotency-Key`.
    pub idempotency_key: Read<String>,
    /// The token of `Authorization`.
    pub bearer: Read<Option<String>>,
    /// The media type that `Accept` wants of a receipt.
    pub receipt: Read<&'static str>,
    /// The proxy's word in `X-Forwarded-For`, and the network that it counts for.
    pub forwarded_for: Option<(IpAddr, IpAddr)>,
    /// The name that the request bears in logs and in its answer.
    pub request_id: String,
    /// Its place in a trace.
    pub traceparent: String,
    /// Whether `Content-Type` says JSON.
    pub is_json: bool,
}

/// Reads header lines. Those that the HTTP server would refuse are left out, as it never hands them on.
pub fn headers(lines: &[(&[u8], &[u8])]) -> Headers {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    Headers {
        idempotency_key: idempotency::key(&headers).map_err(document),
        bearer: auth::bearer(&headers).map(|token| token.map(str::to_owned)).map_err(document),
        receipt: receipt::media_type(&headers).map_err(document),
        forwarded_for: limits::forwarded_for(&headers, &limits::Proxies::default())
            .map(|address| (address, limits::network_of(address))),
        request_id: telemetry::request_id(&headers),
        traceparent: telemetry::traceparent(&headers),
        is_json: extract::is_json(&headers),
    }
}

/// Reads the body of `POST /v1/payments`, with all checks that need neither database nor key.
pub fn payment(body: &[u8]) -> Read<Value> {
    let body: PaymentBody = extract::parse(body).map_err(document)?;
    validate(body.amount, &body.payer, &body.locale).map_err(|invalid| document(invalid.into()))?;
    let card = match (body.card.sealed, body.card.id) {
        (Some(sealed), None) => json!({ "sealed": sealed }),
        (None, Some(id)) => json!({ "id": id }),
        (sealed, id) => json!({ "sealed": sealed, "id": id }),
    };
    Ok(json!({
        "bill": body.bill, "amount": body.amount, "card": card, "payer": body.payer, "locale": body.locale,
        "terms": body.terms,
    }))
}

/// Reads the body of `POST /v1/cards`.
pub fn card(body: &[u8]) -> Read<Value> {
    let body: SealedCard = extract::parse(body).map_err(document)?;
    Ok(json!({ "sealed": body.sealed }))
}

/// Reads the body of `POST /v1/payments/{id}/challenge`.
pub fn challenge(body: &[u8]) -> Read<Vec<(String, String)>> {
    let body: ChallengeBody = extract::parse(body).map_err(document)?;
    Ok(body.response.into_pairs())
}

/// Reads the body of `PUT /v1/bills/{code}`: when it is to be valid until, in whole seconds since 1970.
pub fn bill(body: &[u8]) -> Read<Option<i64>> {
    let body: BillBody = extract::parse(body).map_err(document)?;
    Ok(body.valid_until.and_then(crate::store::bills::whole_second).map(|at| at.unix_timestamp()))
}

fn document(problem: Problem) -> Value {
    serde_json::to_value(problem).unwrap_or_default()
}
