//! Receipts on the site: as PDF, looked up by number, and sent again.

use askama::Template;
use axum::{
    extract::{RawPathParams, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    super::{
        Intake,
        extract::{BillCode, PaymentId},
        limits::ClientAddress,
        problem::Problem,
    },
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    texts::{Text, say},
};
use crate::{
    notify::{Locale, Receipt, shown},
    payment::Money,
    store::receipts::{self, GenuineReceipt, ReceiptRow, by_number, of_payment},
};

/// What has to be escaped in a part of a path: everything but the unreserved (RFC 3986 2.3).
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A receipt's lines, as a page shows them.
pub(super) struct Lines {
    pub(super) number: String,
    pub(super) title: String,
    pub(super) rows: Vec<(String, String)>,
    /// A QR code of the page that verifies it, as an SVG element.
    pub(super) code: String,
}

/// The lines of a receipt in the page's language.
pub(super) fn lines(intake: &Intake, row: ReceiptRow, lang: Locale) -> Lines {
    let receipt = Receipt { locale: lang, ..Receipt::from(row) };
    let code = receipt.verify_code(&intake.config.intake.public_url).unwrap_or_default();
    Lines { number: receipt.number.clone(), title: receipt.title(), rows: receipt.lines(), code }
}

/// The receipt as PDF, for a plain link.
pub(super) async fn pdf(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    PaymentId(id): PaymentId,
) -> Result<Response, Problem> {
    let row = of_payment(&intake.pool, id).await?.ok_or_else(Problem::receipt_unavailable)?;
    let receipt = Receipt { locale: lang, ..Receipt::from(row) };
    let pdf = receipt.pdf(&intake.config.operator, &intake.config.intake.public_url).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, payment.id = %id, "a receipt cannot be written");
        Problem::internal()
    })?;
    let name = HeaderValue::try_from(format!("inline; filename=\"{}.pdf\"", receipt.number))
        .map_err(|_| Problem::internal())?;
    let kind = HeaderValue::from_static("application/pdf");
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], pdf).into_response())
}

#[derive(Template)]
#[template(path = "receipt.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    tone: &'static str,
    sentence: String,
    /// Label and value; nothing personal.
    rows: Vec<(String, String)>,
}

/// Says whether a receipt is genuine, to whoever has its number: amount and date, nothing personal.
pub(super) async fn verify(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    ClientAddress(address): ClientAddress,
    params: RawPathParams,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    intake.may_look_up(address)?;
    let number = params.iter().find(|(name, _)| *name == "number").map_or("", |(_, value)| value);
    let found = by_number(&intake.pool, number).await?;
    let standing = Genuineness::of(found.as_ref());
    let place = format!("/receipts/{}", utf8_percent_encode(number, IN_PATH));
    let page = Page {
        frame: Frame::new(&intake, lang, place, say(lang, standing.title())),
        tone: standing.tone(),
        sentence: say(lang, standing.sentence()),
        rows: found.map(|receipt| rows(&receipt, lang)).unwrap_or_default(),
    };
    let status = if standing == Genuineness::NotOurs { StatusCode::NOT_FOUND } else { StatusCode::OK };
    answer(&intake, &headers, status, &page.frame, &page, Forms::Nowhere)
}

/// What can be said of a receipt's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Genuineness {
    Genuine,
    RefundedInPart,
    GivenBack,
    NotOurs,
}

impl Genuineness {
    const fn of(receipt: Option<&GenuineReceipt>) -> Self {
        match receipt {
            None => Self::NotOurs,
            Some(GenuineReceipt { still_paid: false, .. }) => Self::GivenBack,
            Some(GenuineReceipt { refunded: 1.., .. }) => Self::RefundedInPart,
            Some(_) => Self::Genuine,
        }
    }

    const fn title(self) -> Text {
        match self {
            Self::Genuine | Self::RefundedInPart => Text::GenuineTitle,
            Self::GivenBack => Text::GivenBackTitle,
            Self::NotOurs => Text::NotGenuineTitle,
        }
    }

    const fn sentence(self) -> Text {
        match self {
            Self::Genuine => Text::Genuine,
            Self::RefundedInPart => Text::RefundedInPart,
            Self::GivenBack => Text::GivenBack,
            Self::NotOurs => Text::NotGenuine,
        }
    }

    const fn tone(self) -> &'static str {
        match self {
            Self::Genuine => "good",
            Self::RefundedInPart | Self::GivenBack => "warn",
            Self::NotOurs => "bad",
        }
    }
}

fn rows(receipt: &GenuineReceipt, lang: Locale) -> Vec<(String, String)> {
    let mut rows = vec![
        (say(lang, Text::LabelReceipt), receipt.number.clone()),
        (say(lang, Text::LabelAmount), shown::amount(receipt.amount, lang)),
        (say(lang, Text::LabelPaidAt), shown::moment(receipt.paid_at)),
    ];
    if receipt.refunded > 0 {
        let refunded = Money::new(receipt.refunded, receipt.amount.currency);
        rows.push((say(lang, Text::LabelRefunded), shown::amount(refunded, lang)));
    }
    rows
}

/// Sends the receipt of a paid bill once more, to the address it went to first. The answer is always the same, so that
/// nothing can be learnt by it.
pub(super) async fn send_again(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    ClientAddress(address): ClientAddress,
    BillCode(code): BillCode,
) -> Result<Response, Problem> {
    intake.may_look_up(address)?;
    receipts::send_again(&intake.pool, &code, intake.clock.now()).await?;
    let location = format!("/{lang}/bills/{code}?asked=1");
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}
