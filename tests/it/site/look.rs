//! Looking at pages.

use reqwest::{Response, StatusCode, redirect::Policy};
use uuid::Uuid;

use crate::intake::app::App;

pub(super) const CODE: &str = "110000482913";
pub(super) const LANGUAGES: [&str; 3] = ["ky", "ru", "en"];

/// A page as a browser gets it.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) html: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of the first element of a kind.
    pub(super) fn first(&self, element: &str) -> &str {
        let start = self.html.find(&format!("<{element}")).unwrap_or_else(|| panic!("no {element}: {}", self.html));
        let rest = &self.html[start..];
        let rest = &rest[rest.find('>').unwrap() + 1..];
        &rest[..rest.find('<').unwrap()]
    }
}

pub(super) async fn seen(response: Response) -> Seen {
    let (status, headers) = (response.status(), response.headers().clone());
    Seen { status, headers, html: response.text().await.unwrap() }
}

/// Asks as a browser that follows no redirect.
pub(super) async fn look(app: &App, path: &str) -> Seen {
    seen(browser().get(app.url(path)).header("accept", "text/html").send().await.unwrap()).await
}

pub(super) fn browser() -> reqwest::Client {
    reqwest::Client::builder().redirect(Policy::none()).build().unwrap()
}

/// Every kind of page, each as one address without its language; with a bill, and payments in every status.
pub(super) async fn every_page(app: &App) -> Vec<String> {
    app.bill(CODE).await;
    app.bill("110000482921").await;
    let id = app.pay(CODE).await;
    let bank = challenged(app, "110000482939").await;
    let paid = paid(app, "110000482947").await;
    let mut pages: Vec<String> =
        ["/", "/?code=99", "/documents/", "/documents/user-agreement/2026-01-01", "/nothing"].map(Into::into).into();
    pages.push("/receipts/TLM-0000000001".into());
    pages.push("/receipts/TLM-9".into());
    pages.extend([CODE, "110000482921", "110000482947", "110000000000"].map(|code| format!("/bills/{code}")));
    pages.push("/bills/110000482921/pay".into());
    pages.extend([id, bank, paid, Uuid::nil()].map(|id| format!("/payments/{id}")));
    pages
}

/// A payment that its bank wants to have confirmed.
pub(super) async fn challenged(app: &App, code: &str) -> Uuid {
    app.bill(code).await;
    let id = app.pay(code).await;
    app.move_on(id, "authorizing").await;
    app.move_on(id, "challenged").await;
    let until = (app.clock.now() + time::Duration::minutes(5)).format(&time::format_description::well_known::Rfc3339);
    let challenge = serde_json::json!({
        "url": "https://acs.bank.example/3ds", "fields": [["creq", "a\"b<"]], "expires_at": until.unwrap()
    });
    sqlx::query("UPDATE payment SET challenge = $1 WHERE id = $2")
        .bind(challenge)
        .bind(id)
        .execute(&app.pool)
        .await
        .unwrap();
    id
}

/// A payment that is paid, with its bill and receipt.
pub(super) async fn paid(app: &App, code: &str) -> Uuid {
    app.bill(code).await;
    let id = app.pay(code).await;
    for status in ["authorizing", "captured"] {
        app.move_on(id, status).await;
    }
    sqlx::query("INSERT INTO receipt (payment_id, sent_at) VALUES ($1, now())")
        .bind(id)
        .execute(&app.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE bill SET status = 'paid', paid_by = $1, paid_at = now() WHERE code = $2")
        .bind(id)
        .bind(code)
        .execute(&app.pool)
        .await
        .unwrap();
    id
}
