//! Logs and metrics. No card data, no secrets, no bodies: only ids, statuses and reasons of our own.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
    path::Path,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{self, LogFormat},
    contracts::mask::mask_text,
};

/// Seconds. Explicit buckets, for a summary cannot be aggregated over processes.
const BUCKETS: [f64; 16] =
    [0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 10.0, 30.0, 60.0];

/// Members of a batch.
const BATCHES: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

/// How often old histogram samples are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One series a label set, that only grows.
    Counter,
    /// One series a label set.
    Gauge,
    /// `_bucket`, `_sum` and `_count`, the first with the label `le`.
    Histogram,
}

/// A metric of ours.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// What it is.
    pub kind: Kind,
    /// Its name, in base units.
    pub name: &'static str,
    /// Its labels; never an id.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub about: &'static str,
}

/// Every metric there is.
pub const METRICS: [Metric; 35] = {
    use Kind::{Counter, Gauge, Histogram};
    [
        metric(
            Counter,
            "tolom_payments_total",
            &["outcome"],
            "Statuses that payments entered through the record worker",
        ),
        metric(
            Counter,
            "tolom_payments_submitted_total",
            &["result"],
            "Submissions at the intake, by what became of them",
        ),
        metric(Histogram, "tolom_intake_batch_size", &[], "Submissions accepted in one statement"),
        metric(
            Histogram,
            "tolom_stage_duration_seconds",
            &["stage"],
            "From the 202 to a stage of a payment whose payer did not have to confirm",
        ),
        metric(
            Histogram,
            "tolom_operation_duration_seconds",
            &["acquirer", "kind", "outcome"],
            "Calls to the acquirer",
        ),
        metric(
            Gauge,
            "tolom_acquirer_circuit_open",
            &["acquirer"],
            "1 while nothing but probes is sent to the acquirer",
        ),
        metric(
            Counter,
            "tolom_acquirer_circuit_opened_total",
            &["acquirer"],
            "Times that the circuit to the acquirer opened",
        ),
        metric(Counter, "tolom_worker_messages_total", &["queue", "result"], "Messages settled, by queue and result"),
        metric(Histogram, "tolom_worker_duration_seconds", &["queue"], "Batches handled"),
        metric(Gauge, "tolom_worker_in_flight", &["queue"], "Messages received and not settled"),
        metric(Counter, "tolom_worker_panics_total", &["worker"], "Panics that were caught, by the queue or task"),
        metric(Gauge, "tolom_consumers_alive", &["queue"], "Consumers of a queue in this process"),
        metric(
            Counter,
            "tolom_consumer_rebuilds_total",
            &["queue", "reason"],
            "Consumers built anew, by queue and reason",
        ),
        metric(Gauge, "tolom_queue_messages", &["queue"], "Messages waiting in a queue"),
        metric(Gauge, "tolom_dead_letters", &["queue"], "Dead letters of a queue at the broker"),
        metric(
            Gauge,
            "tolom_parked_dead_letters",
            &["queue"],
            "Dead letters of a queue that are parked and wait for a person",
        ),
        metric(Counter, "tolom_dead_letters_parked_total", &["queue"], "Dead letters taken from the broker and parked"),
        metric(
            Gauge,
            "tolom_figures_timestamp_seconds",
            &["of"],
            "When figures of the books, the limits or the queues were last taken",
        ),
        metric(Gauge, "tolom_outbox_rows", &[], "Committed messages not confirmed yet"),
        metric(Gauge, "tolom_outbox_oldest_age_seconds", &[], "Age of the oldest of them"),
        metric(
            Counter,
            "tolom_published_messages_total",
            &["result"],
            "Messages published, by what the broker answered",
        ),
        metric(Gauge, "tolom_broker_blocked", &[], "1 while the broker blocks publishing"),
        metric(Gauge, "tolom_oldest_unknown_age_seconds", &[], "Age of the oldest payment whose outcome is unknown"),
        metric(Gauge, "tolom_payments_in_review", &[], "Payments that a person has to settle"),
        metric(
            Gauge,
            "tolom_captured_minor",
            &["source", "currency"],
            "Captured less given back, in minor units, by source and currency",
        ),
        metric(
            Gauge,
            "tolom_conservation_difference_minor",
            &["source", "currency"],
            "How far a source is from the books, in minor units",
        ),
        metric(Gauge, "tolom_bills_paid_twice", &[], "Bills with more than one payment that was taken"),
        metric(Counter, "tolom_receipts_total", &["result"], "Attempts to send receipts, by result"),
        metric(Counter, "tolom_notices_total", &["kind", "result"], "Attempts to send notices, by kind and result"),
        metric(Counter, "tolom_sms_total", &["result"], "Attempts to send receipts by SMS, by result"),
        metric(
            Counter,
            "tolom_requests_shed_total",
            &["reason"],
            "Requests refused for now, by what there is too much of",
        ),
        metric(
            Counter,
            "tolom_limited_total",
            &["by", "what"],
            "Requests refused by a limit, by what it counts and what was asked",
        ),
        metric(
            Gauge,
            "tolom_limits_shut",
            &["by"],
            "Bills, browsers and cards that have to wait after too many declines",
        ),
        metric(
            Counter,
            "tolom_http_requests_total",
            &["route", "method", "status"],
            "HTTP requests by route, method and status",
        ),
        metric(Histogram, "tolom_http_request_duration_seconds", &["route", "method"], "HTTP requests"),
    ]
};

const fn metric(kind: Kind, name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { kind, name, labels, about }
}

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts logging to standard error. Repeating it changes nothing.
pub fn log(settings: &config::Log) {
    start_log(settings, std::io::stderr().is_terminal(), std::io::stderr);
}

/// Starts logging to a fresh file, for a command whose terminal is a table. Repeating it changes nothing.
pub fn log_to_file(settings: &config::Log, path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::create(path)?;
    start_log(settings, false, Mutex::new(file));
    Ok(())
}

fn start_log(settings: &config::Log, colours: bool, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    // lapin logs whole returned messages, bodies included.
    let filter = format!("{},lapin=error,lapin::returned_messages=off,tower_http=warn", settings.filter);
    let filter = EnvFilter::builder().parse_lossy(filter);
    let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(writer);
    let layer = match settings.format {
        LogFormat::Pretty => layer.compact().boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

/// From now on a panic is an error in the log like any other, on one line, and never quotes a card's number: whoever
/// holds a card must not tell it by failing (rule 7).
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        // Only where RUST_BACKTRACE asks for it. It names functions, never values.
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(panic.place = place, thread, backtrace, "panicked: {}", told(panic.payload_as_str()));
    }));
}

/// A panic's message as it may be told.
fn told(message: Option<&str>) -> String {
    mask_text(message.unwrap_or("no message").to_owned()).0
}

/// The recorder of this process; made at the first call, within a tokio runtime.
pub fn metrics() -> &'static PrometheusHandle {
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &BATCHES))
            .and_then(PrometheusBuilder::install_recorder)
            .expect("the buckets are not empty, and the recorder is installed once");
        describe();
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                upkeep.run_upkeep();
            }
        });
        handle
    })
}

fn describe() {
    for Metric { kind, name, about, .. } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, about),
            Kind::Gauge => metrics::describe_gauge!(name, about),
            Kind::Histogram => metrics::describe_histogram!(name, about),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_quotes_a_card_is_told_without_it() {
        assert_eq!(told(Some("index out of bounds")), "index out of bounds");
        assert_eq!(told(Some("invalid digit in `4111 1111 1111 1111`")), "invalid digit in `**** **** **** ****`");
        assert_eq!(told(None), "no message");
    }
}
