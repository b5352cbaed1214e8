//! What keeps the pages safe.

use super::look::{CODE, browser, every_page, look};
use crate::intake::app::{App, is_problem, read};

#[tokio::test]
async fn every_page_has_the_headers_of_safety_and_nothing_inline() {
    let app = App::start().await;
    for place in every_page(&app).await {
        let page = look(&app, &format!("/en{place}")).await;
        let policy = page.header("content-security-policy");
        for part in
            ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "style-src 'self'", "form-action "]
        {
            assert!(policy.contains(part), "{place}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{place}: {policy}");
        for (name, value) in [
            ("strict-transport-security", "max-age=63072000"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(page.header(name), value, "{place}: {name}");
        }
        assert!(page.header("permissions-policy").contains("camera=()"), "{place}");
        assert!(!page.html.contains(" style=") && !page.html.contains("<style"), "{place}");
        let handler = page.html.split('<').find(|tag| tag.split('>').next().unwrap_or_default().contains(" on"));
        assert_eq!(handler, None, "{place}");
        for cookie in page.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        }
    }
}

#[tokio::test]
async fn the_receipt_of_the_api_has_its_style_by_hash() {
    let app = App::start().await;
    let id = super::look::paid(&app, CODE).await;
    let receipt = look(&app, &format!("/v1/payments/{id}/receipt")).await;
    assert!(receipt.html.contains("<style>"));
    assert!(receipt.header("content-security-policy").contains("style-src 'sha256-"));
    let api = look(&app, &format!("/v1/payments/{id}")).await;
    assert!(api.header("content-security-policy").starts_with("default-src 'none'"));
}

#[tokio::test]
async fn another_sites_page_cannot_make_a_browser_pay_or_send_receipts() {
    let app = App::start().await;
    app.bill(CODE).await;
    let request = app.request(CODE);
    let pay = |headers: &'static [(&'static str, &'static str)]| {
        let post = browser().post(app.url("/v1/payments")).header("idempotency-key", "k").json(&request);
        headers.iter().fold(post, |post, (name, value)| post.header(*name, *value)).send()
    };
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        &[("sec-fetch-site", "same-site"), ("origin", "https://other.tolom.example")],
    ] {
        is_problem(&read(pay(headers).await.unwrap()).await, 403, "cross-site", None);
    }
    let post = browser().post(app.url(&format!("/en/bills/{CODE}/receipt"))).header("sec-fetch-site", "cross-site");
    assert_eq!(post.send().await.unwrap().status(), 403);
    assert_eq!(app.stored().await[0], 0);
    assert_eq!(pay(&[("sec-fetch-site", "same-origin"), ("origin", "http://x")]).await.unwrap().status(), 202);
    assert_eq!(pay(&[("origin", "http://localhost:8080")]).await.unwrap().status(), 202, "intake.public_url is ours");
    assert_eq!(pay(&[]).await.unwrap().status(), 202, "a program");
}

#[tokio::test]
async fn a_thousand_codes_from_one_address_are_held_back() {
    let app = App::with(|config| config.intake.lookups_per_minute = 60).await;
    let mut refused = 0;
    for number in 0..1_000 {
        let page = look(&app, &format!("/en/bills/1100{number:08}")).await;
        refused += usize::from(page.status == 429);
    }
    assert!(refused > 900, "{refused}");
}
