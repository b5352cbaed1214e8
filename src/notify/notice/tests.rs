use proptest::prelude::*;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::{
    config::Config,
    payment::{Currency, Money, card::MaskedCard},
};

const ENDS: [Status; 3] = [Status::Failed, Status::Declined, Status::Reversed];
const BILLS: [BillNow; 4] = [BillNow::Open, BillNow::Held, BillNow::Paid, BillNow::Closed];

fn notice(kind: Kind, status: Status, bill_now: BillNow, locale: Locale) -> Notice {
    Notice {
        id: Uuid::from_u128(0x7),
        kind,
        payment: Uuid::from_u128(0x0192_0000_7000_4000_8000_0000_0000_0042),
        status,
        bill: "1600000017".parse().unwrap(),
        bill_now,
        service: "driving_licence".into(),
        amount: Money::new(414_000, Currency::KGS),
        card: Some(MaskedCard { number: "411111******1111".into(), brand: "visa".into() }),
        accepted_at: datetime!(2026-11-22 20:05:09 UTC),
        locale: locale.to_string(),
        email: "payer@mail.example".into(),
        attempts: 1,
        created_at: datetime!(2026-11-22 20:06:09 UTC),
    }
}

fn unknown(locale: Locale) -> Notice {
    notice(Kind::Unknown, Status::Unknown, BillNow::Held, locale)
}

fn mail_within(notice: &Notice, hold_days: u32) -> Mail {
    let operator = Config::defaults().operator;
    notice_mail(notice, &Sender { operator: &operator, public_url: "https://pay.example/", hold_days }).unwrap()
}

fn mail(notice: &Notice) -> Mail {
    mail_within(notice, 30)
}

/// Every notice there can be.
fn all() -> Vec<Notice> {
    let ends = ENDS.iter().flat_map(|status| BILLS.map(|bill| (Kind::NotCharged, *status, bill)));
    let stories: Vec<_> = ends.chain([(Kind::Unknown, Status::Unknown, BillNow::Held)]).collect();
    let said = stories.iter().flat_map(|(kind, status, bill)| Locale::ALL.map(|l| notice(*kind, *status, *bill, l)));
    said.collect()
}

#[test]
fn every_notice_says_whole_sentences_in_each_language() {
    for notice in all() {
        let mail = mail(&notice);
        assert_eq!(mail.locale.as_str(), notice.locale);
        assert!(mail.subject.contains("140") && !mail.subject.contains('{'), "{}", mail.subject);
        let fields =
            ["1600000017", "Visa **** 1111", "23.11.2026 02:05 (UTC+6)", "+996 312 000 000", "help@tolom.example"];
        for form in [&mail.text, &mail.html] {
            for words in fields {
                assert!(form.contains(words), "{words} is not in {form}");
            }
            // A name of a message, or an argument that was not given.
            for stray in ["{$", "{ ", "-happened", "-money", "-title", "advice-", "link-"] {
                assert!(!form.split("</style>").last().unwrap().contains(stray), "{stray} is in {form}");
            }
            assert!(!form.contains("411111"), "more of the card than its last digits");
        }
    }
}

#[test]
fn who_does_not_know_yet_is_told_to_wait_and_what_happens_to_a_hold() {
    for (locale, said) in [
        (Locale::Ky, ["4\u{a0}140,00 сом", "кайра төлөбөңүз", "азырынча билбейбиз", "бошотулат", "30 күндүн ичинде"]),
        (Locale::Ru, ["4\u{a0}140,00 сом", "не платите повторно", "пока не знаем", "снова станет доступна", "30 дней"]),
        (Locale::En, ["4\u{a0}140.00 KGS", "do not pay again", "do not know yet", "is released", "30 days"]),
    ] {
        let mail = mail(&unknown(locale));
        for words in said {
            assert!(mail.text.contains(words) && mail.html.contains(words), "{words} is not in {}", mail.text);
        }
        let link = format!("https://pay.example/{locale}/payments/01920000-7000-4000-8000-000000000042");
        assert!(mail.text.contains(&link) && mail.html.contains(&link));
        assert!(!mail.text.contains("/bills/"), "invited to pay again: {}", mail.text);
    }
}

