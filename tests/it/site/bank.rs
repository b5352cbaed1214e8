//! The way back from the bank: a form post of another site, whatever its form.

use serde_json::{Value, json};
use uuid::Uuid;

use super::look::{CODE, Seen, browser, challenged, look, seen};
use crate::intake::app::App;

async fn back(app: &App, id: Uuid, media_type: &str, body: &str) -> Seen {
    let post = browser().post(app.url(&format!("/en/payments/{id}/return")));
    let post = post.header("content-type", media_type).header("origin", "https://acs.bank.example");
    seen(post.header("sec-fetch-site", "cross-site").body(body.to_owned()).send().await.unwrap()).await
}

async fn stored(app: &App) -> Option<Value> {
    sqlx::query_scalar("SELECT challenge_response FROM payment").fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn what_the_bank_posts_is_handed_in_and_the_payer_sees_his_payment() {
    for (media_type, body) in [
        ("application/x-www-form-urlencoded", "cres=a%2Bb&MD=x+y"),
        (
            "multipart/form-data; boundary=B",
            "--B\r\nContent-Disposition: form-data; name=\"cres\"\r\n\r\na+b\r\n--B\r\nContent-Disposition: form-data; name=\"MD\"\r\n\r\nx y\r\n--B--\r\n",
        ),
    ] {
        let app = App::start().await;
        let id = challenged(&app, CODE).await;
        for _ in 0..2 {
            let answer = back(&app, id, media_type, body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("location")),
                (303, format!("/en/payments/{id}").as_str())
            );
            // It came without the browser's cookies, and so it must not replace them.
            assert!(!answer.headers.contains_key("set-cookie"), "{:?}", answer.headers);
        }
        assert_eq!(stored(&app).await, Some(json!([["cres", "a+b"], ["MD", "x y"]])), "{media_type}");
        let page = look(&app, &format!("/en/payments/{id}")).await;
        assert_eq!(page.first("h1"), "We are checking the bank's answer".replace('\'', "&#39;").as_str());
        assert!(!page.html.contains("<form"), "the bank's form is not offered again");
    }
}

#[tokio::test]
async fn who_comes_back_without_an_answer_still_has_the_banks_form() {
    let app = App::start().await;
    let id = challenged(&app, CODE).await;
    let answer = look(&app, &format!("/en/payments/{id}/return")).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, format!("/en/payments/{id}").as_str()));
    assert_eq!(stored(&app).await, None);
    let answer = look(&app, &format!("/en/payments/{id}/return?PaRes=yes")).await;
    assert_eq!(answer.status, 303);
    assert_eq!(stored(&app).await, Some(json!([["PaRes", "yes"]])));
}

#[tokio::test]
async fn a_return_is_bounded_and_one_that_nobody_waits_for_leads_to_how_it_ended() {
    let app = App::start().await;
    let id = challenged(&app, CODE).await;
    let form = "application/x-www-form-urlencoded";
    let many: String = (0..33).map(|number| format!("f{number}=1&")).collect();
    for (body, status) in [(many, 422), ("a=1&a=2".into(), 422), (format!("a={}", "x".repeat(70_000)), 413)] {
        let answer = back(&app, id, form, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, "text/html; charset=utf-8"));
    }
    assert_eq!(stored(&app).await, None);
    app.move_on(id, "declined").await;
    let late = back(&app, id, form, "cres=x").await;
    assert_eq!((late.status.as_u16(), late.header("location")), (303, format!("/en/payments/{id}").as_str()));
    assert_eq!(stored(&app).await, None);
}
