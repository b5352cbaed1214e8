//! Notice: writes to payers whose payment stays unknown, and when such a payment did not go through; sends the receipts
//! that their queue could not, and those that their payers asked for once more. Short messages go their own way beside
//! it, in `sms`.
//!
//! It polls the books, so any number of them may run. A row is claimed, the message goes out with its own constant
//! `Message-ID`, and the row is marked. A crash between sending and marking may repeat it; nothing else may.

use std::{collections::HashMap, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    outbound::{Fates, Patience, Rounds, ask, settle_copies},
    sms::ShortMessages,
};
use crate::{
    config,
    notify::{
        Delivered, Lease, Mail, Mailer, RenderError, Sender, deliver, notice_mail, receipt_again_mail, receipt_mail,
    },
    store::{
        StoreError,
        notices::{self, Due, Kind, Notice},
        receipt_copies::{self, Kind as CopyKind, ReceiptCopy},
        receipts::{self, Overdue},
    },
    worker::Context,
};

/// Rows planned in one statement at most.
const PLANNED_AT_ONCE: i64 = 1_000;

/// The worker.
struct Notices {
    context: Context,
    mailer: Mailer,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Notice(Kind),
    Receipt,
    /// A receipt that its payer asked for once more.
    ReceiptAgain,
}

/// A message, as far as its fate goes.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// The notice's or the copy's id, or the receipt's payment.
    id: Uuid,
    payment: Uuid,
    what: What,
    /// Attempts, this one included.
    attempts: i32,
    /// When it was first due.
    since: OffsetDateTime,
}

/// Builds the worker and runs it until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let worker = Notices { mailer: Mailer::new(&context.config.mail)?, context };
    // An alert on what was given up cannot see a counter that appears with its first count.
    for what in [What::Notice(Kind::Unknown), What::Notice(Kind::NotCharged), What::Receipt, What::ReceiptAgain] {
        count(what, "given_up", 0);
    }
    let short_messages = ShortMessages::new(&worker.context)?;
    tracing::info!(worker = "notice", "started");
    tokio::join!(worker.run(), async {
        if let Some(short_messages) = short_messages {
            short_messages.run().await;
        }
    });
    tracing::info!(worker = "notice", "drained");
    Ok(())
}

impl Notices {
    /// Sends until the context stops.
    async fn run(self) {
        let mut rounds = Rounds::every(self.settings().poll_ms);
        while rounds.next(&self.context).await {
            self.round().await;
        }
    }

    fn settings(&self) -> &config::Notice {
        &self.context.config.notice
    }

    /// Plans what is due and sends it, until there is no more or the mail server does not take it.
    async fn round(&self) -> Option<()> {
        let (now, settings) = (self.context.clock.now(), self.settings());
        let due = Due {
            now,
            unknown_since: now - Duration::from_secs(u64::from(settings.unknown_after_s)),
            reversed_after: now - time::Duration::days(i64::from(settings.give_up_days)),
            limit: PLANNED_AT_ONCE,
        };
        self.ask(|| notices::plan(&self.context.pool, &due)).await?;
        while self.notices().await? && !self.context.stop.is_cancelled() {}
        while self.receipts().await? && !self.context.stop.is_cancelled() {}
        while self.receipts_again().await? && !self.context.stop.is_cancelled() {}
        Some(())
    }

    /// Sends a batch of notices. True if there may be more that can be sent now.
    async fn notices(&self) -> Option<bool> {
        let (context, pool, batch) = (&self.context, &self.context.pool, self.settings().batch);
        let claim = |lasts| notices::claim(pool, context.clock.now(), lasts, batch);
        let (claimed, lease) = self.claim(claim).await?;
        if claimed.is_empty() {
            return Some(false);
        }
        let sender = Sender {
            operator: &context.config.operator,
            public_url: &context.config.intake.public_url,
            hold_days: self.settings().hold_days,
        };
        let written = claimed.iter().map(|notice| (Item::of_notice(notice), notice_mail(notice, &sender)));
        let fates = self.attempt(written.collect(), &lease).await;
        let now = context.clock.now();
        self.ask(|| notices::mark_sent(pool, &fates.sent, now)).await?;
        self.ask(|| notices::postpone(pool, &fates.again, &fates.again_at)).await?;
        self.ask(|| notices::give_up(pool, &fates.lost, now)).await?;
        Some(fates.again.is_empty() && i64::try_from(claimed.len()) == Ok(batch))
    }

