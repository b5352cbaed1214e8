//! One transaction for one batch: each step is one statement, and narrows the set of those still in the race.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Acceptance, CardSource, Idempotency, NewPayment, Refusal, Terms,
    rows::{card_id, existing, insert, judge_bill, message, place},
};
use crate::{
    payment::BillStatus,
    store::{
        StoreError, cards, keys, limits,
        outbox::{self, OutboxRow},
        read_money, read_word,
        writes::Writes,
    },
};

/// What one transaction came to. A member without a fate found its bill locked: it must be tried alone.
pub(super) struct Attempt {
    pub(super) fates: Vec<Option<Acceptance>>,
    pub(super) outbox: Vec<OutboxRow>,
}

/// A batch on its way through its transaction.
pub(super) struct Batch<'a> {
    pub(super) members: &'a [&'a NewPayment],
    fates: Vec<Option<Acceptance>>,
    /// Those whose bill is locked by somebody else.
    locked_out: HashSet<usize>,
}

/// In one round trip: a payer waits for each.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'";

/// Tries to accept the members in one transaction. `wait` for locked bills (at most a second) instead of leaving their
/// members without a fate.
pub(super) async fn attempt(terms: &Terms<'_>, members: &[&NewPayment], wait: bool) -> Result<Attempt, StoreError> {
    let Terms { pool, now, limits } = *terms;
    let mut batch = Batch { members, fates: vec![None; members.len()], locked_out: HashSet::new() };
    let mut tx = pool.begin_with(BEGIN).await?;
    let everybody: Vec<usize> = (0..members.len()).collect();
    batch.replay(&mut tx, &everybody).await?;
    batch.replay_messages(&mut tx, &everybody).await?;
    batch.refuse_guessers(now);
    batch.check_bills(&mut tx, now, wait).await?;
    batch.check_limits(&mut tx, limits, now).await?;
    batch.check_cards(&mut tx, now).await?;
    batch.insert(&mut tx, now).await?;
    // Somebody with the same key may have won meanwhile: his answer is better than our refusal.
    let refused = batch.those(|fate| matches!(fate, Some(Acceptance::Refused(_))));
    batch.replay(&mut tx, &refused).await?;
    batch.replay_messages(&mut tx, &refused).await?;
    let winners = batch.those(|fate| matches!(fate, Some(Acceptance::New)));
    let outbox = if winners.is_empty() {
        tx.rollback().await?;
        Vec::new()
    } else {
        let outbox = batch.promise(&mut tx, &winners, now).await?;
        tx.commit().await?;
        outbox
    };
    Ok(Attempt { fates: batch.fates, outbox })
}

