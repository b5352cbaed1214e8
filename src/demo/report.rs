//! What the demo found, for people and as one document.

use std::collections::HashMap;

use serde::Serialize;

use super::play::Played;
use crate::{
    mail_catcher::{CaughtMail, CaughtSms},
    stage::Addresses,
    verify,
};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether everything is well.
    pub(super) ok: bool,
    /// Every payment.
    pub(super) payments: Vec<Played>,
    /// What came of sending a request twice.
    pub(super) repetition: Repetition,
    /// The receipts.
    pub(super) receipts: Receipts,
    /// Payments that were unknown for a while.
    pub(super) unknown: Unknown,
    /// From the 202 to the capture, over the cards with which nothing was to go wrong.
    pub(super) accepted_to_captured: Option<Times>,
    /// The rules of money.
    pub(super) findings: Vec<verify::Finding>,
    /// Where everything is.
    pub(super) addresses: Addresses,
    /// Bills that are left to be paid by hand.
    pub(super) unpaid: Vec<String>,
}

/// A request that was sent again.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Repetition {
    /// The same request under the same key: its status.
    pub(super) status: u16,
    /// Whether the answer said that it is a repetition's.
    pub(super) replayed: bool,
    /// Whether it named the first payment.
    pub(super) same_payment: bool,
    /// A second card for the same bill: its status.
    pub(super) second_card_status: u16,
    /// And the problem it was refused with.
    pub(super) second_card_problem: String,
}

impl Repetition {
    /// Whether nobody pays twice.
    pub(super) fn is_well(&self) -> bool {
        self.status == 202 && self.replayed && self.same_payment && self.second_card_status == 409
    }
}

/// Receipts against mail and short messages.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Receipts {
    /// Payments that were paid.
    pub(super) paid: usize,
    /// Receipts caught by mail.
    pub(super) caught: usize,
    /// Receipts caught by SMS.
    pub(super) sms: usize,
    /// Receipts that were not caught, were caught more than once, or belong to nobody.
    pub(super) wrong: Vec<String>,
}

impl Receipts {
    /// Compares numbers with message ids, which are made of them, and with the texts of short messages.
    pub(super) fn compare(
        payments: &[Played],
        mail: &[std::sync::Arc<CaughtMail>],
        sms: &[CaughtSms],
        domain: &str,
    ) -> Self {
        let mut caught: HashMap<String, usize> = HashMap::new();
        // On a slow machine somebody may have been told that a payment was unknown, and a visitor may have asked for a
        // receipt once more.
        let ids = mail.iter().map(|message| message.message_id.clone().unwrap_or_default());
        for id in ids.filter(|id| !id.starts_with("<notice-") && !id.starts_with("<again-")) {
            *caught.entry(id).or_default() += 1;
        }
        let receipts = caught.values().sum();
        let mut wrong = Vec::new();
        for played in payments.iter().filter(|played| played.is_paid()) {
            let number = played.receipt.as_deref().unwrap_or("without a number");
            match caught.remove(&format!("<{number}@{domain}>")) {
                Some(1) => {}
                Some(times) => wrong.push(format!("{number} came {times} times")),
                None => wrong.push(format!("{number} did not come")),
            }
            match sms.iter().filter(|caught| caught.text.contains(&format!("/receipts/{number}"))).count() {
                1 => {}
                times => wrong.push(format!("{number} came {times} times by SMS")),
            }
        }
        wrong.extend(caught.into_keys().map(|id| format!("{id} is no receipt of these payments")));
        let paid = payments.iter().filter(|played| played.is_paid()).count();
        if sms.len() > paid {
            wrong.push(format!("{} SMS for {paid} payments", sms.len()));
        }
        Self { paid, caught: receipts, sms: sms.len(), wrong }
    }
}

/// Payments that were unknown.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Unknown {
    /// All of them.
    pub(super) payments: usize,
    /// Those that turned out to be paid.
    pub(super) paid: usize,
    /// Those that turned out not to be charged, or declined.
    pub(super) not_charged: usize,
}

