//! Those outside: payers, foreign sites, agencies, and a tool that decides on what it has read before.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use p256::PublicKey;
use sqlx::Row;
use time::OffsetDateTime;
use tolom::{
    clock,
    contracts::{self, CardRef, Event as Message, ForeignRequest, PaymentRequested, Topic},
    payment::{Currency, Event, Money, PaymentCode, Status, card::CardInput},
    sealing::{self, Kid},
    store::{
        StoreError,
        accept::{Acceptance, CardSource, Idempotency, NewPayment, accept},
        bills,
        cards::{self, NewCard},
        outbox::OutboxRow,
        payments::{self, Returned},
        status::{self, Learnt, StatusWrite},
    },
    worker::Context,
};
use uuid::Uuid;

use super::chance::Chance;

pub(super) const AGENCY: &str = "agency";
pub(super) const FOREIGN: &str = "https://consulate.example";
pub(super) const AMOUNT: Money = Money::new(51_000, Currency::KGS);
const NUMBERS: [&str; 3] = ["4111111111111111", "5555555555554444", "4000000000000002"];
/// Fails its check digit, so that it is declined before any call.
const BAD_NUMBER: &str = "4111111111111112";

/// Somebody who wants to pay a bill.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    pub(super) bill: PaymentCode,
    /// Of this try; the next one has another.
    pub(super) key: String,
    pub(super) number: &'static str,
    pub(super) capture_at_once: bool,
    /// A site abroad publishes for this payer.
    pub(super) foreign: bool,
    pub(super) tries: u32,
}

impl Payer {
    pub(super) fn new(chance: &mut Chance, bill: PaymentCode, number: usize, capture_at_once: bool) -> Self {
        let card = if chance.percent(4) { BAD_NUMBER } else { *chance.pick(&NUMBERS) };
        let foreign = chance.percent(20);
        Self { bill, key: format!("key {number}"), number: card, capture_at_once, foreign, tries: 1 }
    }
}

/// Something that somebody does when its time has come.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// A payer submits, or submits again under the same key.
    Submit(usize),
    /// A foreign site stores its payer's card, and then publishes the request.
    StoreCard(usize),
    /// The request of a payer abroad, with the id of its payment and of its card; true: with a wrong amount.
    Publish(usize, Uuid, Uuid, Uuid, bool),
    /// A payer comes back from the bank; true: with the right code.
    Answer(Uuid, bool),
    PaidElsewhere(PaymentCode),
    Cancel(PaymentCode),
    /// A tool withdraws a payment, deciding on what it has read before.
    Withdraw(Uuid),
    /// Bytes that are no event.
    Garbage,
}

