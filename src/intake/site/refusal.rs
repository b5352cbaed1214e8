//! Refusals as pages: whoever meets one in a browser is told in his language what it means and what to do.

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{
    super::{Intake, problem::Named},
    language,
    page::{Frame, answer},
    policy::Forms,
    texts::{Text, say, say_with},
};
use crate::notify::Locale;

/// What a refusal's page has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// There is no such bill.
    Bill,
    /// There is no such payment.
    Payment,
    /// There is no such receipt, or not yet.
    Receipt,
    /// There is no such page.
    Page,
    /// Too many requests.
    TooMany,
    /// Another site's page sent this.
    CrossSite,
    /// Too much to do, or the database is away.
    Away,
    /// The request itself is of no use.
    Bad,
    /// Something is wrong here.
    Broken,
}

impl Refused {
    fn of(name: &str, status: StatusCode) -> Self {
        match (name, status.as_u16()) {
            ("bill-unknown", _) => Self::Bill,
            ("payment-unknown", _) => Self::Payment,
            ("receipt-unavailable", _) => Self::Receipt,
            ("cross-site", _) => Self::CrossSite,
            (_, 404) => Self::Page,
            (_, 429) => Self::TooMany,
            (_, 503) => Self::Away,
            (_, 500..) => Self::Broken,
            _ => Self::Bad,
        }
    }

    const fn words(self) -> (Text, Text) {
        match self {
            Self::Bill => (Text::BillUnknownTitle, Text::BillUnknown),
            Self::Payment => (Text::PaymentUnknownTitle, Text::PaymentUnknown),
            Self::Receipt => (Text::ReceiptUnavailableTitle, Text::ReceiptUnavailable),
            Self::Page => (Text::PageUnknownTitle, Text::PageUnknown),
            Self::TooMany => (Text::TooManyTitle, Text::TooMany),
            Self::CrossSite => (Text::CrossSiteTitle, Text::CrossSite),
            Self::Away => (Text::AwayTitle, Text::Away),
            Self::Bad => (Text::BadTitle, Text::Bad),
            Self::Broken => (Text::BrokenTitle, Text::Broken),
        }
    }
}

#[derive(Template)]
#[template(path = "refusal.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    sentence: String,
    /// When to try again.
    wait: Option<String>,
    /// The same page once more, where that may help.
    again: Option<String>,
}

/// Turns a problem that answers a person into a page; programs, which use the API, get it as it is.
pub(in crate::intake) async fn for_people(State(intake): State<Intake>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let headers = request.headers().clone();
    let response = next.run(request).await;
    let Some(&Named(name)) = response.extensions().get::<Named>().filter(|_| !path.starts_with("/v1/")) else {
        return response;
    };
    let status = response.status();
    let lang = language::of_path(&path).unwrap_or_else(|| language::preferred(&headers));
    let retry = response.headers().get(header::RETRY_AFTER).cloned();
    let seconds = retry.as_ref().and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let refused = Refused::of(name, status);
    let (title, sentence) = refused.words();
    // What is no page of ours has no place in the other languages either, so the switch leads to their first page.
    let place = path.strip_prefix(&format!("/{lang}")).filter(|_| refused != Refused::Page).unwrap_or("/");
    let page = Page {
        frame: Frame::new(&intake, lang, place, say(lang, title)),
        sentence: say(lang, sentence),
        wait: seconds.map(|seconds| wait(lang, seconds)),
        again: matches!(refused, Refused::Away | Refused::TooMany | Refused::Broken)
            .then(|| place.trim_end_matches("/return").to_owned()),
    };
    match answer(&intake, &headers, status, &page.frame, &page, Forms::Nowhere) {
        Ok(mut written) => {
            for name in [header::RETRY_AFTER, header::ALLOW, header::CONNECTION] {
                if let Some(value) = response.headers().get(&name) {
                    written.headers_mut().insert(name, value.clone());
                }
            }
            written
        }
        Err(_) => response,
    }
}

/// When to try again: in seconds, or in minutes when that is long.
fn wait(lang: Locale, seconds: u32) -> String {
    if seconds < 90 {
        say_with(lang, Text::WaitSeconds, &[("seconds", seconds.max(1))])
    } else {
        say_with(lang, Text::WaitMinutes, &[("minutes", seconds.div_ceil(60))])
    }
}
