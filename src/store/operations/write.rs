//! What claims come to, in one statement.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Claim, SealedCard, Terms, Times, seen::Seen};
use crate::{
    clock,
    payment::OperationKind,
    store::{
        StoreError,
        outbox::{self, OutboxRow},
        status::{self, StatusWrite},
        writes::Writes,
    },
};

/// An operation to insert or to claim again.
pub(super) struct NewClaim<'a> {
    pub(super) payment: &'a Seen,
    pub(super) kind: OperationKind,
    /// An existing row that may be claimed again: the same reference, so the acquirer knows it for the same.
    pub(super) again: Option<Uuid>,
}

/// What was decided about a batch of payments.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub(super) claims: Vec<NewClaim<'a>>,
    pub(super) statuses: Vec<StatusWrite>,
    pub(super) facts: Vec<OutboxRow>,
    /// Sealed cards to be used, if they have not expired. Whoever takes a card is the only one that can ever use it.
    pub(super) cards: Vec<Uuid>,
    /// Sealed cards that have expired.
    pub(super) expired: Vec<Uuid>,
    /// Authorizations to be undone.
    pub(super) reversals: Vec<&'a Seen>,
}

/// Writes all of it or nothing; nothing as well if any of the payments, cards or operations is not what it was
/// ([`Writes::unlocked`]). Returns the claims in their order, and the cards by their ids.
pub(super) async fn write(
    db: &mut PgConnection,
    changes: &Changes<'_>,
    terms: &Terms<'_>,
) -> Result<(Vec<Claim>, HashMap<Uuid, SealedCard>), StoreError> {
    if changes.claims.is_empty() && changes.statuses.is_empty() {
        return Ok(Default::default());
    }
    let times = terms.begin();
    let made: Vec<Claim> = changes.claims.iter().map(|new| claim(new, times)).collect::<Result<_, _>>()?;
    let mut writes = Writes::unlocked();
    take_cards(&mut writes, &changes.cards, times);
    clear_cards(&mut writes, &changes.expired);
    hold(&mut writes, changes);
    status::add(&mut writes, &changes.statuses);
    // After the payments: whoever holds a payment's lock may insert an operation of it.
    add_new(&mut writes, changes, &made, terms.owner, times);
    add_again(&mut writes, changes, terms.owner, times);
    add_reversals(&mut writes, &changes.reversals, times);
    outbox::add(&mut writes, &changes.facts);
    let cards = if changes.cards.is_empty() {
        writes.execute(db).await?;
        HashMap::new()
    } else {
        let rows = writes.returning("SELECT * FROM taken", db).await?;
        rows.iter().map(card).collect::<Result<_, _>>()?
    };
    Ok((made, cards))
}

fn card(row: &PgRow) -> Result<(Uuid, SealedCard), StoreError> {
    let id = row.try_get("id")?;
    let card = SealedCard {
        id,
        kid: row.try_get("kid")?,
        bill: row.try_get("bill_code")?,
        jwe: row.try_get("jwe")?,
        expires_at: row.try_get("expires_at")?,
    };
    Ok((id, card))
}

fn claim(new: &NewClaim<'_>, times: Times) -> Result<Claim, StoreError> {
    let operation = new.again.unwrap_or_else(clock::new_id);
    let reference = operation.simple().to_string();
    let original = match new.kind {
        OperationKind::Authorize => Some(reference.clone()),
        _ => new.payment.authorization.clone(),
    };
    Ok(Claim {
        operation,
        payment: new.payment.id,
        kind: new.kind,
        original: original.ok_or_else(|| StoreError::Unreadable("no authorization to act on".to_owned()))?,
        reference,
        amount: new.payment.amount,
        send_before: times.send_before,
        capture_at_once: new.payment.capture_at_once,
        traceparent: new.payment.traceparent.clone(),
    })
}

fn take_cards(writes: &mut Writes, cards: &[Uuid], times: Times) {
    if cards.is_empty() {
        return;
    }
    writes.guard("taken", cards.len());
    writes.add(
        "taken",
        "DELETE FROM sealed_card c USING (SELECT array_agg(id) AS ids, max(now) AS now FROM",
        |columns| {
            columns.add(cards.iter().copied()).add(cards.iter().map(|_| times.now));
        },
        "AS n (id, now)) n WHERE c.id = ANY (n.ids) AND c.expires_at > n.now
         RETURNING c.id, c.kid, c.bill_code, c.jwe, c.expires_at",
    );
}

