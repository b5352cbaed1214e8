//! Gates: where an actor stops until the scheduler lets it go on. Every effect has one before it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Poll, Waker},
    time::Duration,
};

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tolom::{broker::Unanswered, payment::OperationKind};

use super::bank::Plan;

/// A step that takes longer hangs.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// Connections that may be on their way back into the pool while the next step begins.
pub(super) const SPARE: usize = 4;

/// What an actor is about to do.
#[derive(Debug)]
pub(super) enum At {
    /// Use a connection that it holds already: a transaction, or a statement of its own.
    Database,
    /// Send a request to the acquirer.
    Call(OperationKind, String),
    /// Hear what came of it.
    Answer(OperationKind, String),
    /// Ask what came of an operation.
    Inquiry(OperationKind, String),
    /// Publish a message.
    Publish(Unanswered),
}

/// What the scheduler says.
#[derive(Debug)]
pub(super) enum Go {
    On,
    Call(Way, Leave),
    Answer(Hearing),
    Inquiry(Telling),
}

/// What becomes of a request to the acquirer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// No connection: not a byte leaves.
    Refused,
    /// It leaves and never arrives.
    Lost,
    /// It arrives, and so perhaps does an answer.
    Arrives(Plan),
    /// It arrives when its sender has long given up.
    Late(Duration, Plan),
}

/// What the books say of a reference in the moment its bytes leave: whether it is stored, and the end of the leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leave(pub(super) Option<Option<OffsetDateTime>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    Heard,
    /// Timed out, reset, status 500.
    Unheard,
    /// The adapter panics.
    Panic,
}

/// What an inquiry is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Truth,
    NoAnswer,
    Pending,
    /// Though it may be there.
    NotFound,
    /// Declined, though it was approved.
    Lie,
}

pub(super) struct Gate {
    pub(super) id: u32,
    pub(super) actor: u32,
    pub(super) at: At,
    go: Option<oneshot::Sender<Go>>,
}

impl Gate {
    pub(super) fn open(self) -> (At, Opener) {
        (self.at, Opener(self.go))
    }
}

/// Lets an actor through its gate.
pub(super) struct Opener(Option<oneshot::Sender<Go>>);

impl Opener {
    pub(super) fn go(self, go: Go) {
        if let Some(sender) = self.0 {
            let _ = sender.send(go);
        }
    }
}

#[derive(Default)]
struct Inner {
    current: Option<u32>,
    gates: Vec<Gate>,
    made: u32,
    /// Connections in use, beside those that somebody is parked with.
    busy: usize,
    waker: Option<Waker>,
    violations: Vec<String>,
}

/// Where actors and their scheduler meet.
#[derive(Default)]
pub(super) struct Stage(Mutex<Inner>);

impl Stage {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Waits for leave to go on. Without an actor (the scheduler's own look into the database) there is no gate.
    pub(super) async fn pass(&self, at: At) -> Go {
        let (go, leave) = oneshot::channel();
        {
            let mut inner = self.inner();
            let Some(actor) = inner.current else { return Go::On };
            inner.put_up(actor, at, Some(go));
        }
        match leave.await {
            Ok(go) => go,
            // Taken away with its actor, which is about to be dropped.
            Err(_) => std::future::pending().await,
        }
    }

    /// A publish waits by itself, so its gate needs no sender.
    pub(super) fn publish(&self, actor: u32, message: Unanswered) {
        self.inner().put_up(actor, At::Publish(message), None);
    }

    /// A connection is in use from now on; whether by an actor.
    pub(super) fn taken(&self) -> bool {
        let mut inner = self.inner();
        inner.busy += 1;
        inner.current.is_some()
    }

    /// A connection was made, and is in use. An actor that waits for one is where no seed has put it.
    pub(super) fn made(&self) {
        let mut inner = self.inner();
        inner.busy += 1;
        if let Some(actor) = inner.current {
            inner.violations.push(format!("#{actor} had to wait for a connection: the run does not replay"));
        }
    }

    /// A connection has been given back, and nothing of its work is left to do.
    pub(super) fn returned(&self) {
        let mut inner = self.inner();
        inner.busy -= 1;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// A rule was broken in a moment that nobody could find again afterwards.
    pub(super) fn broken(&self, what: String) {
        self.inner().violations.push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// (gate, actor, how it is about the acquirer or the broker), in the order in which they were reached.
    pub(super) fn waiting(&self) -> Vec<(u32, u32)> {
        self.inner().gates.iter().map(|gate| (gate.id, gate.actor)).collect()
    }

    pub(super) fn take(&self, id: u32) -> Gate {
        let mut inner = self.inner();
        let index = inner.gates.iter().position(|gate| gate.id == id).expect("a gate that somebody waits at");
        inner.gates.remove(index)
    }

    /// Forgets an actor that is no more.
    pub(super) fn forget(&self, actor: u32) {
        let gone = {
            let mut inner = self.inner();
            let gates = std::mem::take(&mut inner.gates);
            let (gone, kept): (Vec<_>, Vec<_>) = gates.into_iter().partition(|gate| gate.actor == actor);
            inner.gates = kept;
            gone
        };
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let gates = std::mem::take(&mut self.inner().gates);
        drop(gates);
        let mut inner = self.inner();
        (inner.made, inner.violations) = (0, Vec::new());
    }

    /// Lets an actor run until it stands at gates, sleeps by the simulated clock, or is done (true).
    pub(super) async fn run(
        &self,
        actor: u32,
        pool: &PgPool,
        future: &mut Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> bool {
        let still = poll_fn(|context| {
            self.inner().current = Some(actor);
            let polled = future.as_mut().poll(context);
            let mut inner = self.inner();
            inner.current = None;
            if polled.is_ready() {
                return Poll::Ready(true);
            }
            if inner.busy == 0 {
                return Poll::Ready(false);
            }
            inner.waker = Some(context.waker().clone());
            Poll::Pending
        });
        let done = tokio::time::timeout(LONGEST_STEP, still).await.unwrap_or_else(|_| self.hangs(pool));
        self.settle(pool).await;
        done
    }

    /// Waits until nothing is at work in the database, and connections enough for the next step are back.
    pub(super) async fn settle(&self, pool: &PgPool) {
        let settled = async {
            poll_fn(|context| {
                let mut inner = self.inner();
                inner.waker = Some(context.waker().clone());
                if inner.busy == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            // The pool asks each connection that comes back whether it lives. That may go on meanwhile, for a few.
            while in_use(pool) > self.inner().parked() + SPARE {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONGEST_STEP, settled).await.unwrap_or_else(|_| self.hangs(pool));
    }

    fn hangs(&self, pool: &PgPool) -> ! {
        let inner = self.inner();
        let gates: Vec<_> = inner.gates.iter().map(|gate| format!("{}: {:?}", gate.actor, gate.at)).collect();
        let in_use = in_use(pool);
        drop(inner);
        panic!("a step hangs with {in_use} connections in use; at gates: {gates:?}")
    }
}

impl Inner {
    fn put_up(&mut self, actor: u32, at: At, go: Option<oneshot::Sender<Go>>) {
        self.made += 1;
        self.gates.push(Gate { id: self.made, actor, at, go });
    }

    fn parked(&self) -> usize {
        self.gates.iter().filter(|gate| matches!(gate.at, At::Database)).count()
    }
}

fn in_use(pool: &PgPool) -> usize {
    (pool.size() as usize).saturating_sub(pool.num_idle())
}