    /// Sends a batch of receipts that their queue could not send. True if there may be more that can be sent now.
    async fn receipts(&self) -> Option<bool> {
        let (context, pool, settings) = (&self.context, &self.context.pool, self.settings());
        let now = context.clock.now();
        let issued_before = now - Duration::from_secs(u64::from(settings.receipt_after_s));
        let overdue = self.ask(|| receipts::overdue(pool, now, issued_before, settings.batch)).await?;
        if overdue.is_empty() {
            return Some(false);
        }
        let items: HashMap<Uuid, Item> =
            overdue.iter().map(|receipt| (receipt.payment, Item::of_receipt(receipt))).collect();
        let payments: Vec<Uuid> = items.keys().copied().collect();
        let (claimed, lease) = self.claim(|lasts| receipts::claim(pool, &payments, lasts)).await?;
        let (operator, public_url) = (&context.config.operator, &context.config.intake.public_url);
        let written = claimed.mine.into_iter().filter_map(|row| {
            let item = *items.get(&row.payment)?;
            Some((item, receipt_mail(row, operator, public_url)))
        });
        let fates = self.attempt(written.collect(), &lease).await;
        self.ask(|| receipts::mark_sent(pool, &fates.sent)).await?;
        self.ask(|| receipts::postpone(pool, &fates.again, &fates.again_at)).await?;
        self.ask(|| receipts::give_up(pool, &fates.lost, context.clock.now())).await?;
        Some(fates.again.is_empty() && i64::try_from(overdue.len()) == Ok(settings.batch))
    }

    /// Sends a batch of receipts that their payers asked for once more. True if there may be more that can be sent now.
    async fn receipts_again(&self) -> Option<bool> {
        let (context, pool, batch) = (&self.context, &self.context.pool, self.settings().batch);
        let claim = |lasts| receipt_copies::claim(pool, CopyKind::Again, context.clock.now(), lasts, batch);
        let (claimed, lease) = self.claim(claim).await?;
        if claimed.is_empty() {
            return Some(false);
        }
        let whole = i64::try_from(claimed.len()) == Ok(batch);
        let (operator, public_url) = (&context.config.operator, &context.config.intake.public_url);
        let written =
            claimed.into_iter().map(|copy| (Item::of_copy(&copy), receipt_again_mail(copy, operator, public_url)));
        let fates = self.attempt(written.collect(), &lease).await;
        settle_copies(context, &fates).await?;
        Some(fates.again.is_empty() && whole)
    }

    /// Tries to send, and decides what becomes of each message.
    async fn attempt(&self, written: Vec<(Item, Result<Mail, RenderError>)>, lease: &Lease) -> Fates {
        let Delivered { sent, later, never, untried } = deliver(&self.mailer, written, lease).await;
        let (now, mut fates) = (self.context.clock.now(), Fates::default());
        for item in sent {
            count(item.what, "sent", 1);
            fates.sent.push(item.id);
        }
        for item in untried {
            fates.again.push(item.id);
            fates.again_at.push(now);
        }
        for (item, error) in never {
            tracing::warn!(payment.id = %item.payment, kind = word(item.what), %error, "a message is refused");
            count(item.what, "refused", 1);
            fates.lost.push(item.id);
        }
        for (item, error) in later {
            match self.patience().next_try(item.attempts, item.since, now) {
                Some(at) => {
                    count(item.what, "retry", 1);
                    fates.again.push(item.id);
                    fates.again_at.push(at);
                }
                None => {
                    tracing::error!(payment.id = %item.payment, kind = word(item.what), %error, "a message is given up");
                    count(item.what, "given_up", 1);
                    fates.lost.push(item.id);
                }
            }
        }
        fates
    }

    fn patience(&self) -> Patience {
        let &config::Notice { retry_s, longest_retry_s, give_up_days, .. } = self.settings();
        Patience { retry_s, longest_retry_s, give_up_days }
    }

    /// Claims messages, and tells how long they are ours.
    async fn claim<T, F>(&self, mut claim: impl FnMut(Duration) -> F) -> Option<(T, Lease)>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let config = &self.context.config;
        self.ask(|| {
            let lease = Lease::begin(config, &self.context.stop);
            let claimed = claim(Duration::from_secs(config.mail.claim_s));
            async { Ok((claimed.await?, lease)) }
        })
        .await
    }

    async fn ask<T, F>(&self, work: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        ask(&self.context, work).await
    }
}

impl Item {
    fn of_notice(notice: &Notice) -> Self {
        let Notice { id, payment, attempts, created_at: since, .. } = *notice;
        Self { id, payment, what: What::Notice(notice.kind), attempts, since }
    }

    fn of_receipt(receipt: &Overdue) -> Self {
        let Overdue { payment, attempts, issued_at: since } = *receipt;
        Self { id: payment, payment, what: What::Receipt, attempts: attempts + 1, since }
    }

    fn of_copy(copy: &ReceiptCopy) -> Self {
        let ReceiptCopy { id, attempts, created_at: since, .. } = *copy;
        Self { id, payment: copy.receipt.payment, what: What::ReceiptAgain, attempts, since }
    }
}

fn word(what: What) -> &'static str {
    match what {
        What::Notice(kind) => kind.as_str(),
        What::Receipt => "receipt",
        What::ReceiptAgain => "receipt_again",
    }
}

fn count(what: What, result: &'static str, times: u64) {
    let counter = match what {
        What::Receipt => metrics::counter!("tolom_receipts_total", "result" => result),
        What::Notice(_) | What::ReceiptAgain => {
            metrics::counter!("tolom_notices_total", "kind" => word(what), "result" => result)
        }
    };
    counter.increment(times);
}
