//! A payment's page: what became of it so far, and what the payer is to do. Live where a script runs.

use askama::Template;
use axum::{
    Extension,
    body::Bytes,
    extract::{FromRequest, Multipart, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use time::OffsetDateTime;
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    super::{
        Intake,
        challenge::{self, Fields},
        extract::{PaymentId, in_time, read_body},
        problem::Problem,
        telemetry::Context,
    },
    assets::ASSETS,
    bill::grouped,
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    receipt::{Lines, lines},
    scripts::{self, Words},
    texts::{Text, say},
};
use crate::{
    notify::{Locale, shown},
    payment::{PaymentCode, PublicStatus, card::DeclineReason},
    store::{
        payments::{self, Payment},
        receipts,
    },
};

/// How often the page is loaded again where no script runs.
const REFRESH_S: u32 = 5;

/// What a payment's page has to say: one for each way a payment may stand for its payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// Wait a moment.
    Processing,
    /// The bank waits for the payer.
    Confirm,
    /// The payer has been at the bank; its answer is looked at.
    Confirmed,
    /// The bank has waited long enough; what became of it is being found out.
    ConfirmOver,
    /// Paid.
    Paid,
    /// Refused.
    Declined,
    /// Nothing was charged.
    NotCharged,
    /// Not known yet.
    Unknown,
    /// Given back in full.
    Refunded,
}

impl Telling {
    fn of(payment: &Payment, now: OffsetDateTime) -> Self {
        let waits = payment.challenge.as_ref().is_some_and(|challenge| challenge.expires_at > now);
        match payment.public_status {
            PublicStatus::Processing => Self::Processing,
            PublicStatus::Confirm if payment.returned => Self::Confirmed,
            PublicStatus::Confirm if waits => Self::Confirm,
            PublicStatus::Confirm => Self::ConfirmOver,
            PublicStatus::Paid => Self::Paid,
            PublicStatus::Declined => Self::Declined,
            PublicStatus::NotCharged => Self::NotCharged,
            PublicStatus::Unknown => Self::Unknown,
            PublicStatus::Refunded => Self::Refunded,
        }
    }

    const fn title(self) -> Text {
        match self {
            Self::Processing => Text::ProcessingTitle,
            Self::Confirm => Text::ConfirmTitle,
            Self::Confirmed => Text::ConfirmedTitle,
            Self::ConfirmOver => Text::ConfirmOverTitle,
            Self::Paid => Text::PaidTitle,
            Self::Declined => Text::DeclinedTitle,
            Self::NotCharged => Text::NotChargedTitle,
            Self::Unknown => Text::UnknownTitle,
            Self::Refunded => Text::RefundedTitle,
        }
    }

    /// What it means for the payer and the money.
    const fn sentence(self) -> Text {
        match self {
            Self::Processing => Text::Processing,
            Self::Confirm => Text::Confirm,
            Self::Confirmed => Text::Confirmed,
            Self::ConfirmOver => Text::ConfirmOver,
            Self::Paid => Text::Paid,
            Self::Declined => Text::Declined,
            Self::NotCharged => Text::NotCharged,
            Self::Unknown => Text::Unknown,
            Self::Refunded => Text::Refunded,
        }
    }

    /// What is to be done, or what happens next.
    const fn next(self) -> Option<Text> {
        match self {
            Self::Processing | Self::Confirmed | Self::ConfirmOver => Some(Text::ProcessingNext),
            Self::Unknown => Some(Text::UnknownNext),
            Self::NotCharged => Some(Text::NotChargedNext),
            Self::Confirm | Self::Paid | Self::Declined | Self::Refunded => None,
        }
    }

    const fn tone(self) -> &'static str {
        match self {
            Self::Processing | Self::Confirm | Self::Confirmed | Self::ConfirmOver => "wait",
            Self::Paid => "good",
            Self::Declined => "bad",
            Self::NotCharged | Self::Refunded => "plain",
            Self::Unknown => "warn",
        }
    }

    /// Whether something may still happen.
    const fn is_open(self) -> bool {
        match self {
            Self::Processing | Self::Confirm | Self::Confirmed | Self::ConfirmOver | Self::Unknown => true,
            Self::Paid | Self::Declined | Self::NotCharged | Self::Refunded => false,
        }
    }

    /// Whether the payer may pay again.
    const fn may_pay_again(self) -> bool {
        matches!(self, Self::Declined | Self::NotCharged)
    }
}

/// Why a payment was declined, in words that its payer can act on.
const fn reason(reason: DeclineReason) -> Text {
    match reason {
        DeclineReason::InvalidNumber => Text::DeclinedInvalidNumber,
        DeclineReason::ExpiredCard => Text::DeclinedExpiredCard,
        DeclineReason::InvalidCvc => Text::DeclinedInvalidCvc,
        DeclineReason::InvalidHolder => Text::DeclinedInvalidHolder,
        DeclineReason::UnsupportedNetwork => Text::DeclinedUnsupportedNetwork,
        DeclineReason::UnreadableCard => Text::DeclinedUnreadableCard,
        DeclineReason::CardTimedOut => Text::DeclinedCardTimedOut,
        DeclineReason::InsufficientFunds => Text::DeclinedInsufficientFunds,
        DeclineReason::LostOrStolen => Text::DeclinedLostOrStolen,
        DeclineReason::LimitExceeded => Text::DeclinedLimitExceeded,
        DeclineReason::AuthenticationFailed => Text::DeclinedAuthenticationFailed,
        DeclineReason::SuspectedFraud => Text::DeclinedSuspectedFraud,
        DeclineReason::DoNotHonor => Text::DeclinedDoNotHonor,
        DeclineReason::TooManyAttempts => Text::DeclinedTooManyAttempts,
        DeclineReason::Other => Text::DeclinedOther,
    }
}

