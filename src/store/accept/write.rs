//! What an accepted payment is, in one statement for a whole batch.
//!
//! Nothing is locked before it, so it counts on nothing that was read: the bills are held against change, in the order of
//! their codes, and must still be what the payments were judged by; the primary key says "same key, once", unique
//! indexes "one live payment per bill" and "one payment per card". Who loses there makes the whole statement fail, and is told why by what the
//! winner has written.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CardSource, NewPayment};
use crate::{
    clock::new_id,
    contracts::{Event, PaymentRequested, Topic},
    store::{
        StoreError,
        cards::slice_of,
        outbox::OutboxRow,
        writes::{Columns, Writes},
    },
};

const SOURCE: &str = "/tolom/intake";

/// Writes these payments with all that goes with them, those whose bill is still what it was and, unless it is to `wait`
/// (at most the lock time-out), is not locked by somebody else. Returns which, and what is to be announced.
pub(super) async fn write(
    db: &mut PgConnection,
    members: &[&NewPayment],
    now: OffsetDateTime,
    wait: bool,
) -> Result<(HashSet<Uuid>, Vec<OutboxRow>), StoreError> {
    let mut outbox: Vec<Option<OutboxRow>> = members.iter().map(|member| message(member, now)).collect();
    let mut writes = Writes::unlocked();
    writes.add(
        "offered",
        "SELECT * FROM",
        |columns| {
            add_payments(columns, members, now);
            add_cards(columns, members);
            add_origins(columns, members);
            add_messages(columns, &outbox);
        },
        COLUMNS,
    );
    writes.then("wanted", if wait { BILLS_UNCHANGED } else { BILLS_UNCHANGED_AND_FREE });
    for (name, part) in PARTS {
        writes.then(name, part);
    }
    writes.guard_by("keyed", "SELECT count(key) FROM wanted");
    writes.guard_by("accepted", "SELECT count(*) FROM wanted");
    let rows = writes.returning("SELECT id FROM wanted", db).await?;
    let accepted: HashSet<Uuid> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    for (member, message) in members.iter().zip(&mut outbox) {
        message.take_if(|_| !accepted.contains(&member.id));
    }
    Ok((accepted, outbox.into_iter().flatten().collect()))
}

/// The message that starts the work. A foreign message is that itself.
fn message(member: &NewPayment, now: OffsetDateTime) -> Option<OutboxRow> {
    if member.event.is_some() {
        return None;
    }
    let id = new_id();
    let data = PaymentRequested { payment: member.id, request: None };
    let event = Event::new(Topic::PaymentRequested, id, SOURCE, member.id, now, data);
    let traceparent = member.traceparent.clone();
    Some(OutboxRow { id, topic: Topic::PaymentRequested, body: event.to_bytes(), traceparent })
}

const COLUMNS: &str = "AS n (id, bill, amount, currency, acquirer, capture_at_once, email, phone, locale, terms,
    traceparent, caller, source, event, key, fingerprint, answer, now, card, slice, kid, jwe, expires_at, address, device,
    message, routing_key, body)";

const BILLS_UNCHANGED: &str = "SELECT o.* FROM offered o
    JOIN bill b ON b.code = o.bill AND b.status = 'open' AND b.valid_until > o.now AND b.amount_minor = o.amount
         AND b.currency = o.currency
    ORDER BY o.bill FOR SHARE OF b";

/// The same, without those that somebody else has locked.
const BILLS_UNCHANGED_AND_FREE: &str = "SELECT o.* FROM offered o
    JOIN bill b ON b.code = o.bill AND b.status = 'open' AND b.valid_until > o.now AND b.amount_minor = o.amount
         AND b.currency = o.currency
    ORDER BY o.bill FOR SHARE OF b SKIP LOCKED";

