//! What all pages share: the frame around them, and how they are answered.

use askama::Template;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    super::{Intake, problem::Problem},
    assets::{ASSETS, Asset},
    language,
    policy::{self, Forms},
    texts::{Text, say},
};
use crate::notify::{Locale, shown};

/// The frame around a page.
pub(super) struct Frame {
    /// The language.
    pub(super) lang: Locale,
    /// Stands in the browser's tab.
    pub(super) title: String,
    /// The page's address without its language, for the switch.
    place: String,
    pub(super) operator: String,
    pub(super) phone: String,
    pub(super) email: String,
    pub(super) script: Option<&'static Asset>,
    /// Seconds until a browser without script loads the page again.
    pub(super) refresh_s: Option<u32>,
}

impl Frame {
    /// The frame of the page at `/{lang}{place}`.
    pub(super) fn new(intake: &Intake, lang: Locale, place: impl Into<String>, title: impl Into<String>) -> Self {
        let operator = &intake.config.operator;
        Self {
            lang,
            title: title.into(),
            place: place.into(),
            operator: shown::one_line(&operator.name, 200),
            phone: shown::one_line(&operator.phone, 64),
            email: shown::one_line(&operator.email, 200),
            script: None,
            refresh_s: None,
        }
    }

    /// With the page's script.
    pub(super) fn script(mut self, script: &'static Asset) -> Self {
        self.script = Some(script);
        self
    }

    /// Loaded again after so many seconds where no script runs.
    pub(super) fn refresh(mut self, seconds: u32) -> Self {
        self.refresh_s = Some(seconds);
        self
    }

    /// A text in the page's language.
    pub(super) fn t(&self, text: Text) -> String {
        say(self.lang, text)
    }

    pub(super) fn style(&self) -> &'static Asset {
        &ASSETS.style
    }

    pub(super) fn icon(&self) -> &'static Asset {
        &ASSETS.icon
    }

    /// Every language with its own name and this page's address in it.
    pub(super) fn languages(&self) -> impl Iterator<Item = (Locale, &'static str, String)> + '_ {
        Locale::ALL.into_iter().map(|locale| {
            let name = match locale {
                Locale::Ky => "Кыргызча",
                Locale::Ru => "Русский",
                Locale::En => "English",
            };
            (locale, name, format!("/{locale}{}", self.place))
        })
    }

    pub(super) fn tel(&self) -> String {
        self.phone.chars().filter(|letter| letter.is_ascii_digit() || *letter == '+').collect()
    }
}

/// Answers with a page.
pub(super) fn answer(
    intake: &Intake,
    headers: &HeaderMap,
    status: StatusCode,
    frame: &Frame,
    page: &impl Template,
    forms: Forms<'_>,
) -> Result<Response, Problem> {
    let html = page.render().map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a page cannot be rendered");
        Problem::internal()
    })?;
    let mut response = (status, html).into_response();
    let given = response.headers_mut();
    given.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    given.insert(header::CONTENT_SECURITY_POLICY, policy::of_page(frame.script.is_some(), forms));
    let language = HeaderValue::from_static(frame.lang.as_str());
    given.insert(header::CONTENT_LANGUAGE, language);
    let secure = intake.config.intake.public_url.starts_with("https:");
    if let Some(cookie) = language::remember(frame.lang, headers, secure) {
        given.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
