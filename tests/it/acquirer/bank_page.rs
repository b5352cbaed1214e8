//! The bank's page over HTTP, without a browser: what it asks, what it takes, and what it sends back.

use std::{collections::HashMap, time::Duration};

use reqwest::{Client, Response, StatusCode};
use tolom::{
    acquirer::Acquirer,
    payment::{Outcome, card::DeclineReason, operation::Challenge},
};
use url::form_urlencoded::Serializer;

use super::{Bank, CHALLENGED, approval, call, code};

const V1: &str = "4000000000003063";
const BACK: &str = "https://shop.example:8443/ky/payments/1/return";

/// A payer whom the shop sends to the bank.
struct Visitor {
    bank: Bank,
    web: Client,
    challenge: Challenge,
    /// What stands in the form on the page.
    form: HashMap<String, String>,
    page: String,
}

impl Visitor {
    async fn sent_to_the_bank(number: &str, extra: &[(&str, &str)]) -> Self {
        let bank = Bank::open().await;
        let Outcome::Challenged(challenge) = bank.authorize("a", number).await else { panic!("no challenge") };
        let web = Client::builder().no_proxy().build().unwrap();
        let mut fields = challenge.fields.clone();
        fields.push(("TermUrl".to_owned(), BACK.to_owned()));
        fields.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (form, page) = (HashMap::new(), String::new());
        let mut visitor = Self { bank, web, challenge, form, page };
        let url = visitor.challenge.url.clone();
        let answer = visitor.post(&url, &fields).await;
        visitor.see(answer).await;
        visitor
    }

    async fn post(&self, url: &str, fields: &[(String, String)]) -> Response {
        let body = Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.web.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
        request.send().await.unwrap()
    }