/// What came of an errand.
#[derive(Debug, Clone)]
pub(super) enum News {
    Accepted(usize, Uuid),
    Refused(usize, &'static str),
    CardStored(usize, Uuid),
    Answered(Uuid, &'static str),
    Changed(String),
    Withdrawn(Uuid, String),
    Failed(String),
}

/// The public half of the sealing key of a thread.
#[derive(Clone)]
pub(super) struct Seal {
    pub(super) kid: Kid,
    pub(super) key: PublicKey,
}

impl Seal {
    fn card(&self, payer: &Payer, now: OffsetDateTime) -> NewCard {
        let card = CardInput {
            number: payer.number.to_owned(),
            expiry_month: 12,
            expiry_year: 2030,
            cvc: "123".to_owned(),
            holder: "AIBEK ASANOV".to_owned(),
        };
        let expires_at = now.replace_nanosecond(0).unwrap() + Duration::from_secs(600);
        let jwe = sealing::seal(&self.key, &self.kid, &payer.bill, expires_at, &card);
        NewCard { id: clock::new_id(), bill: payer.bill.clone(), kid: self.kid.to_string(), jwe, expires_at }
    }
}

fn contact() -> contracts::Payer {
    contracts::Payer { email: "payer@example.com".to_owned(), phone: "+996555123456".to_owned() }
}

pub(super) type Told = Arc<Mutex<Vec<News>>>;

/// Submits as the intake does: a new id and a newly sealed card for each request, one key for all of them.
pub(super) async fn submit(context: Context, index: usize, payer: Payer, seal: Seal, told: Told) {
    let now = context.clock.now();
    let id = clock::new_secret_id();
    let payment = NewPayment {
        id,
        bill: payer.bill.clone(),
        amount: AMOUNT,
        card: CardSource::Inline(seal.card(&payer, now)),
        payer: contact(),
        locale: "ru".to_owned(),
        terms: "2026-01-01".to_owned(),
        acquirer: "simulation".to_owned(),
        capture_at_once: payer.capture_at_once,
        caller: "public".to_owned(),
        idempotency: Some(Idempotency {
            key: payer.key.clone(),
            fingerprint: [u8::try_from(index).unwrap(); 32],
            answer: id.to_string(),
        }),
        event: None,
        origin: None,
        traceparent: None,
    };
    let news = match accept(&context.sessions, now, &context.config, &[payment]).await {
        Ok(mut accepted) => {
            context.relay.announce(accepted.outbox);
            match accepted.results.pop() {
                Some(Acceptance::New) => News::Accepted(index, id),
                Some(Acceptance::Replayed { payment, .. }) => News::Accepted(index, payment),
                Some(Acceptance::Refused(refusal)) => News::Refused(index, refusal.problem()),
                None => unreachable!("one request, one result"),
            }
        }
        Err(error) => News::Failed(format!("accept: {error}")),
    };
    told.lock().unwrap().push(news);
}

pub(super) async fn store_card(context: Context, index: usize, payer: Payer, seal: Seal, told: Told) {
    let card = seal.card(&payer, context.clock.now());
    let news = match cards::put(&context.pool, &card, context.clock.now()).await {
        Ok(None) => News::CardStored(index, card.id),
        Ok(Some(refusal)) => News::Refused(index, refusal.problem()),
        Err(error) => News::Failed(format!("a card: {error}")),
    };
    told.lock().unwrap().push(news);
}

/// The request of a foreign site, as its bytes.
pub(super) fn foreign(
    payer: &Payer,
    event: Uuid,
    payment: Uuid,
    card: Uuid,
    wrong: bool,
    now: OffsetDateTime,
) -> Vec<u8> {
    let amount = if wrong { Money::new(1, Currency::KGS) } else { AMOUNT };
    let request = ForeignRequest {
        bill: payer.bill.clone(),
        amount,
        card: CardRef { id: card },
        payer: contact(),
        locale: "ru".to_owned(),
        terms: "2026-01-01".to_owned(),
    };
    let data = PaymentRequested { payment, request: Some(request) };
    Message::new(Topic::PaymentRequested, event, FOREIGN, payment, now, data).to_bytes()
}

pub(super) async fn answer(context: Context, payment: Uuid, right: bool, told: Told) {
    let code = if right { super::acquirer::RIGHT_CODE } else { "000000" };
    let fields = [("otp".to_owned(), code.to_owned())];
    let now = context.clock.now();
    let word = match payments::complete_challenge(&context.pool, payment, &fields, now, None).await {
        Ok(Returned::Stored(row)) => {
            context.relay.announce(vec![row]);
            "taken"
        }
        Ok(Returned::Already) => "taken already",
        Ok(Returned::Over) => "over",
        Ok(Returned::Unknown) => "unknown",
        Err(error) => return told.lock().unwrap().push(News::Failed(format!("an answer: {error}"))),
    };
    told.lock().unwrap().push(News::Answered(payment, word));
}

pub(super) async fn change_bill(context: Context, code: PaymentCode, paid: bool, told: Told) {
    let now = context.clock.now();
    let changed = match paid {
        true => bills::put_paid(&context.pool, AGENCY, &code, now).await,
        false => bills::cancel(&context.pool, AGENCY, &code, now).await,
    };
    let word = match changed {
        Ok(bills::Change::Done(_) | bills::Change::Issued(_)) => "done".to_owned(),
        Ok(bills::Change::Refused(refused)) => format!("refused: {refused:?}"),
        Err(error) => return told.lock().unwrap().push(News::Failed(format!("a bill: {error}"))),
    };
    let what = if paid { "paid elsewhere" } else { "cancelled" };
    told.lock().unwrap().push(News::Changed(format!("bill {code} {what}: {word}")));
}

/// Reads a payment, and later withdraws it because nobody had claimed it when it was read, through the one function that
/// writes statuses. While it is as it was, that is well; once it has moved on, it must be refused.
pub(super) async fn withdraw(context: Context, payment: Uuid, told: Told) {
    let word = match try_withdraw(&context, payment).await {
        Ok(word) => word.to_owned(),
        Err(error) => format!("was refused: {error}"),
    };
    told.lock().unwrap().push(News::Withdrawn(payment, word));
}

async fn try_withdraw(context: &Context, payment: Uuid) -> Result<&'static str, StoreError> {
    let pool = &context.pool;
    let question = "SELECT status, version FROM payment WHERE id = $1";
    let Some(row) = sqlx::query(question).bind(payment).fetch_optional(pool).await? else { return Ok("is not there") };
    let (word, version): (String, i32) = (row.try_get("status")?, row.try_get("version")?);
    if word != Status::Accepted.as_str() {
        return Ok("came too late");
    }
    let write = StatusWrite {
        payment,
        from: Status::Accepted,
        version,
        steps: vec![(Event::ProvenNotCharged, Status::Failed)],
        learnt: Learnt::default(),
        operation: None,
        actor: "a tool".to_owned(),
        detail: Some("nobody had claimed it".to_owned()),
    };
    // Somebody thinks about it, and the world goes on.
    context.clock.sleep(Duration::from_secs(1)).await;
    let mut transaction = pool.begin().await?;
    status::write(&mut transaction, &[write]).await?;
    sqlx::query("DELETE FROM sealed_card c USING payment p WHERE p.id = $1 AND c.id = p.card_id")
        .bind(payment)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok("is done")
}

/// Publishes announced rows: what the relay does with them.
pub(super) async fn relay(context: Context, rows: Vec<OutboxRow>) {
    tolom::relay::publish(&context.pool, &context.publisher, rows).await;
}
