//! What the pages say.

use super::look::{CODE, LANGUAGES, browser, challenged, every_page, look, paid, seen};
use crate::intake::app::App;

#[tokio::test]
async fn every_page_is_whole_in_every_language_and_the_switch_keeps_the_place() {
    let app = App::start().await;
    for place in every_page(&app).await {
        for lang in LANGUAGES {
            let page = look(&app, &format!("/{lang}{place}")).await;
            assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{lang}{place}");
            assert_eq!(page.header("cache-control"), "no-store", "{lang}{place}");
            assert!(page.html.contains(&format!("<html lang=\"{lang}\">")), "{lang}{place}");
            assert_eq!(page.html.matches("<h1").count(), 1, "{lang}{place}");
            assert!(page.html.contains("id=\"main\""), "{lang}{place}");
            let bare = place.split('?').next().unwrap();
            for other in LANGUAGES.into_iter().filter(|other| *other != lang && page.status != 404) {
                assert!(page.html.contains(&format!("<a href=\"/{other}{bare}\"")), "{lang}{place} -> {other}");
            }
        }
    }
}

#[tokio::test]
async fn the_language_is_remembered_else_the_browsers() {
    let app = App::start().await;
    let ask = async |name: &'static str, value: &'static str| {
        let response = browser().get(app.url("/")).header(name, value).send().await.unwrap();
        (response.status().as_u16(), response.headers()["location"].to_str().unwrap().to_owned())
    };
    assert_eq!(ask("accept-language", "de, ru;q=0.5").await, (303, "/ru/".to_owned()));
    assert_eq!(ask("cookie", "lang=en").await, (303, "/en/".to_owned()));
    assert_eq!(ask("accept", "*/*").await, (303, "/ky/".to_owned()));
    let cookies = look(&app, "/ru/").await.headers;
    let lang = cookies.get_all("set-cookie").iter().find(|cookie| cookie.as_bytes().starts_with(b"lang=ru;")).unwrap();
    assert!(lang.to_str().unwrap().ends_with("SameSite=Lax; HttpOnly"));
}

#[tokio::test]
async fn the_codes_form_needs_no_script() {
    let app = App::start().await;
    let page = look(&app, "/en/?code=1100+0048-2913").await;
    assert_eq!((page.status.as_u16(), page.header("location")), (303, "/en/bills/110000482913"));
    let wrong = look(&app, "/en/?code=99%3Cb%3E").await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.html.contains("remove letters") && wrong.html.contains("value=\"99&#60;b&#62;\""), "{}", wrong.html);
}

#[tokio::test]
async fn a_bill_says_how_it_stands_and_what_to_do() {
    let app = App::start().await;
    app.bill(CODE).await;
    let page = look(&app, &format!("/en/bills/{CODE}")).await;
    assert_eq!((page.status.as_u16(), page.first("h1")), (200, "Your bill"));
    assert!(page.html.contains("Асанов Айбек") && page.html.contains("Pay 510.00 KGS"));
    app.pay(CODE).await;
    let page = look(&app, &format!("/en/bills/{CODE}")).await;
    assert_eq!(page.first("h1"), "This bill is being paid");
    assert!(!page.html.contains("/pay\""));
    paid(&app, "110000482947").await;
    let page = look(&app, "/en/bills/110000482947").await;
    assert_eq!(page.first("h1"), "This bill is paid");
    assert!(page.html.contains("Send the receipt again") && !page.html.contains("payer@example.org"));
    for (change, heading) in [
        ("UPDATE bill SET status = 'cancelled' WHERE code = '110000482921'", "This bill was withdrawn"),
        (
            "UPDATE bill SET status = 'open', valid_until = '2020-01-01Z' WHERE code = '110000482921'",
            "This bill is out of date",
        ),
    ] {
        app.bill("110000482921").await;
        sqlx::query(change).execute(&app.pool).await.unwrap();
        assert_eq!(look(&app, "/en/bills/110000482921").await.first("h1"), heading);
        assert_eq!(look(&app, "/en/bills/110000482921/pay").await.status, 303, "there is nothing to pay");
    }
    let unknown = look(&app, "/en/bills/110000000000").await;
    assert_eq!((unknown.status.as_u16(), unknown.first("h1")), (404, "There is no bill with this code"));
}

#[tokio::test]
async fn the_card_cannot_be_submitted_by_the_form() {
    let app = App::start().await;
    app.bill(CODE).await;
    let page = look(&app, &format!("/en/bills/{CODE}/pay")).await;
    let form = &page.html[page.html.find("<form id=\"card-form\"").unwrap()..page.html.find("</form>").unwrap()];
    assert!(
        !form.contains(" name=") && !form.contains(" action=") && form.contains("<fieldset id=\"fields\" disabled>")
    );
    assert!(page.header("content-security-policy").contains("form-action 'none'"));
    for token in ["cc-number", "cc-exp", "cc-csc", "cc-name", "email", "tel-country-code", "tel-national"] {
        assert!(form.contains(&format!("autocomplete=\"{token}\"")), "{token}");
    }
    assert!(page.html.contains("/en/documents/user-agreement/2026-01-01") && page.html.contains("<noscript>"));
}

