//! The caught messages in a browser.

use std::sync::Arc;

use askama::Template;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};

use super::{CaughtMail, Mailbox};

#[derive(Template)]
#[template(path = "list.html", config = "src/mail_catcher/askama.toml")]
struct List {
    messages: Vec<Arc<CaughtMail>>,
}

/// The header fields that keep a caught page from doing anything.
const HARMLESS: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(super) fn view(mailbox: Arc<Mailbox>) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/messages", get(json))
        .route("/messages/{number}", get(raw))
        .with_state(mailbox)
}

async fn list(State(mailbox): State<Arc<Mailbox>>) -> impl IntoResponse {
    let mut messages = mailbox.messages();
    messages.reverse();
    match (List { messages }).render() {
        Ok(page) => (HARMLESS, Html(page)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn json(State(mailbox): State<Arc<Mailbox>>) -> impl IntoResponse {
    let messages = mailbox.messages();
    let messages: Vec<&CaughtMail> = messages.iter().map(AsRef::as_ref).collect();
    (HARMLESS, Json(messages)).into_response()
}

async fn raw(State(mailbox): State<Arc<Mailbox>>, Path(number): Path<u64>) -> impl IntoResponse {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    match mailbox.message(number) {
        Some(mail) => (HARMLESS, plain, mail.raw.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
