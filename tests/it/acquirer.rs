//! The HTTP adapter against the simulator, card by card.

mod bank_page;
mod contract;
mod hostile;

use std::{net::SocketAddr, time::Duration};

use time::{OffsetDateTime, macros::datetime};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    acquirer::{Acquirer, Call, Circuit, http::HttpAcquirer},
    clock::Clock,
    config::Config,
    payment::{
        Currency, Money, OperationKind, Outcome,
        card::{Card, CardInput, CardRules, DeclineReason},
        operation::{Approval, Inquiry, Undone},
    },
    simulator::{self, BookState, Simulator, SimulatorOptions},
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
    // Plain http may name a host beyond this machine: one that is not there.
    settings.insecure = true;
    settings.token = "secret-token".to_owned().into();
    (settings.connect_timeout_ms, settings.answer_timeout_ms) = (200, answer_timeout_ms);
    // What is asked of each request here is asked however many failed before it.
    settings.circuit_failures = u32::MAX;
    HttpAcquirer::new(&settings, clock, Circuit::new(&settings)).unwrap()
}

/// A simulator on a socket of its own with a clock that stands at noon, and an adapter that talks to it.
struct Bank {
    acquirer: HttpAcquirer,
    impatient: HttpAcquirer,
    simulator: Simulator,
    clock: Clock,
    address: SocketAddr,
    _ends: DropGuard,
}

impl Bank {
    async fn open() -> Self {
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
        let acquirer = adapter(format!("http://{address}"), 20_000, clock.clone());
        let impatient = adapter(format!("http://{address}"), 300, clock.clone());
        Self { acquirer, impatient, simulator, clock, address, _ends: ends.drop_guard() }
    }

    /// For cards that never answer.
    async fn authorize_in_vain(&self, reference: &str, number: &str) -> Outcome {
        self.impatient.authorize(&call(reference), &card(number), false).await
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
        let rows = self.simulator.books();
        let kind = rows.iter().find(|row| row.reference == reference).map_or(OperationKind::Authorize, |row| row.kind);
        match self.acquirer.inquire(kind, reference).await {
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
async fn a_slow_card_is_waited_for() {
    let bank = Bank::open().await;
    assert_eq!(approval(bank.authorize("a", "4000000000050015").await).amount, AMOUNT);
    assert_eq!(bank.books(), [HELD]);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_an_inquiry_or_a_repeat_tells_the_truth() {
    let bank = Bank::open().await;
    for (number, silent, booked) in [
        ("4000000000050023", true, false),
        ("4000000000050031", true, true),
        ("4000000000050049", false, true),
        ("4000000000050056", false, false),
        ("4000000000050064", false, true),
    ] {
        let lost = match silent {
            true => bank.authorize_in_vain(number, number).await,
            false => bank.authorize(number, number).await,
        };
        assert_eq!(lost.as_str(), "unknown", "{number}");
        if booked {
            assert_eq!(bank.found(number).await.as_str(), "approved", "{number}");
            assert_eq!(bank.authorize(number, number).await.as_str(), "approved", "{number}");
            assert_eq!(bank.reverse(&format!("v{number}"), number).await.undone, Some(Undone::Hold), "{number}");
        } else {
            assert_eq!(bank.acquirer.inquire(OperationKind::Authorize, number).await, Inquiry::NotFound, "{number}");
            assert_eq!(bank.reverse(&format!("v{number}"), number).await.undone, Some(Undone::Nothing), "{number}");
        }
    }
    assert!(bank.books().iter().all(|row| matches!(row.2, BookState::Reversed | BookState::Closed)));
}

#[tokio::test]
async fn a_late_authorization_appears_unless_it_was_closed() {
    let bank = Bank::open().await;
    for reference in ["a1", "a2"] {
        assert_eq!(bank.authorize_in_vain(reference, "4000000000050080").await.as_str(), "unknown");
        assert_eq!(bank.acquirer.inquire(OperationKind::Authorize, reference).await, Inquiry::NotFound);
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
    assert_eq!(bank.acquirer.inquire(OperationKind::Authorize, "a").await, Inquiry::NotFound);
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