#[test]
fn only_a_bill_that_is_still_open_may_be_paid_again() {
    for notice in all().into_iter().filter(|notice| notice.kind == Kind::NotCharged) {
        let mail = mail(&notice);
        let again = format!("https://pay.example/{}/bills/1600000017", notice.locale);
        let open = notice.bill_now == BillNow::Open;
        assert_eq!((mail.text.contains(&again), mail.html.contains(&again)), (open, open), "{}", mail.text);
    }
    let text = |bill_now| mail(&notice(Kind::NotCharged, Status::Reversed, bill_now, Locale::En)).text;
    assert!(text(BillNow::Paid).contains("has already been paid"));
    assert!(text(BillNow::Held).contains("Another payment of this bill is under way"));
    assert!(text(BillNow::Closed).contains("can no longer be paid"));
}

#[test]
fn nothing_charged_and_money_returned_are_told_apart() {
    for locale in Locale::ALL {
        let [failed, declined, reversed] =
            ENDS.map(|status| mail(&notice(Kind::NotCharged, status, BillNow::Open, locale)));
        assert_eq!(failed.subject, declined.subject);
        assert_ne!(failed.text, declined.text);
        assert_ne!(failed.subject, reversed.subject);
    }
    let reversed = mail(&notice(Kind::NotCharged, Status::Reversed, BillNow::Paid, Locale::Ru)).text;
    assert!(reversed.contains("отменён") && !reversed.contains("не списаны"), "{reversed}");
}

#[test]
fn days_stand_in_the_form_that_their_number_asks_for() {
    for (locale, days, words) in [
        (Locale::Ru, 1, "в течение 1 дня."),
        (Locale::Ru, 21, "в течение 21 дня."),
        (Locale::Ru, 3, "в течение 3 дней."),
        (Locale::Ru, 30, "в течение 30 дней."),
        (Locale::En, 1, "within 1 day."),
        (Locale::En, 2, "within 2 days."),
    ] {
        let text = mail_within(&unknown(locale), days).text;
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn each_notice_has_one_message_id_and_it_does_not_give_the_payment_away() {
    let unknown = unknown(Locale::Ky);
    assert_eq!(mail(&unknown).id, mail(&Notice { attempts: 5, ..unknown.clone() }).id);
    assert!(!mail(&unknown).id.contains(&unknown.payment.to_string()));
    assert_ne!(mail(&unknown).id, mail(&Notice { id: Uuid::from_u128(8), ..unknown }).id);
}

#[test]
fn a_card_that_no_worker_has_seen_has_no_line() {
    let text = mail(&Notice { card: None, ..unknown(Locale::En) }).text;
    assert!(!text.contains("Card:") && !text.contains("****"), "{text}");
}

#[test]
fn debug_output_names_no_person() {
    let notice = unknown(Locale::Ru);
    let shown = format!("{notice:?} {:?}", mail(&notice));
    assert!(!shown.contains("payer@") && !shown.contains("1111"), "{shown}");
}

fn tags(html: &str) -> Vec<String> {
    html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or(rest).to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_foreign_text_becomes_markup_or_a_line_of_its_own(
        word in prop_oneof![any::<String>(), "[<>&\"'/ a-z=\r\n]{0,80}"],
    ) {
        let plain = unknown(Locale::Ru);
        let card = MaskedCard { number: word.clone(), brand: word.clone() };
        let hostile = Notice { service: word.clone(), card: Some(card), ..plain.clone() };
        let mut operator = Config::defaults().operator;
        operator.name = word;
        let of = |notice: &Notice| {
            notice_mail(notice, &Sender { operator: &operator, public_url: "https://pay.example", hold_days: 30 }).unwrap()
        };
        prop_assert_eq!(tags(&of(&hostile).html), tags(&mail(&plain).html));
        prop_assert_eq!(of(&hostile).text.lines().count(), mail(&plain).text.lines().count());
    }
}
