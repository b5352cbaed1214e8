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

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts logging to standard error. Repeating it changes nothing.
pub fn log(settings: &config::Log) {
    // lapin logs whole returned messages, bodies included.
    start_log(settings, std::io::stderr().is_terminal(), std::io::stderr);
}

/// Starts logging to a fresh file, for a command whose terminal is a table. Repeating it changes nothing.
pub fn log_to_file(settings: &config::Log, path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::create(path)?;
    start_log(settings, false, Mutex::new(file));
    Ok(())
}

fn start_log(settings: &config::Log, colours: bool, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
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
    let counters = [
        ("tolom_payments_total", "Payments that entered a status, by outcome"),
        ("tolom_worker_messages_total", "Messages settled, by queue and result"),
        ("tolom_worker_panics_total", "Panics that were caught, by the queue or task"),
        ("tolom_consumer_rebuilds_total", "Consumers built anew, by queue and reason"),
        ("tolom_requests_shed_total", "Requests refused for now, by what there is too much of"),
        ("tolom_limited_total", "Requests refused by a limit, by what it counts and what was asked"),
        ("tolom_published_messages_total", "Messages published, by what the broker answered"),
        ("tolom_receipts_total", "Attempts to send receipts, by result"),
        ("tolom_notices_total", "Attempts to send notices, by kind and result"),
        ("tolom_http_requests_total", "HTTP requests by route, method and status"),
    ];
    let gauges = [
        ("tolom_worker_in_flight", "Messages received and not settled"),
        ("tolom_consumers_alive", "Consumers of a queue in this process"),
        ("tolom_limits_shut", "Bills, browsers and cards that have to wait after too many declines"),
        ("tolom_queue_messages", "Messages waiting in a queue"),
        ("tolom_dead_letters", "Dead letters of a queue"),
        ("tolom_outbox_rows", "Committed messages not confirmed yet"),
        ("tolom_outbox_oldest_age_seconds", "Age of the oldest of them"),
        ("tolom_oldest_unknown_age_seconds", "Age of the oldest payment whose outcome is unknown"),
        ("tolom_payments_in_review", "Payments that a person has to settle"),
        ("tolom_broker_blocked", "1 while the broker blocks publishing"),
        ("tolom_captured_minor", "Captured less given back, in minor units, by source and currency"),
        ("tolom_conservation_difference_minor", "Largest difference between the sources, in minor units"),
        ("tolom_bills_paid_twice", "Bills with more than one payment that was taken"),
    ];
    let histograms = [
        ("tolom_operation_duration_seconds", "Calls to the acquirer"),
        ("tolom_worker_duration_seconds", "Batches handled"),
        ("tolom_stage_duration_seconds", "From the 202 to a stage of the payment"),
        ("tolom_http_request_duration_seconds", "HTTP requests"),
    ];
    counters.into_iter().for_each(|(name, about)| metrics::describe_counter!(name, about));
    gauges.into_iter().for_each(|(name, about)| metrics::describe_gauge!(name, about));
    histograms.into_iter().for_each(|(name, about)| metrics::describe_histogram!(name, metrics::Unit::Seconds, about));
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
