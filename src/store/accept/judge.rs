//! What comes of a request, by what is known that bears on it. No I/O.
//!
//! Who was accepted before is replayed, whatever stands against it now: so everything that passes with time or with a
//! setting is judged here and not at the door. Who guesses codes is told nothing; and nobody learns of a bill's payments
//! who does not know what the bill asks for.

use time::OffsetDateTime;

use super::{
    Acceptance, CardSource, NewPayment, Refusal,
    known::{Bill, Known},
};
use crate::{
    clock::bishkek_day,
    config::{self, Config},
    payment::{
        BillStatus, Money,
        limits::{By, Velocity, wait_s},
    },
    store::limits::Failures,
};

/// What comes of a request; `None` if nothing stands in its way.
pub(super) fn judge(member: &NewPayment, known: &Known, config: &Config, now: OffsetDateTime) -> Option<Acceptance> {
    if let Some(replayed) = replay(member, known) {
        return Some(replayed);
    }
    let refusal = guesses(member, now)
        .or_else(|| judge_terms(&member.terms, config, now))
        .or_else(|| match &known.bill {
            Some(bill) => judge_bill(bill, member.amount, now),
            None => Some(Refusal::BillUnknown),
        })
        .or_else(|| must_wait(known, &config.limits, now))
        .or_else(|| judge_card(member, known, now));
    match refusal {
        Some(refusal) => Some(Acceptance::Refused(refusal)),
        None if known.id_taken => Some(Acceptance::Replayed { payment: member.id, answer: String::new() }),
        None if known.card_used => Some(Acceptance::Refused(Refusal::CardUsed)),
        None if known.is_live => Some(Acceptance::Refused(Refusal::PaymentLive)),
        None if matches!(member.card, CardSource::Stored(_)) && known.stored.is_none() => {
            Some(Acceptance::Refused(Refusal::CardUnknown))
        }
        None => None,
    }
}

/// The same request with the stored answer, another one under the same key with a refusal; a foreign message by its
/// source and id.
fn replay(member: &NewPayment, known: &Known) -> Option<Acceptance> {
    if let (Some(idempotency), Some(used)) = (&member.idempotency, &known.key) {
        return Some(match used.fingerprint == idempotency.fingerprint {
            // Its sender is being told this moment: whoever asks again finds what.
            _ if used.is_refused => Acceptance::Refused(Refusal::InFlight),
            true => Acceptance::Replayed { payment: used.payment, answer: used.answer.clone() },
            false => Acceptance::Refused(Refusal::KeyReused),
        });
    }
    known.of_event.map(|payment| Acceptance::Replayed { payment, answer: String::new() })
}

/// Refuses those from an address that guesses codes, before anything is told of their bill.
fn guesses(member: &NewPayment, now: OffsetDateTime) -> Option<Refusal> {
    let until = member.origin.as_ref()?.shut_until.filter(|until| *until > now)?;
    Some(Refusal::TooManyAttempts { by: By::Address, wait_s: wait_s(until, now) })
}

/// The agreement that is in force today, in Asia/Bishkek, is the one that was accepted.
fn judge_terms(accepted: &str, config: &Config, now: OffsetDateTime) -> Option<Refusal> {
    let in_force = config.terms_in_force(bishkek_day(now));
    (in_force.is_empty() || accepted != in_force).then_some(Refusal::TermsNotInForce)
}

fn judge_bill(bill: &Bill, offered: Money, now: OffsetDateTime) -> Option<Refusal> {
    match bill.status {
        BillStatus::Paid => Some(Refusal::BillPaid),
        BillStatus::Cancelled => Some(Refusal::BillCancelled),
        BillStatus::Expired => Some(Refusal::BillExpired),
        BillStatus::Open if bill.valid_until <= now => Some(Refusal::BillExpired),
        BillStatus::Open if bill.owed.currency != offered.currency => Some(Refusal::CurrencyDiffers),
        BillStatus::Open if bill.owed.value != offered.value => Some(Refusal::AmountDiffers),
        BillStatus::Open => None,
    }
}

/// Judges the card: the key of one that came along, the row of one that was stored before. One that is not there is
/// judged last: the payment that has taken it may be what is asked for.
fn judge_card(member: &NewPayment, known: &Known, now: OffsetDateTime) -> Option<Refusal> {
    let (bill, expires_at, key_ends) = match &member.card {
        CardSource::Inline(card) => (card.bill.as_str(), card.expires_at, Some(known.key_ends)),
        CardSource::Stored(_) => {
            let (bill, expires_at) = known.stored.as_ref()?;
            (bill.as_str(), *expires_at, None)
        }
    };
    match key_ends {
        _ if bill != member.bill.as_str() => Some(Refusal::CardOfOtherBill),
        _ if expires_at <= now => Some(Refusal::CardExpired),
        Some(key_ends) if key_ends.is_none_or(|destroyed| destroyed < expires_at) => Some(Refusal::CardKeyUnknown),
        Some(_) | None => None,
    }
}

