//! Authorize: claim, open the card, check it, call the acquirer, report.
//!
//! Cards are opened in here (`cards`) and sent from here: the only place where a card is in clear. The claim is committed
//! before any byte leaves; a redelivery that finds a claim makes no call (rule 3).

mod cards;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use self::cards::{Cards, Opened};
use super::admission::{Admission, admit};
use crate::{
    broker::{Handler, Message, Queue, Reading, Turn, Verdict},
    chain::chain,
    config::Config,
    contracts::{ChallengeCompleted, Event, PaymentRequested, Topic},
    payment::{Outcome, card::MaskedCard, operation::Decline},
    sealing::{self, FingerprintKey, KeyDir},
    store::{
        cards as sealed_cards,
        operations::{self, Claim, Claimed, SealedCard},
    },
    worker::{Context, Leave, Worker, run as run_worker, unknown_if_it_panics},
};

/// How far apart batches of several messages begin; see `Reading::linger`.
const LINGER: Duration = Duration::from_millis(20);
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

/// The worker.
pub struct Authorize {
    context: Context,
    cards: Cards,
}

/// Builds the worker and runs it until the context stops.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let keys = Arc::new(KeyDir::open(&context.config.sealing.keys_dir)?);
    let supervisor = context.supervisor().clone();
    let upkeep = supervisor.keep("sealing upkeep", || upkeep(&context, &keys));
    let key_file = context.config.limits.fingerprint_key_file(&context.config.sealing);
    let fingerprints = Arc::new(FingerprintKey::open(&key_file)?);
    cards::count_limited(0);
    let worker = Authorize::new(context.clone(), Arc::clone(&keys), fingerprints);
    futures::join!(run_worker(context.clone(), worker), upkeep);
    Ok(())
}

impl Authorize {
    /// The worker of this context, which opens cards with these keys, and knows them again by this one.
    pub fn new(context: Context, keys: Arc<KeyDir>, fingerprints: Arc<FingerprintKey>) -> Self {
        Self { cards: Cards { context: context.clone(), keys, fingerprints }, context }
    }
}

impl Worker for Authorize {
    const NAME: &'static str = "authorize";

    fn reading(config: &Config) -> Reading {
        let settings = &config.authorize;
        Reading { queue: Queue::Authorize, batch: settings.batch, prefetch: settings.prefetch, linger: LINGER }
    }
}

/// What a message asks for.
enum Asked {
    Authorize(Box<Event<PaymentRequested>>),
    Complete(Uuid),
}

fn read(body: &[u8]) -> Result<Asked, String> {
    let topic = Topic::of(body).map_err(|error| error.to_string())?;
    match topic {
        Topic::PaymentRequested => {
            let event = Event::<PaymentRequested>::read(topic, body).map_err(|error| error.to_string())?;
            Ok(Asked::Authorize(Box::new(event)))
        }
        Topic::PaymentChallengeCompleted => {
            let event = Event::<ChallengeCompleted>::read(topic, body).map_err(|error| error.to_string())?;
            Ok(Asked::Complete(event.data.payment))
        }
        other => Err(format!("`{}` is no work for this queue", other.routing_key())),
    }
}

impl Handler for Authorize {
    async fn handle(&self, batch: Vec<Message>, turn: Turn) {
        let (mut requests, mut returns) = (Vec::new(), Vec::new());
        for message in batch {
            match read(&message.body) {
                Ok(Asked::Authorize(event)) => requests.push((message, event)),
                Ok(Asked::Complete(payment)) => returns.push((message, payment)),
                Err(reason) => message.settle(Verdict::Dead(reason)),
            }
        }
        futures::join!(self.authorize(requests, turn.clone()), self.complete(returns, turn));
    }
}

/// Messages that ask for an authorization.
type Requests = Vec<(Message, Box<Event<PaymentRequested>>)>;

impl Authorize {
    /// Authorizes as many as the acquirer's circuit admits, and the rest when it admits more.
    async fn authorize(&self, mut requests: Requests, turn: Turn) {
        let (since, mut turn) = (Instant::now(), Some(turn));
        while !requests.is_empty() {
            let calls = match self.context.leave_to_call(since).await {
                Leave::Calls(calls) => calls,
                Leave::Later => return requests.into_iter().for_each(|(message, _)| message.leave()),
                Leave::NotYet => {
                    turn = None;
                    requests = self.still_waiting(requests).await;
                    continue;
                }
            };
            let rest = requests.split_off(calls.min(requests.len()));
            self.authorize_now(std::mem::replace(&mut requests, rest), turn.take()).await;
        }
    }

