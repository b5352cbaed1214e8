//! The caught messages in a browser, and the gateway that catches the short ones.

use std::sync::Arc;

use askama::Template;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};

use super::{
    CaughtMail, CaughtSms, Mailbox,
    sms::{self, Outlet},
};

#[derive(Template)]
#[template(path = "list.html", config = "src/mail_catcher/askama.toml")]
struct List {
    messages: Vec<Arc<CaughtMail>>,
    /// Short ones.
    texts: Vec<CaughtSms>,
}

/// The header fields that keep a caught page from doing anything.
pub(super) const HARMLESS: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(super) fn view(mailbox: Arc<Mailbox>, outlet: Arc<Outlet>) -> Router {
    Router::new()
        .route("/", get(list).with_state((Arc::clone(&mailbox), Arc::clone(&outlet))))
        .route("/messages", get(json))
        .route("/messages/{number}", get(raw))
        .with_state(mailbox)
        .merge(sms::routes(outlet))
}

async fn list(State((mailbox, outlet)): State<(Arc<Mailbox>, Arc<Outlet>)>) -> impl IntoResponse {
    let (mut messages, mut texts) = (mailbox.messages(), outlet.messages());
    messages.reverse();
    texts.reverse();
    match (List { messages, texts }).render() {
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
