//! What the database knows that bears on a request, in one statement for a whole batch.

use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CardSource, NewPayment};
use crate::{
    config,
    payment::{BillStatus, Money, limits::MOST_COUNTED},
    store::{
        StoreError, cards, keys,
        limits::{Failures, not_counted, read_count},
        read_money, read_word,
    },
};

/// What bears on one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Known {
    /// What stands under its idempotency key.
    pub(super) key: Option<UsedKey>,
    /// The payment that its foreign message, by source and id, has made before.
    pub(super) of_event: Option<Uuid>,
    /// A payment has the id that the foreign message asks for.
    pub(super) id_taken: bool,
    /// Its bill.
    pub(super) bill: Option<Bill>,
    /// How often payments of the bill were declined lately.
    pub(super) of_bill: Failures,
    /// And those from its address, if it is one of a payer.
    pub(super) of_address: Failures,
    /// What its payer's browser did lately.
    pub(super) of_device: Device,
    /// Another payment of the bill is live.
    pub(super) is_live: bool,
    /// When the key of an inline card is destroyed, if cards sealed with it are taken.
    pub(super) key_ends: Option<OffsetDateTime>,
    /// The bill and the expiry of a stored card, if it is there.
    pub(super) stored: Option<(String, OffsetDateTime)>,
    /// A payment has used the card.
    pub(super) card_used: bool,
}

/// An idempotency key that was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsedKey {
    pub(super) fingerprint: Vec<u8>,
    pub(super) payment: Uuid,
    pub(super) answer: String,
    /// The message was refused under it.
    pub(super) is_refused: bool,
}

/// What a browser did lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Device {
    /// How often its payments were declined.
    pub(super) failures: Failures,
    /// For how many bills it has tried to pay.
    pub(super) bills: u32,
    /// When its last payment was accepted.
    pub(super) latest: Option<OffsetDateTime>,
}

/// A bill as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) status: BillStatus,
    pub(super) owed: Money,
    pub(super) valid_until: OffsetDateTime,
}

/// Each join finds one row or none: a row for each member. What came from an address or a browser is counted over its
/// latest payments, as many as decide.
const READ: &str = "SELECT n.place - 1 AS place, k.fingerprint, k.payment_id AS key_payment, k.answer,
        k.refusal IS NOT NULL AS key_refused, e.id AS of_event,
        i.id IS NOT NULL AS id_taken, b.status, b.amount_minor, b.currency, b.valid_until, f.failures, f.last,
        l.id IS NOT NULL AS is_live, s.destroy_at AS key_ends, u.id IS NOT NULL AS card_used,
        a.failures AS address_failures, a.last AS address_last, d.failures AS device_failures, d.last AS device_last,
        d.bills, d.latest
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::uuid[],
                $13::bytea[], $14::bytea[])
         WITH ORDINALITY AS n (caller, key, source, event, id, bill, kid, card, address, device, place)
    LEFT JOIN idempotency_key k ON k.caller = n.caller AND k.key = n.key
    LEFT JOIN payment e ON e.event_source = n.source AND e.event_id = n.event
    LEFT JOIN payment i ON i.id = n.id
    LEFT JOIN bill b ON b.code = n.bill
    LEFT JOIN payment l ON l.bill_code = n.bill AND l.status NOT IN ('declined', 'failed', 'reversed')
    LEFT JOIN sealing_key s ON s.kid = n.kid AND s.seal_until > $9
    LEFT JOIN payment u ON u.card_id = n.card
    CROSS JOIN LATERAL (SELECT count(*) AS failures, max(updated_at) AS last FROM (
        SELECT updated_at FROM payment WHERE bill_code = n.bill AND status = 'declined'
            AND decline_reason <> ALL ($11) AND updated_at > $10 ORDER BY updated_at DESC LIMIT $12) d) f
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($11)) AS failures,
               max(p.updated_at) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($11)) AS last
        FROM (SELECT payment_id FROM payment_origin WHERE address = n.address AND at > $15
              ORDER BY at DESC LIMIT $12) o
        JOIN payment p ON p.id = o.payment_id) a
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($11)) AS failures,
               max(p.updated_at) FILTER (WHERE p.status = 'declined' AND p.decline_reason <> ALL ($11)) AS last,
               count(DISTINCT p.bill_code) AS bills, max(o.at) AS latest
        FROM (SELECT payment_id, at FROM payment_origin WHERE device = n.device AND at > $16
              ORDER BY at DESC LIMIT $12) o
        JOIN payment p ON p.id = o.payment_id) d";

