//! Bills over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    App,
    app::{is_problem, read},
};

const PATH: &str = "/v1/bills/1100000001";

fn bill(value: i64) -> Value {
    json!({
        "applicant": "Асанов Айбек",
        "amount": {"value": value, "currency": "KGS"},
        "valid_until": "2030-01-01T00:00:00+06:00",
    })
}

#[tokio::test]
async fn an_agency_issues_changes_and_withdraws_a_bill_and_payers_see_it() {
    let app = App::start().await;
    let issued = read(app.agency(Method::PUT, PATH, Some(bill(51_000))).await).await;
    assert_eq!((issued.0, issued.2["service"].as_str()), (StatusCode::CREATED, Some("passport")));
    assert_eq!(app.agency(Method::PUT, PATH, Some(bill(51_000))).await.status(), StatusCode::OK);
    assert_eq!(app.agency(Method::PUT, PATH, Some(bill(130_000))).await.status(), StatusCode::OK);
    let seen: Value = app.get(PATH).await.json().await.unwrap();
    assert_eq!(
        seen,
        json!({
            "code": "1100000001", "service": "passport", "applicant": "Асанов Айбек",
            "amount": {"value": 130_000, "currency": "KGS"}, "status": "open", "being_paid": false,
            "valid_until": "2029-12-31T18:00:00Z", "terms": "2026-01-01",
        })
    );
    for _ in 0..2 {
        let (status, _, body) = read(app.agency(Method::DELETE, PATH, None).await).await;
        assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("cancelled")));
    }
    let again = read(app.agency(Method::PUT, PATH, Some(bill(51_000))).await).await;
    assert_eq!((again.0, again.2["status"].as_str()), (StatusCode::OK, Some("open")));
    app.clock.advance(std::time::Duration::from_secs(5 * 366 * 24 * 3600));
    let seen: Value = app.get(PATH).await.json().await.unwrap();
    assert_eq!(seen["status"], "expired");
}

#[tokio::test]
async fn while_a_payment_is_live_its_bill_stands_still_except_to_be_paid_elsewhere() {
    let app = App::start().await;
    app.agency(Method::PUT, PATH, Some(bill(51_000))).await;
    let payment = app.pay("1100000001").await;
    let seen: Value = app.get(PATH).await.json().await.unwrap();
    assert_eq!((seen["status"].as_str(), seen["being_paid"].as_bool()), (Some("open"), Some(true)));
    for value in [51_000, 130_000] {
        let put = app.agency(Method::PUT, PATH, Some(bill(value))).await;
        is_problem(&read(put).await, 409, "payment-in-progress", None);
    }
    let delete = app.agency(Method::DELETE, PATH, None).await;
    is_problem(&read(delete).await, 409, "payment-in-progress", None);
    for _ in 0..2 {
        let (status, _, body) = read(app.agency(Method::PUT, PATH, Some(json!({"status": "paid"}))).await).await;
        assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("paid")));
    }
    app.move_on(payment, "authorizing").await;
    app.move_on(payment, "declined").await;
    let put = app.agency(Method::PUT, PATH, Some(bill(130_000))).await;
    is_problem(&read(put).await, 409, "bill-paid", None);
    is_problem(&read(app.agency(Method::DELETE, PATH, None).await).await, 409, "bill-paid", None);
    is_problem(&read(app.submit("k", &app.request("1100000001")).await).await, 409, "bill-paid", None);
}

#[tokio::test]
async fn a_bill_paid_here_cannot_be_paid_elsewhere_in_silence() {
    let app = App::start().await;
    app.agency(Method::PUT, PATH, Some(bill(51_000))).await;
    let payment = app.pay("1100000001").await;
    for status in ["authorizing", "captured"] {
        app.move_on(payment, status).await;
    }
    sqlx::query("UPDATE bill SET status = 'paid', paid_by = $1").bind(payment).execute(&app.pool).await.unwrap();
    let put = app.agency(Method::PUT, PATH, Some(json!({"status": "paid"}))).await;
    is_problem(&read(put).await, 409, "bill-paid", None);
}

#[tokio::test]
async fn a_bill_must_be_whole() {
    let app = App::start().await;
    for (change, field) in [
        (json!({"applicant": null}), "applicant"),
        (json!({"applicant": ""}), "applicant"),
        (json!({"applicant": "a\nb"}), "applicant"),
        (json!({"amount": null}), "amount"),
        (json!({"amount": {"value": 0, "currency": "KGS"}}), "amount.value"),
        (json!({"valid_until": null}), "valid_until"),
        (json!({"valid_until": "tomorrow"}), "valid_until"),
        (json!({"service": "driving_licence"}), "service"),
        (json!({"status": "cancelled"}), "status"),
        (json!({"status": "lost"}), "status"),
        (json!({"status": "paid"}), "applicant"),
        (json!({"colour": "red"}), "colour"),
    ] {
        let mut body = bill(51_000);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let put = app.agency(Method::PUT, PATH, Some(body)).await;
        is_problem(&read(put).await, 422, "invalid-field", Some(field));
    }
    let put = app.agency(Method::PUT, "/v1/bills/9900000001", Some(bill(1))).await;
    is_problem(&read(put).await, 422, "invalid-field", Some("code"));
    let paid = app.agency(Method::PUT, PATH, Some(json!({"status": "paid"}))).await;
    is_problem(&read(paid).await, 404, "bill-unknown", Some("bill"));
    is_problem(&read(app.agency(Method::DELETE, PATH, None).await).await, 404, "bill-unknown", Some("bill"));
}