#[tokio::test]
async fn each_status_and_each_reason_has_a_sentence_of_its_own() {
    let app = App::start().await;
    app.bill(CODE).await;
    let id = app.pay(CODE).await;
    let title = async || look(&app, &format!("/en/payments/{id}")).await;
    assert_eq!(title().await.first("h1"), "Your payment is being processed");
    app.move_on(id, "authorizing").await;
    app.move_on(id, "unknown").await;
    let unknown = title().await;
    assert_eq!(unknown.first("h1"), "We do not know yet: please do not pay again");
    assert!(unknown.html.contains("http-equiv=\"refresh\"") && !unknown.html.contains("/pay\""));
    app.move_on(id, "declined").await;
    sqlx::query("UPDATE payment SET decline_reason = 'insufficient_funds'").execute(&app.pool).await.unwrap();
    let declined = title().await;
    assert!(declined.html.contains("There is not enough money on the card") && declined.html.contains("/pay\""));
    assert!(!declined.html.contains("http-equiv=\"refresh\""));
}

#[tokio::test]
async fn a_paid_payment_shows_its_receipt_which_anybody_can_verify() {
    let app = App::start().await;
    let id = paid(&app, CODE).await;
    let page = look(&app, &format!("/ru/payments/{id}")).await;
    assert!(page.html.contains("510,00\u{a0}сом") || page.html.contains("510,00 сом"), "{}", page.html);
    assert!(page.html.contains("TLM-0000000001") && page.html.contains("<svg class=\"qr\" viewBox"));
    let pdf = browser().get(app.url(&format!("/ru/payments/{id}/receipt.pdf"))).send().await.unwrap();
    assert_eq!(pdf.headers()["content-type"], "application/pdf");
    assert!(pdf.bytes().await.unwrap().starts_with(b"%PDF"));
    let genuine = look(&app, "/en/receipts/TLM-0000000001").await;
    assert_eq!((genuine.status.as_u16(), genuine.first("h1")), (200, "This receipt is genuine"));
    assert!(genuine.html.contains("510.00 KGS") && !genuine.html.contains("Асанов") && !genuine.html.contains(CODE));
    let other = look(&app, "/en/receipts/TLM-0000000002").await;
    assert_eq!((other.status.as_u16(), other.first("h1")), (404, "There is no such receipt"));
}

#[tokio::test]
async fn a_receipt_asked_for_again_is_answered_the_same_whatever_the_bill() {
    let app = App::start().await;
    paid(&app, CODE).await;
    for code in [CODE, "110000000000"] {
        let post =
            browser().post(app.url(&format!("/en/bills/{code}/receipt"))).header("sec-fetch-site", "same-origin");
        let answer = seen(post.send().await.unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (303, format!("/en/bills/{code}?asked=1").as_str())
        );
    }
    let copies: i64 = sqlx::query_scalar("SELECT count(*) FROM receipt_copy WHERE kind = 'again'")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(copies, 1);
    assert!(look(&app, &format!("/en/bills/{CODE}?asked=1")).await.html.contains("on its way to the address"));
}

#[tokio::test]
async fn refusals_are_pages_for_people_and_problems_for_programs() {
    let app = App::with(|config| config.intake.lookups_per_minute = 1).await;
    app.bill(CODE).await;
    look(&app, &format!("/ru/bills/{CODE}")).await;
    let refused = look(&app, &format!("/ru/bills/{CODE}")).await;
    assert_eq!((refused.status.as_u16(), refused.first("h1")), (429, "Слишком много запросов"));
    assert!(refused.html.contains("Попробуйте ещё раз через") && !refused.header("retry-after").is_empty());
    let api = look(&app, &format!("/v1/bills/{CODE}")).await;
    assert_eq!((api.status.as_u16(), api.header("content-type")), (429, "application/problem+json"));
    for (path, status, heading) in
        [("/en/nothing", 404, "There is no such page"), ("/xx/", 404, ""), ("/favicon.ico", 404, "")]
    {
        let page = look(&app, path).await;
        assert_eq!((page.status.as_u16(), page.header("content-type")), (status, "text/html; charset=utf-8"), "{path}");
        assert!(heading.is_empty() || page.first("h1") == heading, "{path}");
    }
    app.database.take_away().await;
    let away = look(&app, &format!("/en/payments/{}", uuid::Uuid::nil())).await;
    app.database.give_back().await;
    assert_eq!((away.status.as_u16(), away.first("h1")), (503, "The site is busy"));
}

#[tokio::test]
async fn the_banks_form_is_offered_until_the_payer_has_been_there_or_the_time_is_over() {
    let app = App::start().await;
    let id = challenged(&app, CODE).await;
    let path = format!("/en/payments/{id}");
    let page = look(&app, &path).await;
    assert!(
        page.html.contains("action=\"https://acs.bank.example/3ds\"") && page.html.contains("value=\"a&#34;b&#60;\"")
    );
    assert!(page.html.contains(&format!("/en/payments/{id}/return\"")) && page.html.contains("name=\"MD\""));
    assert!(page.header("content-security-policy").ends_with("form-action 'self' https:"));
    app.clock.advance(std::time::Duration::from_secs(400));
    let over = look(&app, &path).await;
    assert_eq!(over.first("h1"), "The time to confirm is over");
    assert!(!over.html.contains("<form"));
}
