//! One batch on its way: read what bears on it, judge, write, and where somebody was faster, read anew.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Acceptance, NewPayment, Terms, judge::judge, known::known, write::write};
use crate::store::{StoreError, outbox::OutboxRow};

/// How often what bears on a batch is read anew.
const ROUNDS: usize = 4;

/// What an attempt came to. A member without a fate met somebody at every turn, or found its bill locked: it must be tried
/// alone.
pub(super) struct Attempt {
    pub(super) fates: Vec<Option<Acceptance>>,
    pub(super) outbox: Vec<OutboxRow>,
}

/// Tries to accept the members. `wait` for locked bills (at most the lock time-out) instead of leaving their members
/// without a fate.
pub(super) async fn attempt(terms: &Terms<'_>, members: &[&NewPayment], wait: bool) -> Result<Attempt, StoreError> {
    let mut attempt = Attempt { fates: vec![None; members.len()], outbox: Vec::new() };
    let mut locked_out = HashSet::new();
    for _ in 0..ROUNDS {
        let left: Vec<usize> =
            (0..members.len()).filter(|index| attempt.fates[*index].is_none() && !locked_out.contains(index)).collect();
        if left.is_empty() {
            break;
        }
        match attempt.round(terms, members, &left, wait).await {
            // Whoever was faster with the same key or bill is read in the next round.
            Err(error) if error.is_lost_race() => {}
            // What is committed is not forgotten over what follows: the others are tried alone.
            Err(_) if attempt.fates.iter().any(Option::is_some) => break,
            unwritten => locked_out.extend(unwritten?.into_iter().filter(|_| !wait)),
        }
    }
    Ok(attempt)
}

impl Attempt {
    /// Reads, judges and writes these members. Returns those that should have been written and were not: their bill is
    /// locked, or another one than a moment ago.
    async fn round(
        &mut self,
        terms: &Terms<'_>,
        members: &[&NewPayment],
        which: &[usize],
        wait: bool,
    ) -> Result<Vec<usize>, StoreError> {
        let mut db = terms.sessions.take().await?;
        self.judge(&mut db, terms, members, which).await?;
        let first = first_of_each(members, which.iter().copied().filter(|index| self.fates[*index].is_none()));
        if first.is_empty() {
            db.give_back();
            return Ok(Vec::new());
        }
        let chosen: Vec<&NewPayment> = first.iter().map(|index| members[*index]).collect();
        let (accepted, outbox) = write(&mut db, &chosen, terms.now, wait).await?;
        db.give_back();
        self.outbox.extend(outbox);
        let is_written = |index: &usize| accepted.contains(&members[*index].id);
        first.iter().copied().filter(is_written).for_each(|index| self.fates[index] = Some(Acceptance::New));
        Ok(first.into_iter().filter(|index| !is_written(index)).collect())
    }

    /// Reads what bears on these members, and gives a fate to those that cannot be accepted.
    async fn judge(
        &mut self,
        db: &mut PgConnection,
        terms: &Terms<'_>,
        members: &[&NewPayment],
        which: &[usize],
    ) -> Result<(), StoreError> {
        let asked: Vec<&NewPayment> = which.iter().map(|index| members[*index]).collect();
        let known = known(db, &asked, &terms.config.limits, terms.now).await?;
        for ((index, member), known) in which.iter().zip(asked).zip(&known) {
            self.fates[*index] = judge(member, known, terms.config, terms.now);
        }
        Ok(())
    }
}

/// Of those that ask for the same bill, or with the same foreign message or id, the first one: the others are told by what
/// becomes of it.
fn first_of_each(members: &[&NewPayment], which: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut bills, mut events, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
    which
        .filter(|index| {
            let member = members[*index];
            // All of them are noted: who waits for its bill also keeps its message for itself.
            let is_first_of_bill = bills.insert(&member.bill);
            let is_first_of_event = member.event.as_ref().is_none_or(|event| events.insert(event));
            is_first_of_bill & is_first_of_event & ids.insert(member.id)
        })
        .collect()
}
