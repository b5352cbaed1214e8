//! The first page: one field, the payment code.

use askama::Template;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    super::{Intake, problem::Problem},
    assets::ASSETS,
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    scripts::{self, Words},
    texts::{Text, say, say_with},
};
use crate::{
    config::Config,
    notify::{Locale, shown},
    payment::PaymentCode,
};

/// Longest text that is looked at and shown again.
const LONGEST: usize = 64;

/// What the form sends where no script runs.
#[derive(Deserialize)]
pub(super) struct Typed {
    code: Option<String>,
}

/// A kind of code, as the page explains it.
struct Kind {
    prefix: String,
    service: String,
}

#[derive(Template)]
#[template(path = "home.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    typed: String,
    error: Option<String>,
    kinds: Vec<Kind>,
    words: Words,
}

/// The form; or the way to the bill, when a code was typed that may be one.
pub(super) async fn show(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    headers: HeaderMap,
    query: Result<Query<Typed>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let typed = query.ok().and_then(|Query(typed)| typed.code);
    let error = match typed.as_deref().map(|text| read(&intake.config, text)) {
        Some(Ok(code)) => {
            let location = format!("/{lang}/bills/{code}");
            return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response());
        }
        Some(Err(wrong)) => Some(wrong),
        None => None,
    };
    let title = match error {
        Some(_) => say_with(lang, Text::ErrorTitle, &[("title", say(lang, Text::CodeTitle).as_str())]),
        None => say(lang, Text::CodeTitle),
    };
    let frame = Frame::new(&intake, lang, "/", title).script(&ASSETS.code);
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = Page {
        typed: typed.unwrap_or_default().chars().take(LONGEST).collect(),
        error: error.map(|wrong| wrong.sentence(lang, &intake.config)),
        kinds: kinds(&intake.config, lang),
        words: scripts::code(lang, &intake.config),
        frame,
    };
    answer(&intake, &headers, status, &page.frame, &page, Forms::Here)
}

fn kinds(config: &Config, lang: Locale) -> Vec<Kind> {
    let kind = |service: &crate::config::Service| Kind {
        prefix: service.prefix.clone(),
        service: shown::service(&service.service, lang),
    };
    config.services.iter().map(kind).collect()
}

/// What is wrong with a typed code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Missing,
    NotDigits,
    Length,
    Prefix,
}

impl Wrong {
    fn sentence(self, lang: Locale, config: &Config) -> String {
        let prefixes = prefixes(config);
        match self {
            Self::Missing => say(lang, Text::CodeMissing),
            Self::NotDigits => say(lang, Text::CodeNotDigits),
            Self::Length => say(lang, Text::CodeLength),
            Self::Prefix => say_with(lang, Text::CodePrefix, &[("prefixes", prefixes.as_str())]),
        }
    }
}

/// The prefixes of all kinds of codes, for a sentence.
pub(super) fn prefixes(config: &Config) -> String {
    let all: Vec<&str> = config.services.iter().map(|service| service.prefix.as_str()).collect();
    all.join(", ")
}

/// Reads a code as people type and paste it: spaces, hyphens and the like between the digits do not matter.
fn read(config: &Config, typed: &str) -> Result<PaymentCode, Wrong> {
    let between = |letter: &char| {
        letter.is_whitespace() || matches!(letter, '-' | '\u{2010}'..='\u{2015}' | '.' | '\u{feff}' | '\u{200b}')
    };
    let digits: String = typed.chars().take(LONGEST).filter(|letter| !between(letter)).collect();
    if digits.is_empty() {
        return Err(Wrong::Missing);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotDigits);
    }
    let code: PaymentCode = digits.parse().map_err(|_| Wrong::Length)?;
    if config.service_of(&code).is_none() {
        return Err(Wrong::Prefix);
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_paste_it_and_what_is_wrong_is_told_apart() {
        let config = Config::defaults();
        let read = |typed: &str| read(&config, typed).map(|code| code.to_string());
        for well in ["110000482913", " 1100 0048 2913\u{a0}", "11-0000-482913", "1100.0048.2913"] {
            assert_eq!(read(well), Ok("110000482913".to_owned()), "{well}");
        }
        for (typed, wrong) in [
            ("", Wrong::Missing),
            ("  - ", Wrong::Missing),
            ("1100OO482913", Wrong::NotDigits),
            ("١١٠٠٠٠٤٨", Wrong::NotDigits),
            ("11000", Wrong::Length),
            ("110000000000000000001", Wrong::Length),
            ("990000482913", Wrong::Prefix),
        ] {
            assert_eq!(read(typed), Err(wrong), "{typed}");
        }
    }
}
