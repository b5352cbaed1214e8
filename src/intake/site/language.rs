//! The language of a page: its address says it; the way to it remembers it.

use axum::{
    extract::{FromRequestParts, RawPathParams, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::super::{Intake, problem::Problem};
use crate::notify::Locale;

/// A year, in seconds.
const REMEMBERED_S: u32 = 31_536_000;

/// The language in a page's address. Another word there names no page.
pub(super) struct Lang(pub(super) Locale);

impl FromRequestParts<Intake> for Lang {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, intake).await.map_err(|_| Problem::no_such_page())?;
        let word = params.iter().find(|(name, _)| *name == "lang").map(|(_, value)| value);
        word.and_then(|word| word.parse().ok()).map(Self).ok_or_else(Problem::no_such_page)
    }
}

/// Leads to the site in the language that is remembered, else the browser's, else Kyrgyz.
pub(super) async fn begin(State(_): State<Intake>, headers: HeaderMap) -> Response {
    let location = format!("/{}/", preferred(&headers));
    let vary = HeaderValue::from_static("cookie, accept-language");
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)], [(header::VARY, vary)]).into_response()
}

/// The language that suits a visitor whose address names none.
pub(super) fn preferred(headers: &HeaderMap) -> Locale {
    remembered(headers).or_else(|| accepted(headers)).unwrap_or(Locale::Ky)
}

/// The language of an address, if it names one.
pub(super) fn of_path(path: &str) -> Option<Locale> {
    path.split('/').nth(1)?.parse().ok()
}

fn remembered(headers: &HeaderMap) -> Option<Locale> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix("lang=")?.parse().ok())
}

/// The language that `Accept-Language` wants most (RFC 9110 12.5.4), by its primary subtag.
fn accepted(headers: &HeaderMap) -> Option<Locale> {
    let ranges = headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?.split(',');
    let weighed = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let locale: Locale = parts.next()?.split('-').next()?.to_ascii_lowercase().parse().ok()?;
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        (weight > 0.0).then_some((locale, weight))
    });
    // The first of equals; `max_by` would take the last.
    weighed.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(locale, _)| locale)
}

/// The cookie that remembers a language; none when the browser has it already.
pub(super) fn remember(lang: Locale, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
    if remembered(headers) == Some(lang) {
        return None;
    }
    let secure = if secure { "; Secure" } else { "" };
    format!("lang={lang}; Path=/; Max-Age={REMEMBERED_S}; SameSite=Lax; HttpOnly{secure}").try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str, accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        headers.insert(header::ACCEPT_LANGUAGE, accept.parse().unwrap());
        headers
    }

    #[test]
    fn what_is_remembered_counts_then_the_browser_then_kyrgyz() {
        for (cookie, accept, wanted) in [
            ("a=b; lang=ru", "en", Locale::Ru),
            ("lang=xx", "en-US,en;q=0.9", Locale::En),
            ("", "de, ru;q=0.4, en;q=0.8", Locale::En),
            ("", "ru, en", Locale::Ru),
            ("", "ru;q=0, ky-KG;q=0.1", Locale::Ky),
            ("", "de", Locale::Ky),
            ("", ";;,,q=", Locale::Ky),
        ] {
            assert_eq!(preferred(&headers(cookie, accept)), wanted, "{cookie} {accept}");
        }
    }
}
