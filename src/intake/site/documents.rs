//! The documents of the site: Markdown files with versions and dates of force. Every version stays readable.

use std::{collections::HashMap, path::Path};

use askama::Template;
use axum::{
    extract::{RawPathParams, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use pulldown_cmark::{Event, Options, Parser, html};
use time::Date;

use super::{
    super::{Intake, problem::Problem},
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    texts::{Text, say, say_with},
};
use crate::{
    clock::bishkek_day,
    config::{AGREEMENT, Config, in_force, parse_date},
    notify::Locale,
};

/// Longest document that is read, in bytes.
const LONGEST: u64 = 512 * 1024;

/// The documents that are built in.
const BUILT_IN: [(&str, &str, [&str; 3]); 3] = [
    (
        AGREEMENT,
        "2026-01-01",
        [
            include_str!("documents/user-agreement/2026-01-01.ky.md"),
            include_str!("documents/user-agreement/2026-01-01.ru.md"),
            include_str!("documents/user-agreement/2026-01-01.en.md"),
        ],
    ),
    (
        "privacy-policy",
        "2026-01-01",
        [
            include_str!("documents/privacy-policy/2026-01-01.ky.md"),
            include_str!("documents/privacy-policy/2026-01-01.ru.md"),
            include_str!("documents/privacy-policy/2026-01-01.en.md"),
        ],
    ),
    (
        "manual",
        "2026-01-01",
        [
            include_str!("documents/manual/2026-01-01.ky.md"),
            include_str!("documents/manual/2026-01-01.ru.md"),
            include_str!("documents/manual/2026-01-01.en.md"),
        ],
    ),
];

/// A version of a document that the settings name and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("documents: {document} of version {version} in `{language}` cannot be read")]
pub struct MissingDocument {
    document: String,
    version: String,
    language: Locale,
    #[source]
    source: Option<std::io::Error>,
}

/// One version of a document in every language.
struct Edition {
    document: String,
    version: String,
    from: Date,
    /// By language, in the order of [`Locale::ALL`].
    pages: [Written; 3],
}

/// A document as it is shown.
struct Written {
    title: String,
    html: String,
}

/// All documents, read and rendered once.
#[derive(Default)]
pub struct Documents {
    /// In the order of the settings; of one document the newest version first.
    editions: Vec<Edition>,
}

impl Documents {
    /// Reads every version that the settings name, from `site.documents_dir` or from what is built in.
    ///
    /// # Errors
    /// A version that cannot be read in one of the languages.
    pub fn read(config: &Config) -> Result<Self, MissingDocument> {
        let mut order = HashMap::new();
        let mut editions = Vec::new();
        for (document, version, from) in config.editions() {
            let next = order.len();
            order.entry(document.to_owned()).or_insert(next);
            let [ky, ru, en] =
                Locale::ALL.map(|locale| source(config, document, version, locale).map(|text| write(&text)));
            let from = parse_date(from).unwrap_or(Date::MAX);
            editions.push(Edition {
                document: document.to_owned(),
                version: version.to_owned(),
                from,
                pages: [ky?, ru?, en?],
            });
        }
        editions.sort_by_key(|edition| (order[&edition.document], std::cmp::Reverse(edition.from)));
        Ok(Self { editions })
    }

    fn find(&self, document: &str, version: &str) -> Option<&Edition> {
        self.editions.iter().find(|edition| edition.document == document && edition.version == version)
    }

    /// The version of a document in force on a day.
    fn in_force(&self, document: &str, day: Date) -> Option<&Edition> {
        let editions = self.editions.iter().filter(|edition| edition.document == document);
        in_force(editions.map(|edition| (edition.from, edition)), day)
    }
}

impl Edition {
    fn page(&self, lang: Locale) -> &Written {
        let [ky, ru, en] = &self.pages;
        match lang {
            Locale::Ky => ky,
            Locale::Ru => ru,
            Locale::En => en,
        }
    }
}

fn source(config: &Config, document: &str, version: &str, language: Locale) -> Result<String, MissingDocument> {
    let missing = |source| MissingDocument { document: document.into(), version: version.into(), language, source };
    if config.site.documents_dir.is_empty() {
        let built_in = BUILT_IN.iter().find(|(name, of, _)| *name == document && *of == version);
        let [ky, ru, en] = built_in.ok_or_else(|| missing(None))?.2;
        return Ok(match language {
            Locale::Ky => ky,
            Locale::Ru => ru,
            Locale::En => en,
        }
        .to_owned());
    }
    let path = Path::new(&config.site.documents_dir).join(document).join(format!("{version}.{language}.md"));
    let size = std::fs::metadata(&path).map_err(|error| missing(Some(error)))?.len();
    if size > LONGEST {
        return Err(missing(None));
    }
    std::fs::read_to_string(&path).map_err(|error| missing(Some(error)))
}

/// Markdown (CommonMark with tables) as HTML. Raw HTML in it is shown as text.
fn write(markdown: &str) -> Written {
    let title = markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().trim().to_owned();
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    let mut html = String::with_capacity(markdown.len() * 2);
    html::push_html(&mut html, events);
    Written { title, html }
}

/// A date of the settings as people of this country write it.
pub(super) fn day(text: &str) -> String {
    parse_date(text).map_or_else(String::new, date)
}

fn date(day: Date) -> String {
    format!("{:02}.{:02}.{}", day.day(), u8::from(day.month()), day.year())
}

/// A version in a list.
struct Entry {
    href: String,
    title: String,
    since: String,
    in_force: bool,
}

#[derive(Template)]
#[template(path = "documents.html", config = "src/intake/site/askama.toml")]
struct ListPage {
    frame: Frame,
    current: Vec<Entry>,
    others: Vec<Entry>,
}

#[derive(Template)]
#[template(path = "document.html", config = "src/intake/site/askama.toml")]
struct DocumentPage {
    frame: Frame,
    since: String,
    /// Where the version in force is, when this is another one.
    current: Option<String>,
    html: String,
}

/// All documents: the versions in force, then the others.
pub(super) async fn list(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let today = bishkek_day(intake.clock.now());
    let entry = |edition: &Edition| Entry {
        href: href(lang, edition),
        title: edition.page(lang).title.clone(),
        since: since(lang, edition),
        in_force: intake.documents.in_force(&edition.document, today).is_some_and(|it| it.version == edition.version),
    };
    let (current, others) = intake.documents.editions.iter().map(entry).partition(|entry: &Entry| entry.in_force);
    let frame = Frame::new(&intake, lang, "/documents/", say(lang, Text::DocumentsTitle));
    let page = ListPage { frame, current, others };
    answer(&intake, &headers, StatusCode::OK, &page.frame, &page, Forms::Nowhere)
}

/// One version of a document.
pub(super) async fn show(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    params: RawPathParams,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let param = |wanted: &str| params.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
    let (document, version) = (param("document"), param("version"));
    let edition = intake.documents.find(document, version).ok_or_else(Problem::no_such_page)?;
    let in_force = intake.documents.in_force(document, bishkek_day(intake.clock.now()));
    let written = edition.page(lang);
    let page = DocumentPage {
        frame: Frame::new(&intake, lang, format!("/documents/{document}/{version}"), written.title.clone()),
        since: since(lang, edition),
        current: in_force.filter(|it| it.version != edition.version).map(|it| href(lang, it)),
        html: written.html.clone(),
    };
    answer(&intake, &headers, StatusCode::OK, &page.frame, &page, Forms::Nowhere)
}

fn href(lang: Locale, edition: &Edition) -> String {
    format!("/{lang}/documents/{}/{}", edition.document, edition.version)
}

fn since(lang: Locale, edition: &Edition) -> String {
    let from = date(edition.from);
    say_with(lang, Text::DocumentSince, &[("version", edition.version.as_str()), ("date", from.as_str())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_html_in_a_document_is_text() {
        let written =
            write("# Title\n\n<script>alert(1)</script>\n\nA <b onclick=x>word</b>, [link](https://example.org)\n");
        assert_eq!(written.title, "Title");
        assert!(!written.html.contains("<script") && !written.html.contains("<b "), "{}", written.html);
        assert!(written.html.contains("<a href=\"https://example.org\">"));
    }

    #[test]
    fn what_the_default_settings_name_is_built_in() {
        Documents::read(&Config::defaults()).map(drop).unwrap();
    }

    #[test]
    fn a_version_that_is_nowhere_is_named() {
        let mut config = Config::defaults();
        config.terms[0].version = "2040-01-01".into();
        let error = Documents::read(&config).map(drop).unwrap_err().to_string();
        assert_eq!(error, "documents: user-agreement of version 2040-01-01 in `ky` cannot be read");
    }
}
