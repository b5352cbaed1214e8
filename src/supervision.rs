//! Supervision: a task that panics is counted, given a moment, and built anew; one that goes on panicking takes the
//! process's readiness with it.
//!
//! Errors and ends are for the tasks themselves, since each of them knows what to rebuild. A panic is what none of them
//! can handle: unseen, it would end the task and leave the process standing there without it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::time::Instant;

/// Panics this close together are one trouble; after as long without one it is over.
const TROUBLE: Duration = Duration::from_secs(60);
/// So many panics are a trouble.
const REPEATED: usize = 3;
/// Before a task is built anew for the first time; doubled with every further panic of the same trouble.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps the tasks of a process running. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Arc<Mutex<BTreeMap<&'static str, Panics>>>);

impl Supervisor {
    /// Runs a task to its end. One that panics is built anew, after a pause of 100 ms that doubles to 5 s while the
    /// panics go on.
    pub async fn keep<F: Future>(&self, task: &'static str, mut build: impl FnMut() -> F) -> F::Output {
        metrics::counter!("tolom_worker_panics_total", "worker" => task).increment(0);
        loop {
            // Building may panic too.
            if let Some(output) = self.attempt(task, async { build().await }).await {
                return output;
            }
            let pause = self.panics().get(task).map_or(PAUSE, Panics::pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// Runs a piece of work once: `None` if it panicked.
    pub async fn attempt<T>(&self, task: &'static str, work: impl Future<Output = T>) -> Option<T> {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(output) => Some(output),
            // The panic hook has told what and where.
            Err(_) => {
                metrics::counter!("tolom_worker_panics_total", "worker" => task).increment(1);
                tracing::error!(task, "panicked");
                self.panics().entry(task).or_default().note(Instant::now());
                None
            }
        }
    }

    /// The tasks that panicked three times within a minute and have not been well for a minute since.
    pub fn unwell(&self) -> Vec<&'static str> {
        let now = Instant::now();
        self.panics().iter().filter(|(_, panics)| panics.is_trouble(now)).map(|(task, _)| *task).collect()
    }

    fn panics(&self) -> MutexGuard<'_, BTreeMap<&'static str, Panics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The panics of one task.
#[derive(Debug, Default)]
struct Panics {
    recent: VecDeque<Instant>,
    trouble: bool,
}

impl Panics {
    fn note(&mut self, now: Instant) {
        self.trouble = self.is_trouble(now);
        self.recent.retain(|at| now - *at < TROUBLE);
        // Enough for the longest pause.
        self.recent.truncate(8);
        self.recent.push_front(now);
        self.trouble |= self.recent.len() >= REPEATED;
    }

    fn is_trouble(&self, now: Instant) -> bool {
        self.trouble && self.recent.front().is_some_and(|last| now - *last < TROUBLE)
    }

    fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).saturating_sub(1);
        PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A task that panics so many times before it ends well.
    fn ends_after(panics: u32) -> (Arc<AtomicU32>, impl FnMut() -> futures::future::BoxFuture<'static, u32>) {
        let built = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&built);
        let build = move || {
            let life = count.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(life >= panics, "life {life}");
                life
            }
            .boxed()
        };
        (built, build)
    }

    #[tokio::test]
    async fn a_task_that_panics_is_built_anew_until_it_ends_well() {
        let supervisor = Supervisor::default();
        let (built, build) = ends_after(2);
        let began = Instant::now();
        assert_eq!(supervisor.keep("task", build).await, 2);
        assert_eq!(built.load(Ordering::SeqCst), 3);
        assert!(began.elapsed() >= Duration::from_millis(300), "100 ms, then 200 ms");
        assert!(supervisor.unwell().is_empty(), "two panics are bad luck");
        assert_eq!(supervisor.attempt("task", async { panic!("the third") }).await, None::<()>);
        assert_eq!(supervisor.attempt("other", async { panic!("its first") }).await, None::<()>);
        assert_eq!(supervisor.clone().unwell(), ["task"]);
    }

    #[tokio::test]
    async fn a_panic_while_it_is_built_is_one_too() {
        let supervisor = Supervisor::default();
        let mut lives = 0;
        let build = || {
            lives += 1;
            assert!(lives > 1, "cannot be built");
            std::future::ready(lives)
        };
        assert_eq!(supervisor.keep("task", build).await, 2);
    }

    /// Panics at these seconds; whether there is trouble at those.
    fn trouble(panics: &[u64], looks: &[u64]) -> Vec<bool> {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut noted = Panics::default();
        panics.iter().for_each(|seconds| noted.note(at(*seconds)));
        looks.iter().map(|seconds| noted.is_trouble(at(*seconds))).collect()
    }

    #[test]
    fn three_panics_in_a_minute_are_trouble_until_a_minute_has_been_well() {
        assert_eq!(trouble(&[0, 59], &[59]), [false]);
        assert_eq!(trouble(&[0, 30, 61], &[61]), [false], "not within a minute");
        assert_eq!(trouble(&[0, 30, 59], &[59, 118, 119]), [true, true, false]);
        assert_eq!(trouble(&[0, 30, 59, 118], &[118, 177, 178]), [true, true, false], "one more prolongs it");
        assert_eq!(trouble(&[0, 30, 59, 119], &[119]), [false], "after it is over, one is bad luck again");
    }

    #[test]
    fn pauses_double_to_five_seconds_and_begin_anew_after_a_minute() {
        let began = Instant::now();
        let mut noted = Panics::default();
        let mut pauses: Vec<u128> = Vec::new();
        for second in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 80] {
            noted.note(began + Duration::from_secs(second));
            pauses.push(noted.pause().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000, 5_000, 100]);
    }
}
