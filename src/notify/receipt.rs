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

/// A paid payment, as its payer gets to see it. Serialized, it is the receipt's JSON form.
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
    pub(super) questions: String,
    pub(super) not_yours: String,
}

#[derive(Template)]
#[template(path = "receipt.html", config = "src/notify/askama.toml")]
struct Page<'a> {
    language: &'a str,
    operator: &'a str,
    words: Words,
    link: &'a str,
    online: &'a str,
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
    /// The receipt as plain text.
    pub fn text(&self, operator: &Operator) -> String {
        text(&self.words(operator))
    }

    /// The receipt as a whole HTML page, for mail and browser; `public_url` is the intake site's.
    pub fn html(&self, operator: &Operator, public_url: &str) -> Result<String, RenderError> {
        self.page(self.words(operator), operator, public_url)
    }

    fn page(&self, words: Words, operator: &Operator, public_url: &str) -> Result<String, RenderError> {
        let language = self.locale.as_str();
        let site = public_url.trim_end_matches('/');
        let page = Page {
            language,
            operator: &one_line(&operator.name, LONGEST_NAME),
            words,
            link: &format!("{site}/{language}/payments/{}", self.payment),
            online: &say(self.locale, Text::Online),
        };
        page.render().map_err(RenderError::Html)
    }

    /// The receipt as PDF, one A4 page. The same receipt always gives the same bytes.
    pub fn pdf(&self, operator: &Operator) -> Result<Vec<u8>, RenderError> {
        pdf::write(self, &self.words(operator), &one_line(&operator.name, LONGEST_NAME))
    }

    /// The message that brings this receipt to an address.
    pub fn mail(&self, to: &str, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
        let words = self.words(operator);
        self.message(self.number.clone(), self.subject(Text::Subject), to, words, operator, public_url)
    }

    /// The message that brings it once more, because its payer asked; `copy` is constant over all attempts.
    pub fn mail_again(&self, copy: Uuid, to: &str, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
        let words = Words { intro: say(self.locale, Text::IntroAgain), ..self.words(operator) };
        self.message(format!("again-{copy}"), self.subject(Text::SubjectAgain), to, words, operator, public_url)
    }

    fn message(
        &self,
        id: String,
        subject: String,
        to: &str,
        words: Words,
        operator: &Operator,
        public_url: &str,
    ) -> Result<Mail, RenderError> {
        let text = text(&words);
        let html = self.page(words, operator, public_url)?;
        Ok(Mail { id, to: to.to_owned(), locale: self.locale, subject, text, html })
    }

    /// What a receipt is called.
    pub fn title(&self) -> String {
        say(self.locale, Text::Title)
    }

    /// Its lines: labels and values, in the order in which they are read.
    pub fn lines(&self) -> Vec<(String, String)> {
        self.rows().into_iter().map(|row| (row.label, row.value)).collect()
    }

    fn subject(&self, text: Text) -> String {
        let arguments = [
            ("number", one_line(&self.number, LONGEST_CODE)),
            ("service", say(self.locale, Text::service(&self.service))),
            ("amount", amount(self.amount, self.locale)),
        ];
        say_with(self.locale, text, &arguments.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    fn words(&self, operator: &Operator) -> Words {
        Words {
            title: say(self.locale, Text::Title),
            paid: say(self.locale, Text::Paid),
            intro: say(self.locale, Text::Intro),
            amount: amount(self.amount, self.locale),
            rows: self.rows(),
            questions: questions(operator, self.locale),
            not_yours: say(self.locale, Text::NotYours),
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
    text.push_str(&format!("\n{}\n{}\n", words.questions, words.not_yours));
    text
}

fn in_bishkek<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = at.to_offset(BISHKEK).format(&Rfc3339).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::{config::Config, payment::Currency};

    fn receipt(locale: Locale) -> Receipt {
        Receipt {
            number: "TLM-0000000042".into(),
            payment: Uuid::from_u128(0x0192_0000_7000_8000_0000_0000_0000_0042),
            bill: "1600000017".parse().unwrap(),
            service: "driving_licence".into(),
            applicant: "Үсөнова Өкүм Ыңтымаковна".into(),
            amount: Money::new(414_000, Currency::KGS),
            card: MaskedCard { number: "411111******1111".into(), brand: "visa".into() },
            authorization_code: Some("A1B2C3".into()),
            rrn: Some("632800000017".into()),
            paid_at: datetime!(2026-11-22 20:05:09 UTC),
            locale,
        }
    }

    fn operator() -> Operator {
        Config::defaults().operator
    }

    /// What every form of the receipt says in a language.
    fn said(locale: Locale) -> Vec<&'static str> {
        let mut said = vec![
            "TLM-0000000042",
            "01920000-7000-8000-0000-000000000042",
            "1600000017",
            "Үсөнова Өкүм Ыңтымаковна",
            "Visa **** 1111",
            "A1B2C3",
            "632800000017",
            "23.11.2026 02:05 (UTC+6)",
            "+996 312 000 000",
            "help@tolom.example",
        ];
        said.extend(match locale {
            Locale::Ky => ["Төлөм дүмүрчөгү", "Төлөндү", "Айдоочулук күбөлүк", "4\u{a0}140,00 сом", "Арыз берүүчү"],
            Locale::Ru => {
                ["Квитанция об оплате", "Оплачено", "Водительское удостоверение", "4\u{a0}140,00 сом", "Заявитель"]
            }
            Locale::En => ["Payment receipt", "Paid", "Driving licence", "4\u{a0}140.00 KGS", "Applicant"],
        });
        said
    }

    #[test]
    fn text_and_page_say_everything_in_each_language() {
        for locale in Locale::ALL {
            let receipt = receipt(locale);
            let html = receipt.html(&operator(), "https://pay.example/").unwrap();
            for form in [receipt.text(&operator()), html.clone()] {
                for words in said(locale) {
                    assert!(form.contains(words), "{locale}: {words} is not in {form}");
                }
                assert!(!form.contains("411111"), "more of the card than its last digits");
            }
            assert!(html.contains(&format!("<html lang=\"{locale}\">")));
            assert!(html.contains(&format!("https://pay.example/{locale}/payments/{}", receipt.payment)));
        }
    }

    #[test]
    fn the_pdf_says_everything_in_each_language() {
        for locale in Locale::ALL {
            let bytes = receipt(locale).pdf(&operator()).unwrap();
            let document = lopdf::Document::load_mem(&bytes).unwrap();
            assert_eq!(document.get_pages().len(), 1);
            let text = unbroken(&document.extract_text(&[1]).unwrap());
            for words in said(locale) {
                assert!(text.contains(&unbroken(words)), "{locale}: {words} is not in {text}");
            }
            let date = document.trailer.get(b"Info").and_then(|info| document.dereference(info)).unwrap().1;
            let date = date.as_dict().unwrap().get(b"CreationDate").unwrap().as_str().unwrap();
            assert_eq!(std::str::from_utf8(date).unwrap(), "D:20261123020509+06'00");
        }
    }

    /// Without white space, for lines are broken where the page ends.
    fn unbroken(text: &str) -> String {
        text.split_whitespace().collect()
    }

    #[test]
    fn the_same_receipt_is_the_same_pdf() {
        let receipt = receipt(Locale::Ky);
        assert_eq!(receipt.pdf(&operator()).unwrap(), receipt.pdf(&operator()).unwrap());
    }

    #[test]
    fn a_very_long_name_stays_on_the_page() {
        let long = Receipt { applicant: "Щ".repeat(5_000), ..receipt(Locale::Ru) };
        let document = lopdf::Document::load_mem(&long.pdf(&operator()).unwrap()).unwrap();
        let text = document.extract_text(&[1]).unwrap();
        assert_eq!(text.matches('Щ').count(), LONGEST_NAME - 1);
    }

    #[test]
    fn the_json_form_is_stable() {
        let json = serde_json::to_value(Receipt { rrn: None, ..receipt(Locale::Ky) }).unwrap();
        let expected = serde_json::json!({
            "number": "TLM-0000000042",
            "payment": "01920000-7000-8000-0000-000000000042",
            "bill": "1600000017",
            "service": "driving_licence",
            "applicant": "Үсөнова Өкүм Ыңтымаковна",
            "amount": {"value": 414_000, "currency": "KGS"},
            "card": {"number": "411111******1111", "brand": "visa"},
            "authorization_code": "A1B2C3",
            "rrn": null,
            "paid_at": "2026-11-23T02:05:09+06:00",
            "locale": "ky",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_the_bank_did_not_say_has_no_line() {
        let receipt = Receipt { rrn: None, authorization_code: None, ..receipt(Locale::En) };
        let text = receipt.text(&operator());
        assert!(!text.contains("RRN") && !text.contains("Authorization code"), "{text}");
    }

    #[test]
    fn services_and_networks_without_a_text_get_a_general_one() {
        let card = MaskedCard { number: "999999******0000".into(), brand: "other".into() };
        let text = Receipt { service: "archive".into(), card, ..receipt(Locale::Ru) }.text(&operator());
        assert!(text.contains("Государственная услуга") && text.contains("Банковская карта **** 0000"), "{text}");
    }

    #[test]
    fn the_style_can_be_allowed_by_its_hash() {
        let html = receipt(Locale::Ky).html(&operator(), "https://pay.example").unwrap();
        assert!(html.contains(&format!("<style>{RECEIPT_STYLE}</style>")));
        assert!(!html.contains("style="));
    }

    #[test]
    fn debug_output_names_no_person() {
        let receipt = receipt(Locale::Ru);
        let mail = receipt.mail("payer@mail.example", &operator(), "https://pay.example").unwrap();
        let shown = format!("{receipt:?} {mail:?}");
        assert!(!shown.contains("Өкүм") && !shown.contains("payer@") && !shown.contains("1111"), "{shown}");
    }

    fn tags(html: &str) -> Vec<String> {
        html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or(rest).to_owned()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_foreign_text_becomes_markup_or_a_line_of_its_own(
            applicant in prop_oneof![any::<String>(), "[<>&\"'/ a-z=\r\n]{0,80}"], code: String,
        ) {
            let plain = receipt(Locale::Ru);
            let hostile = Receipt {
                applicant, authorization_code: Some(code.clone()), rrn: Some(code), ..plain.clone()
            };
            let page = |receipt: &Receipt| receipt.html(&operator(), "https://pay.example").unwrap();
            prop_assert_eq!(tags(&page(&hostile)), tags(&page(&plain)));
            prop_assert_eq!(hostile.text(&operator()).lines().count(), plain.text(&operator()).lines().count());
            prop_assert!(hostile.pdf(&operator()).is_ok());
        }
    }
}
