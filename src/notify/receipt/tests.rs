use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::{config::Config, payment::Currency};

const SITE: &str = "https://pay.example";

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
        match locale {
            Locale::Ky => "https://pay.example/ky/receipts/TLM-0000000042",
            Locale::Ru => "https://pay.example/ru/receipts/TLM-0000000042",
            Locale::En => "https://pay.example/en/receipts/TLM-0000000042",
        },
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
        for form in [receipt.text(&operator(), SITE), html.clone()] {
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
        let bytes = receipt(locale).pdf(&operator(), SITE).unwrap();
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
    assert_eq!(receipt.pdf(&operator(), SITE).unwrap(), receipt.pdf(&operator(), SITE).unwrap());
}

#[test]
fn a_very_long_name_stays_on_the_page() {
    let long = Receipt { applicant: "Щ".repeat(5_000), ..receipt(Locale::Ru) };
    let document = lopdf::Document::load_mem(&long.pdf(&operator(), SITE).unwrap()).unwrap();
    let text = document.extract_text(&[1]).unwrap();
    assert_eq!(text.matches('Щ').count(), LONGEST_NAME - 1);
}

#[test]
fn a_page_has_the_code_and_a_mail_the_links_and_a_line_for_the_list_of_messages() {
    for locale in Locale::ALL {
        let receipt = receipt(locale);
        let page = receipt.html(&operator(), SITE).unwrap();
        assert!(page.contains("<svg class=\"qr\"") && !page.contains("preheader\""), "{page}");
        let mail = receipt.mail("payer@mail.example", &operator(), SITE).unwrap();
        assert!(!mail.html.contains("<svg") && mail.html.contains("<div class=\"preheader\">"), "{}", mail.html);
        for url in [receipt.verify_url(SITE), format!("{SITE}/{locale}/payments/{}", receipt.payment)] {
            assert!(mail.html.contains(&format!("href=\"{url}\"")), "{url} is not in {}", mail.html);
            assert!(mail.text.lines().any(|line| line == url), "{url} is not in {}", mail.text);
        }
    }
}

#[test]
fn the_json_form_is_stable() {
    let json = Receipt { rrn: None, ..receipt(Locale::Ky) }.json(SITE).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
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
        "verify_url": "https://pay.example/ky/receipts/TLM-0000000042",
    });
    assert_eq!(json, expected);
}

#[test]
fn what_the_bank_did_not_say_has_no_line() {
    let receipt = Receipt { rrn: None, authorization_code: None, ..receipt(Locale::En) };
    let text = receipt.text(&operator(), SITE);
    assert!(!text.contains("RRN") && !text.contains("Authorization code"), "{text}");
}

#[test]
fn services_and_networks_without_a_text_get_a_general_one() {
    let card = MaskedCard { number: "999999******0000".into(), brand: "other".into() };
    let text = Receipt { service: "archive".into(), card, ..receipt(Locale::Ru) }.text(&operator(), SITE);
    assert!(text.contains("Государственная услуга") && text.contains("Банковская карта **** 0000"), "{text}");
}

#[test]
fn the_style_can_be_allowed_by_its_hash() {
    let html = receipt(Locale::Ky).html(&operator(), SITE).unwrap();
    assert!(html.contains(&format!("<style>{RECEIPT_STYLE}</style>")));
    assert!(!html.contains("style="));
}

#[test]
fn debug_output_names_no_person() {
    let receipt = receipt(Locale::Ru);
    let mail = receipt.mail("payer@mail.example", &operator(), SITE).unwrap();
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
        let page = |receipt: &Receipt| receipt.html(&operator(), SITE).unwrap();
        prop_assert_eq!(tags(&page(&hostile)), tags(&page(&plain)));
        prop_assert_eq!(hostile.text(&operator(), SITE).lines().count(), plain.text(&operator(), SITE).lines().count());
        prop_assert!(hostile.pdf(&operator(), SITE).is_ok());
    }
}
