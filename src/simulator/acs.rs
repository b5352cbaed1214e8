//! The bank's page of a challenge (3-D Secure access control server): asks for the one-time code and sends the payer
//! back with the answer.
//!
//! The shop's page posts the challenge's fields here together with `TermUrl`, the address to come back to, and
//! optionally `MD`, which is handed back as it came. The payer returns by a form post of `cres` (and `MD`).

use askama::Template;
use axum::{
    Form,
    extract::{Path, Query},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::cards::ONE_TIME_CODE;

/// What comes from the shop's form, and from our own.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Visit {
    #[serde(rename = "TermUrl")]
    term_url: String,
    #[serde(rename = "MD")]
    md: String,
    otp: Option<String>,
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Test bank</title></head>
<body><h1>Test bank</h1><p>Payment {{ reference }}. The code is in your messages (it is {{ code }}).</p>
<form method="post" action="/acs/{{ reference|urlencode_strict }}">
<input type="hidden" name="TermUrl" value="{{ visit.term_url }}"><input type="hidden" name="MD" value="{{ visit.md }}">
<label>One-time code <input name="otp" inputmode="numeric" autocomplete="one-time-code" required autofocus></label>
<button>Confirm</button></form></body></html>
"#
)]
struct Ask<'a> {
    reference: &'a str,
    code: &'a str,
    visit: &'a Visit,
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Test bank</title></head>
<body><form method="post" action="{{ visit.term_url }}">
<input type="hidden" name="cres" value="{{ cres }}"><input type="hidden" name="MD" value="{{ visit.md }}">
<button autofocus>Back to the shop</button></form><script>document.forms[0].submit()</script></body></html>
"#
)]
struct Return<'a> {
    visit: &'a Visit,
    cres: &'a str,
}

/// The two messages of EMV 3-D Secure that pass through the browser, reduced to what is used here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_type: String,
    acs_trans_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trans_status: Option<String>,
}

fn message(kind: &str, reference: &str, status: Option<&str>) -> String {
    let message = Message {
        message_type: kind.to_owned(),
        acs_trans_id: reference.to_owned(),
        trans_status: status.map(str::to_owned),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&message).unwrap_or_default())
}

/// The challenge request that the shop's form carries.
pub(super) fn creq(reference: &str) -> String {
    message("CReq", reference, None)
}

/// Whether the form that came back confirms the payment: the right one-time code itself, or our `cres` for this
/// authorization with status `Y`.
pub(super) fn confirms(original: &str, response: &[(String, String)]) -> bool {
    response.iter().any(|(name, value)| match name.as_str() {
        "otp" => value == ONE_TIME_CODE,
        "cres" => URL_SAFE_NO_PAD
            .decode(value.trim_end_matches('='))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Message>(&bytes).ok())
            .is_some_and(|cres| cres.acs_trans_id == original && cres.trans_status.as_deref() == Some("Y")),
        _ => false,
    })
}

/// The form, for a link.
pub(super) async fn show(Path(reference): Path<String>, Query(visit): Query<Visit>) -> Response {
    ask(&reference, &visit)
}

/// The form, when the shop sends the payer here; the way back, once there is a code.
pub(super) async fn act(Path(reference): Path<String>, Form(visit): Form<Visit>) -> Response {
    let Some(otp) = &visit.otp else {
        return ask(&reference, &visit);
    };
    if !visit.term_url.starts_with("https://") && !visit.term_url.starts_with("http://") {
        return (StatusCode::BAD_REQUEST, "TermUrl: a web address is expected\n").into_response();
    }
    let status = if otp.trim() == ONE_TIME_CODE { "Y" } else { "N" };
    page(&Return { visit: &visit, cres: &message("CRes", &reference, Some(status)) })
}

fn ask(reference: &str, visit: &Visit) -> Response {
    page(&Ask { reference, code: ONE_TIME_CODE, visit })
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "the bank's page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_code_or_our_own_answer_for_this_payment_confirms() {
        let confirms = |name: &str, value: &str| confirms("ref-1", &[(name.to_owned(), value.to_owned())]);
        assert!(confirms("otp", "123456"));
        assert!(!confirms("otp", "000000"));
        assert!(confirms("cres", &message("CRes", "ref-1", Some("Y"))));
        assert!(!confirms("cres", &message("CRes", "ref-1", Some("N"))));
        assert!(!confirms("cres", &message("CRes", "ref-2", Some("Y"))));
        assert!(!confirms("cres", "nonsense"));
        assert!(!confirms("MD", "123456"));
    }

    #[test]
    fn what_the_shop_sends_is_never_markup_on_the_banks_page() {
        let visit = Visit { term_url: "\"><script>".into(), md: "<b>".into(), otp: None };
        let html = Ask { reference: "<i>", code: "1", visit: &visit }.render().unwrap();
        assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("<script>"));
    }
}