    /// While the acquirer is away, payments wait within their card's life, and then end *not charged*.
    async fn still_waiting(&self, requests: Requests) -> Requests {
        let requests: Requests = requests.into_iter().filter(|(message, _)| !message.is_abandoned()).collect();
        let payments: Vec<Uuid> = requests.iter().map(|(_, event)| event.data.payment).collect();
        // Should the database be away too, they go on waiting.
        let failed = operations::fail_without_card(&self.context.pool, &payments, &self.context.terms()).await;
        let Ok((ended, facts)) = failed else { return requests };
        self.context.relay.announce(facts);
        let (over, waiting): (Requests, Requests) =
            requests.into_iter().partition(|(_, event)| ended.contains(&event.data.payment));
        over.into_iter().for_each(|(message, _)| message.settle(Verdict::Done));
        waiting
    }

    async fn authorize_now(&self, requests: Requests, turn: Option<Turn>) {
        let payments = requests.iter().map(|(_, event)| event.data.payment).collect();
        let Some(mut claims) = self.claim(payments).await else {
            return requests.into_iter().for_each(|(message, _)| message.leave());
        };
        drop(turn);
        let (mut work, mut claimed, mut unclaimed) = (Vec::new(), Vec::new(), HashSet::new());
        for (message, event) in requests {
            let payment = event.data.payment;
            match claims.remove(&payment) {
                Some(Ok(Claimed::NoSuchPayment)) => {
                    unclaimed.insert(payment);
                    work.push(Work::Admit(message, event));
                }
                Some(Ok(Claimed::Authorize(claim, card))) => claimed.push((message, claim, card)),
                Some(Ok(other)) => work.push(Work::Claimed(message, Box::new(other))),
                Some(Err(reason)) => {
                    unclaimed.insert(payment);
                    message.settle(Verdict::Dead(reason));
                }
                None if unclaimed.contains(&payment) => {
                    message.settle(Verdict::Retry("another message of this payment goes first".to_owned()));
                }
                // A second message of the same payment in this batch: the first one has the claim, and it is committed.
                None => message.settle(Verdict::Done),
            }
        }
        futures::join!(join_all(work.into_iter().map(|work| self.work(work))), self.authorize_all(claimed));
    }

    async fn claim(&self, payments: Vec<Uuid>) -> Option<HashMap<Uuid, Result<Claimed, String>>> {
        let context = &self.context;
        let claim = |part: Vec<Uuid>| async move {
            let (claimed, facts) = operations::claim_authorizations(&context.sessions, &part, &context.terms()).await?;
            context.relay.announce(facts);
            Ok(claimed)
        };
        context.each(payments, claim).await
    }

    async fn complete(&self, mut returns: Vec<(Message, Uuid)>, turn: Turn) {
        let (since, mut turn) = (Instant::now(), Some(turn));
        while !returns.is_empty() {
            let calls = match self.context.leave_to_call(since).await {
                Leave::Calls(calls) => calls,
                Leave::Later => return returns.into_iter().for_each(|(message, _)| message.leave()),
                Leave::NotYet => {
                    turn = None;
                    returns.retain(|(message, _)| !message.is_abandoned());
                    continue;
                }
            };
            let rest = returns.split_off(calls.min(returns.len()));
            self.complete_now(std::mem::replace(&mut returns, rest), turn.take()).await;
        }
    }

    async fn complete_now(&self, returns: Vec<(Message, Uuid)>, turn: Option<Turn>) {
        let context = &self.context;
        let claim = |part: Vec<Uuid>| async move {
            operations::claim_completions(&context.sessions, &part, &context.terms()).await
        };
        let payments = returns.iter().map(|(_, payment)| *payment).collect();
        let Some(mut claims) = context.each(payments, claim).await else {
            return returns.into_iter().for_each(|(message, _)| message.leave());
        };
        drop(turn);
        let mut work = Vec::with_capacity(returns.len());
        for (message, payment) in returns {
            match claims.remove(&payment).unwrap_or(Ok(Claimed::NotMine)) {
                Ok(claimed) => work.push(self.work(Work::Claimed(message, Box::new(claimed)))),
                Err(reason) => message.settle(Verdict::Dead(reason)),
            }
        }
        join_all(work).await;
    }

    async fn work(&self, work: Work) {
        let (message, claimed) = match work {
            Work::Admit(message, event) => return self.admit(message, &event).await,
            Work::Claimed(message, claimed) => (message, *claimed),
        };
        match claimed {
            Claimed::Authorize(claim, card) => self.authorize_all(vec![(message, claim, card)]).await,
            Claimed::Complete(claim, response) => self.complete_one(message, &claim, &response).await,
            Claimed::NoSuchPayment => message.settle(Verdict::Dead("there is no such payment".to_owned())),
            Claimed::NotMine | Claimed::Capture(_) => message.settle(Verdict::Done),
        }
    }

