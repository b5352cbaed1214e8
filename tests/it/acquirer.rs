//! The HTTP adapter against the simulator, card by card, and against servers that misbehave byte by byte.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use time::{OffsetDateTime, macros::datetime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    acquirer::{Acquirer, Call, http::HttpAcquirer},
    clock::Clock,
    config::Config,
    payment::{
        Currency, Money, OperationKind, Outcome,
        card::{Card, CardInput, CardRules, DeclineReason},
        operation::{Approval, Inquiry, Undone},
    },
    simulator::{self, BookRow, BookState, Simulator, SimulatorOptions},
};

const APPROVED: &str = "4111111111111111";
const CHALLENGED: &str = "4000000000003220";
const NOON: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
const AMOUNT: Money = Money::new(51_000, Currency::KGS);

fn card(number: &str) -> Card {
    let (expiry_month, expiry_year) = (12, 2030);
    let (number, cvc, holder) = (number.into(), "123".into(), "AIBEK ASANOV".into());
    CardInput { number, expiry_month, expiry_year, cvc, holder }.check(&CardRules::default(), (2026, 11)).unwrap()
}

fn call(reference: &str) -> Call {
    let send_before = NOON + Duration::from_secs(3600);
    Call { reference: reference.into(), amount: AMOUNT, send_before, traceparent: None }
}

fn adapter(address: impl std::fmt::Display, answer_timeout_ms: u64, clock: Clock) -> HttpAcquirer {
    let mut settings = Config::defaults().acquirer;
    settings.url = format!("{address}");
    settings.token = "secret-token".to_owned().into();
    (settings.connect_timeout_ms, settings.answer_timeout_ms) = (200, answer_timeout_ms);
    HttpAcquirer::new(&settings, clock).unwrap()
}

/// A simulator on a socket of its own with a clock that stands at noon, and an adapter that talks to it.
struct Bank {
    acquirer: HttpAcquirer,
    simulator: Simulator,
    clock: Clock,
    address: SocketAddr,
    _ends: DropGuard,
}

impl Bank {
    async fn open() -> Self {
        Self::patient(20_000).await
    }

    /// For cards that never answer: waits no longer than 300 ms in all.
    async fn impatient() -> Self {
        Self::patient(100).await
    }