/// Refuses those whose bill, device or address has failed too often: of all that they have to wait for, what lasts
/// longest.
fn must_wait(known: &Known, limits: &config::Limits, now: OffsetDateTime) -> Option<Refusal> {
    let failed = |rule: &Velocity, failures: Failures| rule.shut_until(failures.count, failures.last?, now);
    let seen = known.of_device;
    let many_bills = seen
        .bills
        .checked_sub(limits.device_bills)
        .and_then(|over| limits.device.shut_until(limits.device.free.saturating_add(over), seen.latest?, now));
    let waits = [
        (By::Bill, failed(&limits.bill, known.of_bill)),
        (By::Device, failed(&limits.device, seen.failures).max(many_bills)),
        (By::Address, failed(&limits.address, known.of_address)),
    ];
    let longest = waits.into_iter().filter_map(|(by, until)| Some((by, until?))).max_by_key(|(_, until)| *until);
    longest.map(|(by, until)| Refusal::TooManyAttempts { by, wait_s: wait_s(until, now) })
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};
    use uuid::Uuid;

    use super::*;
    use crate::{
        contracts::Payer,
        payment::Currency,
        store::{
            accept::{
                Idempotency,
                known::{Device, UsedKey},
            },
            cards::NewCard,
            limits::Origin,
        },
    };

    const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
    const AMOUNT: Money = Money::new(51_000, Currency::KGS);

    fn request() -> NewPayment {
        let (id, bill) = (Uuid::from_u128(1), "1100000001".parse().unwrap());
        let expires_at = NOW + Duration::minutes(5);
        NewPayment {
            id,
            bill: "1100000001".parse().unwrap(),
            amount: AMOUNT,
            card: CardSource::Inline(NewCard { id, bill, kid: "k".into(), jwe: String::new(), expires_at }),
            payer: Payer { email: String::new(), phone: String::new() },
            locale: "ky".into(),
            terms: "2026-01-01".into(),
            acquirer: String::new(),
            capture_at_once: false,
            caller: "public".into(),
            idempotency: Some(Idempotency { key: "key".into(), fingerprint: [1; 32], answer: String::new() }),
            event: None,
            origin: Some(Origin { address: [1; 32], device: Some([2; 32]), shut_until: None }),
            traceparent: None,
        }
    }

    fn foreign(card: Uuid) -> NewPayment {
        let event = Some(("/site".to_owned(), "1".to_owned()));
        NewPayment { card: CardSource::Stored(card), idempotency: None, event, origin: None, ..request() }
    }

    fn known() -> Known {
        let bill = Bill { status: BillStatus::Open, owed: AMOUNT, valid_until: NOW + Duration::days(1) };
        Known {
            bill: Some(bill),
            key_ends: Some(NOW + Duration::days(1)),
            stored: Some(("1100000001".to_owned(), NOW + Duration::minutes(5))),
            ..Known::default()
        }
    }

    fn fate(member: &NewPayment, known: &Known) -> Option<Acceptance> {
        judge(member, known, &Config::defaults(), NOW)
    }

    fn refused(member: &NewPayment, known: &Known) -> Refusal {
        match fate(member, known) {
            Some(Acceptance::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_stands_in_the_way_of_a_good_request() {
        assert_eq!(fate(&request(), &known()), None);
        assert_eq!(fate(&foreign(Uuid::from_u128(7)), &known()), None);
    }

    #[test]
    fn a_repetition_is_answered_whatever_stands_against_it_now() {
        let used = |first| UsedKey {
            fingerprint: vec![first; 32],
            payment: Uuid::from_u128(9),
            answer: "as then".into(),
            is_refused: false,
        };
        let mut request = request();
        request.origin.as_mut().unwrap().shut_until = Some(NOW + Duration::minutes(1));
        request.terms = "2025-01-01".into();
        let CardSource::Inline(card) = &mut request.card else { unreachable!() };
        card.expires_at = NOW - Duration::hours(1);
        let replayed = Acceptance::Replayed { payment: Uuid::from_u128(9), answer: "as then".into() };
        assert_eq!(fate(&request, &Known { key: Some(used(1)), ..Known::default() }), Some(replayed));
        assert_eq!(refused(&request, &Known { key: Some(used(2)), ..Known::default() }), Refusal::KeyReused);
        let again = Known { of_event: Some(Uuid::from_u128(9)), ..Known::default() };
        let replayed = Acceptance::Replayed { payment: Uuid::from_u128(9), answer: String::new() };
        let foreign = NewPayment { terms: "2025-01-01".into(), ..foreign(Uuid::nil()) };
        assert_eq!(fate(&foreign, &again), Some(replayed));
    }

    #[test]
    fn the_terms_in_force_must_have_been_accepted() {
        for member in [request(), foreign(Uuid::from_u128(7))] {
            for terms in ["", "2025-01-01"] {
                let member = NewPayment { terms: terms.into(), ..member.clone() };
                assert_eq!(refused(&member, &known()), Refusal::TermsNotInForce);
                assert_eq!(refused(&member, &Known { bill: None, ..known() }), Refusal::TermsNotInForce);
            }
        }
        let none = Config { terms: Vec::new(), ..Config::defaults() };
        let member = NewPayment { terms: String::new(), ..request() };
        let refused = Acceptance::Refused(Refusal::TermsNotInForce);
        assert_eq!(judge(&member, &known(), &none, NOW), Some(refused));
    }

    #[test]
    fn who_guesses_is_told_nothing_of_a_bill() {
        let mut request = request();
        request.origin.as_mut().unwrap().shut_until = Some(NOW + Duration::seconds(90));
        let wait = Refusal::TooManyAttempts { by: By::Address, wait_s: 90 };
        assert_eq!(refused(&request, &known()), wait);
        assert_eq!(refused(&request, &Known { bill: None, ..known() }), wait);
        request.origin.as_mut().unwrap().shut_until = Some(NOW);
        assert_eq!(fate(&request, &known()), None);
    }

    #[test]
    fn a_bill_is_paid_once_in_time_and_in_full() {
        let with = |change: &dyn Fn(&mut Bill)| {
            let mut known = known();
            change(known.bill.as_mut().unwrap());
            refused(&request(), &known)
        };
        assert_eq!(with(&|bill| bill.status = BillStatus::Paid), Refusal::BillPaid);
        assert_eq!(with(&|bill| bill.status = BillStatus::Cancelled), Refusal::BillCancelled);
        assert_eq!(with(&|bill| bill.valid_until = NOW), Refusal::BillExpired);
        assert_eq!(with(&|bill| bill.owed.value += 1), Refusal::AmountDiffers);
        assert_eq!(refused(&request(), &Known { bill: None, ..known() }), Refusal::BillUnknown);
        assert_eq!(refused(&request(), &Known { is_live: true, ..known() }), Refusal::PaymentLive);
    }

    #[test]
    fn a_card_that_came_along_needs_a_key_that_outlives_it() {
        let with = |change: &dyn Fn(&mut NewCard)| {
            let mut request = request();
            let CardSource::Inline(card) = &mut request.card else { unreachable!() };
            change(card);
            refused(&request, &known())
        };
        assert_eq!(with(&|card| card.bill = "1100000002".parse().unwrap()), Refusal::CardOfOtherBill);
        assert_eq!(with(&|card| card.expires_at = NOW), Refusal::CardExpired);
        assert_eq!(with(&|card| card.expires_at = NOW + Duration::days(2)), Refusal::CardKeyUnknown);
        assert_eq!(refused(&request(), &Known { key_ends: None, ..known() }), Refusal::CardKeyUnknown);
    }

    #[test]
    fn of_a_stored_card_that_is_gone_its_payment_is_told_first() {
        let member = foreign(Uuid::from_u128(7));
        let gone = Known { stored: None, ..known() };
        assert_eq!(refused(&member, &gone), Refusal::CardUnknown);
        assert_eq!(refused(&member, &Known { is_live: true, ..gone.clone() }), Refusal::PaymentLive);
        assert_eq!(refused(&member, &Known { card_used: true, is_live: true, ..gone.clone() }), Refusal::CardUsed);
        let itself = Acceptance::Replayed { payment: member.id, answer: String::new() };
        assert_eq!(fate(&member, &Known { id_taken: true, card_used: true, is_live: true, ..gone }), Some(itself));
        let other = Some(("1100000002".to_owned(), NOW + Duration::minutes(5)));
        assert_eq!(refused(&member, &Known { stored: other, ..known() }), Refusal::CardOfOtherBill);
    }

    #[test]
    fn of_all_that_it_has_to_wait_for_the_longest_is_told() {
        let config = Config::defaults();
        let limits = &config.limits;
        let failures = |count, ago_s| Failures { count, last: Some(NOW - Duration::seconds(ago_s)) };
        let waits = |known: &Known| match judge(&request(), known, &config, NOW) {
            Some(Acceptance::Refused(Refusal::TooManyAttempts { by, .. })) => by,
            other => panic!("{other:?}"),
        };
        let known = Known { of_bill: failures(limits.bill.free, 1), ..known() };
        assert_eq!(waits(&known), By::Bill);
        let known = Known { of_address: failures(limits.address.free + 20, 0), ..known };
        assert_eq!(waits(&known), By::Address);
        let many = Device { bills: limits.device_bills + 30, latest: Some(NOW), ..Device::default() };
        assert_eq!(waits(&Known { of_device: many, ..known }), By::Device);
    }
}
