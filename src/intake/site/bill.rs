//! A bill's page: what is owed, for whom, and whether it can be paid.

use askama::Template;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    super::{Intake, extract::BillCode, limits::ClientAddress, problem::Problem},
    assets::ASSETS,
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    texts::{Text, say, say_with},
};
use crate::{
    notify::{Locale, shown},
    payment::{BillStatus, PaymentCode},
    store::bills::Bill,
};

/// What a bill's page has to say: one for each way a bill may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be paid.
    Payable,
    /// A payment is on its way.
    BeingPaid,
    /// Paid here, at this time; its receipt can be sent again.
    PaidHere(Option<OffsetDateTime>),
    /// Paid by another channel.
    PaidElsewhere(Option<OffsetDateTime>),
    /// Withdrawn by its agency.
    Cancelled,
    /// Its time has passed.
    Expired,
}

impl Standing {
    /// How a bill stands for who wants to pay it. A payment on its way comes first: it may still pay an expired bill.
    pub(super) fn of(bill: &Bill) -> Self {
        match bill.status {
            BillStatus::Paid if bill.paid_by.is_some() => Self::PaidHere(bill.paid_at),
            BillStatus::Paid => Self::PaidElsewhere(bill.paid_at),
            BillStatus::Open | BillStatus::Cancelled | BillStatus::Expired if bill.being_paid => Self::BeingPaid,
            BillStatus::Open => Self::Payable,
            BillStatus::Cancelled => Self::Cancelled,
            BillStatus::Expired => Self::Expired,
        }
    }

    /// The page's heading.
    const fn title(self) -> Text {
        match self {
            Self::Payable => Text::BillTitle,
            Self::BeingPaid => Text::BillBeingPaidTitle,
            Self::PaidHere(_) | Self::PaidElsewhere(_) => Text::BillPaidTitle,
            Self::Cancelled => Text::BillCancelledTitle,
            Self::Expired => Text::BillExpiredTitle,
        }
    }

    /// What it means, in a sentence.
    fn sentence(self, lang: Locale) -> String {
        let paid_at = |text, at: Option<OffsetDateTime>| {
            let at = at.map(shown::moment).unwrap_or_default();
            say_with(lang, text, &[("date", at.as_str())])
        };
        match self {
            Self::Payable => say(lang, Text::BillCheck),
            Self::BeingPaid => say(lang, Text::BillBeingPaid),
            Self::PaidHere(at) => paid_at(Text::BillPaidHere, at),
            Self::PaidElsewhere(at) => paid_at(Text::BillPaidElsewhere, at),
            Self::Cancelled => say(lang, Text::BillCancelled),
            Self::Expired => say(lang, Text::BillExpired),
        }
    }

    /// What to do now, where the page has no button for it.
    const fn next(self) -> Option<Text> {
        match self {
            Self::Payable | Self::PaidHere(_) => None,
            Self::BeingPaid => Some(Text::BillBeingPaidNext),
            Self::PaidElsewhere(_) => Some(Text::BillPaidElsewhereNext),
            Self::Cancelled => Some(Text::BillCancelledNext),
            Self::Expired => Some(Text::BillExpiredNext),
        }
    }

    const fn is_payable(self) -> bool {
        matches!(self, Self::Payable)
    }

    const fn is_being_paid(self) -> bool {
        matches!(self, Self::BeingPaid)
    }

    const fn is_paid_here(self) -> bool {
        matches!(self, Self::PaidHere(_))
    }

    const fn tone(self) -> &'static str {
        match self {
            Self::Payable => "plain",
            Self::BeingPaid => "wait",
            Self::PaidHere(_) | Self::PaidElsewhere(_) => "good",
            Self::Cancelled | Self::Expired => "bad",
        }
    }
}

/// A bill as its page shows it.
pub(super) struct Shown {
    pub(super) code: String,
    pub(super) service: String,
    pub(super) applicant: String,
    pub(super) amount: String,
    pub(super) valid_until: String,
}

impl Shown {
    pub(super) fn new(bill: &Bill, lang: Locale) -> Self {
        Self {
            code: grouped(&bill.terms.code),
            service: shown::service(&bill.terms.service, lang),
            applicant: shown::one_line(&bill.terms.applicant, 200),
            amount: shown::amount(bill.terms.amount, lang),
            valid_until: shown::moment(bill.terms.valid_until),
        }
    }
}

/// A code in groups of four, as people compare it. The spaces are no-break ones.
pub(super) fn grouped(code: &PaymentCode) -> String {
    let digits: Vec<char> = code.as_str().chars().collect();
    let groups: Vec<String> = digits.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join("\u{a0}")
}

#[derive(Deserialize)]
pub(super) struct Notice {
    /// There when a receipt was asked for again.
    #[serde(default)]
    asked: Option<String>,
}

#[derive(Template)]
#[template(path = "bill.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    bill: Shown,
    raw_code: String,
    standing: Standing,
    sentence: String,
    next: Option<String>,
    pay: String,
    asked: bool,
}

/// The bill of this code.
pub(super) async fn show(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    ClientAddress(address): ClientAddress,
    BillCode(code): BillCode,
    notice: Result<Query<Notice>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let bill = intake.look_up(address, &code).await?;
    let standing = Standing::of(&bill);
    let title = say(lang, standing.title());
    let mut frame = Frame::new(&intake, lang, format!("/bills/{code}"), title);
    if standing == Standing::BeingPaid {
        frame = frame.script(&ASSETS.code).refresh(15);
    }
    let shown = Shown::new(&bill, lang);
    let page = Page {
        pay: say_with(lang, Text::PayButton, &[("amount", shown.amount.as_str())]),
        bill: shown,
        raw_code: code.to_string(),
        sentence: standing.sentence(lang),
        next: standing.next().map(|text| say(lang, text)),
        asked: notice.is_ok_and(|Query(notice)| notice.asked.is_some()),
        standing,
        frame,
    };
    answer(&intake, &headers, StatusCode::OK, &page.frame, &page, Forms::Here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_in_groups() {
        assert_eq!(grouped(&"110000482913".parse().unwrap()), "1100\u{a0}0048\u{a0}2913");
        assert_eq!(grouped(&"1100004".parse().unwrap()), "1100\u{a0}004");
    }
}
