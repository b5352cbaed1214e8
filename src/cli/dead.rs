//! `tolom dead`: parked dead letters found, shown, replayed and discarded.

mod replay;
mod text;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{Failure, Session, os_user, person, well};
use crate::{
    broker::Queue,
    store::dead::{self, Actor, Filter, State},
};

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, the last to die first, or count them by queue and reason.
    List {
        #[command(flatten)]
        which: Which,
        /// parked, replayed or discarded.
        #[arg(long, default_value = "parked")]
        state: State,
        /// Count them by queue and reason.
        #[arg(long)]
        group: bool,
        /// Lines at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Show one letter whole: body (it may hold a payer's e-mail and phone), headers, failures, and what was done with it.
    Show {
        /// Its number.
        id: i64,
    },
    /// Put letters back into the queue they died of, with fresh attempts. Harmless any number of times.
    Replay {
        #[command(flatten)]
        these: These,
        /// Only tell which.
        #[arg(long)]
        dry_run: bool,
        /// Letters a second at most (default: as fast as the broker confirms).
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: Option<u32>,
        /// Why, for the audit.
        #[arg(long)]
        why: Option<String>,
        /// Who does it (default: the account of the operating system).
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Give letters up. They are kept for a while, and can be replayed by number until then.
    Discard {
        #[command(flatten)]
        these: These,
        /// Why, for the audit.
        #[arg(long)]
        why: String,
        /// Who does it (default: the account of the operating system).
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// What narrows letters down.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The queue they died of, for example tolom.authorize.
    #[arg(long, value_parser = queue)]
    queue: Option<Queue>,
    /// A part of the reason they died of.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Died longer ago than this: 90s, 15m, 1h, 2d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Died within this: 90s, 15m, 1h, 2d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    newer_than: Option<Duration>,
    /// Of this payment.
    #[arg(long, value_name = "ID")]
    payment: Option<Uuid>,
}

/// Letters to act on: by number in whatever state, else those that are parked.
#[derive(Debug, Args)]
pub(super) struct These {
    /// Numbers of letters.
    #[arg(value_name = "LETTER")]
    ids: Vec<i64>,
    #[command(flatten)]
    which: Which,
    /// Every letter that is parked.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn is_everything(&self) -> bool {
        let Self { queue, reason, older_than, newer_than, payment } = self;
        queue.is_none() && reason.is_none() && older_than.is_none() && newer_than.is_none() && payment.is_none()
    }

    fn filter(self, session: &Session) -> Filter {
        let now = session.clock.now();
        Filter {
            ids: None,
            queue: self.queue.map(|queue| queue.name().to_owned()),
            reason: self.reason,
            before: self.older_than.map(|age| now - age),
            after: self.newer_than.map(|age| now - age),
            payment: self.payment,
            state: None,
        }
    }
}

impl These {
    /// The letters meant; everything must be asked for in so many words.
    fn filter(self, session: &Session) -> Result<Filter, Failure> {
        let Self { mut ids, which, all } = self;
        let unusable = |message: &str| Err(Failure::Unusable(message.to_owned()));
        match (ids.is_empty(), which.is_everything(), all) {
            (true, true, false) => unusable("which letters? Numbers, a filter, or --all"),
            (false, _, true) | (_, false, true) => unusable("--all stands alone: not with numbers or a filter"),
            (false, false, _) => unusable("either numbers or a filter"),
            (true, ..) => Ok(Filter { state: Some(State::Parked), ..which.filter(session) }),
            (false, ..) => {
                ids.sort_unstable();
                ids.dedup();
                Ok(Filter { ids: Some(ids), ..Filter::default() })
            }
        }
    }
}

pub(super) async fn run(session: &Session, command: Dead) -> Result<(), Failure> {
    match command {
        Dead::List { which, state, group, limit } => {
            let filter = Filter { state: Some(state), ..which.filter(session) };
            if group { groups(session, &filter, limit).await } else { list(session, &filter, limit).await }
        }
        Dead::Show { id } => show(session, id).await,
        Dead::Replay { these, dry_run, rate, why, by } => {
            let filter = these.filter(session)?;
            let (who, os_user) = (person(by)?, os_user());
            let actor = Actor { who: &who, os_user: &os_user, why: why.as_deref() };
            replay::run(session, &filter, actor, dry_run, rate).await
        }
        Dead::Discard { these, why, by } => {
            let filter = these.filter(session)?;
            let (who, os_user) = (person(by)?, os_user());
            if why.trim().is_empty() {
                return Err(Failure::Unusable("--why: a reason is expected".to_owned()));
            }
            let actor = Actor { who: &who, os_user: &os_user, why: Some(&why) };
            discard(session, &filter, actor).await
        }
    }
}

async fn list(session: &Session, filter: &Filter, limit: i64) -> Result<(), Failure> {
    let (letters, all) = dead::list(&session.pool()?, filter, limit).await?;
    session.print(&json!({ "letters": letters, "all": all }), || text::list(&letters, all))?;
    Ok(())
}

async fn groups(session: &Session, filter: &Filter, limit: i64) -> Result<(), Failure> {
    let groups = dead::groups(&session.pool()?, filter, limit).await?;
    session.print(&json!({ "groups": groups }), || text::groups(&groups))?;
    Ok(())
}

async fn show(session: &Session, id: i64) -> Result<(), Failure> {
    let Some(letter) = dead::show(&session.pool()?, id).await? else {
        return Err(anyhow::anyhow!("there is no dead letter {id}").into());
    };
    session.print(&text::json(&letter), || text::whole(&letter))?;
    Ok(())
}

async fn discard(session: &Session, filter: &Filter, actor: Actor<'_>) -> Result<(), Failure> {
    let discarded = dead::discard(&session.pool()?, filter, actor, session.clock.now()).await?;
    let asked = filter.ids.as_deref().unwrap_or_default();
    let not_parked: Vec<i64> = asked.iter().filter(|id| !discarded.contains(id)).copied().collect();
    session.print(&json!({ "discarded": discarded, "not_parked": not_parked }), || {
        let mut text = format!("{} discarded\n", discarded.len());
        for id in &not_parked {
            text.push_str(&format!("{id}: not parked, or not there\n"));
        }
        text
    })?;
    well(not_parked.is_empty())
}

fn queue(name: &str) -> Result<Queue, String> {
    let allowed = || Queue::ALL.map(Queue::name).join(", ");
    Queue::from_name(name).ok_or_else(|| format!("allowed are {}", allowed()))
}

/// A number with a unit: `90s`, `15m`, `1h`, `2d`; at most a hundred years.
fn age(text: &str) -> Result<Duration, String> {
    let bad = || "a number with s, m, h or d is expected, for example 15m".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let age = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or_else(bad)?;
    if age > 36_525 * 86_400 {
        return Err("at most 36525d".to_owned());
    }
    Ok(Duration::from_secs(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit_and_a_limit() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(age("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "s", "90", "1w", "-1h", "1.5h", "99999999999999999999d", "40000d", "1ч"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
