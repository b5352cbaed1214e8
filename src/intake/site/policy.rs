//! What browsers are told about our answers, and which requests of theirs are ours.

use std::fmt::Write as _;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use url::Url;

use super::super::problem::Problem;

/// For everything, unless the answer says more: nothing is loaded, nothing frames us, no address of ours leaks.
const EVERYWHERE: [(HeaderName, &str); 9] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    // Two years. Browsers heed it over TLS alone (RFC 6797 8.1).
    (header::STRICT_TRANSPORT_SECURITY, "max-age=63072000"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), publickey-credentials-get=(), usb=()",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Scripts without an integrity attribute are refused by browsers that know this.
    (HeaderName::from_static("integrity-policy"), "blocked-destinations=(script)"),
];

/// Puts the headers of safety on every answer that has not its own.
pub(in crate::intake) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in EVERYWHERE {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Where the forms of a page may lead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Forms<'a> {
    /// There are none.
    Nowhere,
    /// To us.
    Here,
    /// To the bank that asks for the payer's confirmation.
    Bank(&'a str),
}

/// The content security policy of a page (CSP 3): scripts and styles are files of ours, nothing stands inline.
pub(super) fn of_page(script: bool, forms: Forms<'_>) -> HeaderValue {
    let mut policy =
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'self'; img-src 'self'".to_owned();
    if script {
        policy.push_str("; script-src 'self'; connect-src 'self'");
    }
    let _ = match forms {
        Forms::Nowhere => write!(policy, "; form-action 'none'"),
        Forms::Here => write!(policy, "; form-action 'self'"),
        // Browsers hold redirects after a form to this, too (CSP 3, 6.4.1): a bank may answer with one to another origin of
        // its own, or straight back to us.
        Forms::Bank(url) => match origin(url) {
            Some(bank) if bank.starts_with("https:") => write!(policy, "; form-action 'self' https:"),
            // A simulator.
            Some(bank) => write!(policy, "; form-action 'self' https: {bank}"),
            None => write!(policy, "; form-action 'none'"),
        },
    };
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The policy of a document that carries one style of its own: allowed by its hash.
pub(in crate::intake) fn styled(style: &str) -> HeaderValue {
    let hash = STANDARD.encode(Sha256::digest(style));
    let policy = format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-{hash}'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Scheme, host and port of a web address.
fn origin(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(url.origin().ascii_serialization())
}

/// Refuses what another site's page makes a browser send (by `Sec-Fetch-Site`, else `Origin`). Programs send neither.
///
/// The bank's return is exempt: it *is* a form post of another site, and there is nothing to forge. It carries no
/// cookie and acts for nobody; who knows the payment's id may hand in the bank's answer, and the bank vouches for it.
pub(in crate::intake) fn same_site(public_url: &str) -> CsrfLayer<fn(ProtectionError) -> Response> {
    let refused: fn(ProtectionError) -> Response = |_| Problem::cross_site().into_response();
    let layer = CsrfLayer::new()
        .with_insecure_bypass(|_, uri| super::payment::is_return(uri.path()))
        .with_rejection_response(refused);
    // A proxy may have changed `Host`.
    let trusting = origin(public_url).and_then(|site| layer.clone().add_trusted_origin(site).ok());
    trusting.unwrap_or(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banks_form_may_lead_to_wherever_the_bank_redirects_it_by_tls_and_to_us() {
        let policy = |url| of_page(true, Forms::Bank(url)).to_str().unwrap().to_owned();
        assert!(policy("https://acs.bank.example:8443/3ds?x=1").ends_with("; form-action 'self' https:"));
        assert!(policy("http://localhost:8090/acs/1").ends_with("; form-action 'self' https: http://localhost:8090"));
        for bad in ["javascript:alert(1)", "data:text/html,x", ""] {
            assert!(policy(bad).ends_with("; form-action 'none'"), "{bad}");
        }
        assert!(!policy("https://a.example; script-src *").contains("script-src *"));
        for (forms, rule) in [(Forms::Here, "'self'"), (Forms::Nowhere, "'none'")] {
            assert!(of_page(true, forms).to_str().unwrap().ends_with(&format!("; form-action {rule}")));
        }
    }
}
