//! The notice worker's other half: receipts as short messages, apart from all mail, so that neither waits for the other.
//!
//! The receipt worker plans them; this polls the books. A row is claimed, the message goes out with the row's id as its
//! idempotency key, and the row is marked: what a crash or a lost answer repeats, the gateway knows by that.

use std::time::Duration;

use time::OffsetDateTime;

use super::outbound::{Fates, Patience, Rounds, ask, settle_copies};
use crate::{
    notify::{Gateway, GatewayError, Sms, SmsError, receipt_sms},
    store::receipt_copies::{self, Kind, ReceiptCopy},
    worker::Context,
};

/// For the database's part of a batch, beside the gateway's. Where that takes longer, another sends it again, and the
/// gateway knows it.
const MARKED_WITHIN: Duration = Duration::from_secs(10);

/// The sender.
pub(super) struct ShortMessages {
    context: Context,
    gateway: Gateway,
}

impl ShortMessages {
    /// The sender by the settings; none without a gateway.
    pub(super) fn new(context: &Context) -> Result<Option<Self>, GatewayError> {
        let gateway = Gateway::new(&context.config.sms)?;
        Ok(gateway.map(|gateway| Self { context: context.clone(), gateway }))
    }

    /// Sends until the context stops.
    pub(super) async fn run(self) {
        // An alert on what was given up cannot see a counter that appears with its first count.
        count("given_up", 0);
        let mut rounds = Rounds::every(self.context.config.notice.poll_ms);
        while rounds.next(&self.context).await {
            while self.batch().await == Some(true) && !self.context.stop.is_cancelled() {}
        }
    }

    /// Sends a batch. True if there may be more that can be sent now.
    async fn batch(&self) -> Option<bool> {
        let (context, pool, batch) = (&self.context, &self.context.pool, self.context.config.notice.batch);
        let lease = self.gateway.longest(usize::try_from(batch).unwrap_or(0)) + MARKED_WITHIN;
        let claimed =
            ask(context, || receipt_copies::claim(pool, Kind::Sms, context.clock.now(), lease, batch)).await?;
        if claimed.is_empty() {
            return Some(false);
        }
        let public_url = &context.config.intake.public_url;
        let messages: Vec<Sms> = claimed.iter().map(|copy| receipt_sms(copy.clone(), public_url)).collect();
        let results = self.gateway.send(&messages).await;
        let fates = self.decide(&claimed, results);
        settle_copies(context, &fates).await?;
        Some(fates.again.is_empty() && i64::try_from(claimed.len()) == Ok(batch))
    }

    /// What becomes of each message.
    fn decide(&self, claimed: &[ReceiptCopy], results: Vec<Result<(), SmsError>>) -> Fates {
        let (now, mut fates) = (self.context.clock.now(), Fates::default());
        for (copy, result) in claimed.iter().zip(results) {
            let payment = copy.receipt.payment;
            match result {
                Ok(()) => {
                    count("sent", 1);
                    fates.sent.push(copy.id);
                }
                Err(error @ SmsError::Permanent(_)) => {
                    tracing::warn!(payment.id = %payment, %error, "a short message is refused");
                    count("refused", 1);
                    fates.lost.push(copy.id);
                }
                Err(error @ SmsError::Transient { after, .. }) => match self.next_try(copy, after, now) {
                    Some(at) => {
                        count("retry", 1);
                        fates.again.push(copy.id);
                        fates.again_at.push(at);
                    }
                    None => {
                        tracing::error!(payment.id = %payment, %error, "a short message is given up");
                        count("given_up", 1);
                        fates.lost.push(copy.id);
                    }
                },
            }
        }
        fates
    }

    /// Never before the gateway wants to be asked again.
    fn next_try(&self, copy: &ReceiptCopy, after: Option<Duration>, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let (notice, sms) = (&self.context.config.notice, &self.context.config.sms);
        let patience = Patience {
            retry_s: notice.retry_s,
            longest_retry_s: notice.longest_retry_s,
            give_up_days: sms.give_up_days,
        };
        let at = patience.next_try(copy.attempts, copy.created_at, now)?;
        Some(after.map_or(at, |after| at.max(now + after)))
    }
}

fn count(result: &'static str, times: u64) {
    metrics::counter!("tolom_sms_total", "result" => result).increment(times);
}
