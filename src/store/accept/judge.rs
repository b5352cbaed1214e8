//! What comes of a request, by what is known that bears on it. No I/O.
//!
//! Who was accepted before is replayed, whatever stands against it now; who guesses codes is told nothing; and nobody
//! learns of a bill's payments who does not know what the bill asks for.

use time::OffsetDateTime;

use super::{
    Acceptance, CardSource, NewPayment, Refusal,
    known::{Bill, Known},
};
use crate::{
    config,
    payment::{
        BillStatus, Money,
        limits::{By, Velocity, wait_s},
    },
    store::limits::{Counts, Failures, Origin},
};

/// What comes of a request; `None` if nothing stands in its way.
pub(super) fn judge(
    member: &NewPayment,
    known: &Known,
    counts: &Counts,
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Option<Acceptance> {
    if let Some(replayed) = replay(member, known) {
        return Some(replayed);
    }
    let refusal = guesses(member, now)
        .or_else(|| match &known.bill {
            Some(bill) => judge_bill(bill, member.amount, now),
            None => Some(Refusal::BillUnknown),
        })
        .or_else(|| must_wait(member, &known.failures, counts, limits, now))
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
        return Some(if used.fingerprint == idempotency.fingerprint {
            Acceptance::Replayed { payment: used.payment, answer: used.answer.clone() }
        } else {
            Acceptance::Refused(Refusal::KeyReused)
        });
    }
    known.of_event.map(|payment| Acceptance::Replayed { payment, answer: String::new() })
}

/// Refuses those from an address that guesses codes, before anything is told of their bill.
fn guesses(member: &NewPayment, now: OffsetDateTime) -> Option<Refusal> {
    let until = member.origin.as_ref()?.shut_until.filter(|until| *until > now)?;
    Some(Refusal::TooManyAttempts { by: By::Address, wait_s: wait_s(until, now) })
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
fn must_wait(
    member: &NewPayment,
    of_bill: &Failures,
    counts: &Counts,
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Option<Refusal> {
    let failed = |rule: &Velocity, failures: Option<&Failures>| {
        failures.and_then(|failures| rule.shut_until(failures.count, failures.last?, now))
    };
    let mut waits = vec![(By::Bill, failed(&limits.bill, Some(of_bill)))];
    if let Some(Origin { address, device, .. }) = &member.origin {
        let device = device.as_ref().and_then(|device| counts.devices.get(device));
        let many_bills = device.and_then(|seen| {
            let over = seen.bills.checked_sub(limits.device_bills)?;
            limits.device.shut_until(limits.device.free.saturating_add(over), seen.latest?, now)
        });
        waits.push((By::Device, failed(&limits.device, device).max(many_bills)));
        waits.push((By::Address, failed(&limits.address, counts.addresses.get(address))));
    }
    let longest = waits.into_iter().filter_map(|(by, until)| Some((by, until?))).max_by_key(|(_, until)| *until);
    longest.map(|(by, until)| Refusal::TooManyAttempts { by, wait_s: wait_s(until, now) })
}
