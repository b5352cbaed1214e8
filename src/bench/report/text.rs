//! The figures for people.

use super::{Figures, GrownShown, Report, Setup, Topology};
use crate::{bench::Percentiles, config::CaptureMode, verify};

const STAGES: [(&str, &str); 4] = [
    ("accept", "202 Accepted"),
    ("accept_to_authorized", "the acquirer approves"),
    ("accept_to_recorded", "the books have it"),
    ("accept_to_settlement", "finance has its entry"),
];

impl Report {
    /// The figures for people.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.setup());
        self.write_rates(&mut text);
        self.write_outage(&mut text);
        self.write_latencies(&mut text);
        self.write_parts(&mut text);
        for (outcome, payments) in &self.outcomes {
            text.push_str(&format!("  {payments:>9} {outcome}\n"));
        }
        text.push('\n');
        text.push_str(&verify::table(&self.verify.findings));
        text
    }

    fn setup(&self) -> String {
        let Setup { rate, concurrency, acquirer_latency, warm_up, profile, cpus, runs, servers, .. } = &self.config;
        let load = match (rate, concurrency) {
            (Some(rate), _) => format!("{rate} a second on schedule"),
            (None, Some(1)) => "one at a time".to_owned(),
            (None, payers) => format!("{} at a time", payers.unwrap_or_default()),
        };
        let capture = match self.config.capture {
            CaptureMode::AfterRecording => "after recording",
            CaptureMode::AtAuthorization => "at authorization",
        };
        let topology = match self.config.topology {
            Topology::Processes => "a process a role",
            Topology::One => "one process for all roles",
        };
        let faults = match self.config.fault_rate {
            rate if rate > 0.0 => format!(", {} % of its answers go wrong", rate * 100.0),
            _ => String::new(),
        };
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "of unknown version".to_owned());
        let grown = self.config.grown.as_ref().map_or_else(String::new, |GrownShown { grown, database_bytes }| {
            format!(
                "  from the beginning {} payments of a year in the books ({:.1} GB), {} dead letters parked, {} messages \
                 waiting at the broker\n",
                grown.payments,
                *database_bytes as f64 / 1e9,
                grown.dead_letters,
                grown.backlog
            )
        });
        let medians = if *runs > 1 { format!("; medians of {runs} runs, range in brackets") } else { String::new() };
        format!(
            "  {} payments, {load}{medians}\n  captured {capture}; the acquirer takes {acquirer_latency} ms{faults}; \
             {warm_up} payments to warm up\n  {topology}; {profile} build; {cpus} CPUs for everything; \
             PostgreSQL {}, RabbitMQ {}\n{grown}",
            self.payments,
            version(&servers.database.version),
            version(&servers.broker.version),
        )
    }

    /// The range of a figure, where there is one.
    fn range_of(&self, path: &str) -> String {
        let range = self.range.get(path);
        range.map_or_else(String::new, |[least, most]| format!("  [{} to {}]", short(*least), short(*most)))
    }

    fn write_rates(&self, text: &mut String) {
        let Figures { end_to_end_payments_per_s, accept_per_s, share, ceiling, quiet_after_s, .. } = &self.figures;
        let mut line = |value: f64, what: &str, path: &str| {
            text.push_str(&format!("  {:>9} {what}{}\n", short(value), self.range_of(path)));
        };
        line(*end_to_end_payments_per_s, "payments/s end to end", "end_to_end_payments_per_s");
        line(*accept_per_s, "accepts/s", "accept_per_s");
        if let (Some(share), Some(ceiling)) = (share, ceiling) {
            let queues = ceiling.quorum_queues;
            let messages =
                format!("messages/s: the broker's ceiling ({queues} quorum queues, confirmed, consumed, acked)");
            line(ceiling.quorum_messages_per_s, &messages, "ceiling.quorum_messages_per_s");
            line(*share, "payments for each of these messages: the share reached", "share");
            line(ceiling.batched_rows_per_s, "rows/s: the database's, in batches of 500", "ceiling.batched_rows_per_s");
            line(ceiling.single_commits_per_s, "commits/s of one row each", "ceiling.single_commits_per_s");
            line(ceiling.single_confirm_ms.p50, "ms for one confirm alone (p50)", "ceiling.single_confirm_ms.p50");
            line(ceiling.single_commit_ms.p50, "ms for one commit alone (p50)", "ceiling.single_commit_ms.p50");
        }
        match quiet_after_s {
            Some(seconds) => line(*seconds, "s after the last entry all was quiet, receipts sent", "quiet_after_s"),
            None => text.push_str("  it did not come to rest\n"),
        }
        text.push('\n');
    }

    fn write_outage(&self, text: &mut String) {
        let Some(outage) = &self.figures.outage else { return };
        let mut line = |value: String, what: &str| text.push_str(&format!("  {value:>9} {what}\n"));
        line(short(outage.seconds), &format!("s without the broker, from {:.1} s on", outage.began_s));
        line(outage.offered_meanwhile.to_string(), "payments offered meanwhile");
        line(outage.accepted_meanwhile.to_string(), "of these accepted");
        line(outage.refused.to_string(), "refused or not answered, in the whole run");
        line(outage.lost.to_string(), "accepted and lost");
        line(short(outage.longest_wait_s), "s was the longest wait for an end");
        line(outage.backlog.to_string(), "payments waited when the broker was back");
        match (outage.gone_after_s, outage.payments_per_s) {
            (Some(seconds), Some(rate)) => {
                line(short(seconds), "s later the last of them was over");
                line(short(rate), "payments/s from the return until then");
            }
            (Some(seconds), None) => line(short(seconds), "s later the last of them was over"),
            (None, _) => text.push_str("  not all of them came to an end\n"),
        }
        text.push('\n');
    }

    fn write_latencies(&self, text: &mut String) {
        let head = format!("  {:<26} {:>9} {:>9} {:>9} {:>9}  ms\n", "from the POST until", "p50", "p95", "p99", "max");
        text.push_str(&head);
        for (stage, name) in STAGES {
            if let Some(Percentiles { p50, p95, p99, max }) = self.figures.latency_ms.get(stage) {
                let range = self.range_of(&format!("latency_ms.{stage}.p50"));
                text.push_str(&format!("  {name:<26} {p50:>9.1} {p95:>9.1} {p99:>9.1} {max:>9.1}{range}\n"));
            }
        }
        text.push('\n');
    }

    /// The budget: processor time by part, and memory.
    fn write_parts(&self, text: &mut String) {
        let Figures { cpu_ms_per_payment: cpu, memory_mb, peak_memory_mb, per_payment, .. } = &self.figures;
        let number =
            |value: Option<f64>, digits| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.digits$}"));
        let get = |values: &crate::bench::ByPart, part: &str| values.get(part).copied().flatten();
        let total = get(cpu, "total");
        text.push_str(&format!(
            "  {:<12} {:>14} {:>7} {:>10} {:>8} {:>8}  MB\n",
            "", "CPU ms/payment", "%", "at start", "at end", "peak"
        ));
        for part in self.parts.iter().copied().chain(["total"]) {
            let ms = get(cpu, part);
            let percent = ms.zip(total).filter(|(_, total)| *total > 0.0).map(|(ms, total)| ms / total * 100.0);
            let memories = [&memory_mb.start, &memory_mb.end, peak_memory_mb].map(|values| match part {
                "total" => String::new(),
                part => number(get(values, part), 0),
            });
            let range = self.range_of(&format!("cpu_ms_per_payment.{part}"));
            text.push_str(&format!(
                "  {part:<12} {:>14} {:>7} {:>10} {:>8} {:>8}{range}\n",
                number(ms, 3),
                number(percent, 1),
                memories[0],
                memories[1],
                memories[2],
            ));
        }
        let (busy, foreign) = (self.figures.cpu_busy_share * 100.0, self.figures.cpu_foreign_share * 100.0);
        text.push_str(&format!("  these kept the CPUs {busy:.0} % busy, anything else {foreign:.0} %\n"));
        text.push_str(&format!(
            "  a payment: {} statements, {} commits, {} messages, {} bytes of WAL\n\n",
            number(per_payment.statements, 2),
            short(per_payment.commits),
            short(per_payment.messages),
            short(per_payment.wal_bytes.round()),
        ));
    }
}

/// As many digits as mean something.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}
