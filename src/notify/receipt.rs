//! One receipt, as data, text, HTML and PDF.

use std::fmt;

use askama::Template;
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    Locale, Mail,
    format::{LONGEST_CODE, LONGEST_NAME, amount, card, moment, one_line, questions},
    pdf,
    qr::Qr,
    texts::{Text, say, say_with},
};
use crate::{
    clock::BISHKEK,
    config::Operator,
    payment::{Money, PaymentCode, card::MaskedCard},
    store::receipts::ReceiptRow,
};

/// Everything in the `<style>` element of [`Receipt::html`], byte for byte: a content security policy that allows its
/// hash allows the receipt's look.
pub const RECEIPT_STYLE: &str = include_str!("templates/receipt.css");

/// A paid payment, as its payer gets to see it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The receipt's own number.
    pub number: String,
    /// The payment's id.
    pub payment: Uuid,
    /// The bill that was paid.
    pub bill: PaymentCode,
    /// The service's word in the configuration, for example `driving_licence`.
    pub service: String,
    /// For whom the service is.
    pub applicant: String,
    /// What was captured.
    pub amount: Money,
    /// The card, masked.
    pub card: MaskedCard,
    /// The issuer's code (ISO 8583, field 38).
    pub authorization_code: Option<String>,
    /// Retrieval reference number (ISO 8583, field 37).
    pub rrn: Option<String>,
    /// When the money was taken; RFC 3339 with Bishkek's offset in JSON.
    #[serde(serialize_with = "in_bishkek")]
    pub paid_at: OffsetDateTime,
    /// The payer's language.
    pub locale: Locale,
}

/// A receipt or notice that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The HTML template failed.
    #[error("it cannot be written as HTML")]
    Html(#[source] askama::Error),
    /// The built-in font cannot be read, or the page does not come out. The writer's own error would name texts.
    #[error("it cannot be written as PDF")]
    Pdf,
}

/// One line of a table.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) value: String,
}

/// The receipt's words in its language; the forms differ only in how they set them.
pub(super) struct Words {
    pub(super) title: String,
    pub(super) paid: String,
    pub(super) intro: String,
    pub(super) amount: String,
    pub(super) rows: Vec<Row>,
    /// The payment's page.
    pub(super) online: Link,
    /// The page that says whether the receipt is genuine.
    pub(super) verify: Link,
    /// Beside the code that holds that page's address.
    pub(super) scan: String,
    pub(super) questions: String,
    pub(super) not_yours: String,
}

/// An address, and what one gets there.
pub(super) struct Link {
    pub(super) label: String,
    pub(super) url: String,
}

#[derive(Template)]
#[template(path = "receipt.html", config = "src/notify/askama.toml")]
struct Page<'a> {
    language: &'a str,
    operator: &'a str,
    words: Words,
    /// What a list of messages shows beside the subject: first in the page, and not seen there.
    preheader: Option<String>,
    qr: Option<String>,
}

/// The JSON form: the receipt, and where it can be verified.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    receipt: &'a Receipt,
    verify_url: String,
}

impl From<ReceiptRow> for Receipt {
    fn from(row: ReceiptRow) -> Self {
        Self {
            number: row.number,
            payment: row.payment,
            bill: row.bill,
            service: row.service,
            applicant: row.applicant,
            amount: row.amount,
            card: row.card,
            authorization_code: row.authorization_code,
            rrn: row.rrn,
            paid_at: row.paid_at,
            // The table's own check allows no other.
            locale: row.locale.parse().unwrap_or(Locale::Ky),
        }
    }
}

impl Receipt {
    /// The receipt as plain text; `public_url` is the intake site's.
    pub fn text(&self, operator: &Operator, public_url: &str) -> String {
        text(&self.words(operator, public_url))
    }

    /// The receipt as a whole HTML page for a browser, with a QR code of its verifying page.
    pub fn html(&self, operator: &Operator, public_url: &str) -> Result<String, RenderError> {
        let words = self.words(operator, public_url);
        let qr = Qr::of(&words.verify.url).map(|code| code.svg());
        self.page(words, operator, None, qr)
    }

    /// The receipt as PDF, one A4 page. The same receipt always gives the same bytes.
    pub fn pdf(&self, operator: &Operator, public_url: &str) -> Result<Vec<u8>, RenderError> {
        pdf::write(self, &self.words(operator, public_url), &one_line(&operator.name, LONGEST_NAME))
    }