    async fn complete_one(&self, message: Message, claim: &Claim, response: &[(String, String)]) {
        let call = self.context.call(claim);
        let completed =
            self.context.acquirer.complete_challenge(&call, &claim.original, response, claim.capture_at_once);
        let outcome = unknown_if_it_panics(completed).await;
        self.finish(message, claim, None, outcome, None).await;
    }

    /// A payment we do not know: a foreign site's request, to be admitted and authorized, or refused.
    async fn admit(&self, message: Message, event: &Event<PaymentRequested>) {
        let payment = match admit(&self.context, event).await {
            Admission::Admitted(payment) => payment,
            Admission::Refused => return message.settle(Verdict::Done),
            Admission::Later(reason) => return message.settle(Verdict::Retry(reason)),
            Admission::Broken(reason) => return message.settle(Verdict::Dead(reason)),
            Admission::Stopped => return message.leave(),
        };
        match self.claim(vec![payment]).await.and_then(|mut claims| claims.remove(&payment)) {
            Some(Ok(Claimed::Authorize(claim, card))) => self.authorize_all(vec![(message, claim, card)]).await,
            Some(Ok(_)) => message.settle(Verdict::Done),
            Some(Err(reason)) => message.settle(Verdict::Dead(reason)),
            None => message.leave(),
        }
    }

    /// Opens the cards of a batch, holds them against their limit together, and sends what may be sent.
    async fn authorize_all(&self, claimed: Vec<(Message, Claim, SealedCard)>) {
        let mut opened: Vec<(Uuid, Opened)> =
            claimed.iter().map(|(_, claim, sealed)| (claim.payment, self.cards.open(sealed))).collect();
        self.cards.limit(&mut opened).await;
        let calls = claimed
            .into_iter()
            .zip(opened)
            .map(|((message, claim, sealed), (_, opened))| self.authorize_one(message, claim, sealed, opened));
        join_all(calls).await;
    }

    async fn authorize_one(&self, message: Message, claim: Claim, sealed: SealedCard, opened: Opened) {
        let (masked, outcome) = match opened {
            Opened::Refused(masked, reason) => (masked, Outcome::Declined(Decline { reason, code: None })),
            Opened::NoKeys(why) => (None, Outcome::NotSent { why }),
            Opened::Card(card) => {
                let call = self.context.call(&claim);
                let authorized = self.context.acquirer.authorize(&call, &card, claim.capture_at_once);
                (Some(card.masked()), unknown_if_it_panics(authorized).await)
            }
        };
        self.finish(message, &claim, masked, outcome, Some(sealed)).await;
    }

    /// Reports an outcome; what provably was not sent is released instead and tried again later.
    async fn finish(
        &self,
        message: Message,
        claim: &Claim,
        card: Option<MaskedCard>,
        outcome: Outcome,
        sealed: Option<SealedCard>,
    ) {
        tracing::debug!(payment.id = %claim.payment, kind = claim.kind.as_str(), outcome = outcome.as_str(), "called");
        if let Outcome::NotSent { why } = outcome {
            // In a box: it is seldom needed, and a thousand calls under way would each keep room for it.
            return Box::pin(self.give_back(message, claim, why, sealed)).await;
        }
        match self.context.report(claim, card, outcome).await {
            true => message.settle(Verdict::Done),
            false => message.leave(),
        }
    }

    /// Releases what provably was not sent, to be tried again later.
    async fn give_back(&self, message: Message, claim: &Claim, why: String, sealed: Option<SealedCard>) {
        let (pool, now) = (&self.context.pool, self.context.clock.now());
        let released = self
            .context
            .until_available(|| async {
                match &sealed {
                    Some(sealed) => operations::release_authorization(pool, claim, sealed, &why, now).await,
                    None => operations::release(pool, claim).await,
                }
            })
            .await;
        match released {
            Some(Ok(())) => message.settle(Verdict::Retry(why)),
            Some(Err(error)) => message.settle(Verdict::Dead(chain(&error))),
            None => message.leave(),
        }
    }
}

enum Work {
    Admit(Message, Box<Event<PaymentRequested>>),
    Claimed(Message, Box<Claimed>),
}

/// Keeps sealing keys fresh and truncates slices of sealed cards whose time has passed.
async fn upkeep(context: &Context, keys: &KeyDir) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = context.stop.cancelled() => return,
        }
        if context.config.sealing.rotate
            && let Err(error) =
                sealing::ensure_current(&context.pool, keys, &context.config.sealing, context.clock.now()).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "sealing keys cannot be rotated");
        }
        if let Err(error) = sealed_cards::truncate_past(&context.pool, &context.clock).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "expired sealed cards cannot be truncated");
        }
    }
}
