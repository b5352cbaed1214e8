//! What a claim must know of its payments, read without locks.

use std::collections::HashMap;

use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    payment::{Event, Money, OperationKind, PaymentCode, Status},
    store::{
        StoreError, read_money,
        status::{Learnt, StatusWrite},
    },
};

/// A payment as it was a moment ago.
pub(super) struct Seen {
    pub(super) id: Uuid,
    pub(super) status: Status,
    pub(super) version: i32,
    pub(super) bill: PaymentCode,
    pub(super) amount: Money,
    pub(super) acquirer: String,
    pub(super) capture_at_once: bool,
    pub(super) card_id: Uuid,
    /// When its sealed card expires, if it is there and was asked for.
    pub(super) card_expires_at: Option<OffsetDateTime>,
    pub(super) response: Option<Vec<(String, String)>>,
    pub(super) traceparent: Option<String>,
    pub(super) bill_awaits: bool,
    /// The newest operation of the kind that is claimed: (id, outcome, owned).
    pub(super) existing: Option<(Uuid, Option<String>, bool)>,
    pub(super) authorization: Option<String>,
    /// An operation of it is open.
    pub(super) open: bool,
}

impl Seen {
    /// What an event makes of it.
    pub(super) fn step(&self, event: Event, actor: &'static str) -> Result<StatusWrite, StoreError> {
        let to = self.status.after(&event).map_err(|illegal| StoreError::Unreadable(illegal.to_string()))?;
        Ok(StatusWrite {
            payment: self.id,
            from: self.status,
            version: self.version,
            steps: vec![(event, to)],
            learnt: Learnt::default(),
            operation: None,
            actor: actor.to_owned(),
            detail: None,
        })
    }

    /// Whether its sealed card is there and can be used.
    pub(super) fn has_card(&self, now: OffsetDateTime) -> bool {
        self.card_expires_at.is_some_and(|expires_at| expires_at > now)
    }

    /// Whether it waits to be authorized: for the first time, or again because its operation provably was not sent.
    pub(super) fn may_be_authorized(&self) -> bool {
        let released = self.existing.as_ref().is_some_and(|(_, outcome, _)| outcome.as_deref() == Some("not_sent"));
        let first = self.status == Status::Accepted && self.existing.is_none();
        first || (self.status == Status::Authorizing && released && !self.open)
    }
}

/// Locks payments, in one order, before they are looked at by somebody who may end them: that nobody has claimed one, and
/// that its card is gone, must both still be so when it ends (rule 4). A claim needs none, for it writes what it counts on.
///
/// A statement of its own: what is read must be read *after* the wait for the locks (PostgreSQL manual, 13.2.1).
pub(super) async fn lock(db: &mut PgConnection, payments: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT FROM unnest($1::uuid[]) AS n (id) JOIN payment p ON p.id = n.id ORDER BY p.id FOR NO KEY UPDATE OF p",
    )
    .bind(payments)
    .execute(db)
    .await?;
    Ok(())
}

/// Reads payments with the newest operation of `kind` of each, in the order of their ids.
pub(super) async fn see(
    db: &mut PgConnection,
    payments: &[Uuid],
    kind: OperationKind,
) -> Result<Vec<Seen>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.id, p.status, p.version, p.bill_code, p.amount_minor, p.currency, p.acquirer, p.capture_at_once,
                p.card_id, p.challenge_response, p.traceparent,
                (b.status = 'open' OR b.paid_by IS NOT DISTINCT FROM p.id) AS bill_awaits,
                e.id AS existing, e.outcome AS existing_outcome, e.owner IS NOT NULL AS existing_owned,
                a.reference AS authorization_reference,
                EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id AND (o.outcome IS NULL
                        OR o.outcome = 'unknown') AND NOT o.closing) AS open
         FROM unnest($1::uuid[]) AS n (id)
         JOIN payment p ON p.id = n.id
         JOIN bill b ON b.code = p.bill_code
         LEFT JOIN LATERAL (SELECT id, outcome, owner FROM operation
                            WHERE payment_id = p.id AND kind = $2 ORDER BY created_at DESC, id DESC LIMIT 1) e ON true
         LEFT JOIN LATERAL (SELECT reference FROM operation
                            WHERE payment_id = p.id AND kind = 'authorize' AND outcome IS DISTINCT FROM 'not_sent'
                            LIMIT 1) a ON true
         ORDER BY p.id",
    )
    .bind(payments)
    .bind(kind.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<Seen, StoreError> {
    let unreadable = |what: &str| StoreError::Unreadable(format!("payment: {what}"));
    let status: String = row.try_get("status")?;
    let bill: String = row.try_get("bill_code")?;
    let existing: Option<Uuid> = row.try_get("existing")?;
    let outcome: Option<String> = row.try_get("existing_outcome")?;
    let owned: Option<bool> = row.try_get("existing_owned")?;
    let response: Option<serde_json::Value> = row.try_get("challenge_response")?;
    Ok(Seen {
        id: row.try_get("id")?,
        status: status.parse().map_err(|_| unreadable(&status))?,
        version: row.try_get("version")?,
        bill: bill.parse().map_err(|_| unreadable(&bill))?,
        amount: read_money(row, "amount_minor", "currency")?,
        acquirer: row.try_get("acquirer")?,
        capture_at_once: row.try_get("capture_at_once")?,
        card_id: row.try_get("card_id")?,
        card_expires_at: None,
        response: response.map(serde_json::from_value).transpose().map_err(|_| unreadable("challenge_response"))?,
        traceparent: row.try_get("traceparent")?,
        bill_awaits: row.try_get("bill_awaits")?,
        existing: existing.map(|id| (id, outcome, owned.unwrap_or(false))),
        authorization: row.try_get("authorization_reference")?,
        open: row.try_get("open")?,
    })
}

/// Looks for the sealed cards of these payments. Asked for only when one is missing: of the four slices each would have to
/// be searched for each.
pub(super) async fn look_for_cards(db: &mut PgConnection, seen: &mut [Seen]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = seen.iter().map(|payment| payment.card_id).collect();
    let rows = sqlx::query("SELECT id, expires_at FROM sealed_card WHERE id = ANY($1)").bind(ids).fetch_all(db).await?;
    let there: HashMap<Uuid, OffsetDateTime> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, StoreError>>()?;
    for payment in seen {
        payment.card_expires_at = there.get(&payment.card_id).copied();
    }
    Ok(())
}
