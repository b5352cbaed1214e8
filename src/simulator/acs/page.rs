//! What the bank's page looks like. It works without a script, and loads nothing.

use std::sync::LazyLock;

use askama::Template;
use axum::{
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use time::macros::format_description;
use url::Url;

use super::super::{
    cards::ONE_TIME_CODE,
    confirmation::{Asking, Said, Verdict},
};

const STYLE: &str = include_str!("acs.css");
/// Counts the time down, and hands the form in when it is over.
const COUNT: &str = include_str!("count.js");
/// Goes back without a press of the button.
const BACK: &str = "document.forms[0].submit()";

/// A form field's name and value.
type Field<'a> = (&'static str, &'a str);

/// The page that asks for the code.
pub(super) struct Ask<'a> {
    pub(super) reference: &'a str,
    pub(super) merchant: &'a str,
    pub(super) asking: &'a Asking,
    pub(super) tries_left: u8,
    pub(super) said: Said,
    /// How long the code is waited for.
    pub(super) seconds: i64,
    /// The shop's request, which our own form carries on.
    pub(super) request: Field<'a>,
    pub(super) session: Option<Field<'a>>,
}

/// The page that sends the payer back.
pub(super) struct Return<'a> {
    pub(super) verdict: Verdict,
    pub(super) answer: Field<'a>,
    pub(super) session: Option<Field<'a>>,
}

#[derive(Template)]
#[template(path = "ask.html", config = "src/simulator/acs/askama.toml")]
struct AskPage<'a> {
    ask: &'a Ask<'a>,
    term_url: &'a str,
    code: &'a str,
    until: String,
    left: String,
    phone_ends: &'a str,
}

#[derive(Template)]
#[template(path = "return.html", config = "src/simulator/acs/askama.toml")]
struct ReturnPage<'a> {
    title: &'a str,
    sentence: &'a str,
    term_url: &'a str,
    page: &'a Return<'a>,
    at_once: bool,
}

#[derive(Template)]
#[template(path = "wrong.html", config = "src/simulator/acs/askama.toml")]
struct WrongPage<'a> {
    sentence: &'a str,
}

impl Ask<'_> {
    /// The page; `back` is where its answer will lead.
    pub(super) fn page(&self, back: &Url, term_url: &str) -> Response {
        let until = self.asking.expires_at.format(format_description!("[hour]:[minute]:[second] UTC"));
        let four = &self.asking.last_four;
        let page = AskPage {
            ask: self,
            term_url,
            code: ONE_TIME_CODE,
            until: until.unwrap_or_default(),
            left: format!("{}:{:02}", self.seconds / 60, self.seconds % 60),
            // The bank knows its own client's phone. This one is made up.
            phone_ends: four.get(four.len().saturating_sub(2)..).unwrap_or_default(),
        };
        answer(StatusCode::OK, &page, COUNT, &format!("'self' {}", origin(back)))
    }
}

impl Return<'_> {
    /// The page; `back` is where it leads. What the payer did is told on the shop's page, what the bank did is told here.
    pub(super) fn page(&self, back: &Url, term_url: &str) -> Response {
        let (title, sentence) = match self.verdict {
            Verdict::Confirmed => ("Confirmed", "Thank you. You are going back to the shop."),
            Verdict::Cancelled => ("Cancelled", "You did not confirm the payment. You are going back to the shop."),
            Verdict::WrongCodes => {
                ("Not confirmed", "The code was wrong three times. The bank does not confirm this payment.")
            }
            Verdict::TimedOut => {
                ("Time is over", "The code was not entered in time. The bank does not confirm this payment.")
            }
        };
        let at_once = matches!(self.verdict, Verdict::Confirmed | Verdict::Cancelled);
        let page = ReturnPage { title, sentence, term_url, page: self, at_once };
        answer(StatusCode::OK, &page, BACK, &origin(back))
    }
}

/// What was asked for makes no sense, and there is no way back that could be trusted.
pub(super) fn wrong(status: StatusCode, sentence: &str) -> Response {
    answer(status, &WrongPage { sentence }, BACK, "'none'")
}

/// Scheme, host and port, for a policy. Nothing in it could end a directive.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// The page with its policy: this style, this script, this way back, and nothing else.
fn answer(status: StatusCode, template: &impl Template, script: &str, forms: &str) -> Response {
    static STYLE_HASH: LazyLock<String> = LazyLock::new(|| hash(STYLE));
    let policy = format!(
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; img-src data:; style-src {}; script-src {}; form-action {forms}",
        *STYLE_HASH,
        hash(script),
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=()"),
    ];
    match template.render() {
        Ok(html) => (status, headers, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "the bank's page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
