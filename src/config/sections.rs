//! The settings of each part, as `defaults.toml` has them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::Secret;
use crate::payment::limits::Velocity;

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Deserialize, Serialize)]
            #[serde(deny_unknown_fields)]
            #[expect(missing_docs, reason = "defaults.toml documents every key, once")]
            pub struct $name { $(pub $field: $type),* }
        )*
    };
}

sections! {
    /// PostgreSQL.
    Database { url: Secret, max_connections: u32 }
    /// RabbitMQ.
    Broker {
        url: Secret, prefix: String, publish_timeout_ms: u64, retry_delays_ms: Vec<u32>, max_attempts: u32, max_queue_length: u32,
        watchdog_s: u64,
    }
    /// The HTTP intake.
    Intake {
        listen: String, public_url: String, max_body_bytes: usize, max_in_flight: usize, lookups_per_minute: u32,
        proxies: Vec<String>, idempotency_keep_days: u32, max_outbox_rows: u64,
    }
    /// The port for operators.
    Admin { listen: String }
    /// Sealing keys.
    Sealing { keys_dir: String, seal_hours: u32, keep_hours: u32, rotate: bool }
    /// Limits against guessed codes and stolen cards.
    Limits {
        codes: Velocity, client: Velocity, bill: Velocity, device: Velocity, card: Velocity, address: Velocity, device_bills: u32,
        fingerprint_key_path: String,
    }
    /// The acquirer.
    Acquirer {
        name: String, url: String, insecure: bool, token: Secret, connect_timeout_ms: u64, answer_timeout_ms: u64,
        send_within_ms: u64, grace_ms: u64, finality_hours: u32, hold_hours: u32, circuit_failures: u32,
        circuit_open_ms: u64, circuit_longest_open_ms: u64, capture: CaptureMode,
    }
    /// How a worker takes messages.
    Batching { batch: usize, prefetch: u16 }
    /// The notice worker.
    Notice {
        poll_ms: u64, batch: i64, unknown_after_s: u32, receipt_after_s: u32, retry_s: u32, longest_retry_s: u32,
        give_up_days: u32, hold_days: u32,
    }
    /// The resolve worker.
    Resolve {
        poll_ms: u64, batch: i64, schedule_s: Vec<u32>, give_up_hours: u32, stalled_after_s: u32,
    }
    /// The park worker.
    Park { batch: usize, prefetch: u16, keep_days: u32, audit_days: u32 }
    /// Outgoing mail.
    Mail { url: Secret, from: String, domain: String, claim_s: u64 }
    /// Outgoing short messages.
    Sms { url: String, token: Secret, from: String, timeout_ms: u64, give_up_days: u32 }
    /// Who stands on receipts.
    Operator { name: String, phone: String, email: String }
    /// Logs.
    Log { format: LogFormat, filter: String }
    /// The acquirer simulator.
    Simulator { listen: String, public_url: String }
    /// Draining.
    Shutdown { drain_s: u64 }
    /// A kind of bill, by the first digits of its code.
    Service { prefix: String, service: String }
    /// A version of the user agreement.
    Terms { version: String, in_force_from: String }
    /// A version of another document of the payer's site.
    Document { document: String, version: String, in_force_from: String }
    /// The payer's site.
    Site { documents_dir: String }
}

/// When the money is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// Held by the authorization, taken once the books have it.
    AfterRecording,
    /// Taken in the authorization's own message.
    AtAuthorization,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Limits {
    /// Each rule with its name.
    pub(super) fn velocities(&self) -> [(&'static str, &Velocity); 6] {
        [
            ("codes", &self.codes),
            ("client", &self.client),
            ("bill", &self.bill),
            ("device", &self.device),
            ("card", &self.card),
            ("address", &self.address),
        ]
    }

    /// The file of the key of card fingerprints.
    pub fn fingerprint_key_file(&self, sealing: &Sealing) -> PathBuf {
        match self.fingerprint_key_path.as_str() {
            "" => Path::new(&sealing.keys_dir).join("card-fingerprint.key"),
            path => PathBuf::from(path),
        }
    }

    /// How long it is remembered from where a payment came.
    pub fn origin_window(&self) -> time::Duration {
        self.address.window().max(self.device.window())
    }
}

/// RFC 1122 3.2.1.3, RFC 4291 2.5.3 and RFC 6761 6.3.
fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl Acquirer {
    /// Where the acquirer is; none for an address that cannot be used. Cards go there in clear but for TLS, so it is
    /// https, or stays within this machine, or `insecure` says that whoever is between may see them.
    pub fn address(&self) -> Option<Url> {
        let url = Url::parse(&self.url).ok()?;
        let fits = match url.scheme() {
            "https" => true,
            "http" => self.insecure || is_this_machine(&url),
            _ => false,
        };
        fits.then_some(url)
    }

    /// Whether cards leave this machine in clear.
    pub fn sends_in_clear(&self) -> bool {
        self.address().is_some_and(|url| url.scheme() == "http" && !is_this_machine(&url))
    }

    /// How long one call may take at most, connecting included.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms + self.answer_timeout_ms)
    }

    /// From the claim until `resolve` may touch the operation (rule 3).
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.send_within_ms + self.grace_ms) + self.call_timeout()
    }
}