    async fn patient(answer_timeout_ms: u64) -> Self {
        let clock = Clock::manual(NOON);
        let options = SimulatorOptions {
            slow: Duration::from_millis(20),
            retry_after: Duration::ZERO,
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::with_options(clock.clone(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ends = CancellationToken::new();
        tokio::spawn(simulator::serve(listener, simulator.clone(), ends.clone()));
        let acquirer = adapter(format!("http://{address}"), answer_timeout_ms, clock.clone());
        Self { acquirer, simulator, clock, address, _ends: ends.drop_guard() }
    }

    async fn authorize(&self, reference: &str, number: &str) -> Outcome {
        self.acquirer.authorize(&call(reference), &card(number), false).await
    }

    async fn reverse(&self, reference: &str, original: &str) -> Approval {
        approval(self.acquirer.reverse(&call(reference), original, false).await)
    }

    async fn complete(&self, reference: &str, original: &str, name: &str, value: &str) -> Outcome {
        let response = [(name.to_owned(), value.to_owned())];
        self.acquirer.complete_challenge(&call(reference), original, &response, false).await
    }

    async fn found(&self, reference: &str) -> Outcome {
        match self.acquirer.inquire(reference).await {
            Inquiry::Found(outcome) => outcome,
            other => panic!("{reference}: {other:?}"),
        }
    }

    /// Kind, amount and state of every row.
    fn books(&self) -> Vec<(OperationKind, i64, BookState)> {
        self.simulator.books().into_iter().map(|row| (row.kind, row.amount, row.state)).collect()
    }
}

fn approval(outcome: Outcome) -> Approval {
    match outcome {
        Outcome::Approved(approval) => approval,
        other => panic!("not approved: {other:?}"),
    }
}

fn code(outcome: &Outcome) -> Option<(DeclineReason, &str)> {
    match outcome {
        Outcome::Declined(decline) => Some((decline.reason, decline.code.as_deref().unwrap_or_default())),
        _ => None,
    }
}

const HELD: (OperationKind, i64, BookState) = (OperationKind::Authorize, 51_000, BookState::Held);

#[tokio::test]
async fn an_approved_card_is_held_then_captured_then_refunded() {
    let bank = Bank::open().await;
    for number in [APPROVED, "5555555555554444", "4242424242424242"] {
        let held = approval(bank.authorize(number, number).await);
        assert_eq!((held.amount, held.captured, held.undone, held.at), (AMOUNT, false, None, NOON));
        assert!(held.acquirer_reference.is_some() && held.authorization_code.is_some() && held.rrn.is_some());
    }
    assert_eq!(bank.books(), [HELD; 3]);

    let captured = approval(bank.acquirer.capture(&call("c"), APPROVED).await);
    assert_eq!((captured.amount, captured.captured), (AMOUNT, false));
    let half = Call { amount: Money::new(25_500, Currency::KGS), ..call("r1") };
    approval(bank.acquirer.refund(&half, APPROVED).await);
    let again = bank.acquirer.capture(&call("c2"), APPROVED).await;
    assert_eq!(code(&again), Some((DeclineReason::Other, "12")), "money is taken once");
    let too_much = bank.acquirer.refund(&call("r2"), APPROVED).await;
    assert_eq!(code(&too_much), Some((DeclineReason::Other, "13")), "no more is given back than was taken");
    assert_eq!(
        bank.books(),
        [
            (OperationKind::Authorize, 51_000, BookState::Captured),
            HELD,
            HELD,
            (OperationKind::Capture, 51_000, BookState::Captured),
            (OperationKind::Refund, 25_500, BookState::Refunded),
            (OperationKind::Capture, 51_000, BookState::Declined),
            (OperationKind::Refund, 51_000, BookState::Declined),
        ]
    );
    for (reference, outcome) in [(APPROVED, "approved"), ("c", "approved"), ("r1", "approved"), ("r2", "declined")] {
        assert_eq!(bank.found(reference).await.as_str(), outcome, "{reference}");
    }
}

#[tokio::test]
async fn money_taken_with_the_authorization_has_a_capture_row_of_its_own() {
    let bank = Bank::open().await;
    let taken = approval(bank.acquirer.authorize(&call("a"), &card(APPROVED), true).await);
    assert!(taken.captured);
    assert_eq!(
        bank.books(),
        [
            (OperationKind::Authorize, 51_000, BookState::Captured),
            (OperationKind::Capture, 51_000, BookState::Captured)
        ]
    );
    assert!(bank.simulator.books().iter().all(|row| row.reference == "a" && row.original == "a"));
    assert_eq!(bank.reverse("v", "a").await.undone, Some(Undone::Capture));
    assert_eq!(
        bank.books(),
        [
            (OperationKind::Authorize, 51_000, BookState::Reversed),
            (OperationKind::Capture, 51_000, BookState::Reversed),
            (OperationKind::Reverse, 51_000, BookState::Reversed),
        ]
    );
}

#[tokio::test]
async fn each_declining_card_says_why() {
    let bank = Bank::open().await;
    for (number, expected) in [
        ("4000000000009995", (DeclineReason::InsufficientFunds, "51")),
        ("4000000000000002", (DeclineReason::DoNotHonor, "05")),
        ("4000000000000069", (DeclineReason::ExpiredCard, "54")),
        ("4000000000009987", (DeclineReason::LostOrStolen, "41")),
        ("4000000000006975", (DeclineReason::LimitExceeded, "61")),
        ("4000000000000127", (DeclineReason::InvalidCvc, "N7")),
        ("4100000000000019", (DeclineReason::SuspectedFraud, "59")),
    ] {
        let outcome = bank.authorize(number, number).await;
        assert_eq!(code(&outcome), Some(expected));
        assert_eq!(bank.found(number).await, outcome);
    }
    assert!(bank.books().iter().all(|row| row.2 == BookState::Declined));
}

#[tokio::test]
async fn a_challenge_is_completed_refused_or_expires() {
    let bank = Bank::open().await;
    let Outcome::Challenged(challenge) = bank.authorize("a1", CHALLENGED).await else { panic!("no challenge") };
    assert_eq!(challenge.url, format!("http://{}/acs/a1", bank.address));
    assert_eq!(challenge.fields[0].0, "creq");
    assert_eq!(bank.books(), [(OperationKind::Authorize, 51_000, BookState::Challenged)], "nothing is held yet");
    let held = approval(bank.complete("c1", "a1", "otp", "123456").await);
    assert_eq!(held.amount, AMOUNT);
    assert_eq!(bank.complete("c1", "a1", "otp", "123456").await, Outcome::Approved(held));
    // Either reference leads to the authorization.
    approval(bank.acquirer.capture(&call("p1"), "c1").await);
    assert!(approval(bank.found("c1").await).captured);

    bank.authorize("a2", CHALLENGED).await;
    let refused = bank.complete("c2", "a2", "otp", "000000").await;
    assert_eq!(code(&refused), Some((DeclineReason::AuthenticationFailed, "1A")));
    assert_eq!(code(&bank.found("a2").await), Some((DeclineReason::AuthenticationFailed, "1A")));

    bank.authorize("a3", "4000000000050007").await;
    bank.clock.advance(Duration::from_secs(2));
    let late = bank.complete("c3", "a3", "otp", "123456").await;
    assert_eq!(code(&late), Some((DeclineReason::AuthenticationFailed, "1A")));

    bank.authorize("a4", CHALLENGED).await;
    assert_eq!(bank.reverse("v4", "a4").await.undone, Some(Undone::Nothing));
    assert_eq!(
        bank.complete("c4", "a4", "otp", "123456").await.as_str(),
        "not_sent",
        "closed before the payer came back"
    );
    assert_eq!(bank.complete("c5", "never", "otp", "123456").await.as_str(), "not_sent", "404: no effect");
}

#[tokio::test]
async fn the_banks_page_takes_the_code_and_sends_the_payer_back_with_an_answer_that_confirms() {
    let bank = Bank::open().await;
    bank.authorize("a", CHALLENGED).await;
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let acs = format!("http://{}/acs/a", bank.address);
    let post = async |body: &'static str| {
        let form = web.post(&acs).header("content-type", "application/x-www-form-urlencoded").body(body);
        form.send().await.unwrap().text().await.unwrap()
    };
    assert!(post("creq=x&TermUrl=http%3A%2F%2Fshop.example%2Fback").await.contains(r#"name="otp""#));
    let back = post("TermUrl=http%3A%2F%2Fshop.example%2Fback&otp=123456").await;
    let cres = back.split(r#"name="cres" value=""#).nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(bank.complete("c", "a", "cres", cres).await.as_str(), "approved");
}

#[tokio::test]
async fn a_slow_card_is_waited_for() {
    let bank = Bank::open().await;
    assert_eq!(approval(bank.authorize("a", "4000000000050015").await).amount, AMOUNT);
    assert_eq!(bank.books(), [HELD]);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_an_inquiry_or_a_repeat_tells_the_truth() {
    let bank = Bank::impatient().await;
    for (number, booked) in [
        ("4000000000050023", false),
        ("4000000000050031", true),
        ("4000000000050049", true),
        ("4000000000050056", false),
        ("4000000000050064", true),
    ] {
        assert_eq!(bank.authorize(number, number).await.as_str(), "unknown", "{number}");
        if booked {
            assert_eq!(bank.found(number).await.as_str(), "approved", "{number}");
            assert_eq!(bank.authorize(number, number).await.as_str(), "approved", "{number}");
            assert_eq!(bank.reverse(&format!("v{number}"), number).await.undone, Some(Undone::Hold), "{number}");
        } else {
            assert_eq!(bank.acquirer.inquire(number).await, Inquiry::NotFound, "{number}");
            assert_eq!(bank.reverse(&format!("v{number}"), number).await.undone, Some(Undone::Nothing), "{number}");
        }
    }
    assert!(bank.books().iter().all(|row| matches!(row.2, BookState::Reversed | BookState::Closed)));
}

#[tokio::test]
async fn a_late_authorization_appears_unless_it_was_closed() {
    let bank = Bank::impatient().await;
    for reference in ["a1", "a2"] {
        assert_eq!(bank.authorize(reference, "4000000000050080").await.as_str(), "unknown");
        assert_eq!(bank.acquirer.inquire(reference).await, Inquiry::NotFound);
    }
    assert_eq!(bank.books(), []);
    assert_eq!(bank.reverse("v2", "a2").await.undone, Some(Undone::Nothing));
    bank.clock.advance(Duration::from_secs(5));
    assert_eq!(bank.found("a1").await.as_str(), "approved");
    assert_eq!(bank.found("a2").await.as_str(), "not_sent");
}

#[tokio::test]
async fn another_amount_is_passed_on_as_the_acquirer_says_it() {
    let bank = Bank::open().await;
    assert_eq!(approval(bank.authorize("a", "4000000000050072").await).amount.value, 50_999);
    assert_eq!(bank.books(), [(OperationKind::Authorize, 50_999, BookState::Held)]);
}

#[tokio::test]
async fn a_busy_acquirer_is_asked_again_with_the_same_key() {
    let bank = Bank::open().await;
    approval(bank.authorize("a", "4000000000050098").await);
    assert_eq!(bank.books(), [HELD]);
}

#[tokio::test]
async fn captures_and_reversals_too_can_be_refused_or_lose_their_answer() {
    let bank = Bank::open().await;
    bank.authorize("a1", "4000000000050106").await;
    let refused = bank.acquirer.capture(&call("c1"), "a1").await;
    assert_eq!(code(&refused), Some((DeclineReason::DoNotHonor, "05")));

    bank.authorize("a2", "4000000000050114").await;
    assert_eq!(bank.acquirer.capture(&call("c2"), "a2").await.as_str(), "unknown");
    assert_eq!(bank.found("c2").await.as_str(), "approved");

    bank.authorize("a3", "4000000000050122").await;
    assert_eq!(bank.acquirer.reverse(&call("v3"), "a3", false).await.as_str(), "unknown");
    let repeated = approval(bank.acquirer.reverse(&call("v3"), "a3", true).await);
    assert_eq!(repeated.undone, Some(Undone::Hold), "the flag of a repeat does not make it another request");
    assert_eq!(approval(bank.found("v3").await).undone, Some(Undone::Hold));
}

#[tokio::test]
async fn a_repeated_operation_has_one_effect_and_another_under_its_key_has_none() {
    let bank = Bank::open().await;
    let first = bank.authorize("a", APPROVED).await;
    assert_eq!(bank.authorize("a", APPROVED).await, first);
    let other = Call { amount: Money::new(1, Currency::KGS), ..call("a") };
    assert_eq!(bank.acquirer.authorize(&other, &card(APPROVED), false).await.as_str(), "unknown");
    let captured = bank.acquirer.capture(&call("c"), "a").await;
    assert_eq!(bank.acquirer.capture(&call("c"), "a").await, captured);
    let undone = bank.reverse("v", "a").await;
    assert_eq!(undone.undone, Some(Undone::Capture));
    assert_eq!(bank.reverse("v", "a").await, undone);
    let rows = bank.simulator.books();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let again = bank.reverse("v-again", "a").await;
    assert_eq!((again.undone, again.amount.value), (Some(Undone::Capture), 0), "nothing is given back twice");
}

#[tokio::test]
async fn a_reference_closed_before_it_came_is_refused_with_proof() {
    let bank = Bank::open().await;
    assert_eq!(bank.acquirer.inquire("a").await, Inquiry::NotFound);
    assert_eq!(bank.reverse("v", "a").await.undone, Some(Undone::Nothing));
    for _ in 0..2 {
        assert_eq!(bank.authorize("a", APPROVED).await.as_str(), "not_sent");
    }
    assert_eq!(bank.found("a").await.as_str(), "not_sent");
    let closed = (OperationKind::Authorize, 51_000, BookState::Closed);
    assert_eq!(bank.books(), [closed, (OperationKind::Reverse, 0, BookState::Closed)]);
    let capture = bank.acquirer.capture(&call("c"), "a").await;
    assert_eq!(code(&capture), Some((DeclineReason::Other, "12")));
}

#[tokio::test]
async fn what_was_approved_and_undone_is_not_called_approved_again() {
    let bank = Bank::open().await;
    bank.authorize("a", APPROVED).await;
    assert_eq!(bank.reverse("v", "a").await.undone, Some(Undone::Hold));
    assert_eq!(bank.authorize("a", APPROVED).await.as_str(), "unknown");
    assert_eq!(bank.found("a").await.as_str(), "unknown");
}

#[tokio::test]
async fn past_send_before_nothing_leaves() {
    let bank = Bank::open().await;
    let late = Call { send_before: NOON, ..call("a") };
    assert_eq!(bank.acquirer.authorize(&late, &card(APPROVED), false).await.as_str(), "not_sent");
    assert_eq!(bank.acquirer.reverse(&late, "b", false).await.as_str(), "not_sent");
    assert_eq!(bank.books(), []);
}

#[tokio::test]
async fn what_never_connects_was_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // Speaks, but not TLS.
    let plain = Hostile::answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    for address in
        [format!("http://{free}"), "http://no-such-host.invalid".to_owned(), format!("https://{}", plain.address)]
    {
        let outcome = adapter(&address, 1_000, Clock::manual(NOON)).authorize(&call("a"), &card(APPROVED), false).await;
        assert_eq!(outcome.as_str(), "not_sent", "{address}: {outcome:?}");
        let inquiry = adapter(&address, 1_000, Clock::manual(NOON)).inquire("a").await;
        assert!(matches!(inquiry, Inquiry::NoAnswer { .. }), "{address}");
    }
}

/// A server that reads one whole request on each connection, says its bytes and closes.
struct Hostile {
    address: SocketAddr,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
    _ends: DropGuard,
}

impl Hostile {
    async fn answering(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
        let ends = CancellationToken::new();
        tokio::spawn(ends.clone().run_until_cancelled_owned(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let _ = stream.write_all(bytes).await;
                let _ = seen.send(request);
            }
        }));
        Self { address, requests, _ends: ends.drop_guard() }
    }

    async fn authorize(&self) -> Outcome {
        let acquirer = adapter(format!("http://{}", self.address), 500, Clock::manual(NOON));
        acquirer.authorize(&call("ref-1"), &card(APPROVED), false).await
    }
}

/// Until the request's JSON ends, or what came cannot be one.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"}}") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 && buffer[0].is_ascii() && buffer[0] > 31 => {
                request.extend_from_slice(&buffer[..read])
            }
            _ => break,
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

#[tokio::test]
async fn no_misbehaviour_after_the_write_is_called_not_sent_or_approved() {
    const HUGE: &[u8] = &[b' '; 100_000];
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"reference\":\"ref-1\"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 307 Away\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 502 Bad Gateway\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\xfe",
        HUGE,
    ] {
        let hostile = Hostile::answering(answer).await;
        let outcome = hostile.authorize().await;
        assert_eq!(outcome.as_str(), "unknown", "{}", String::from_utf8_lossy(&answer[..answer.len().min(60)]));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n".to_vec();
    answer.resize(200_000, b' ');
    let outcome = Hostile::answering(answer.leak()).await.authorize().await;
    assert!(format!("{outcome:?}").contains("too large"), "{outcome:?}");
}

#[tokio::test]
async fn a_request_in_flight_elsewhere_leaves_doubt_to_the_end() {
    let answer = b"HTTP/1.1 409 Conflict\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let mut hostile = Hostile::answering(answer).await;
    assert_eq!(hostile.authorize().await.as_str(), "unknown");
    hostile.requests.close();
    let mut requests = 0;
    while hostile.requests.recv().await.is_some() {
        requests += 1;
    }
    assert!(requests > 1, "it is asked again: {requests}");
}

#[tokio::test]
async fn a_throttling_acquirer_ends_as_not_sent() {
    let answer = b"HTTP/1.1 429 Slow down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(Hostile::answering(answer).await.authorize().await.as_str(), "not_sent");
}

#[tokio::test]
async fn a_kept_connection_that_the_acquirer_closed_never_makes_two_requests_of_one() {
    // Answers the first request as if it would keep the connection, and closes it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            bodies.push(read_request(&mut stream).await);
            stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
        bodies
    });
    let acquirer = adapter(format!("http://{address}"), 500, Clock::manual(NOON));
    for reference in ["ref-1", "ref-2"] {
        assert_eq!(acquirer.authorize(&call(reference), &card(APPROVED), false).await.as_str(), "unknown");
    }
    // Had the second been lost with the closed connection and called unknown, nobody would have come here again.
    let second = tokio::time::timeout(Duration::from_millis(100), server).await;
    if let Ok(bodies) = second {
        assert!(bodies.unwrap()[1].contains("ref-2"));
    }
}

#[tokio::test]
async fn a_request_says_who_it_is_in_headers_and_body() {
    let mut hostile = Hostile::answering(b"").await;
    let acquirer = adapter(format!("http://{}/shim/", hostile.address), 500, Clock::manual(NOON));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = Call { traceparent: Some(trace.to_owned()), ..call("ref-1") };
    acquirer.authorize(&call, &card(APPROVED), true).await;
    let request = hostile.requests.recv().await.unwrap();
    assert!(request.starts_with("POST /shim/v1/authorizations HTTP/1.1\r\n"), "{request}");
    for header in ["idempotency-key: ref-1", "authorization: Bearer secret-token", &format!("traceparent: {trace}")] {
        assert!(request.contains(header), "{header}: {request}");
    }
    let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    schema("Authorize").validate(&body).unwrap();
    assert_eq!(body["reference"], "ref-1");
    assert_eq!(body["capture"], true);
}

fn document() -> Value {
    serde_json::from_str(include_str!("../../schemas/acquirer.openapi.json")).unwrap()
}

/// A schema of the contract's document.
fn schema(name: &str) -> jsonschema::Validator {
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
