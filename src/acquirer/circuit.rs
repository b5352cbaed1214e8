//! The circuit breaker: an acquirer that is down is not hammered.
//!
//! After some failures in a row the circuit opens: nothing is sent any more, and requests wait in their queue within
//! their card's life. From time to time one is let through as a probe; an answer, whatever it says, closes the circuit.
//! Only what speaks of the acquirer's health counts: a decline is an answer, a time-out is not.
//!
//! Each process has a circuit of its own. They agree soon enough, and nothing shared can fail with the acquirer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::config;

/// The circuit of one acquirer. A clone is another handle on it.
#[derive(Debug, Clone)]
pub struct Circuit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    breaker: Mutex<Breaker>,
    closed: Notify,
    state: metrics::Gauge,
    opened: metrics::Counter,
}

/// How many requests may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Any number: the acquirer answers.
    All,
    /// One, to see whether it answers again.
    Probe,
    /// None before this.
    Not(Instant),
}

impl Circuit {
    /// A closed circuit by these settings.
    pub fn new(settings: &config::Acquirer) -> Self {
        let labels = [("acquirer", settings.name.clone())];
        let inner = Inner {
            breaker: Mutex::new(Breaker::new(settings)),
            closed: Notify::new(),
            state: metrics::gauge!("tolom_acquirer_circuit_open", &labels),
            opened: metrics::counter!("tolom_acquirer_circuit_opened_total", &labels),
        };
        inner.state.set(0.0);
        inner.opened.increment(0);
        Self(Arc::new(inner))
    }

    /// Asks leave to start requests. A probe is given out once a period; one that never reports back costs no more than
    /// that period.
    pub fn admit(&self) -> Admission {
        self.breaker().admit(Instant::now())
    }

    /// Waits until requests may be started, or for `at_most`; both may end it early, so ask again.
    pub async fn changed(&self, until: Instant, at_most: Duration) {
        let limit = until.min(Instant::now() + at_most);
        let _ = tokio::time::timeout_at(limit, self.0.closed.notified()).await;
    }

    /// Whether this one request may leave. A request that was admitted as a probe passes; so does, once a period, one
    /// that nobody admitted, such as an inquiry.
    pub(super) fn pass(&self) -> bool {
        self.breaker().pass(Instant::now())
    }

    /// The acquirer answered, whatever it said.
    pub(super) fn answered(&self) {
        let reopened = self.breaker().answered();
        if reopened {
            tracing::info!("the acquirer answers again: its circuit is closed");
            self.0.state.set(0.0);
            self.0.closed.notify_waiters();
        }
    }

    /// No answer, or one that speaks of trouble at the other end.
    pub(super) fn failed(&self) {
        if self.breaker().failed(Instant::now()) {
            tracing::warn!("the acquirer does not answer: its circuit is open");
            self.0.state.set(1.0);
            self.0.opened.increment(1);
        }
    }

    /// No rule leaves the breaker half-changed when it panics.
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules, without a clock of their own.
#[derive(Debug)]
struct Breaker {
    limit: u32,
    first: Duration,
    longest: Duration,
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    period: Duration,
    next_probe: Instant,
    /// Probes that were admitted and have not left yet.
    admitted: u32,
    /// A probe is out: its failure makes the period longer.
    probing: bool,
}

impl Breaker {
    fn new(settings: &config::Acquirer) -> Self {
        Self {
            limit: settings.circuit_failures,
            first: Duration::from_millis(settings.circuit_open_ms),
            longest: Duration::from_millis(settings.circuit_longest_open_ms),
            failures: 0,
            open: None,
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let Some(open) = &mut self.open else { return Admission::All };
        if now < open.next_probe {
            return Admission::Not(open.next_probe);
        }
        open.next_probe = now + open.period;
        open.admitted = 1;
        Admission::Probe
    }

    fn pass(&mut self, now: Instant) -> bool {
        let Some(open) = &mut self.open else { return true };
        if open.admitted > 0 {
            open.admitted = 0;
        } else if now >= open.next_probe {
            open.next_probe = now + open.period;
        } else {
            return false;
        }
        open.probing = true;
        true
    }

    /// True if this closed it.
    fn answered(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// True if this opened it.
    fn failed(&mut self, now: Instant) -> bool {
        if let Some(open) = &mut self.open {
            // What left before it opened and fails now is no news.
            if open.probing {
                open.probing = false;
                open.period = (open.period * 2).min(self.longest);
                open.next_probe = now + open.period;
            }
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.limit {
            return false;
        }
        let period = self.first;
        self.open = Some(Open { period, next_probe: now + period, admitted: 0, probing: false });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        let mut settings = config::Config::defaults().acquirer;
        settings.circuit_failures = 3;
        settings.circuit_open_ms = 1_000;
        settings.circuit_longest_open_ms = 4_000;
        Breaker::new(&settings)
    }

    fn open(breaker: &mut Breaker, now: Instant) {
        while breaker.open.is_none() {
            breaker.failed(now);
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert!(!breaker.failed(now) && !breaker.failed(now));
        assert!(!breaker.answered());
        assert!(!breaker.failed(now) && !breaker.failed(now) && breaker.failed(now));
        assert_eq!(breaker.admit(now), Admission::Not(now + FIRST));
        assert!(!breaker.pass(now));
        assert_eq!(breaker.admit(now + FIRST), Admission::Probe);
        assert!(matches!(breaker.admit(now + FIRST), Admission::Not(_)), "one probe at a time");
        assert!(breaker.pass(now + FIRST), "the probe leaves");
        assert!(!breaker.pass(now + FIRST), "and nothing else");
        assert!(breaker.answered());
        assert_eq!(breaker.admit(now + FIRST), Admission::All);
    }

    #[test]
    fn failing_probes_become_rarer_up_to_a_limit() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        open(&mut breaker, now);
        for expected in [1, 2, 4, 4] {
            let Admission::Not(at) = breaker.admit(now) else { panic!("open") };
            assert_eq!(at - now, Duration::from_secs(expected));
            now = at;
            assert_eq!(breaker.admit(now), Admission::Probe);
            assert!(breaker.pass(now));
            // The crowd that left before it opened changes nothing.
            assert!(!breaker.failed(now) && !breaker.failed(now) && !breaker.failed(now));
        }
    }

    proptest! {
        #[test]
        fn an_open_circuit_lets_through_two_requests_a_period_at_most(steps in prop::collection::vec((0..3_u8, 0..700_u64), 0..200)) {
            let (mut breaker, began) = (breaker(), Instant::now());
            open(&mut breaker, began);
            let (mut now, mut passed) = (began, 0_u32);
            for (step, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                match step {
                    0 => _ = breaker.admit(now),
                    1 => _ = breaker.failed(now),
                    // One that was admitted may leave late, and the next one on time.
                    _ => passed += u32::from(breaker.pass(now)),
                }
                let periods = (now - began).as_secs_f64() / FIRST.as_secs_f64();
                prop_assert!(f64::from(passed) <= 2.0 * periods);
                prop_assert!(breaker.open.as_ref().is_some_and(|open| open.next_probe <= now + breaker.longest));
            }
        }
    }
}
