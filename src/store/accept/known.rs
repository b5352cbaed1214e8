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
        limits::{Failures, not_counted},
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
    pub(super) failures: Failures,
    /// Another payment of the bill is live.
    pub(super) is_live: bool,
    /// When the key of an inline card is destroyed, if cards sealed with it are taken.
    pub(super) key_ends: Option<OffsetDateTime>,
    /// The bill and the expiry of a stored card, if it is there.
    pub(super) stored: Option<(String, OffsetDateTime)>,
    /// A payment has used the stored card.
    pub(super) card_used: bool,
}

/// An idempotency key that was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsedKey {
    pub(super) fingerprint: Vec<u8>,
    pub(super) payment: Uuid,
    pub(super) answer: String,
}

/// A bill as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) status: BillStatus,
    pub(super) owed: Money,
    pub(super) valid_until: OffsetDateTime,
}

/// Each join finds one row or none: a row for each member.
const READ: &str =
    "SELECT n.place - 1 AS place, k.fingerprint, k.payment_id AS key_payment, k.answer, e.id AS of_event,
        i.id IS NOT NULL AS id_taken, b.status, b.amount_minor, b.currency, b.valid_until, f.failures, f.last,
        0::bigint AS bills, NULL::timestamptz AS latest, l.id IS NOT NULL AS is_live, s.destroy_at AS key_ends,
        u.id IS NOT NULL AS card_used
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::uuid[])
         WITH ORDINALITY AS n (caller, key, source, event, id, bill, kid, card, place)
    LEFT JOIN idempotency_key k ON k.caller = n.caller AND k.key = n.key
    LEFT JOIN payment e ON e.event_source = n.source AND e.event_id = n.event
    LEFT JOIN payment i ON i.id = n.id
    LEFT JOIN bill b ON b.code = n.bill
    LEFT JOIN payment l ON l.bill_code = n.bill AND l.status NOT IN ('declined', 'failed', 'reversed')
    LEFT JOIN sealing_key s ON s.kid = n.kid AND s.seal_until > $9
    LEFT JOIN payment u ON u.card_id = n.card AND u.card_id <> u.id
    CROSS JOIN LATERAL (SELECT count(*) AS failures, max(updated_at) AS last FROM (
        SELECT updated_at FROM payment WHERE bill_code = n.bill AND status = 'declined'
            AND decline_reason <> ALL ($11) AND updated_at > $10 ORDER BY updated_at DESC LIMIT $12) d) f";

/// Reads what bears on these requests, in their order.
pub(super) async fn known(
    db: &mut PgConnection,
    members: &[&NewPayment],
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Result<Vec<Known>, StoreError> {
    let each = || members.iter();
    let events = || each().map(|member| member.event.as_ref());
    let card = || {
        each().map(|member| match &member.card {
            CardSource::Inline(card) => (Some(card.kid.as_str()), None),
            CardSource::Stored(id) => (None, Some(*id)),
        })
    };
    let rows = sqlx::query(READ)
        .bind(each().map(|member| member.caller.as_str()).collect::<Vec<_>>())
        .bind(each().map(|member| Some(member.idempotency.as_ref()?.key.as_str())).collect::<Vec<_>>())
        .bind(events().map(|event| Some(event?.0.as_str())).collect::<Vec<_>>())
        .bind(events().map(|event| Some(event?.1.as_str())).collect::<Vec<_>>())
        .bind(each().map(|member| member.event.is_some().then_some(member.id)).collect::<Vec<_>>())
        .bind(each().map(|member| member.bill.as_str()).collect::<Vec<_>>())
        .bind(card().map(|(kid, _)| kid).collect::<Vec<_>>())
        .bind(card().map(|(_, id)| id).collect::<Vec<_>>())
        .bind(now - keys::SEAL_GRACE)
        .bind(now - limits.bill.window())
        .bind(not_counted())
        .bind(i64::from(MOST_COUNTED))
        .fetch_all(&mut *db)
        .await?;
    let mut all = vec![Known::default(); members.len()];
    for row in &rows {
        let place: i64 = row.try_get("place")?;
        let known = usize::try_from(place).ok().and_then(|place| all.get_mut(place));
        *known.ok_or_else(|| StoreError::Unreadable(format!("a row at place {place}")))? = read(row)?;
    }
    let ids: Vec<Uuid> = card().filter_map(|(_, id)| id).collect();
    let stored = cards::stored(db, &ids).await?;
    for (known, (_, id)) in all.iter_mut().zip(card()) {
        known.stored = id.and_then(|id| stored.get(&id).cloned());
    }
    Ok(all)
}

fn read(row: &PgRow) -> Result<Known, StoreError> {
    let key = match row.try_get::<Option<Vec<u8>>, _>("fingerprint")? {
        Some(fingerprint) => {
            Some(UsedKey { fingerprint, payment: row.try_get("key_payment")?, answer: row.try_get("answer")? })
        }
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
        failures: Failures::read(row)?,
        is_live: row.try_get("is_live")?,
        key_ends: row.try_get("key_ends")?,
        stored: None,
        card_used: row.try_get("card_used")?,
    })
}
