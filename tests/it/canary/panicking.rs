//! The authorize worker in this process, with an acquirer's adapter that panics while it holds the card.

use std::{
    fs::File,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;
use tolom::{
    acquirer::{Acquirer, Call, Circuit},
    broker::{Broker, Publisher},
    clock::Clock,
    payment::{OperationKind, Outcome, card::Card, operation::Inquiry},
    relay::Relay,
    store::sessions::Sessions,
    worker::Context,
    workers,
};

use super::house::House;

/// Panics with everything in its message that it has in its hands.
struct Panics;

impl Acquirer for Panics {
    fn authorize<'a>(&'a self, call: &'a Call, card: &'a Card, _: bool) -> BoxFuture<'a, Outcome> {
        async move { panic!("cannot authorize {card:?} for {call:?}") }.boxed()
    }

    fn complete_challenge<'a>(
        &'a self,
        _: &'a Call,
        _: &'a str,
        _: &'a [(String, String)],
        _: bool,
    ) -> BoxFuture<'a, Outcome> {
        unreachable!("nobody is challenged here")
    }

    fn capture<'a>(&'a self, _: &'a Call, _: &'a str) -> BoxFuture<'a, Outcome> {
        unreachable!("another worker's")
    }

    fn reverse<'a>(&'a self, _: &'a Call, _: &'a str, _: bool) -> BoxFuture<'a, Outcome> {
        unreachable!("another worker's")
    }

    fn refund<'a>(&'a self, _: &'a Call, _: &'a str) -> BoxFuture<'a, Outcome> {
        unreachable!("another worker's")
    }

    fn inquire<'a>(&'a self, _: OperationKind, _: &'a str) -> BoxFuture<'a, Inquiry> {
        unreachable!("another worker's")
    }
}

pub(super) struct Worker {
    stop: CancellationToken,
    thread: JoinHandle<()>,
    panics: Arc<Mutex<String>>,
}

impl Worker {
    /// Starts it on a thread of its own, whose log goes to `logs/panicking.log`, down to the last trace.
    pub(super) fn start(house: &House) -> Self {
        let panics: Arc<Mutex<String>> = Arc::default();
        let (told, previous) = (Arc::clone(&panics), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            told.lock().unwrap().push_str(&format!("{panic}\n{}\n", std::backtrace::Backtrace::force_capture()));
            previous(panic);
        }));
        let log = Mutex::new(File::create(house.path("logs").join("panicking.log")).unwrap());
        let subscriber =
            tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(log).finish();
        let (config, stop) = (Arc::clone(&house.config), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let _log = tracing::subscriber::set_default(subscriber);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = tolom::store::connect(&config.database).unwrap();
                let broker = Broker::new(&config.broker);
                let publisher = Publisher::start(broker.clone());
                let (relay, _) =
                    Relay::start(pool.clone(), publisher.clone(), stopped.clone(), broker.supervisor().clone());
                let clock = Clock::system();
                let owner = "panicking".into();
                let (acquirer, sessions) = (Arc::new(Panics), Sessions::new(pool.clone()));
                let circuit = Circuit::new(&config.acquirer);
                let context = Context {
                    circuit,
                    config,
                    pool,
                    sessions,
                    broker,
                    publisher,
                    relay,
                    acquirer,
                    clock,
                    owner,
                    stop: stopped,
                };
                workers::authorize::run(context).await.unwrap();
            });
        });
        Self { stop, thread, panics }
    }

    /// Drains it: what the panics said.
    pub(super) fn stop(self) -> String {
        self.stop.cancel();
        self.thread.join().unwrap();
        self.panics.lock().unwrap().clone()
    }
}