/// The bank's form.
struct Bank {
    url: String,
    fields: Vec<(String, String)>,
    until: String,
}

#[derive(Template)]
#[template(path = "payment.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    telling: Telling,
    payment: Payment,
    next: Option<String>,
    reason: Option<String>,
    amount: String,
    code: String,
    card: Option<String>,
    bank: Option<Bank>,
    receipt: Option<Lines>,
    is_final: bool,
    words: Words,
}

/// The payment of this id.
pub(super) async fn show(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    PaymentId(id): PaymentId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let payment = payments::read(&intake.pool, id).await?.ok_or_else(Problem::payment_unknown)?;
    let telling = Telling::of(&payment, intake.clock.now());
    let receipt = if telling == Telling::Paid { receipts::of_payment(&intake.pool, id).await? } else { None };
    let bank = if telling == Telling::Confirm { bank(&intake, lang, &payment) } else { None };
    let mut frame =
        Frame::new(&intake, lang, format!("/payments/{id}"), say(lang, telling.title())).script(&ASSETS.payment);
    if telling.is_open() && bank.is_none() {
        frame = frame.refresh(REFRESH_S);
    }
    let code = payment.bill.parse::<PaymentCode>().map(|code| grouped(&code)).unwrap_or_default();
    let receipt = receipt.map(|row| lines(&intake, row, lang));
    let page = Page {
        next: telling.next().map(|text| say(lang, text)),
        reason: payment.decline_reason.filter(|_| telling == Telling::Declined).map(|why| say(lang, reason(why))),
        amount: shown::amount(payment.amount, lang),
        code,
        card: payment.card.as_ref().map(|card| shown::card(card, lang)),
        receipt,
        is_final: payment.public_status.is_final(),
        words: scripts::payment(lang),
        bank,
        telling,
        payment,
        frame,
    };
    let forms = page.bank.as_ref().map_or(Forms::Nowhere, |bank| Forms::Bank(&bank.url));
    answer(&intake, &headers, StatusCode::OK, &page.frame, &page, forms)
}

/// The form that leads to the bank: its own fields, and the way back (3-D Secure 1.0.2 calls it `TermUrl`, with `MD` to
/// tell returns apart).
fn bank(intake: &Intake, lang: Locale, payment: &Payment) -> Option<Bank> {
    let challenge = payment.challenge.as_ref()?;
    let site = intake.config.intake.public_url.trim_end_matches('/');
    let mut fields: Vec<_> = challenge.fields.iter().filter(|(name, _)| name != "TermUrl").cloned().collect();
    fields.push(("TermUrl".to_owned(), format!("{site}/{lang}/payments/{}/return", payment.id)));
    if fields.iter().all(|(name, _)| name != "MD") {
        fields.push(("MD".to_owned(), payment.id.to_string()));
    }
    Some(Bank { url: challenge.url.clone(), fields, until: shown::moment(challenge.expires_at) })
}

/// Whether a path is the one that banks send payers back to.
pub(super) fn is_return(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], ["", lang, "payments", _, "return"] if lang.parse::<Locale>().is_ok())
}

/// The bank sent the payer back with a link. With nothing in it, the payer came back without an answer.
pub(super) async fn came_back(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    PaymentId(id): PaymentId,
    Extension(context): Extension<Context>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    hand_in(&intake, lang, id, context, read_pairs(query.unwrap_or_default().as_bytes())?).await
}

/// The bank's page posted its answer through the payer's browser.
pub(super) async fn was_posted_back(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    PaymentId(id): PaymentId,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let limit = intake.config.intake.max_body_bytes;
    let media_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fields = if media_type.to_ascii_lowercase().starts_with("multipart/form-data") {
        in_time(read_parts(request, &intake)).await??
    } else {
        let body: Bytes = read_body(request, limit).await?;
        read_pairs(&body)?
    };
    hand_in(&intake, lang, id, context, fields).await
}

async fn hand_in(
    intake: &Intake,
    lang: Locale,
    id: Uuid,
    context: Context,
    fields: Fields,
) -> Result<Response, Problem> {
    // Too late or not, the payment's page tells how it stands.
    if !fields.is_empty() {
        challenge::hand_in(intake, id, &fields, context).await?;
    }
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, format!("/{lang}/payments/{id}"))]).into_response())
}

fn read_pairs(text: &[u8]) -> Result<Fields, Problem> {
    let mut fields = Fields::default();
    for (name, value) in form_urlencoded::parse(text) {
        fields.push(name.into_owned(), value.into_owned())?;
    }
    Ok(fields)
}

async fn read_parts(request: Request, intake: &Intake) -> Result<Fields, Problem> {
    let broken = |_| Problem::invalid_field("", "the form cannot be read");
    let mut fields = Fields::default();
    let (parts, body) = request.into_parts();
    let body = axum::body::Body::new(http_body_util::Limited::new(body, intake.config.intake.max_body_bytes));
    let request = Request::from_parts(parts, body);
    let mut form = Multipart::from_request(request, intake)
        .await
        .map_err(|_| Problem::invalid_field("", "the form cannot be read"))?;
    while let Some(part) = form.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        fields.push(name, part.text().await.map_err(broken)?)?;
    }
    Ok(fields)
}
