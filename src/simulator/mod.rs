//! The acquirer simulator: the other end of `schemas/acquirer.openapi.json`, with books of its own that an outsider
//! can read, and cards that make it fail in every way an acquirer is known to.
//!
//! It is a real server on a real socket. It keeps no card data but the last four digits that the bank's page shows. It takes any bearer token and is meant for
//! development, tests and the demo.

mod acs;
mod api;
mod bank;
mod books;
pub mod cards;
mod confirmation;
mod entry;
mod latency;
mod socket;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::bank::Bank;
pub use self::books::{BookRow, BookState};
pub use self::latency::Latency;
pub(crate) use self::latency::chance;
pub(crate) use self::socket::{Line, Lines};
use crate::clock::Clock;

/// How the simulator behaves beyond what the test cards say.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// Added to every request of the contract before it is acted on. None by default.
    pub latency: Latency,
    /// What decides about a distributed latency.
    pub seed: u64,
    /// How long a slow authorization takes. 2 s by default.
    pub slow: Duration,
    /// How long inquiries do not find a late authorization. 5 s by default.
    pub late: Duration,
    /// How long a challenge stays open. 10 minutes by default.
    pub challenge: Duration,
    /// How long a challenge that expires fast stays open. 2 s by default.
    pub short_challenge: Duration,
    /// What a busy answer asks to wait; rounded up to seconds. 1 s by default.
    pub retry_after: Duration,
    /// How many references are remembered, about 500 bytes each; beyond that, everything new is refused with 503 and
    /// `Retry-After`. Nothing is ever forgotten, because forgetting a reference would break idempotency. A million by
    /// default.
    pub max_operations: usize,
    /// Numbers that behave like this, before the test cards are looked at. None by default.
    pub cards: Vec<(String, cards::Behaviour)>,
    /// How a browser reaches this simulator, for the links in challenges. By default what the request's `Host` says.
    pub public_url: Option<String>,
    /// Who is paid, on the bank's page. `Tolom` by default.
    pub merchant: String,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            latency: Latency::NONE,
            seed: 0,
            slow: Duration::from_secs(2),
            late: Duration::from_secs(5),
            challenge: Duration::from_secs(600),
            short_challenge: Duration::from_secs(2),
            retry_after: Duration::from_secs(1),
            max_operations: 1_000_000,
            cards: Vec::new(),
            public_url: None,
            merchant: "Tolom".to_owned(),
        }
    }
}

/// The simulator. A clone is another handle on the same books.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    options: SimulatorOptions,
    /// Requests that have waited.
    waits: AtomicU64,
    bank: Mutex<Bank>,
}

impl Simulator {
    /// A simulator with empty books and default options.
    pub fn new(clock: Clock) -> Self {
        Self::with_options(clock, SimulatorOptions::default())
    }

    /// A simulator with empty books.
    pub fn with_options(clock: Clock, options: SimulatorOptions) -> Self {
        let bank = Mutex::new(Bank::new(options.max_operations));
        Self(Arc::new(Inner { clock, options, waits: AtomicU64::new(0), bank }))
    }

    /// The books, in the order of arrival: the same rows as `GET /books`.
    pub fn books(&self) -> Vec<BookRow> {
        let now = self.0.clock.now();
        books::rows(&mut self.bank(), now)
    }

    /// How many requests came under a reference that was known by then, and were answered with what stands there.
    pub fn repeats(&self) -> u64 {
        self.bank().repeats()
    }

    /// What the next request waits.
    fn latency(&self) -> Duration {
        let Inner { options, waits, .. } = &*self.0;
        options.latency.draw(options.seed, waits.fetch_add(1, Ordering::Relaxed))
    }

    /// No rule leaves the memory half-changed when it panics, so a poisoned lock is as good as a whole one.
    fn bank(&self) -> MutexGuard<'_, Bank> {
        self.0.bank.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the contract, `GET /books`, `GET /health` and the bank's confirmation page until `shutdown`.
///
/// Requests that are never answered end with it: their connections are cut.
pub async fn serve(listener: TcpListener, simulator: Simulator, shutdown: CancellationToken) -> io::Result<()> {
    let router = api::router(simulator, shutdown.clone());
    axum::serve(Lines::new(listener), router.into_make_service_with_connect_info::<Line>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
