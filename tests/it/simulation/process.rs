//! A process of ours: every role in one, with a relay and a publisher of its own, that may crash and freeze.

use std::sync::{Arc, Mutex};

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tolom::{
    acquirer::Circuit,
    broker::{Broker, Detached, Publisher},
    clock::Clock,
    config::Config,
    relay::{self, Announced, Relay},
    sealing::{FingerprintKey, KeyDir},
    store::{outbox::OutboxRow, sessions::Sessions},
    worker::Context,
    workers::{authorize::Authorize, capture::Capture, record::Record},
};

use super::{acquirer::Desk, bank::Bank, gates::Stage};

/// What is the same for every process of a run.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) config: Arc<Config>,
    pub(super) pool: PgPool,
    pub(super) broker: Broker,
    pub(super) clock: Clock,
    pub(super) keys: Arc<KeyDir>,
    pub(super) fingerprints: Arc<FingerprintKey>,
    pub(super) stage: Arc<Stage>,
    pub(super) bank: Arc<Mutex<Bank>>,
}

pub(super) struct Process {
    pub(super) number: usize,
    /// How often it has been started again.
    pub(super) life: u32,
    pub(super) context: Context,
    pub(super) authorize: Arc<Authorize>,
    pub(super) record: Arc<Record>,
    pub(super) capture: Arc<Capture>,
    announced: mpsc::Receiver<Announced>,
    pub(super) published: Detached,
    /// Announced rows that the relay has not begun to publish.
    pub(super) held: Vec<OutboxRow>,
    pub(super) frozen: Option<Freeze>,
    /// When its pollers were last at work: resolve, the two sweeps, the upkeep of cards.
    pub(super) polled: [OffsetDateTime; 4],
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Freeze {
    pub(super) since: OffsetDateTime,
    pub(super) until: OffsetDateTime,
}

impl Process {
    pub(super) fn start(ground: &Ground, number: usize, life: u32) -> Self {
        let (publisher, published) = Publisher::detached(std::time::Duration::from_secs(3_600));
        let (relay, announced): (Relay, _) = relay::channel(1_000);
        let desk =
            Desk { stage: Arc::clone(&ground.stage), bank: Arc::clone(&ground.bank), clock: ground.clock.clone() };
        let context = Context {
            config: Arc::clone(&ground.config),
            pool: ground.pool.clone(),
            // Who works passes a gate.
            sessions: Sessions::passing(ground.pool.clone()),
            broker: ground.broker.clone(),
            publisher,
            relay,
            acquirer: Arc::new(desk),
            circuit: Circuit::new(&ground.config.acquirer),
            clock: ground.clock.clone(),
            owner: format!("process {number}.{life}").into(),
            stop: CancellationToken::new(),
        };
        Self {
            number,
            life,
            authorize: Arc::new(Authorize::new(
                context.clone(),
                Arc::clone(&ground.keys),
                Arc::clone(&ground.fingerprints),
            )),
            record: Arc::new(Record::new(context.clone())),
            capture: Arc::new(Capture::new(context.clone())),
            context,
            announced,
            published,
            held: Vec::new(),
            frozen: None,
            polled: [ground.clock.now(); 4],
        }
    }

    /// Takes up what has been announced since.
    pub(super) fn listen(&mut self) {
        while let Ok(Announced { rows, .. }) = self.announced.try_recv() {
            self.held.extend(rows);
        }
    }
}
