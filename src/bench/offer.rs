//! Offers payments: on a schedule that waits for nobody, or by so many payers who each wait for their payment's end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{
    Load,
    arrivals::{Arrivals, Heard},
};
use crate::payer::{Payer, Request};

/// How long a payment may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the intake answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// 202.
    Accepted(Heard),
    /// 503: more than the intake takes at a time.
    Shed,
    /// Anything else, in words.
    Refused(String),
}

/// One payment as it went.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    /// When it was to be sent: from then on it is measured, so that a late sender hides nothing.
    pub(super) due: Instant,
    /// When the intake had answered.
    pub(super) answered: Instant,
    pub(super) answer: Answer,
}

/// Whoever pays.
#[derive(Clone)]
pub(super) struct Crowd {
    pub(super) payer: Payer,
    pub(super) arrivals: Arc<Arrivals>,
}

impl Crowd {
    /// Offers all of these payments, or those that can be offered until `until`, and sees each to its end.
    pub(super) async fn offer(&self, requests: Vec<Request>, load: Load, until: Option<Instant>) -> Vec<Offered> {
        match load {
            Load::Rate(rate) => self.on_schedule(requests, rate).await,
            Load::Concurrency(payers) => self.one_after_another(requests, payers, until).await,
        }
    }

    /// Open loop: a payment is due when the schedule says so, whatever has become of those before.
    async fn on_schedule(&self, requests: Vec<Request>, rate: f64) -> Vec<Offered> {
        let start = Instant::now();
        let mut payments = JoinSet::new();
        for (number, request) in requests.into_iter().enumerate() {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            sleep_until(due).await;
            let crowd = self.clone();
            payments.spawn(async move { crowd.pay(&request, due).await });
        }
        payments.join_all().await
    }

    /// Closed loop: each payer sends the next payment when the last one is over.
    async fn one_after_another(&self, requests: Vec<Request>, payers: usize, until: Option<Instant>) -> Vec<Offered> {
        let left = Arc::new(Mutex::new(requests.into_iter()));
        let mut crowd = JoinSet::new();
        for _ in 0..payers {
            let (left, payer) = (Arc::clone(&left), self.clone());
            crowd.spawn(async move {
                let mut offered = Vec::new();
                while until.is_none_or(|until| Instant::now() < until) {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(request) = next else { break };
                    offered.push(payer.pay(&request, Instant::now()).await);
                }
                offered
            });
        }
        crowd.join_all().await.into_iter().flatten().collect()
    }

    async fn pay(&self, request: &Request, due: Instant) -> Offered {
        let submitted = self.payer.submit(request, &Uuid::new_v4().to_string()).await;
        let answered = Instant::now();
        let answer = match submitted {
            Ok(submitted) => match submitted.id() {
                Some(id) => Answer::Accepted(self.arrivals.end_of(id, PATIENCE).await),
                None if submitted.status.as_u16() == 503 => Answer::Shed,
                None => Answer::Refused(submitted.refused("submitting a payment").to_string()),
            },
            Err(error) => Answer::Refused(error.to_string()),
        };
        Offered { due, answered, answer }
    }
}