impl Batch<'_> {
    fn those(&self, fits: impl Fn(&Option<Acceptance>) -> bool) -> Vec<usize> {
        let here = |index: &usize| !self.locked_out.contains(index) && fits(&self.fates[*index]);
        (0..self.members.len()).filter(here).collect()
    }

    pub(super) fn undecided(&self) -> Vec<usize> {
        self.those(Option::is_none)
    }

    pub(super) fn refuse(&mut self, index: usize, refusal: Refusal) {
        self.fates[index] = Some(Acceptance::Refused(refusal));
    }

    /// Of these, those with a key.
    fn keyed(&self, among: &[usize]) -> Vec<(usize, &Idempotency)> {
        among.iter().filter_map(|index| Some((*index, self.members[*index].idempotency.as_ref()?))).collect()
    }

    /// Answers those whose key has been used: the same request with the stored answer, another one with a refusal.
    async fn replay(&mut self, db: &mut PgConnection, among: &[usize]) -> Result<(), StoreError> {
        let keyed = self.keyed(among);
        if keyed.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "SELECT n.place - 1 AS place, k.fingerprint, k.payment_id, k.answer
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (caller, key, place)
             JOIN idempotency_key k ON k.caller = n.caller AND k.key = n.key",
        )
        .bind(keyed.iter().map(|(index, _)| self.members[*index].caller.as_str()).collect::<Vec<_>>())
        .bind(keyed.iter().map(|(_, idempotency)| idempotency.key.as_str()).collect::<Vec<_>>())
        .fetch_all(db)
        .await?;
        let mut found = Vec::new();
        for row in &rows {
            let (index, idempotency) = keyed[place(row)?];
            let fingerprint: &[u8] = row.try_get("fingerprint")?;
            let fate = if fingerprint == idempotency.fingerprint {
                Acceptance::Replayed { payment: row.try_get("payment_id")?, answer: row.try_get("answer")? }
            } else {
                Acceptance::Refused(Refusal::KeyReused)
            };
            found.push((index, fate));
        }
        for (index, fate) in found {
            self.fates[index] = Some(fate);
        }
        Ok(())
    }

    /// Answers foreign messages that have been admitted before, by their source and id.
    async fn replay_messages(&mut self, db: &mut PgConnection, among: &[usize]) -> Result<(), StoreError> {
        let foreign: Vec<(usize, &(String, String))> =
            among.iter().filter_map(|index| Some((*index, self.members[*index].event.as_ref()?))).collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "SELECT n.place - 1 AS place, p.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (source, id, place)
             JOIN payment p ON p.event_source = n.source AND p.event_id = n.id",
        )
        .bind(foreign.iter().map(|(_, (source, _))| source.as_str()).collect::<Vec<_>>())
        .bind(foreign.iter().map(|(_, (_, id))| id.as_str()).collect::<Vec<_>>())
        .fetch_all(db)
        .await?;
        for row in &rows {
            let replayed = Acceptance::Replayed { payment: row.try_get("id")?, answer: String::new() };
            self.fates[foreign[place(row)?].0] = Some(replayed);
        }
        Ok(())
    }

    /// Locks the bills against change, in the order of their codes, and judges them.
    async fn check_bills(&mut self, db: &mut PgConnection, now: OffsetDateTime, wait: bool) -> Result<(), StoreError> {
        const LOCK: &str = "SELECT b.code, b.status, b.amount_minor, b.currency, b.valid_until
             FROM unnest($1::text[]) AS n (code) JOIN bill b ON b.code = n.code ORDER BY b.code FOR SHARE OF b";
        const LOCK_FREE_ONES: &str = "SELECT b.code, b.status, b.amount_minor, b.currency, b.valid_until
             FROM unnest($1::text[]) AS n (code) JOIN bill b ON b.code = n.code ORDER BY b.code
             FOR SHARE OF b SKIP LOCKED";
        let undecided = self.undecided();
        let codes: BTreeSet<&str> = undecided.iter().map(|index| self.members[*index].bill.as_str()).collect();
        let codes: Vec<&str> = codes.into_iter().collect();
        let query = if wait { LOCK } else { LOCK_FREE_ONES };
        let rows = sqlx::query(query).bind(&codes).fetch_all(&mut *db).await?;
        let mut bills = HashMap::new();
        for row in &rows {
            let code: String = row.try_get("code")?;
            let status: BillStatus = read_word(row, "status")?;
            let valid_until: OffsetDateTime = row.try_get("valid_until")?;
            bills.insert(code, (status, valid_until, read_money(row, "amount_minor", "currency")?));
        }
        let missing: Vec<&str> = codes.into_iter().filter(|code| !bills.contains_key(*code)).collect();
        let locked = if wait || missing.is_empty() { HashSet::new() } else { existing(db, &missing).await? };
        for index in undecided {
            let member = self.members[index];
            match bills.get(member.bill.as_str()) {
                Some((status, valid_until, owed)) => {
                    if let Some(refusal) = judge_bill(*status, *valid_until, *owed, member.amount, now) {
                        self.refuse(index, refusal);
                    }
                }
                None if locked.contains(member.bill.as_str()) => {
                    self.locked_out.insert(index);
                }
                None => self.refuse(index, Refusal::BillUnknown),
            }
        }
        Ok(())
    }

    /// Judges the cards: the key of one that came along, the row of one that was stored before.
    async fn check_cards(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), StoreError> {
        let undecided = self.undecided();
        let (mut kids, mut ids) = (BTreeSet::new(), Vec::new());
        for index in &undecided {
            match &self.members[*index].card {
                CardSource::Inline(card) => drop(kids.insert(card.kid.clone())),
                CardSource::Stored(id) => ids.push(*id),
            }
        }
        let kids: Vec<String> = kids.into_iter().collect();
        let usable = if kids.is_empty() { Vec::new() } else { keys::taken(&mut *db, &kids, now).await? };
        let usable: HashMap<String, OffsetDateTime> = usable.into_iter().collect();
        let stored: HashMap<Uuid, cards::Stored> =
            cards::stored(db, &ids).await?.into_iter().map(|card| (card.id, card)).collect();
        let mut gone = Vec::new();
        for index in undecided {
            let member = self.members[index];
            let refusal = match &member.card {
                CardSource::Inline(card) if card.bill != member.bill => Some(Refusal::CardOfOtherBill),
                CardSource::Inline(card) if card.expires_at <= now => Some(Refusal::CardExpired),
                CardSource::Inline(card) => match usable.get(&card.kid) {
                    Some(destroy_at) if *destroy_at >= card.expires_at => None,
                    _ => Some(Refusal::CardKeyUnknown),
                },
                CardSource::Stored(id) => match stored.get(id) {
                    Some(card) if card.bill != member.bill.as_str() => Some(Refusal::CardOfOtherBill),
                    Some(card) if card.expires_at <= now => Some(Refusal::CardExpired),
                    Some(_) => None,
                    None => {
                        gone.push(index);
                        None
                    }
                },
            };
            if let Some(refusal) = refusal {
                self.refuse(index, refusal);
            }
        }
        self.explain_gone_cards(db, &gone).await
    }

    /// A stored card that is not there has expired, or its payment has taken it: then that one is told. For a foreign
    /// message it may be the very payment that it asks for.
    async fn explain_gone_cards(&mut self, db: &mut PgConnection, gone: &[usize]) -> Result<(), StoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        self.explain_losers(db, gone).await?;
        for index in gone {
            if self.fates[*index] == Some(Acceptance::Refused(Refusal::InFlight)) {
                self.refuse(*index, Refusal::CardUnknown);
            }
        }
        Ok(())
    }

    /// Inserts the keys and the payments. Who does not get its key is answered by what stands under it; a payment that
    /// cannot be gives its key back.
    async fn insert(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), StoreError> {
        let undecided = self.undecided();
        if undecided.is_empty() {
            return Ok(());
        }
        let members: Vec<&NewPayment> = undecided.iter().map(|index| self.members[*index]).collect();
        let inserted = insert(db, &members, now).await?;
        let (mut late, mut losers) = (Vec::new(), Vec::new());
        for (index, member) in undecided.into_iter().zip(members) {
            if inserted.payments.contains(&member.id) {
                self.fates[index] = Some(Acceptance::New);
            } else if member.idempotency.is_some() && !inserted.keys.contains(&member.id) {
                self.refuse(index, Refusal::InFlight);
                late.push(index);
            } else {
                losers.push(index);
            }
        }
        self.replay(db, &late).await?;
        if losers.is_empty() {
            return Ok(());
        }
        let keyed = self.keyed(&losers);
        sqlx::query(
            "DELETE FROM idempotency_key k USING unnest($1::text[], $2::text[], $3::uuid[]) AS n (caller, key, payment_id)
             WHERE k.caller = n.caller AND k.key = n.key AND k.payment_id = n.payment_id",
        )
        .bind(keyed.iter().map(|(index, _)| self.members[*index].caller.as_str()).collect::<Vec<_>>())
        .bind(keyed.iter().map(|(_, idempotency)| idempotency.key.as_str()).collect::<Vec<_>>())
        .bind(keyed.iter().map(|(index, _)| self.members[*index].id).collect::<Vec<_>>())
        .execute(&mut *db)
        .await?;
        self.explain_losers(db, &losers).await
    }

    /// Tells those that could not be inserted by what stands in their way. If that has gone meanwhile, they may try
    /// again.
    async fn explain_losers(&mut self, db: &mut PgConnection, losers: &[usize]) -> Result<(), StoreError> {
        let (sources, ids): (Vec<&str>, Vec<&str>) = losers
            .iter()
            .map(|index| self.members[*index].event.as_ref().map_or(("", ""), |(source, id)| (source, id)))
            .unzip();
        let rows = sqlx::query(
            "WITH n AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[])
                        WITH ORDINALITY AS n (id, bill, card, source, event, place))
             SELECT place - 1 AS place, 1 AS rank, p.id FROM n
                 JOIN payment p ON p.event_source = n.source AND p.event_id = n.event
             UNION ALL SELECT place - 1, 2, p.id FROM n JOIN payment p ON p.id = n.id WHERE n.source <> ''
             UNION ALL SELECT place - 1, 3, p.id FROM n JOIN payment p ON p.card_id = n.card AND p.card_id <> p.id
             UNION ALL SELECT place - 1, 4, p.id FROM n JOIN payment p ON p.bill_code = n.bill
                 AND p.status NOT IN ('declined', 'failed', 'reversed')
             ORDER BY 1, 2 DESC",
        )
        .bind(losers.iter().map(|index| self.members[*index].id).collect::<Vec<_>>())
        .bind(losers.iter().map(|index| self.members[*index].bill.as_str()).collect::<Vec<_>>())
        .bind(losers.iter().map(|index| card_id(self.members[*index])).collect::<Vec<_>>())
        .bind(sources)
        .bind(ids)
        .fetch_all(db)
        .await?;
        for loser in losers {
            self.refuse(*loser, Refusal::InFlight);
        }
        for row in &rows {
            // The last one, of the lowest rank, stays.
            self.fates[losers[place(row)?]] = Some(match row.try_get::<i32, _>("rank")? {
                1 | 2 => Acceptance::Replayed { payment: row.try_get("id")?, answer: String::new() },
                3 => Acceptance::Refused(Refusal::CardUsed),
                _ => Acceptance::Refused(Refusal::PaymentLive),
            });
        }
        Ok(())
    }

    /// Writes what goes with the winners: their sealed cards, the journal, from where they came, and the messages.
    async fn promise(
        &self,
        db: &mut PgConnection,
        winners: &[usize],
        now: OffsetDateTime,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let winners: Vec<&NewPayment> = winners.iter().map(|index| self.members[*index]).collect();
        let inline: Vec<&cards::NewCard> = winners
            .iter()
            .filter_map(|member| match &member.card {
                CardSource::Inline(card) => Some(card),
                CardSource::Stored(_) => None,
            })
            .collect();
        let outbox: Vec<OutboxRow> = winners.iter().filter_map(|member| message(member, now)).collect();
        let origins: Vec<_> = winners.iter().filter_map(|member| Some((member.id, member.origin.as_ref()?))).collect();
        let mut writes = Writes::new();
        cards::add(&mut writes, &inline);
        limits::add_origins(&mut writes, &origins, now);
        writes.add(
            "journalled",
            "INSERT INTO journal (payment_id, at, version, event, to_status, actor)
             SELECT n.*, 1, 'accepted', 'accepted', 'intake' FROM",
            |columns| {
                columns.add(winners.iter().map(|member| member.id)).add(winners.iter().map(|_| now));
            },
            "AS n",
        );
        outbox::add(&mut writes, &outbox);
        writes.execute(db).await?;
        Ok(outbox)
    }
}
