//! Offers payments: on a schedule that waits for nobody, or by so many payers who each wait for their payment's end.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Load,
    ends::{End, Ends},
    line::{Answer, Line, Prepared, Site},
};

/// How long a payment may take before it counts as missing, while the servers are there.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Connections of the open loop at most. They bound what is unanswered; what is due then waits, and is measured from
/// when it was due.
const MOST_LINES: f64 = 512.0;

/// What a server's queue of new connections bears.
const OPENED_AT_ONCE: usize = 128;

/// One payment as it went.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    /// When it was to be sent: from then on it is measured, so that a late sender hides nothing.
    pub(super) due: Instant,
    /// When the intake had answered.
    pub(super) answered: Instant,
    pub(super) answer: Answer,
    /// None while it is not known.
    pub(super) end: Option<End>,
}

/// Whoever pays.
#[derive(Clone)]
pub(super) struct Crowd {
    pub(super) site: Site,
    pub(super) ends: Arc<Ends>,
    /// How long a payment may take before it counts as missing.
    pub(super) patience: Duration,
}

/// What is left to be offered.
type Left = Arc<Mutex<std::vec::IntoIter<Prepared>>>;

fn next(left: &Left) -> Option<Prepared> {
    left.lock().unwrap_or_else(PoisonError::into_inner).next()
}

impl Crowd {
    /// As many open connections as a load takes: one a payer, or as many as are busy on schedule when an answer takes a
    /// quarter of a second.
    pub(super) async fn lines(&self, load: Load) -> anyhow::Result<Vec<Line>> {
        let count = match load {
            Load::Rate(rate) => (rate / 4.0).clamp(8.0, MOST_LINES) as usize,
            Load::Concurrency(payers) => payers,
        };
        let lines = (0..count).map(|_| Line::new(self.site.clone()).open());
        stream::iter(lines).buffer_unordered(OPENED_AT_ONCE).try_collect().await
    }

    /// Offers all of these payments, or those that can be offered until `until`, and sees each to its end.
    pub(super) async fn offer(
        &self,
        lines: Vec<Line>,
        requests: Vec<Prepared>,
        load: Load,
        until: Option<Instant>,
    ) -> Vec<Offered> {
        match load {
            Load::Rate(rate) => self.on_schedule(lines, requests, rate).await,
            Load::Concurrency(_) => self.one_after_another(lines, requests, until).await,
        }
    }

    /// Open loop: a payment is due when the schedule says so, whatever has become of those before.
    async fn on_schedule(&self, lines: Vec<Line>, requests: Vec<Prepared>, rate: f64) -> Vec<Offered> {
        let start = Instant::now();
        let (requests, taken) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
        let mut senders = JoinSet::new();
        for mut line in lines {
            let (requests, taken) = (Arc::clone(&requests), Arc::clone(&taken));
            senders.spawn(async move {
                let mut offered = Vec::new();
                loop {
                    let number = taken.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number) else { return offered };
                    let due = start + Duration::from_secs_f64(number as f64 / rate);
                    sleep_until(due).await;
                    let answer = line.pay(request).await;
                    offered.push(Offered { due, answered: Instant::now(), answer, end: None });
                }
            });
        }
        let mut offered: Vec<Offered> = senders.join_all().await.into_iter().flatten().collect();
        let until = Instant::now() + self.patience;
        for payment in &mut offered {
            if let Answer::Accepted(id) = payment.answer {
                payment.end = self.ends.end_of(id, until).await;
            }
        }
        offered
    }

    /// Closed loop: each payer sends the next payment when the last one is over.
    async fn one_after_another(
        &self,
        lines: Vec<Line>,
        requests: Vec<Prepared>,
        until: Option<Instant>,
    ) -> Vec<Offered> {
        let left: Left = Arc::new(Mutex::new(requests.into_iter()));
        let mut crowd = JoinSet::new();
        for mut line in lines {
            let (left, ends, patience) = (Arc::clone(&left), Arc::clone(&self.ends), self.patience);
            crowd.spawn(async move {
                let mut offered = Vec::new();
                while until.is_none_or(|until| Instant::now() < until) {
                    let Some(request) = next(&left) else { break };
                    let due = Instant::now();
                    let answer = line.pay(&request).await;
                    let answered = Instant::now();
                    let end = match answer {
                        Answer::Accepted(id) => ends.end_of(id, answered + patience).await,
                        Answer::Shed | Answer::Refused(_) => None,
                    };
                    offered.push(Offered { due, answered, answer, end });
                }
                offered
            });
        }
        crowd.join_all().await.into_iter().flatten().collect()
    }
}
