//! Each request: its names, its place in a trace, its metrics, one line in the log. Never a body, a query or a token.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;
use uuid::Uuid;

use crate::contracts::mask::mask_text;

/// What a handler may want to know of its request.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// W3C Trace Context, from the caller or made here.
    pub(super) traceparent: String,
}

/// Names, measures and logs every request, and keeps answers out of caches unless a handler says otherwise.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let request_id = request_id(request.headers());
    let traceparent = traceparent(request.headers());
    let span = tracing::info_span!("http", http.route = route, http.method = method, request_id, traceparent);
    request.extensions_mut().insert(Context { traceparent });
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed = started.elapsed();
    let status = response.status();
    let labels = [("route", route.clone()), ("method", method.to_owned())];
    metrics::histogram!("tolom_http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
    let [route, method] = labels;
    let labels = [route, method, ("status", status.as_u16().to_string())];
    metrics::counter!("tolom_http_requests_total", &labels).increment(1);
    span.in_scope(|| {
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        // What is well is in the metrics; a line for each would be most of what a busy intake writes.
        if status.is_client_error() || status.is_server_error() {
            tracing::info!(http.status = status.as_u16(), duration_ms, "answered");
        } else {
            tracing::debug!(http.status = status.as_u16(), duration_ms, "answered");
        }
    });
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", value);
    }
    response
}

/// A method from outside may be any text; a label may not.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

/// The caller's name for the request, if it may stand in a log, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let fits = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !mask_text((*text).to_owned()).1.any()
    };
    given.filter(fits).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// The caller's `traceparent` if it is one of version 00 (W3C Trace Context 3.2), else a new one.
pub(super) fn traceparent(headers: &HeaderMap) -> String {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
    given.filter(|text| is_traceparent(text)).map_or_else(new_traceparent, str::to_owned)
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, parent, flags] if hex(trace, 32) && hex(parent, 16) && hex(flags, 2)
        && trace.bytes().any(|byte| byte != b'0') && parent.bytes().any(|byte| byte != b'0'))
}

fn new_traceparent() -> String {
    let (trace, parent) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    format!("00-{trace}-{}-01", &parent[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_taken_for_one() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent(&new_traceparent()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
