//! The most that the servers give on this machine, measured beside the pipeline.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::percentiles::Percentiles;
use crate::{broker::ceiling as broker, stage::Set, store::ceiling as store};

/// Queues that share the load, each with connections of its own; the best counts.
const QUEUES: [usize; 3] = [1, 2, 4];

/// The most that the servers give.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Persistent messages of 1 KB published with confirms, consumed and acknowledged on quorum queues, a second.
    pub quorum_messages_per_s: f64,
    /// The number of queues that gave most.
    pub quorum_queues: usize,
    /// Rows a second in batches of 500, each committed, on two connections.
    pub batched_rows_per_s: f64,
    /// Commits of one row a second, on twelve connections.
    pub single_commits_per_s: f64,
    /// How long a message takes to be confirmed, one at a time.
    pub single_confirm_ms: Percentiles,
    /// How long a row takes to be committed, one at a time.
    pub single_commit_ms: Percentiles,
}

/// Measures each for so long. `queues` was best the last time; none tries them all.
pub(super) async fn measure(set: &Set, lasts: Duration, queues: Option<usize>) -> anyhow::Result<Ceiling> {
    let tried: &[usize] = queues.as_ref().map_or(&QUEUES, std::slice::from_ref);
    let (mut quorum_messages_per_s, mut quorum_queues) = (0.0, 0);
    for queues in tried {
        let rate = broker::through(&set.broker, *queues, lasts).await?;
        if rate > quorum_messages_per_s {
            (quorum_messages_per_s, quorum_queues) = (rate, *queues);
        }
    }
    let confirms = broker::one_by_one(&set.broker, lasts / 2).await?;
    let database = store::measure(&set.pool, &set.config.database, lasts).await?;
    let none = || anyhow::anyhow!("nothing was confirmed within {lasts:?}: the servers are too slow to be measured");
    Ok(Ceiling {
        quorum_messages_per_s,
        quorum_queues,
        batched_rows_per_s: database.batched_rows_per_s,
        single_commits_per_s: database.single_commits_per_s,
        single_confirm_ms: Percentiles::of(confirms).ok_or_else(none)?,
        single_commit_ms: Percentiles::of(database.single).ok_or_else(none)?,
    })
}
