//! A payment's receipt, in the form that the caller accepts.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{Intake, extract::PaymentId, problem::Problem};
use crate::{notify::Receipt, store::receipts::of_payment};

/// The forms of a receipt, the one that is sent when all are welcome first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Pdf,
    Json,
}

const FORMS: [(Form, &str); 3] =
    [(Form::Html, "text/html"), (Form::Pdf, "application/pdf"), (Form::Json, "application/json")];

/// The receipt, as HTML, PDF or JSON by `Accept`.
#[utoipa::path(get, path = "/v1/payments/{id}/receipt", tag = "payments", params(("id" = Uuid, Path, description = "The payment's id")),
    responses(
        (status = 200, description = "The receipt", content((String = "text/html"), (Vec<u8> = "application/pdf"), (Object = "application/json"))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`payment-unknown`, `receipt-unavailable`: not paid"),
        (status = 406, body = Problem, content_type = "application/problem+json", description = "`not-acceptable`"),
    ))]
pub(super) async fn receipt(
    State(intake): State<Intake>,
    PaymentId(id): PaymentId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = form(&headers)?;
    let row = of_payment(&intake.pool, id).await?;
    let receipt = Receipt::from(row.ok_or_else(Problem::receipt_unavailable)?);
    let (media_type, body) = render(&intake, &receipt, form)?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The receipt's bytes in a form, and their media type.
fn render(intake: &Intake, receipt: &Receipt, form: Form) -> Result<(&'static str, Vec<u8>), Problem> {
    let config = &intake.config;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        tracing::error!(error, payment.id = %receipt.payment, "a receipt cannot be written");
        Problem::internal()
    };
    let public_url = &config.intake.public_url;
    match form {
        Form::Html => {
            let html = receipt.html(&config.operator, public_url).map_err(|error| failed(&error))?;
            Ok(("text/html; charset=utf-8", html.into_bytes()))
        }
        Form::Pdf => {
            Ok(("application/pdf", receipt.pdf(&config.operator, public_url).map_err(|error| failed(&error))?))
        }
        Form::Json => Ok(("application/json", receipt.json(public_url).map_err(|error| failed(&error))?)),
    }
}

/// The form that is wanted, by all `Accept` headers together (RFC 9110 5.3).
fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept = accept.collect::<Vec<_>>().join(",");
    wanted(&accept).ok_or_else(|| Problem::not_acceptable("text/html, application/pdf, application/json"))
}

/// The media type of the form that is wanted.
pub(super) fn media_type(headers: &HeaderMap) -> Result<&'static str, Problem> {
    let form = form(headers)?;
    FORMS.iter().find(|(offered, _)| *offered == form).map(|(_, name)| *name).ok_or_else(Problem::internal)
}

/// The form an `Accept` header wants most (RFC 9110 12.5.1): by weight, then by our order.
fn wanted(accept: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(FORMS[0].0);
    }
    let ranges: Vec<(&str, u32)> = accept.split(',').filter_map(range).collect();
    let weight = |media_type: &str| {
        let group = media_type.split('/').next().unwrap_or_default();
        // The most specific range decides.
        let specificity = |range: &str| match range {
            range if range.eq_ignore_ascii_case(media_type) => 3,
            range if range.strip_suffix("/*").is_some_and(|start| start.eq_ignore_ascii_case(group)) => 2,
            "*/*" => 1,
            _ => 0,
        };
        let best =
            ranges.iter().filter(|(range, _)| specificity(range) > 0).max_by_key(|(range, _)| specificity(range));
        best.map_or(0, |(_, weight)| *weight)
    };
    let weighed = FORMS.iter().map(|(form, media_type)| (*form, weight(media_type))).filter(|(_, weight)| *weight > 0);
    // `max_by_key` takes the last of equals, so ours are turned round.
    weighed.rev().max_by_key(|(_, weight)| *weight).map(|(form, _)| form)
}

/// A media range with its weight in thousandths.
fn range(text: &str) -> Option<(&str, u32)> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|media_type| media_type.contains('/'))?;
    let quality = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
    let weight = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    // Between 0 and 1000, so it fits.
    Some((media_type, (weight.clamp(0.0, 1.0) * 1000.0) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_decides_the_form() {
        for (accept, form) in [
            ("", Some(Form::Html)),
            ("*/*", Some(Form::Html)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Form::Html)),
            ("application/pdf", Some(Form::Pdf)),
            ("Application/JSON", Some(Form::Json)),
            ("application/*", Some(Form::Pdf)),
            ("application/json;q=0.5, application/pdf;q=0.4", Some(Form::Json)),
            ("*/*, text/html;q=0", Some(Form::Pdf)),
            ("text/plain", None),
            ("application/json;q=0", None),
            (";;,,/", None),
        ] {
            assert_eq!(wanted(accept), form, "{accept}");
        }
    }
}
