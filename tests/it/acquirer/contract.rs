//! The simulator's answers against the written contract, and what a caller sees of it from outside.

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tolom::{
    acquirer::{Acquirer, Call},
    clock::Clock,
    payment::{Currency, Money},
    simulator::{self, BookRow, Simulator},
};

use super::{APPROVED, Bank, CHALLENGED, NOON, adapter, call, card};

fn document() -> Value {
    serde_json::from_str(include_str!("../../../schemas/acquirer.openapi.json")).unwrap()
}

/// A schema of the contract's document.
pub(super) fn schema(name: &str) -> jsonschema::Validator {
    let mut root = document();
    root["$ref"] = format!("#/components/schemas/{name}").into();
    jsonschema::validator_for(&root).unwrap()
}

#[tokio::test]
async fn the_simulator_answers_as_the_contract_says() {
    let bank = Bank::open().await;
    for (reference, number) in [("a1", APPROVED), ("a2", CHALLENGED), ("a3", "4000000000009995")] {
        bank.authorize(reference, number).await;
    }
    bank.complete("c2", "a2", "otp", "123456").await;
    bank.acquirer.capture(&call("p1"), "a1").await;
    bank.acquirer.refund(&Call { amount: Money::new(1, Currency::KGS), ..call("r1") }, "a1").await;
    bank.reverse("v1", "a1").await;
    bank.reverse("v4", "never").await;
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let answer = web.get(format!("http://{}{path}", bank.address)).send().await.unwrap();
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()
    };
    for reference in ["a1", "a2", "a3", "c2", "p1", "r1", "v1", "v4", "never"] {
        let answer = get(&format!("/v1/operations/{reference}")).await;
        if let Err(error) = schema("Operation").validate(&answer) {
            panic!("{reference}: {error}: {answer}");
        }
    }
    let missing = get("/v1/operations/nobody").await;
    schema("Problem").validate(&missing).unwrap();
    assert_eq!(missing["reference"], "nobody");
    let rows: Vec<BookRow> = serde_json::from_value(get("/books").await).unwrap();
    assert_eq!(rows, bank.simulator.books());
}

#[tokio::test]
async fn the_simulator_ends_though_a_client_waits_for_an_answer_that_never_comes() {
    let clock = Clock::manual(NOON);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ends = CancellationToken::new();
    let simulator = Simulator::new(clock.clone());
    let server = tokio::spawn(simulator::serve(listener, simulator.clone(), ends.clone()));
    let acquirer = adapter(format!("http://{address}"), 60_000, clock);
    let waiting = tokio::spawn(async move { acquirer.authorize(&call("a"), &card("4000000000050031"), false).await });
    while simulator.books().is_empty() {
        tokio::task::yield_now().await;
    }
    ends.cancel();
    server.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().as_str(), "unknown");
}

#[tokio::test]
async fn every_call_is_measured_by_kind_and_outcome() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let bank = Bank::open().await;
    let guard = metrics::set_default_local_recorder(&recorder);
    bank.authorize("a", APPROVED).await;
    bank.acquirer.inquire(tolom::payment::OperationKind::Authorize, "nobody").await;
    drop(guard);
    let shown = recorder.handle().render();
    for labels in [r#"kind="authorize",outcome="approved""#, r#"kind="inquire",outcome="not_found""#] {
        assert!(shown.contains(&format!(r#"{{acquirer="simulator",{labels}"#)), "{labels}: {shown}");
    }
}