/// Reads what bears on these requests, in their order.
pub(super) async fn known(
    db: &mut PgConnection,
    members: &[&NewPayment],
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Result<Vec<Known>, StoreError> {
    let each = || members.iter();
    let events = || each().map(|member| member.event.as_ref());
    let origins = || each().map(|member| member.origin.as_ref());
    let kids = each().map(|member| match &member.card {
        CardSource::Inline(card) => Some(card.kid.as_str()),
        CardSource::Stored(_) => None,
    });
    let rows = sqlx::query(READ)
        .bind(each().map(|member| member.caller.as_str()).collect::<Vec<_>>())
        .bind(each().map(|member| Some(member.idempotency.as_ref()?.key.as_str())).collect::<Vec<_>>())
        .bind(events().map(|event| Some(event?.0.as_str())).collect::<Vec<_>>())
        .bind(events().map(|event| Some(event?.1.as_str())).collect::<Vec<_>>())
        .bind(each().map(|member| member.event.is_some().then_some(member.id)).collect::<Vec<_>>())
        .bind(each().map(|member| member.bill.as_str()).collect::<Vec<_>>())
        .bind(kids.collect::<Vec<_>>())
        .bind(each().map(|member| member.card.id()).collect::<Vec<_>>())
        .bind(now - keys::SEAL_GRACE)
        .bind(now - limits.bill.window())
        .bind(not_counted())
        .bind(i64::from(MOST_COUNTED))
        .bind(origins().map(|origin| Some(&origin?.address[..])).collect::<Vec<_>>())
        .bind(origins().map(|origin| Some(&origin?.device.as_ref()?[..])).collect::<Vec<_>>())
        .bind(now - limits.address.window())
        .bind(now - limits.device.window())
        .fetch_all(&mut *db)
        .await?;
    let mut all = vec![Known::default(); members.len()];
    for row in &rows {
        let place: i64 = row.try_get("place")?;
        let known = usize::try_from(place).ok().and_then(|place| all.get_mut(place));
        *known.ok_or_else(|| StoreError::Unreadable(format!("a row at place {place}")))? = read(row)?;
    }
    let waiting = each().filter(|member| matches!(member.card, CardSource::Stored(_)));
    let stored = cards::stored(db, &waiting.map(|member| member.card.id()).collect::<Vec<_>>()).await?;
    for (known, member) in all.iter_mut().zip(members) {
        known.stored = stored.get(&member.card.id()).cloned();
    }
    Ok(all)
}

fn read(row: &PgRow) -> Result<Known, StoreError> {
    let key = match row.try_get::<Option<Vec<u8>>, _>("fingerprint")? {
        Some(fingerprint) => Some(UsedKey {
            fingerprint,
            payment: row.try_get("key_payment")?,
            answer: row.try_get("answer")?,
            is_refused: row.try_get("key_refused")?,
        }),
        None => None,
    };
    let bill = match row.try_get::<Option<OffsetDateTime>, _>("valid_until")? {
        Some(valid_until) => Some(Bill {
            status: read_word(row, "status")?,
            owed: read_money(row, "amount_minor", "currency")?,
            valid_until,
        }),
        None => None,
    };
    Ok(Known {
        key,
        of_event: row.try_get("of_event")?,
        id_taken: row.try_get("id_taken")?,
        bill,
        of_bill: Failures::read(row, "failures", "last")?,
        of_address: Failures::read(row, "address_failures", "address_last")?,
        of_device: Device {
            failures: Failures::read(row, "device_failures", "device_last")?,
            bills: read_count(row, "bills")?,
            latest: row.try_get("latest")?,
        },
        is_live: row.try_get("is_live")?,
        key_ends: row.try_get("key_ends")?,
        stored: None,
        card_used: row.try_get("card_used")?,
    })
}
