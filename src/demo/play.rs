//! Pays one bill as a payer does, and tells how it went.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::scenes::{Scene, email};
use crate::{
    clock::Clock,
    contracts,
    payer::{Payer, Request},
    payment::{Money, PaymentCode, PublicStatus},
    simulator::cards::ONE_TIME_CODE,
};

/// How long a payment may take before it is called broken.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is known of a payment, first to last.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Played {
    /// The bill.
    pub(super) bill: PaymentCode,
    /// What is paid for.
    pub(super) service: String,
    /// What was owed.
    pub(super) amount: Option<Money>,
    /// What the test card does.
    pub(super) card_does: &'static str,
    /// The card, masked, once the pipeline knows it.
    pub(super) card: Option<String>,
    /// The payment.
    pub(super) payment: Option<Uuid>,
    /// What the payer was told last.
    pub(super) public_status: Option<PublicStatus>,
    /// Why it was declined.
    pub(super) decline_reason: Option<String>,
    /// Whether it was unknown for a while.
    pub(super) was_unknown: bool,
    /// Whether the payer had to confirm it with the bank.
    pub(super) was_confirmed: bool,
    /// From the submission to its end, as the payer saw it.
    pub(super) took_ms: Option<u64>,
    /// From the 202 to the capture, by the pipeline's own timeline.
    pub(super) accepted_to_captured_ms: Option<u64>,
    /// The receipt's number.
    pub(super) receipt: Option<String>,
    /// Whether nothing was to go wrong.
    pub(super) plain: bool,
    /// What is wrong with how it went; none if it ended as the card says.
    pub(super) wrong: Option<String>,
    /// The request, to be repeated.
    #[serde(skip)]
    pub(super) sent: Option<(String, Request)>,
}

impl Played {
    pub(super) fn new(scene: Scene, bill: &PaymentCode) -> Self {
        Self {
            bill: bill.clone(),
            service: String::new(),
            amount: None,
            card_does: scene.title,
            card: None,
            payment: None,
            public_status: None,
            decline_reason: None,
            was_unknown: false,
            was_confirmed: false,
            took_ms: None,
            accepted_to_captured_ms: None,
            receipt: None,
            plain: scene.plain,
            wrong: None,
            sent: None,
        }
    }

    pub(super) fn is_paid(&self) -> bool {
        self.public_status == Some(PublicStatus::Paid)
    }
}

/// Plays a scene, and shows each step; the last one has a time. Whatever happens, it ends.
pub(super) async fn play(payer: &Payer, clock: &Clock, scene: Scene, bill: &PaymentCode, show: impl Fn(&Played)) {
    let mut played = Played::new(scene, bill);
    let paid = tokio::time::timeout(PATIENCE, pay(payer, clock, scene, &mut played, &show)).await;
    let wrong = match paid {
        Ok(Ok(())) => {
            let ended = played.public_status.unwrap_or(PublicStatus::Unknown);
            let right = scene.ending.is(ended, played.decline_reason.as_deref());
            (!right).then(|| format!("the card should have come to {:?}", scene.ending))
        }
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("no end within {} s", PATIENCE.as_secs())),
    };
    played.wrong = wrong;
    // What never got so far took no time.
    played.took_ms.get_or_insert(0);
    show(&played);
}

async fn pay(
    payer: &Payer,
    clock: &Clock,
    scene: Scene,
    played: &mut Played,
    show: &impl Fn(&Played),
) -> anyhow::Result<()> {
    let bill = payer.bill(&played.bill).await?;
    (played.service, played.amount) = (bill.service.clone(), Some(bill.amount));
    show(played);
    let keys = payer.keys().await?;
    let key = keys.first().context("there is no sealing key")?;
    let request = Request {
        card: payer.seal(key, &bill.code, &scene.card(clock.now()), clock.now()),
        amount: bill.amount,
        payer: contracts::Payer { email: email(&bill.code), phone: "+996555123456".to_owned() },
        locale: ["ky", "ru", "en"][bill.code.as_str().len() % 3].to_owned(),
        terms: bill.terms,
        bill: bill.code,
    };
    let (idempotency_key, began) = (Uuid::new_v4().to_string(), Instant::now());
    let submitted = payer.submit(&request, &idempotency_key).await?;
    played.sent = Some((idempotency_key, request));
    let id = submitted.id().ok_or_else(|| submitted.refused("submitting a payment"))?;
    played.payment = Some(id);
    let mut last = follow(payer, id, played, show).await?;
    if played.public_status == Some(PublicStatus::Confirm) {
        // In a browser the bank's page asks for this, and posts it back.
        let confirmed = payer.challenge(id, &[("otp", ONE_TIME_CODE)]).await?;
        if !confirmed.status.is_success() {
            return Err(confirmed.refused("confirming a payment").into());
        }
        played.was_confirmed = true;
        last = payer.follow(id).await?;
    }
    played.took_ms = Some(millis(began.elapsed()));
    learn(played, &last);
    let payment = payer.payment(id).await?;
    learn(played, &payment);
    read_timeline(played, &payment);
    if played.is_paid() {
        let receipt = payer.receipt(id).await?;
        anyhow::ensure!(receipt["number"].as_str() == played.receipt.as_deref(), "two receipt numbers");
    }
    Ok(())
}

/// Follows until the end, or until the bank wants a confirmation.
async fn follow(payer: &Payer, id: Uuid, played: &mut Played, show: &impl Fn(&Played)) -> anyhow::Result<Value> {
    let last = payer.follow_until(id, |news| {
        learn(played, &news.payment);
        show(played);
        news.public_status == PublicStatus::Confirm
    });
    Ok(last.await?)
}

fn learn(played: &mut Played, payment: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Ok(status) = serde_json::from_value(payment["public_status"].clone()) {
        played.public_status = Some(status);
    }
    let card = &payment["card"];
    played.card = text(&card["number"]).or(played.card.take());
    played.decline_reason = text(&payment["decline_reason"]).or(played.decline_reason.take());
    played.receipt = text(&payment["receipt_number"]).or(played.receipt.take());
}

/// The timeline is the journal, as far as a payer may see it.
fn read_timeline(played: &mut Played, payment: &Value) {
    let at = |value: &Value| value.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let steps: Vec<&Value> = payment["timeline"].as_array().into_iter().flatten().collect();
    let entered = |status: &str| steps.iter().find(|step| step["status"] == status);
    played.was_unknown = entered("unknown").is_some();
    let captured = entered("captured").and_then(|step| at(&step["at"]));
    played.accepted_to_captured_ms = at(&payment["accepted_at"])
        .zip(captured)
        .and_then(|(accepted, captured)| u64::try_from((captured - accepted).whole_milliseconds()).ok());
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
