//! Replaying: letters go back into the queue they died of, confirmed before they are marked.
//!
//! A crash in between leaves them parked, and they are replayed once more: every consumer takes the same message any
//! number of times.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::super::{Failure, Session, well};
use crate::{
    broker::{Broker, Exchange, Outgoing, Publisher, Queue},
    store::dead::{self, Actor, Candidate, Filter},
};

/// Letters in memory, and unconfirmed, at once. They may have a mebibyte each.
const WINDOW: usize = 100;
/// Between two looks at the clock, with a rate.
const TICK: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    /// Confirmed by the broker (or would be published, in a dry run).
    replayed: Vec<i64>,
    /// Among them, dead again before they could be marked.
    died_again: i64,
    /// Not to be replayed, and why.
    refused: Vec<Refused>,
    /// Not confirmed: still parked, try again.
    unconfirmed: Vec<Refused>,
    /// Asked for by number, and not there.
    unknown: Vec<i64>,
}

#[derive(Debug, Serialize)]
struct Refused {
    id: i64,
    why: String,
}

pub(super) async fn run(
    session: &Session,
    filter: &Filter,
    actor: Actor<'_>,
    dry_run: bool,
    rate: Option<u32>,
) -> Result<(), Failure> {
    let (pool, broker) = (session.pool()?, Broker::new(&session.config.broker));
    let publisher = (!dry_run).then(|| Publisher::start(broker.clone()));
    let mut report = Report { dry_run, ..Report::default() };
    let (mut last, mut sent, started) = (i64::MIN, 0_u32, Instant::now());
    loop {
        // By number, each once: one that dies again meanwhile is not met a second time.
        let page = dead::candidates(&pool, filter, last, page_size(rate)).await?;
        let Some(end) = page.last() else { break };
        last = end.id;
        let letters = report.take_replayable(page);
        let Some(publisher) = &publisher else {
            report.replayed.extend(letters.iter().map(|letter| letter.id));
            continue;
        };
        if let Some(rate) = rate {
            tokio::time::sleep_until(started + Duration::from_secs(1) * sent / rate).await;
            sent += u32::try_from(letters.len()).unwrap_or(u32::MAX);
        }
        let confirmed = report.publish(publisher, &broker, letters).await;
        if !confirmed.is_empty() {
            let marked = dead::mark_replayed(&pool, &confirmed, actor, session.clock.now()).await?;
            report.died_again += i64::try_from(confirmed.len()).unwrap_or(i64::MAX) - marked;
            report.replayed.extend(confirmed.iter().map(|letter| letter.id));
        }
    }
    let met = |id: &i64| {
        let others = report.refused.iter().chain(&report.unconfirmed).map(|refused| refused.id);
        report.replayed.iter().copied().chain(others).any(|other| other == *id)
    };
    report.unknown = filter.ids.iter().flatten().filter(|id| !met(id)).copied().collect();
    session.print(&report, || report.text())?;
    well(report.refused.is_empty() && report.unconfirmed.is_empty() && report.unknown.is_empty())
}

/// With a rate, as many as fall into one tick.
fn page_size(rate: Option<u32>) -> i64 {
    let a_tick = |rate: u32| (f64::from(rate) * TICK.as_secs_f64()).ceil() as usize;
    i64::try_from(rate.map_or(WINDOW, |rate| a_tick(rate).clamp(1, WINDOW))).unwrap_or(1)
}

impl Report {
    /// Sorts out what must not be replayed.
    fn take_replayable(&mut self, page: Vec<Candidate>) -> Vec<Candidate> {
        let (letters, not): (Vec<_>, Vec<_>) = page.into_iter().partition(|letter| letter.unreplayable.is_none());
        self.refused.extend(
            not.into_iter().map(|letter| Refused { id: letter.id, why: letter.unreplayable.unwrap_or_default() }),
        );
        letters
    }

    /// Publishes a window; which letters the broker has confirmed.
    async fn publish(&mut self, publisher: &Publisher, broker: &Broker, letters: Vec<Candidate>) -> Vec<Candidate> {
        let (mut known, mut messages) = (Vec::with_capacity(letters.len()), Vec::with_capacity(letters.len()));
        for letter in letters {
            match Queue::from_name(&letter.queue) {
                Some(queue) => {
                    messages.push(message(broker, queue, &letter));
                    known.push(letter);
                }
                None => {
                    self.refused.push(Refused { id: letter.id, why: format!("no queue is called {}", letter.queue) })
                }
            }
        }
        let mut confirmed = Vec::with_capacity(known.len());
        for (letter, result) in known.into_iter().zip(publisher.publish_all(messages).await) {
            match result {
                Ok(()) => confirmed.push(letter),
                Err(error) => self.unconfirmed.push(Refused { id: letter.id, why: error.to_string() }),
            }
        }
        confirmed
    }

    fn text(&self) -> String {
        let word = if self.dry_run { "would be replayed" } else { "replayed" };
        let mut text = format!("{} {word}\n", self.replayed.len());
        if self.dry_run {
            self.replayed.iter().for_each(|id| text.push_str(&format!("{id}\n")));
        }
        if self.died_again > 0 {
            text.push_str(&format!("{} of them have died again already\n", self.died_again));
        }
        for Refused { id, why } in &self.refused {
            text.push_str(&format!("{id}: refused: {why}\n"));
        }
        for Refused { id, why } in &self.unconfirmed {
            text.push_str(&format!("{id}: still parked: {why}\n"));
        }
        for id in &self.unknown {
            text.push_str(&format!("{id}: there is no such dead letter\n"));
        }
        text
    }
}

/// The message as it was, as if it came for the first time: none of its headers but the trace's.
fn message(broker: &Broker, queue: Queue, letter: &Candidate) -> Outgoing {
    Outgoing {
        exchange: Exchange::Direct,
        routing_key: broker.names().queue(queue),
        message_id: letter.message_id.clone(),
        body: letter.body.clone(),
        attempt: 0,
        reason: None,
        traceparent: letter.traceparent.clone(),
        mandatory: true,
    }
}