impl Unknown {
    pub(super) fn count(payments: &[Played]) -> Self {
        let unknown: Vec<_> = payments.iter().filter(|played| played.was_unknown).collect();
        let ended = |played: &&&Played| played.public_status.is_some_and(|status| status.is_final());
        let resolved = unknown.iter().filter(ended).count();
        let paid = unknown.iter().filter(|played| played.is_paid()).count();
        Self { payments: unknown.len(), paid, not_charged: resolved - paid }
    }

    /// Whether each of them came to an end.
    pub(super) const fn is_well(self) -> bool {
        self.payments == self.paid + self.not_charged
    }
}

/// Percentiles by nearest rank.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    /// Over how many payments.
    pub(super) payments: usize,
    /// Half of them took no longer.
    pub(super) p50_ms: u64,
    /// 99 of 100 took no longer.
    pub(super) p99_ms: u64,
}

impl Times {
    pub(super) fn of(payments: &[Played]) -> Option<Self> {
        let plain = payments.iter().filter(|played| played.plain);
        let mut times: Vec<u64> = plain.filter_map(|played| played.accepted_to_captured_ms).collect();
        times.sort_unstable();
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { payments: times.len(), p50_ms: rank(50)?, p99_ms: rank(99)? })
    }
}

impl Report {
    /// Decides whether all is well.
    pub(super) fn judge(&mut self) {
        self.ok = self.payments.iter().all(|played| played.wrong.is_none())
            && self.repetition.is_well()
            && self.receipts.wrong.is_empty()
            && self.unknown.is_well()
            && verify::all_kept(&self.findings);
    }

    /// The findings for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("\n");
        let repetition = &self.repetition;
        let mut add = |line: String| text.push_str(&format!("  {line}\n"));
        add(format!(
            "The first request again, under the same key: {}, {}, {} payment.",
            repetition.status,
            if repetition.replayed { "replayed" } else { "NOT REPLAYED" },
            if repetition.same_payment { "the same" } else { "ANOTHER" },
        ));
        add(format!(
            "A second card for the same bill: {} {}.",
            repetition.second_card_status, repetition.second_card_problem
        ));
        add(match self.receipts.wrong.as_slice() {
            [] => {
                let Receipts { paid, caught, sms, .. } = self.receipts;
                format!("{paid} payments paid, {caught} receipts caught by mail and {sms} by SMS, each once.")
            }
            wrong => format!("Receipts that are WRONG: {}.", wrong.join("; ")),
        });
        let Unknown { payments, paid, not_charged } = self.unknown;
        add(format!(
            "{payments} payments went through unknown and {} resolved: {paid} paid, {not_charged} not charged.",
            if self.unknown.is_well() { "were" } else { "were NOT ALL" },
        ));
        if let Some(times) = self.accepted_to_captured {
            let Times { payments, p50_ms, p99_ms } = times;
            add(format!(
                "Accepted to captured, {payments} plain cards among all the others: p50 {p50_ms} ms, p99 {p99_ms} ms."
            ));
        }
        text.push_str("\n  The rules of money, in the books, at the broker and at the acquirer:\n");
        text.push_str(&verify::table(&self.findings));
        text
    }

    /// Where everything is, for somebody who stays.
    pub(super) fn places(&self) -> String {
        let Addresses { site, has_pages, metrics, books, mail, log, database, queues } = &self.addresses;
        let bill = self.unpaid.first().map_or("", String::as_str);
        let pages = if *has_pages { format!("  pages      {site}/en/\n") } else { String::new() };
        format!(
            "\n{pages}  API        {site}/v1/\n  metrics    {metrics}\n  books      {books}   (the acquirer's)\n  \
             mail, SMS  {mail}\n  database   {database}\n  queues     {queues}*\n  log        {}\n\n  Bills to pay by hand: {}\n  curl {site}/v1/bills/{bill}\n\n  \
             Ctrl-C ends it and removes everything.\n",
            log.display(),
            self.unpaid.join(" "),
        )
    }
}
