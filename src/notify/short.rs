//! A receipt as a short message: what it says, and how many segments that takes.

use super::{
    Receipt, Sms,
    format::amount,
    texts::{Text, say, say_with},
};
use crate::store::receipt_copies::ReceiptCopy;

/// The operator pays for each, and what has more than these arrives piecemeal on old telephones.
const MOST_SEGMENTS: usize = 2;

/// GSM 03.38 (3GPP TS 23.038, section 6.2.1): a septet each.
const GSM: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
                   abcdefghijklmnopqrstuvwxyzäöñüà";
/// Its extension table: two septets each.
const GSM_EXTENDED: &str = "^{}\\[~]|€";

/// The short message that brings a receipt to its payer's telephone, in at most two segments unless the site's own
/// address is too long for that. No name and no card: telephones lie on tables.
pub fn receipt_sms(copy: ReceiptCopy, public_url: &str) -> Sms {
    let ReceiptCopy { id, receipt, phone, .. } = copy;
    Sms { id, to: phone, text: text(&Receipt::from(receipt), public_url) }
}

fn text(receipt: &Receipt, public_url: &str) -> String {
    let locale = receipt.locale;
    let said = [
        ("number", receipt.number.clone()),
        // Only UCS-2 has a no-break space: a message in Latin letters would take twice the room.
        ("amount", amount(receipt.amount, locale).replace('\u{a0}', " ")),
        ("service", say(locale, Text::service(&receipt.service))),
        ("link", receipt.verify_url(public_url)),
    ];
    let said = said.each_ref().map(|(name, value)| (*name, value.as_str()));
    let whole = say_with(locale, Text::Sms, &said);
    if segments(&whole) <= MOST_SEGMENTS { whole } else { say_with(locale, Text::SmsShort, &said) }
}

/// How many segments a text is sent in (3GPP TS 23.038 and TS 23.040, section 9.2.3.24.1): 160 septets or 70 units of
/// UCS-2 alone; 153 or 67 where several are joined, for their headers take room.
fn segments(text: &str) -> usize {
    let septets = |letter: char| match letter {
        letter if GSM.contains(letter) => Some(1),
        letter if GSM_EXTENDED.contains(letter) => Some(2),
        _ => None,
    };
    let (length, alone, joined) = match text.chars().map(septets).sum::<Option<usize>>() {
        Some(septets) => (septets, 160, 153),
        None => (text.encode_utf16().count(), 70, 67),
    };
    if length <= alone { 1 } else { length.div_ceil(joined) }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::{
        notify::Locale,
        payment::{Currency, Money, card::MaskedCard},
    };

    fn receipt(locale: Locale, service: &str) -> Receipt {
        Receipt {
            number: "TLM-0000000042".into(),
            payment: Uuid::from_u128(42),
            bill: "1600000017".parse().unwrap(),
            service: service.into(),
            applicant: "Үсөнова Өкүм Ыңтымаковна".into(),
            amount: Money::new(414_000, Currency::KGS),
            card: MaskedCard { number: "411111******1111".into(), brand: "visa".into() },
            authorization_code: Some("A1B2C3".into()),
            rrn: Some("632800000017".into()),
            paid_at: datetime!(2026-11-22 20:05:09 UTC),
            locale,
        }
    }

    #[test]
    fn segments_are_counted_as_networks_count_them() {
        for (text, expected) in [
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("a".repeat(307), 3),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("ө".repeat(70), 1),
            ("ө".repeat(71), 2),
            ("ө".repeat(134), 2),
            ("ө".repeat(135), 3),
            // One letter that GSM does not have makes all of it UCS-2.
            ("a".repeat(69) + "ө", 1),
            ("a".repeat(70) + "ө", 2),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            (String::new(), 1),
        ] {
            assert_eq!(segments(&text), expected, "{text}");
        }
    }

    #[test]
    fn it_says_number_amount_service_and_link_and_nothing_personal() {
        for (locale, amount, service) in [
            (Locale::Ky, "4 140,00 сом", "Айдоочулук күбөлүк"),
            (Locale::Ru, "4 140,00 сом", "Водительское удостоверение"),
            (Locale::En, "4 140.00 KGS", "Driving licence"),
        ] {
            let text = text(&receipt(locale, "driving_licence"), "https://pay.example");
            let link = format!("https://pay.example/{locale}/receipts/TLM-0000000042");
            for words in [amount, service, &link] {
                assert!(text.contains(words), "{words} is not in {text}");
            }
            assert_eq!(text.matches("TLM-0000000042").count(), 2, "{text}");
            for personal in ["Үсөнова", "1111", "1600000017"] {
                assert!(!text.contains(personal), "{personal} is in {text}");
            }
        }
    }

    #[test]
    fn every_service_in_every_language_fits_two_segments() {
        for locale in Locale::ALL {
            for service in ["passport", "driving_licence", "meken_card", "other"] {
                let receipt = Receipt { amount: Money::new(12_345_678_901, Currency::KGS), ..receipt(locale, service) };
                let text = text(&receipt, "https://payments.example.kg");
                let most = if locale == Locale::En { 1 } else { MOST_SEGMENTS };
                assert!(segments(&text) <= most, "{} segments: {text}", segments(&text));
            }
        }
    }

    #[test]
    fn a_long_address_costs_the_service_and_not_a_segment() {
        let site = "https://payments-of-the-state-enterprise.example.kg";
        let text = text(&receipt(Locale::Ru, "driving_licence"), site);
        assert_eq!(segments(&text), 2);
        assert!(
            text.contains(&format!("{site}/ru/receipts/TLM-0000000042")) && text.contains("4 140,00 сом"),
            "{text}"
        );
    }
}
