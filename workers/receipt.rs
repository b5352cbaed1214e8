//! Receipt: tells the payer by mail, once, and plans the receipt's short message where there is a gateway.
//!
//! The receipt's row is claimed, the message goes out with the receipt's own constant `Message-ID`, and the row is
//! marked. A crash between sending and marking may repeat it; nothing else may.

use std::{collections::HashMap, time::Duration};

use uuid::Uuid;

use crate::{
    broker::{Handler, Message, Queue, Reading, Turn, Verdict},
    config::Config,
    contracts::{Event, PaymentFact, Topic},
    notify::{Delivered, Lease, Mailer, deliver, receipt_mail},
    store::{
        StoreError, receipt_copies,
        receipts::{self, Claimed, ReceiptRow},
    },
    worker::{Context, Worker, run as run_worker},
};

/// Nobody waits for a fifth of a second more, and a batch costs three statements.
const LINGER: Duration = Duration::from_millis(200);

/// The worker.
pub struct Receipts {
    context: Context,
    mailer: Mailer,
}

/// Builds the worker and runs it until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let mailer = Mailer::new(&context.config.mail)?;
    run_worker(context.clone(), Receipts { context, mailer }).await;
    Ok(())
}

impl Worker for Receipts {
    const NAME: &'static str = "receipt";

    fn reading(config: &Config) -> Reading {
        let settings = &config.receipt;
        Reading { queue: Queue::Receipt, batch: settings.batch, prefetch: settings.prefetch, linger: LINGER }
    }
}

impl Handler for Receipts {
    async fn handle(&self, batch: Vec<Message>, _turn: Turn) {
        let mut waiting: HashMap<Uuid, Vec<Message>> = HashMap::new();
        for message in batch {
            match Event::<PaymentFact>::read(Topic::PaymentCaptured, &message.body) {
                Ok(event) => waiting.entry(event.data.payment).or_default().push(message),
                Err(error) => message.settle(Verdict::Dead(error.to_string())),
            }
        }
        let payments: Vec<Uuid> = waiting.keys().copied().collect();
        let (claimed, lease) = match self.context.until_available(|| self.claim(&payments)).await {
            Some(Ok(claimed)) => claimed,
            Some(Err(error)) => return settle_all(waiting, &Verdict::Retry(error.to_string())),
            None => return waiting.into_values().flatten().for_each(Message::leave),
        };
        let verdicts = self.send(claimed.mine, &lease).await;
        let sent = claimed.sent.into_iter().map(|payment| (payment, Some(Verdict::Done)));
        // A capture is announced after the commit that issues its receipt: one that is not there now never will be.
        let missing = Verdict::Dead("there is no receipt of such a payment".to_owned());
        let missing = claimed.missing.into_iter().map(|payment| (payment, Some(missing.clone())));
        for (payment, verdict) in verdicts.into_iter().chain(sent).chain(missing) {
            for message in waiting.remove(&payment).into_iter().flatten() {
                match &verdict {
                    Some(verdict) => message.settle(verdict.clone()),
                    None => message.leave(),
                }
            }
        }
        settle_all(waiting, &Verdict::Retry("the receipt is with another sender".to_owned()));
    }
}

impl Receipts {
    /// Claims receipts for sending. Their short messages are planned first, so that no fate of a mail keeps one back.
    async fn claim(&self, payments: &[Uuid]) -> Result<(Claimed, Lease), StoreError> {
        let (context, config) = (&self.context, &self.context.config);
        if !config.sms.url.is_empty() {
            let now = context.clock.now();
            let issued_after = now - time::Duration::days(i64::from(config.sms.give_up_days));
            receipt_copies::plan_sms(&context.pool, payments, now, issued_after).await?;
        }
        let lease = Lease::begin(config, &context.stop);
        let claimed = receipts::claim(&context.pool, payments, Duration::from_secs(config.mail.claim_s)).await?;
        Ok((claimed, lease))
    }

    /// Sends claimed receipts and marks what was sent, in one statement. No verdict: not begun.
    async fn send(&self, rows: Vec<ReceiptRow>, lease: &Lease) -> Vec<(Uuid, Option<Verdict>)> {
        let context = &self.context;
        let (operator, public_url) = (&context.config.operator, &context.config.intake.public_url);
        let written = rows.into_iter().map(|row| (row.payment, receipt_mail(row, operator, public_url)));
        let Delivered { sent, later, never, untried } = deliver(&self.mailer, written.collect(), lease).await;
        for (result, count) in [("sent", sent.len()), ("retry", later.len()), ("refused", never.len())] {
            metrics::counter!("tolom_receipts_total", "result" => result).increment(count as u64);
        }
        let later = later.into_iter().map(|(payment, error)| (payment, Some(Verdict::Retry(error.to_string()))));
        let never = never.into_iter().map(|(payment, error)| (payment, Some(Verdict::Dead(error.to_string()))));
        let untried = untried.into_iter().map(|payment| (payment, None));
        let mut verdicts: Vec<_> = later.chain(never).chain(untried).collect();
        let unsent: Vec<Uuid> = verdicts.iter().map(|(payment, _)| *payment).collect();
        if !sent.is_empty() {
            let marked = context.until_available(|| receipts::mark_sent(&context.pool, &sent)).await;
            let verdict = match marked {
                Some(Ok(())) => Verdict::Done,
                Some(Err(error)) => Verdict::Retry(error.to_string()),
                None => Verdict::Retry("stopped before the receipt was marked".to_owned()),
            };
            verdicts.extend(sent.into_iter().map(|payment| (payment, Some(verdict.clone()))));
        }
        if !unsent.is_empty() {
            // Should this fail, the lease ends on its own.
            let _ = receipts::give_back(&context.pool, &unsent).await;
        }
        verdicts
    }
}

fn settle_all(waiting: HashMap<Uuid, Vec<Message>>, verdict: &Verdict) {
    waiting.into_values().flatten().for_each(|message| message.settle(verdict.clone()));
}
