//! Dead letters, at the broker and parked: nothing of a card in them, and none left at the broker.

use sqlx::PgPool;
use time::OffsetDateTime;

use crate::{
    broker::{self, Broker, Depths, UNREADABLE},
    contracts::mask,
    store::dead,
};

/// Looked at in each of the broker's dead queues, at most.
const PEEKED: usize = 1_000;
/// Letters that are named, at most.
const NAMED: i64 = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Letters looked at.
    pub(super) checked: i64,
    /// Rule 7: letters with a card's number.
    pub(super) with_card_data: Vec<String>,
    /// Rule 8: letters that nobody parks.
    pub(super) unparked: Vec<String>,
    /// What waits for a person.
    pub(super) notes: Vec<String>,
}

/// Looks through all dead letters. At the broker they may wait for the park worker if they died after `before`.
pub(super) async fn look(pool: &PgPool, broker: &Broker, before: OffsetDateTime) -> anyhow::Result<Looked> {
    let mut looked = Looked::default();
    for (queue, mut letter) in broker::peek_dead_letters(broker, PEEKED).await? {
        looked.checked += 1;
        if mask::mask(&mut letter.body).number {
            looked.with_card_data.push(format!("a dead letter in {queue} holds a card number"));
        }
        if letter.history.failures.last().is_none_or(|failure| failure.at <= before) {
            looked.unparked.push(format!("a dead letter in {queue} is not parked: is the park worker running?"));
        }
    }
    let numbers = &mut looked.with_card_data;
    looked.checked += dead::look_through(pool, |id, texts, mut body| {
        if mask::mask(&mut body).number || mask::mask_text(texts).1.number {
            numbers.push(format!("dead letter {id} holds a card number"));
        }
    })
    .await?;
    let unreadable = Depths::open(broker).await?.unreadable().await?;
    if unreadable > 0 {
        looked.notes.push(format!("{unreadable} messages that no client can read wait for a person in {UNREADABLE}"));
    }
    for (queue, letters) in dead::waiting(pool).await? {
        looked.notes.push(format!("{letters} dead letters of {queue} wait for a person: `tolom dead list --group`"));
    }
    for (id, payment, status) in dead::of_payments_on_their_way(pool, before, NAMED).await? {
        looked.notes.push(format!("{payment} is {status}, and dead letter {id} is about it: `tolom dead show {id}`"));
    }
    Ok(looked)
}
