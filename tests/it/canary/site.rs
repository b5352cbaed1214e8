//! A payers' site that pays, mistypes, and remembers every byte that it was ever answered.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tolom::{clock::Clock, payer::Payer, payment::card::CardInput};
use uuid::Uuid;

use super::PAYER;
use crate::support::world::wait_for;

pub(super) struct Site {
    base: String,
    client: Client,
    payer: Payer,
    /// What was asked, and the answer with its headers.
    pub(super) heard: Vec<(String, Vec<u8>)>,
}

impl Site {
    pub(super) fn new(base: String) -> Self {
        let payer = Payer::new(&base).unwrap();
        let client = Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        Self { base, client, payer, heard: Vec::new() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request, and keeps the answer: its status and its JSON, if it is any.
    async fn send(&mut self, what: &str, request: RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let body = answer.bytes().await.unwrap();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        self.heard.push((what.to_owned(), [headers.as_bytes(), &body].concat()));
        (status, json)
    }

    async fn get(&mut self, path: &str) -> (u16, Value) {
        self.send(path, self.request(Method::GET, path)).await
    }

    /// A good request to pay a bill.
    async fn good(&mut self, code: &str, card: &CardInput) -> Value {
        let key = self.payer.keys().await.unwrap().remove(0);
        let sealed = self.payer.seal(&key, &code.parse().unwrap(), card, Clock::system().now()).sealed;
        let (_, bill) = self.get(&format!("/v1/bills/{code}")).await;
        json!({
            "bill": code, "amount": bill["amount"], "card": { "sealed": sealed }, "locale": "en", "terms": bill["terms"],
            "payer": { "email": PAYER, "phone": "+996555123456" },
        })
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).header("idempotency-key", Uuid::new_v4().to_string()).json(body)
    }

    /// Submits a payment: its id.
    pub(super) async fn pay(&mut self, code: &str, card: &CardInput) -> Uuid {
        let body = self.good(code, card).await;
        let (status, accepted) = self.send("submitting", self.post("/v1/payments", &body)).await;
        assert_eq!(status, 202, "{accepted}");
        accepted["id"].as_str().unwrap().parse().unwrap()
    }

    /// Follows a payment to its end, confirming it with the bank where that is asked: its last status.
    pub(super) async fn end_of(&mut self, id: Uuid) -> String {
        let path = format!("/v1/payments/{id}");
        let payer = self.payer.clone();
        let wants_payer = |public: &str| matches!(public, "confirm" | "paid" | "declined" | "not_charged" | "refunded");
        let state = wait_for(async || {
            payer.payment(id).await.ok().filter(|state| wants_payer(state["public_status"].as_str().unwrap()))
        });
        if state.await["public_status"] == "confirm" {
            let code = json!({ "response": { "otp": tolom::simulator::cards::ONE_TIME_CODE } });
            assert_eq!(self.send("confirming", self.post(&format!("{path}/challenge"), &code)).await.0, 202);
        }
        // The stream ends with the payment.
        self.get(&format!("{path}/events")).await;
        self.get(&path).await.1["status"].as_str().unwrap().to_owned()
    }

    /// Everything that the API shows of these payments.
    pub(super) async fn read_everything(&mut self, ids: &[Uuid]) {
        for id in ids {
            for media_type in ["application/json", "text/html", "application/pdf"] {
                let receipt =
                    self.request(Method::GET, &format!("/v1/payments/{id}/receipt")).header("accept", media_type);
                self.send("a receipt", receipt).await;
            }
        }
        for path in ["/v1/encryption-keys", "/v1/nothing"] {
            self.get(path).await;
        }
    }

    /// The card in clear wherever a request has room for it. Everything is refused, but for the request whose only
    /// fault is a strange Idempotency-Key.
    pub(super) async fn type_the_card_everywhere(&mut self, code: &str, card: &CardInput) {
        let good = self.good(code, card).await;
        let clear = serde_json::to_value(card).unwrap();
        let number = card.number.clone();
        let grouped = format!("{}-{}-{}-{}", &number[..4], &number[4..8], &number[8..12], &number[12..]);
        for (member, value) in [
            ("card", clear.clone()),
            ("card", number.clone().into()),
            ("card", json!({ "sealed": number })),
            ("card", json!({ "sealed": clear.to_string() })),
            ("card", json!({ "id": number })),
            ("bill", number.clone().into()),
            ("bill", grouped.clone().into()),
            ("amount", json!({ "value": number, "currency": "KGS" })),
            ("amount", json!({ "value": number.parse::<i64>().unwrap(), "currency": "KGS" })),
            ("amount", json!({ "value": 51_000, "currency": number })),
            ("amount", format!(", expected {number} at line ").into()),
            ("payer", json!({ "email": number, "phone": "+996555123456" })),
            ("payer", json!({ "email": PAYER, "phone": format!("+{number}") })),
            ("payer", json!({ "email": PAYER, "phone": "+996555123456", "card": clear })),
            ("locale", number.clone().into()),
            ("terms", number.clone().into()),
            (number.as_str(), number.clone().into()),
            ("number", number.clone().into()),
        ] {
            let mut body = good.clone();
            body[member] = value;
            self.refused("/v1/payments", self.post("/v1/payments", &body)).await;
        }
        for body in [
            clear.clone(),
            json!({ "sealed": number }),
            json!({ "sealed": clear }),
            json!({ &number: 1 }),
            number.clone().into(),
        ] {
            self.refused("/v1/cards", self.post("/v1/cards", &body)).await;
        }
        let json =
            |request: RequestBuilder, body: String| request.header("content-type", "application/json").body(body);
        for body in
            [format!("{{\"card\": {clear}"), number.clone(), format!("{number},"), clear.to_string().repeat(1_000)]
        {
            let post = self.request(Method::POST, "/v1/payments").header("idempotency-key", "k");
            self.refused("a broken body", json(post, body)).await;
        }
        let form =
            self.request(Method::POST, "/v1/payments").header("content-type", "application/x-www-form-urlencoded");
        self.refused("a form", form.body(format!("number={number}&cvc={}", card.cvc))).await;
        for path in [
            format!("/v1/bills/{number}"),
            format!("/v1/bills/{grouped}"),
            format!("/v1/payments/{number}"),
            format!("/{number}"),
        ] {
            self.refused("a path", self.request(Method::GET, &path)).await;
        }
        for header in [
            "idempotency-key",
            "authorization",
            "x-request-id",
            "traceparent",
            "cookie",
            "user-agent",
            "referer",
            "accept",
            "x-forwarded-for",
        ] {
            let value = if header == "authorization" { format!("Bearer {number}") } else { number.clone() };
            let post = json(self.request(Method::POST, "/v1/payments"), format!("{{\"number\":\"{number}\"}}"));
            self.refused(header, post.header(header, value).header("x-card", &number)).await;
        }
        let query = format!("/v1/payments?number={number}&cvc={}", card.cvc);
        self.refused("a query", self.post(&query, &clear)).await;
        // Sealed for a bill of its own number.
        let key = self.payer.keys().await.unwrap().remove(0);
        let sealed = self.payer.seal(&key, &number.parse().unwrap(), card, Clock::system().now()).sealed;
        self.refused("/v1/cards", self.post("/v1/cards", &json!({ "sealed": sealed }))).await;

        let post =
            self.request(Method::POST, &query).header("idempotency-key", &number).header("x-request-id", &grouped);
        let (status, accepted) = self.send("a strange key", post.json(&good)).await;
        assert_eq!(status, 202, "{accepted}");
        assert_eq!(self.end_of(accepted["id"].as_str().unwrap().parse().unwrap()).await, "captured");
    }

    async fn refused(&mut self, what: &str, request: RequestBuilder) {
        let (status, problem) = self.send(what, request).await;
        assert!((400..500).contains(&status), "{what} was answered {status}: {problem}");
    }
}