/// Locks are taken in one order by everybody: bills by code, keys by caller and key, payments by bill, and so
/// their cards, each of which is for one bill. No payment is
/// inserted before all keys are.
const PARTS: [(&str, &str); 6] = [
    (
        "keyed",
        "INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer)
         SELECT caller, key, fingerprint, id, answer FROM wanted WHERE key IS NOT NULL ORDER BY caller, key
         ON CONFLICT DO NOTHING RETURNING 1",
    ),
    (
        "accepted",
        "INSERT INTO payment (id, bill_code, status, amount_minor, currency, acquirer, capture_at_once, card_id, payer_email,
                payer_phone, locale, terms_version, traceparent, caller, event_source, event_id, accepted_at, updated_at)
         SELECT id, bill, 'accepted', amount, currency, acquirer, capture_at_once, card, email, phone, locale, terms,
                traceparent, caller, source, event, now, now
         FROM wanted WHERE (SELECT count(*) FROM keyed) >= 0 ORDER BY bill ON CONFLICT DO NOTHING RETURNING 1",
    ),
    (
        "sealed",
        "INSERT INTO sealed_card (id, slice, bill_code, kid, jwe, expires_at)
         SELECT card, slice, bill, kid, jwe, expires_at FROM wanted WHERE jwe IS NOT NULL
         ORDER BY bill ON CONFLICT DO NOTHING",
    ),
    (
        "journalled",
        "INSERT INTO journal (payment_id, at, version, event, to_status, actor)
         SELECT id, now, 1, 'accepted', 'accepted', 'intake' FROM wanted",
    ),
    (
        "originated",
        "INSERT INTO payment_origin (payment_id, address, device, at)
         SELECT id, address, device, now FROM wanted WHERE address IS NOT NULL",
    ),
    (
        "promised",
        "INSERT INTO outbox (id, routing_key, body, traceparent)
         SELECT message, routing_key, body, traceparent FROM wanted WHERE message IS NOT NULL",
    ),
];

fn add_payments(columns: &mut Columns<'_>, members: &[&NewPayment], now: OffsetDateTime) {
    let each = || members.iter();
    let events = || each().map(|member| member.event.as_ref());
    let keys = || each().map(|member| member.idempotency.as_ref());
    columns
        .add(each().map(|member| member.id))
        .add(each().map(|member| member.bill.as_str()))
        .add(each().map(|member| member.amount.value))
        .add(each().map(|member| member.amount.currency.as_str()))
        .add(each().map(|member| member.acquirer.as_str()))
        .add(each().map(|member| member.capture_at_once))
        .add(each().map(|member| member.payer.email.as_str()))
        .add(each().map(|member| member.payer.phone.as_str()))
        .add(each().map(|member| member.locale.as_str()))
        .add(each().map(|member| member.terms.as_str()))
        .add(each().map(|member| member.traceparent.as_deref()))
        .add(each().map(|member| member.caller.as_str()))
        .add(events().map(|event| event.map(|(source, _)| source.as_str())))
        .add(events().map(|event| event.map(|(_, id)| id.as_str())))
        .add(keys().map(|key| key.map(|key| key.key.as_str())))
        .add(keys().map(|key| key.map(|key| &key.fingerprint[..])))
        .add(keys().map(|key| key.map(|key| key.answer.as_str())))
        .add(each().map(|_| now));
}

fn add_cards(columns: &mut Columns<'_>, members: &[&NewPayment]) {
    let inline = || {
        members.iter().map(|member| match &member.card {
            CardSource::Inline(card) => Some(card),
            CardSource::Stored(_) => None,
        })
    };
    columns
        .add(members.iter().map(|member| member.card.id()))
        .add(inline().map(|card| card.map(|card| slice_of(card.expires_at))))
        .add(inline().map(|card| card.map(|card| card.kid.as_str())))
        .add(inline().map(|card| card.map(|card| card.jwe.as_str())))
        .add(inline().map(|card| card.map(|card| card.expires_at)));
}

fn add_origins(columns: &mut Columns<'_>, members: &[&NewPayment]) {
    let origins = || members.iter().map(|member| member.origin.as_ref());
    columns
        .add(origins().map(|origin| origin.map(|origin| &origin.address[..])))
        .add(origins().map(|origin| origin.and_then(|origin| origin.device.as_ref()).map(|device| &device[..])));
}

fn add_messages(columns: &mut Columns<'_>, outbox: &[Option<OutboxRow>]) {
    let each = || outbox.iter().map(Option::as_ref);
    columns
        .add(each().map(|row| row.map(|row| row.id)))
        .add(each().map(|row| row.map(|row| row.topic.routing_key())))
        .add(each().map(|row| row.map(|row| row.body.as_slice())));
}