    async fn see(&mut self, answer: Response) {
        assert_eq!(answer.status(), StatusCode::OK);
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.ends_with(" https://shop.example:8443"), "the answer may leave for the shop: {policy}");
        self.page = answer.text().await.unwrap();
        self.form = hidden(&self.page);
    }

    /// Presses a button of the form.
    async fn press(&mut self, name: &str, value: &str) {
        let mut fields: Vec<_> = self.form.clone().into_iter().collect();
        fields.push((name.to_owned(), value.to_owned()));
        let answer = self.post(&format!("{}/answer", self.challenge.url), &fields).await;
        self.see(answer).await;
    }

    /// Hands what the bank sent back to the acquirer, as the shop does.
    async fn complete(&self) -> Outcome {
        assert!(self.page.contains(&format!(r#"action="{BACK}""#)), "on the way back: {}", self.page);
        let response: Vec<_> = self.form.clone().into_iter().collect();
        self.bank.acquirer.complete_challenge(&call("c"), "a", &response, false).await
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.form.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// The hidden fields of a page's form.
fn hidden(page: &str) -> HashMap<String, String> {
    let attribute = |text: &str, name: &str| {
        let value = text.split(&format!("{name}=\"")).nth(1).unwrap();
        value.split('"').next().unwrap().to_owned()
    };
    let inputs = page.split(r#"<input type="hidden" "#).skip(1);
    inputs.map(|input| (attribute(input, "name"), attribute(input, "value"))).collect()
}

const REFUSED: Option<(DeclineReason, &str)> = Some((DeclineReason::AuthenticationFailed, "1A"));

#[tokio::test]
async fn the_page_says_who_asks_for_how_much_with_which_card_and_until_when() {
    let visitor = Visitor::sent_to_the_bank(CHALLENGED, &[]).await;
    for said in ["Tolom", "510.00 KGS", "•••• 3220", "ends in 20", "10:00", "12:10:00 UTC"] {
        assert!(visitor.page.contains(said), "{said}: {}", visitor.page);
    }
    assert!(!visitor.page.contains(CHALLENGED));
}

#[tokio::test]
async fn the_right_code_sends_back_an_answer_that_confirms_in_either_protocol() {
    for (number, extra, sent, back) in [
        (CHALLENGED, ("threeDSSessionData", "c2Vzc2lvbg"), "creq", ["cres", "threeDSSessionData"]),
        (V1, ("ignored", ""), "PaReq", ["MD", "PaRes"]),
    ] {
        let mut visitor = Visitor::sent_to_the_bank(number, &[extra]).await;
        assert_eq!(visitor.challenge.fields[0].0, sent);
        visitor.press("otp", "123 456").await;
        assert_eq!(visitor.names(), back);
        assert_eq!(visitor.form.get("threeDSSessionData").map_or("c2Vzc2lvbg", String::as_str), "c2Vzc2lvbg");
        assert_eq!(visitor.form.get("MD").map_or("a", String::as_str), "a", "as it came");
        approval(visitor.complete().await);
    }
}

#[tokio::test]
async fn a_wrong_code_may_be_mended_twice_and_the_third_one_fails() {
    for number in [CHALLENGED, V1] {
        let mut visitor = Visitor::sent_to_the_bank(number, &[]).await;
        visitor.press("otp", "12").await;
        assert!(visitor.page.contains("Enter the 6 digits"), "no try is lost");
        visitor.press("otp", "000000").await;
        assert!(visitor.page.contains("You have 2 tries left"));
        visitor.press("otp", "000000").await;
        assert!(visitor.page.contains("You have one try left"));
        visitor.press("otp", "000000").await;
        assert!(visitor.page.contains("does not confirm") && !visitor.page.contains("<script>"), "read, then left");
        assert_eq!(code(&visitor.complete().await), REFUSED);
    }
}

#[tokio::test]
async fn a_wrong_code_and_then_the_right_one_confirms() {
    let mut visitor = Visitor::sent_to_the_bank(CHALLENGED, &[]).await;
    visitor.press("otp", "000000").await;
    visitor.press("otp", "123456").await;
    approval(visitor.complete().await);
}

#[tokio::test]
async fn after_three_wrong_codes_or_a_cancel_the_right_one_comes_too_late() {
    let cancel = vec![("cancel", "1")];
    for presses in [vec![("otp", "000000"); 3], cancel] {
        let mut visitor = Visitor::sent_to_the_bank(CHALLENGED, &[]).await;
        let form = visitor.form.clone();
        for (name, value) in presses {
            visitor.press(name, value).await;
        }
        visitor.form = form;
        visitor.press("otp", "123456").await;
        assert_eq!(visitor.names(), ["cres"]);
        let by_hand = [("otp".to_owned(), "123456".to_owned())];
        let outcome = visitor.bank.acquirer.complete_challenge(&call("d"), "a", &by_hand, false).await;
        assert_eq!(code(&outcome), REFUSED);
    }
}

#[tokio::test]
async fn who_cancels_goes_back_without_a_confirmation() {
    for number in [CHALLENGED, V1] {
        let mut visitor = Visitor::sent_to_the_bank(number, &[]).await;
        visitor.press("cancel", "1").await;
        assert!(visitor.page.contains("Cancelled"));
        assert_eq!(code(&visitor.complete().await), REFUSED);
    }
}

#[tokio::test]
async fn after_its_time_the_page_says_so_and_sends_back_a_refusal() {
    for number in [CHALLENGED, V1] {
        let mut visitor = Visitor::sent_to_the_bank(number, &[]).await;
        visitor.bank.clock.advance(Duration::from_secs(600));
        visitor.press("otp", "123456").await;
        assert!(visitor.page.contains("Time is over"), "{}", visitor.page);
        assert_eq!(code(&visitor.complete().await), REFUSED);
    }
}

#[tokio::test]
async fn what_is_not_this_payments_form_is_refused_without_a_way_back() {
    let visitor = Visitor::sent_to_the_bank(V1, &[]).await;
    let pareq = visitor.challenge.fields[0].1.clone();
    let long = "x".repeat(1_025);
    for (path, fields, status) in [
        ("b", vec![("PaReq", pareq.as_str()), ("TermUrl", BACK)], StatusCode::NOT_FOUND),
        ("a", vec![("PaReq", "another"), ("TermUrl", BACK)], StatusCode::BAD_REQUEST),
        ("a", vec![("creq", pareq.as_str()), ("TermUrl", BACK)], StatusCode::BAD_REQUEST),
        ("a", vec![("PaReq", pareq.as_str())], StatusCode::BAD_REQUEST),
        ("a", vec![("PaReq", pareq.as_str()), ("TermUrl", "javascript:alert(1)")], StatusCode::BAD_REQUEST),
        ("a", vec![("PaReq", pareq.as_str()), ("TermUrl", BACK), ("MD", long.as_str())], StatusCode::BAD_REQUEST),
    ] {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = visitor.post(&format!("http://{}/acs/{path}", visitor.bank.address), &fields).await;
        assert_eq!(answer.status(), status, "{path} {fields:?}");
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().ends_with("form-action 'none'"));
        assert!(!answer.text().await.unwrap().contains("<form"));
    }
}

#[tokio::test]
async fn what_the_shop_sends_is_never_markup_on_the_banks_page() {
    let visitor =
        Visitor::sent_to_the_bank(CHALLENGED, &[("threeDSSessionData", "\"><script>alert(1)</script>")]).await;
    assert_eq!(visitor.page.matches("<script>").count(), 1, "the page's own: {}", visitor.page);
    assert!(!visitor.page.contains("alert(1)</script>"));
}