    /// The receipt as a JSON document, with `verify_url`.
    pub fn json(&self, public_url: &str) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Document { receipt: self, verify_url: self.verify_url(public_url) })
    }

    /// The page where anybody who has the receipt's number can see whether it is genuine.
    pub fn verify_url(&self, public_url: &str) -> String {
        let site = public_url.trim_end_matches('/');
        format!("{site}/{}/receipts/{}", self.locale, one_line(&self.number, LONGEST_CODE))
    }

    /// The message that brings this receipt to an address.
    pub fn mail(&self, to: &str, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
        let words = self.words(operator, public_url);
        self.message(self.number.clone(), self.subject(Text::Subject), to, words, operator)
    }

    /// The message that brings it once more, because its payer asked; `copy` is constant over all attempts.
    pub fn mail_again(&self, copy: Uuid, to: &str, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
        let words = Words { intro: say(self.locale, Text::IntroAgain), ..self.words(operator, public_url) };
        self.message(format!("again-{copy}"), self.subject(Text::SubjectAgain), to, words, operator)
    }

    /// Without a picture of the code: mail programs strip SVG and block what is fetched, and who reads mail can press a
    /// link.
    fn message(
        &self,
        id: String,
        subject: String,
        to: &str,
        words: Words,
        operator: &Operator,
    ) -> Result<Mail, RenderError> {
        let text = text(&words);
        let preheader = format!("{}: {}. {}", words.paid, words.amount, words.intro);
        let html = self.page(words, operator, Some(preheader), None)?;
        Ok(Mail { id, to: to.to_owned(), locale: self.locale, subject, text, html })
    }

    fn page(
        &self,
        words: Words,
        operator: &Operator,
        preheader: Option<String>,
        qr: Option<String>,
    ) -> Result<String, RenderError> {
        let operator = &one_line(&operator.name, LONGEST_NAME);
        let page = Page { language: self.locale.as_str(), operator, words, preheader, qr };
        page.render().map_err(RenderError::Html)
    }

    fn subject(&self, text: Text) -> String {
        let arguments = [
            ("number", one_line(&self.number, LONGEST_CODE)),
            ("service", say(self.locale, Text::service(&self.service))),
            ("amount", amount(self.amount, self.locale)),
        ];
        say_with(self.locale, text, &arguments.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    fn words(&self, operator: &Operator, public_url: &str) -> Words {
        let say = |text| say(self.locale, text);
        let payment_page = format!("{}/{}/payments/{}", public_url.trim_end_matches('/'), self.locale, self.payment);
        Words {
            title: say(Text::Title),
            paid: say(Text::Paid),
            intro: say(Text::Intro),
            amount: amount(self.amount, self.locale),
            rows: self.rows(),
            online: Link { label: say(Text::Online), url: payment_page },
            verify: Link { label: say(Text::Verify), url: self.verify_url(public_url) },
            scan: say(Text::Scan),
            questions: questions(operator, self.locale),
            not_yours: say(Text::NotYours),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let given = [
            (Text::LabelNumber, Some(one_line(&self.number, LONGEST_CODE))),
            (Text::LabelPaidAt, Some(moment(self.paid_at))),
            (Text::LabelService, Some(say(self.locale, Text::service(&self.service)))),
            (Text::LabelBill, Some(self.bill.to_string())),
            (Text::LabelApplicant, Some(one_line(&self.applicant, LONGEST_NAME))),
            (Text::LabelAmount, Some(amount(self.amount, self.locale))),
            (Text::LabelCard, Some(card(&self.card, self.locale))),
            (Text::LabelAuthorization, self.authorization_code.as_deref().map(|code| one_line(code, LONGEST_CODE))),
            (Text::LabelRrn, self.rrn.as_deref().map(|rrn| one_line(rrn, LONGEST_CODE))),
            (Text::LabelPayment, Some(self.payment.to_string())),
        ];
        let row = |(label, value): (Text, Option<String>)| Some(Row { label: say(self.locale, label), value: value? });
        given.into_iter().filter_map(row).collect()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("number", &self.number).field("payment", &self.payment).finish_non_exhaustive()
    }
}

fn text(words: &Words) -> String {
    let mut text = format!("{}\n{}: {}\n\n{}\n\n", words.title, words.paid, words.amount, words.intro);
    for Row { label, value } in &words.rows {
        text.push_str(&format!("{label}: {value}\n"));
    }
    for Link { label, url } in [&words.online, &words.verify] {
        text.push_str(&format!("\n{label}:\n{url}\n"));
    }
    text.push_str(&format!("\n{}\n{}\n", words.questions, words.not_yours));
    text
}

fn in_bishkek<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = at.to_offset(BISHKEK).format(&Rfc3339).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests;
