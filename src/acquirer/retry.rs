//! In-process retries of what the acquirer provably has not acted on. The only module that uses `backoff`.
//!
//! Its waits are short and few: what does not pass here goes back to the broker's retry tiers. Every attempt carries
//! the same reference and key, and none begins after `send_before` (rule 3).

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use time::OffsetDateTime;

use crate::{clock::Clock, payment::Outcome};

const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing to be gained by sending it again.
    Done(Outcome),
    /// May be sent again with the same key.
    Again {
        /// Why it did not pass, for people.
        why: String,
        /// Whether an earlier request with this key may be at work: then the end of the attempts proves nothing.
        in_flight: bool,
        /// The wait the acquirer asked for.
        after: Option<Duration>,
    },
}

/// Sends until it passes, `send_before` has come, or five attempts are spent.
///
/// Ends with `NotSent` only if every attempt provably had no effect: once one may have been in flight, neither a later
/// refusal to connect nor a later "not processed" speaks for that one.
pub(super) async fn send<F: Future<Output = Attempt>>(
    clock: &Clock,
    send_before: OffsetDateTime,
    mut attempt: impl FnMut() -> F,
) -> Outcome {
    let mut waits = ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST_WAIT)
        .with_multiplier(2.0)
        .with_max_elapsed_time(None)
        .build();
    let mut doubt = None;
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let (why, after) = match attempt().await {
            Attempt::Done(outcome) => return unless_in_doubt(outcome, doubt),
            Attempt::Again { why, in_flight, after } => {
                if in_flight {
                    doubt = Some(why.clone());
                }
                (why, after)
            }
        };
        let wait = waits.next_backoff().unwrap_or(FIRST_WAIT).max(after.unwrap_or_default());
        if left == 0 || clock.now() + wait >= send_before {
            return unless_in_doubt(Outcome::NotSent { why }, doubt);
        }
        tokio::time::sleep(wait).await;
    }
}

fn unless_in_doubt(outcome: Outcome, doubt: Option<String>) -> Outcome {
    match (outcome, doubt) {
        (Outcome::NotSent { .. }, Some(why)) => Outcome::Unknown { why },
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn again(in_flight: bool, after: Option<u64>) -> Attempt {
        Attempt::Again { why: "busy".into(), in_flight, after: after.map(Duration::from_secs) }
    }

    async fn run(attempts: Vec<Attempt>) -> (Outcome, usize) {
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
        let made = Cell::new(0);
        let outcome = send(&clock, OffsetDateTime::UNIX_EPOCH + Duration::from_secs(5), || {
            let attempt = attempts[made.get().min(attempts.len() - 1)].clone();
            made.set(made.get() + 1);
            async { attempt }
        })
        .await;
        (outcome, made.get())
    }

    #[tokio::test]
    async fn attempts_are_few_and_end_as_not_sent() {
        let (outcome, made) = run(vec![again(false, None)]).await;
        assert_eq!((outcome.as_str(), made), ("not_sent", 5));
    }

    #[tokio::test]
    async fn a_wait_that_would_pass_send_before_is_not_begun() {
        let (outcome, made) = run(vec![again(false, Some(5))]).await;
        assert_eq!((outcome.as_str(), made), ("not_sent", 1));
    }

    #[tokio::test]
    async fn one_attempt_in_flight_casts_doubt_on_all_that_follow() {
        let refused = Attempt::Done(Outcome::NotSent { why: "refused".into() });
        let (outcome, made) = run(vec![again(true, None), again(false, None), refused]).await;
        assert_eq!((outcome.as_str(), made), ("unknown", 3));
        let (outcome, _) = run(vec![again(true, None)]).await;
        assert_eq!(outcome.as_str(), "unknown");
    }
}