fn clear_cards(writes: &mut Writes, expired: &[Uuid]) {
    if expired.is_empty() {
        return;
    }
    writes.add(
        "cleared",
        "DELETE FROM sealed_card c USING (SELECT array_agg(id) AS ids FROM",
        |columns| {
            columns.add(expired.iter().copied());
        },
        "AS n (id)) n WHERE c.id = ANY (n.ids)",
    );
}

/// Payments that are claimed and not changed are held to their version, as the others are by the change of it.
fn hold(writes: &mut Writes, changes: &Changes<'_>) {
    let changed: HashSet<Uuid> = changes.statuses.iter().map(|write| write.payment).collect();
    let held: Vec<&Seen> =
        changes.claims.iter().map(|new| new.payment).filter(|payment| !changed.contains(&payment.id)).collect();
    if held.is_empty() {
        return;
    }
    writes.guard("held", held.len());
    writes.add(
        "held",
        "SELECT p.id FROM",
        |columns| {
            columns.add(held.iter().map(|payment| payment.id)).add(held.iter().map(|payment| payment.version));
        },
        "AS n (id, version) JOIN payment p ON p.id = n.id AND p.version = n.version ORDER BY p.id FOR NO KEY UPDATE OF p",
    );
}

fn add_new(writes: &mut Writes, changes: &Changes<'_>, made: &[Claim], owner: &str, times: Times) {
    let new: Vec<(&NewClaim<'_>, &Claim)> =
        changes.claims.iter().zip(made).filter(|(new, _)| new.again.is_none()).collect();
    if new.is_empty() {
        return;
    }
    let each = || new.iter().map(|(_, claim)| *claim);
    writes.guard("claimed", new.len());
    writes.add(
        "claimed",
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                owner, send_before, next_attempt_at, attempts)
         SELECT n.*, 1 FROM",
        |columns| {
            columns
                .add(each().map(|claim| claim.operation))
                .add(each().map(|claim| claim.payment))
                .add(each().map(|claim| claim.kind.as_str()))
                .add(each().map(|claim| claim.reference.as_str()))
                .add(each().map(|claim| claim.original.as_str()))
                .add(new.iter().map(|(new, _)| new.payment.acquirer.as_str()))
                .add(each().map(|claim| claim.amount.value))
                .add(each().map(|claim| claim.amount.currency.to_string()))
                .add(each().map(|_| owner))
                .add(each().map(|_| times.send_before))
                .add(each().map(|_| times.lease_until));
        },
        "AS n ON CONFLICT DO NOTHING RETURNING 1",
    );
}

fn add_again(writes: &mut Writes, changes: &Changes<'_>, owner: &str, times: Times) {
    let again: Vec<Uuid> = changes.claims.iter().filter_map(|new| new.again).collect();
    if again.is_empty() {
        return;
    }
    writes.guard("claimed_again", again.len());
    writes.add(
        "claimed_again",
        "UPDATE operation o SET owner = n.owner, send_before = n.send_before, next_attempt_at = n.lease_until,
                attempts = o.attempts + 1 FROM",
        |columns| {
            columns
                .add(again.iter().copied())
                .add(again.iter().map(|_| owner))
                .add(again.iter().map(|_| times.send_before))
                .add(again.iter().map(|_| times.lease_until));
        },
        "AS n (id, owner, send_before, lease_until)
         WHERE o.id = n.id AND o.outcome IS NULL AND o.owner IS NULL RETURNING 1",
    );
}

/// Due at once, for `resolve` to send.
fn add_reversals(writes: &mut Writes, payments: &[&Seen], times: Times) {
    if payments.is_empty() {
        return;
    }
    writes.guard("reversing", payments.len());
    writes.add(
        "reversing",
        "INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor, currency,
                                next_attempt_at)
         SELECT n.id, p.id, 'reverse', replace(n.id::text, '-', ''), a.reference, p.acquirer, p.amount_minor, p.currency,
                n.at
         FROM",
        |columns| {
            columns
                .add(payments.iter().map(|_| clock::new_id()))
                .add(payments.iter().map(|payment| payment.id))
                .add(payments.iter().map(|_| times.now));
        },
        "AS n (id, payment_id, at)
         JOIN payment p ON p.id = n.payment_id
         JOIN operation a ON a.payment_id = p.id AND a.kind = 'authorize' AND a.outcome IS DISTINCT FROM 'not_sent'
         ON CONFLICT DO NOTHING RETURNING 1",
    );
}
