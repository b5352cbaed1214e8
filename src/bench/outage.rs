//! The broker goes away for a while and comes back, while payers go on paying: what that costs them, and how soon what
//! has piled up is gone.

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::{
    line::Answer,
    offer::{Offered, PATIENCE},
};
use crate::services::Own;

/// The broker goes away so long after the first payment, or after a third of all if that is sooner.
const GOES_AFTER: Duration = Duration::from_secs(10);
/// Payments that were held up by it must have come to their end so much later than others must, for each second of it.
const PATIENCE_FACTOR: u32 = 10;

/// When the broker goes away, from the first payment's due time on, if payments are offered for so long.
pub(super) fn goes_after(offered_for: Duration) -> Duration {
    GOES_AFTER.min(offered_for / 3)
}

/// Whether payments that are offered for so long see the broker go away for `lasts` and come back.
pub fn fits(lasts: Duration, offered_for: Duration) -> bool {
    goes_after(offered_for) + lasts <= offered_for
}

/// How long a payment may take before it counts as missing.
pub(super) fn patience(lasts: Option<Duration>) -> Duration {
    PATIENCE + lasts.unwrap_or_default() * PATIENCE_FACTOR
}

/// What an outage of the broker came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// From when the broker was asked to end until it served again.
    pub seconds: f64,
    /// When that began, after the first payment's due time.
    pub began_s: f64,
    /// Payments that were due meanwhile.
    pub offered_meanwhile: usize,
    /// Of these, payments answered 202.
    pub accepted_meanwhile: usize,
    /// Payments that were not answered 202, in the whole run.
    pub refused: usize,
    /// Payments answered 202, in the whole run, that have no end in the books afterwards: must be none.
    pub lost: usize,
    /// The longest that finance waited for an entry, from the payment's due time.
    pub longest_wait_s: f64,
    /// Payments accepted and not over when the broker was back.
    pub backlog: usize,
    /// How long after that the last of these was over; none while one is not.
    pub gone_after_s: Option<f64>,
    /// Payments over from the broker's return until then, those offered later among them, each second.
    pub payments_per_s: Option<f64>,
}

/// When the broker was away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    pub(super) from: Instant,
    pub(super) until: Instant,
}

/// Shuts the broker down in time, and starts it again.
pub(super) async fn befall(
    broker: &mut Own<'_>,
    from: Instant,
    lasts: Duration,
    say: &impl Fn(&str),
) -> anyhow::Result<Away> {
    sleep_until(from).await;
    let from = Instant::now();
    broker.shut_down().await;
    say(&format!("the broker is away, for {} s", lasts.as_secs()));
    sleep_until(from + lasts).await;
    broker.start_again().await.context("the broker does not come back")?;
    let until = Instant::now();
    say(&format!("the broker is back, after {:.1} s", (until - from).as_secs_f64()));
    Ok(Away { from, until })
}

impl Away {
    /// What it came to, of all payments of the run and how many of them have an end in the books.
    pub(super) fn reckon(self, offered: &[Offered], began: Instant, ended: usize) -> Outage {
        let accepted = |payment: &&Offered| matches!(payment.answer, Answer::Accepted(_));
        let meanwhile = |payment: &&Offered| (self.from..self.until).contains(&payment.due);
        let over_at = |payment: &Offered| payment.end.map(|end| end.at);
        let all_accepted = offered.iter().filter(accepted).count();
        let backlog: Vec<Option<Instant>> = offered
            .iter()
            .filter(accepted)
            .filter(|payment| payment.answered <= self.until)
            .map(over_at)
            .filter(|over| over.is_none_or(|over| over > self.until))
            .collect();
        let last = backlog.iter().copied().collect::<Option<Vec<Instant>>>().map(|ends| ends.into_iter().max());
        let gone = last.map(|last| last.unwrap_or(self.until));
        let since_back = gone.map(|gone| (gone - self.until).as_secs_f64());
        let over =
            |gone: Instant| offered.iter().filter_map(over_at).filter(|at| *at > self.until && *at <= gone).count();
        let waits = offered.iter().filter_map(|payment| Some(over_at(payment)? - payment.due));
        Outage {
            seconds: (self.until - self.from).as_secs_f64(),
            began_s: (self.from - began).as_secs_f64(),
            offered_meanwhile: offered.iter().filter(meanwhile).count(),
            accepted_meanwhile: offered.iter().filter(meanwhile).filter(accepted).count(),
            refused: offered.len() - all_accepted,
            lost: all_accepted.saturating_sub(ended),
            longest_wait_s: waits.max().unwrap_or_default().as_secs_f64(),
            backlog: backlog.len(),
            gone_after_s: since_back,
            payments_per_s: gone
                .zip(since_back)
                .filter(|(_, seconds)| *seconds > 0.0)
                .map(|(gone, s)| over(gone) as f64 / s),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{bench::ends::End, contracts::Topic};

    /// A payment due, answered and over so many seconds after the beginning.
    fn payment(began: Instant, due: u64, answered: u64, over: Option<u64>) -> Offered {
        let at = |seconds| began + Duration::from_secs(seconds);
        let end = over.map(|over| End { at: at(over), how: Topic::SettlementEntry });
        Offered { due: at(due), answered: at(answered), answer: Answer::Accepted(Uuid::new_v4()), end }
    }

    #[test]
    fn the_backlog_is_what_was_accepted_before_the_return_and_is_gone_with_its_last_payment() {
        let began = Instant::now();
        let away = Away { from: began + Duration::from_secs(10), until: began + Duration::from_secs(70) };
        let mut offered = vec![
            payment(began, 1, 1, Some(2)),
            payment(began, 9, 9, Some(71)),
            payment(began, 30, 31, Some(80)),
            payment(began, 69, 69, Some(75)),
            // Accepted later, and over before the backlog was gone or after.
            payment(began, 72, 72, Some(79)),
            payment(began, 72, 72, Some(99)),
        ];
        offered.push(Offered { answer: Answer::Shed, ..payment(began, 40, 40, None) });
        let outage = away.reckon(&offered, began, 6);
        let expected = Outage {
            seconds: 60.0,
            began_s: 10.0,
            offered_meanwhile: 3,
            accepted_meanwhile: 2,
            refused: 1,
            lost: 0,
            longest_wait_s: 62.0,
            backlog: 3,
            gone_after_s: Some(10.0),
            payments_per_s: Some(0.4),
        };
        assert_eq!(outage, expected);
    }

    #[test]
    fn a_backlog_with_a_payment_without_end_is_never_gone() {
        let began = Instant::now();
        let away = Away { from: began, until: began + Duration::from_secs(5) };
        let outage = away.reckon(&[payment(began, 1, 1, None), payment(began, 2, 2, Some(6))], began, 1);
        assert_eq!((outage.backlog, outage.lost, outage.gone_after_s, outage.payments_per_s), (2, 1, None, None));
        let nothing = away.reckon(&[payment(began, 1, 1, Some(3))], began, 1);
        assert_eq!((nothing.backlog, nothing.gone_after_s, nothing.payments_per_s), (0, Some(0.0), None));
    }

    #[test]
    fn an_outage_fits_into_what_is_offered() {
        let seconds = Duration::from_secs;
        assert_eq!((goes_after(seconds(90)), goes_after(seconds(6))), (seconds(10), seconds(2)));
        assert!(fits(seconds(60), seconds(90)) && fits(seconds(80), seconds(90)) && !fits(seconds(81), seconds(90)));
        assert!(fits(seconds(4), seconds(6)) && !fits(seconds(5), seconds(6)));
    }
}
