//! Headers of requests to the intake.

use std::net::IpAddr;

use serde_json::Value;
use tolom::{contracts::mask::is_traceparent, intake::foreign};

/// Each line is a header. What is taken is within its bounds, and what is refused is refused with a problem document.
pub fn target(bytes: &[u8]) {
    let lines: Vec<(&[u8], &[u8])> = bytes.split(|byte| *byte == b'\n').map(name_and_value).collect();
    let headers = foreign::headers(&lines);
    match &headers.idempotency_key {
        Ok(key) => assert_eq!(key.len(), 64, "a digest and never what was sent: {key}"),
        Err(problem) => is_refusal(problem, 400),
    }
    match &headers.bearer {
        Ok(token) => assert!(token.as_ref().is_none_or(|token| (1..=256).contains(&token.len()))),
        Err(problem) => is_refusal(problem, 401),
    }
    match headers.receipt {
        Ok(media_type) => assert!(["text/html", "application/pdf", "application/json"].contains(&media_type)),
        Err(problem) => is_refusal(&problem, 406),
    }
    if let Some((address, network)) = headers.forwarded_for {
        match (address, network) {
            (IpAddr::V4(address), network) => assert_eq!(network, IpAddr::V4(address)),
            (IpAddr::V6(_), IpAddr::V4(_)) => {}
            (IpAddr::V6(_), IpAddr::V6(network)) => assert_eq!(u128::from(network) << 64, 0),
        }
    }
    assert!(is_traceparent(headers.traceparent.as_bytes()), "{}", headers.traceparent);
    assert!((1..=64).contains(&headers.request_id.len()));
    if uuid::Uuid::try_parse(&headers.request_id).is_err() {
        super::tells_no_number(&headers.request_id);
    }
    let again = foreign::headers(&[
        (b"x-request-id", headers.request_id.as_bytes()),
        (b"traceparent", headers.traceparent.as_bytes()),
    ]);
    assert_eq!((again.request_id, again.traceparent), (headers.request_id, headers.traceparent));
}

fn name_and_value(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii())
}

fn is_refusal(problem: &Value, status: u64) {
    assert_eq!(problem["status"].as_u64(), Some(status));
    super::tells_no_number(&problem.to_string());
}
