//! The scheduler: exactly one actor runs at a time, and a seed chooses what happens next.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use time::OffsetDateTime;
use tolom::{
    broker::{Fate, Outgoing, Queue, Verdict, onward},
    contracts::Topic,
};
use uuid::Uuid;

use super::{
    chance::Chance,
    database::{Database, PLACES},
    faults::{Weather, passing},
    gates::Stage,
    people::{self, Errand, Payer, Seal, Told},
    process::{Freeze, Ground, Process},
    rabbit::{Rabbit, Stored},
    trace::Trace,
};

/// A handler that is handed messages, a poller's round, or somebody outside: a future that stops at gates.
pub(super) struct Actor {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) process: usize,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Connections it may hold at the same time.
    width: u32,
    /// Which of its process's pollers it is; a poller waits for its round to end.
    poller: Option<usize>,
    /// Done again if its process crashes: whoever is outside repeats what was not answered.
    pub(super) errand: Option<Errand>,
    ran_at: OffsetDateTime,
}

/// A message on its way to a retry tier or to the dead letters; acknowledged only then.
pub(super) struct Return {
    delivery: u32,
    pub(super) process: usize,
    message: Outgoing,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Release(u32),
    Wake(u32),
    Deliver(Queue),
    Announce(usize),
    Return(usize),
    Errand(usize),
    Arrive(usize),
    Poll(usize, usize),
    Time,
    Fault,
}

pub(super) struct Scheduler<'a> {
    pub(super) ground: Ground,
    pub(super) database: &'a mut Database,
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    pub(super) trace: Trace,
    pub(super) rabbit: Rabbit,
    pub(super) processes: Vec<Process>,
    pub(super) actors: Vec<Actor>,
    pub(super) returns: Vec<Return>,
    pub(super) errands: Vec<(OffsetDateTime, Errand)>,
    pub(super) payers: Vec<Payer>,
    pub(super) seal: Seal,
    pub(super) told: Told,
    /// References that an actor has called the acquirer with, and those whose outcome the broker has.
    pub(super) called: BTreeMap<u32, Vec<String>>,
    pub(super) reported: BTreeSet<String>,
    /// Payments whose payers were answered 202.
    pub(super) accepted: Vec<(usize, Uuid)>,
    /// Messages that were made to fail.
    pub(super) poison: Vec<Vec<u8>>,
    /// The broker is away until then.
    pub(super) broker_away: Option<OffsetDateTime>,
    /// The acquirer answers nobody until then.
    pub(super) acquirer_away: Option<OffsetDateTime>,
    pub(super) facts_seen: usize,
    pub(super) acted: u32,
    told_time: OffsetDateTime,
    pub(super) steps: u32,
}

pub(super) const WORKED: [Queue; 3] = [Queue::Authorize, Queue::Record, Queue::Capture];
pub(super) const POLLERS: [(&str, Duration); 4] = [
    ("resolve", Duration::from_secs(1)),
    ("sweep", Duration::from_secs(1)),
    ("sweep entries", Duration::from_secs(1)),
    ("upkeep", Duration::from_secs(60)),
];

impl<'a> Scheduler<'a> {
    pub(super) fn new(
        ground: Ground,
        database: &'a mut Database,
        mut chance: Chance,
        seal: Seal,
        trace: Trace,
    ) -> Self {
        let weather = Weather::of(&mut chance);
        let count = 2 + chance.below(2);
        let processes = (0..count).map(|number| Process::start(&ground, number, 0)).collect();
        let rabbit = Rabbit::new(ground.broker.clone());
        let told_time = ground.clock.now();
        Self {
            ground,
            database,
            chance,
            weather,
            trace,
            rabbit,
            processes,
            actors: Vec::new(),
            returns: Vec::new(),
            errands: Vec::new(),
            payers: Vec::new(),
            seal,
            told: Arc::new(Mutex::new(Vec::new())),
            called: BTreeMap::new(),
            reported: BTreeSet::new(),
            accepted: Vec::new(),
            poison: Vec::new(),
            broker_away: None,
            acquirer_away: None,
            facts_seen: 0,
            acted: 0,
            told_time,
            steps: 0,
        }
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.ground.clock.now()
    }

    pub(super) fn say(&mut self, what: &str) {
        let now = self.now();
        self.trace.say(now, what);
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.ground.stage
    }

    pub(super) fn is_frozen(&self, process: usize) -> bool {
        self.processes[process].frozen.is_some()
    }

    pub(super) fn broker_is_there(&self) -> bool {
        self.broker_away.is_none()
    }

    /// Everything that may happen next, with its weight.
    pub(super) fn choices(&self) -> Vec<(u32, Step)> {
        let now = self.now();
        let mut steps = Vec::new();
        let waiting = self.stage().waiting();
        for (gate, actor) in &waiting {
            let runs = self.actors.iter().any(|it| it.id == *actor && !self.is_frozen(it.process));
            steps.extend(runs.then_some((8, Step::Release(*gate))));
        }
        for actor in self.actors.iter().filter(|actor| !self.is_frozen(actor.process) && actor.ran_at != now) {
            let parked = waiting.iter().any(|(_, at)| *at == actor.id);
            steps.extend((!parked).then_some((8, Step::Wake(actor.id))));
        }
        steps.extend(
            (0..self.returns.len())
                .filter(|at| !self.is_frozen(self.returns[*at].process))
                .map(|at| (8, Step::Return(at))),
        );
        for process in self.processes.iter().filter(|process| process.frozen.is_none() && !process.held.is_empty()) {
            steps.extend(self.room(1).then_some((8, Step::Announce(process.number))));
        }
        let awake = self.processes.iter().any(|process| process.frozen.is_none());
        if awake && self.broker_is_there() && self.room(1) {
            let ready = WORKED.into_iter().filter(|queue| !self.rabbit.ready(*queue, now).is_empty());
            steps.extend(ready.map(|queue| (8, Step::Deliver(queue))));
        }
        let due = |at: &OffsetDateTime| *at <= now;
        if awake && self.room(1) {
            steps
                .extend((0..self.errands.len()).filter(|at| due(&self.errands[*at].0)).map(|at| (5, Step::Errand(at))));
        }
        let bank = self.ground.bank.lock().unwrap();
        steps.extend((0..bank.inbox.len()).filter(|at| due(&bank.inbox[*at].0)).map(|at| (6, Step::Arrive(at))));
        steps
    }

    /// The pollers whose pause is over.
    pub(super) fn polls(&self) -> Vec<(u32, Step)> {
        let now = self.now();
        let mut steps = Vec::new();
        for process in self.processes.iter().filter(|process| process.frozen.is_none()) {
            for (poller, (_, every)) in POLLERS.iter().enumerate() {
                let busy =
                    self.actors.iter().any(|actor| actor.process == process.number && actor.poller == Some(poller));
                let width = if poller == 0 { self.batch() } else { 1 };
                let due = !busy && process.polled[poller] + *every <= now && self.room(width);
                steps.extend(due.then_some((2, Step::Poll(process.number, poller))));
            }
        }
        steps
    }

    pub(super) fn batch(&self) -> u32 {
        u32::try_from(self.ground.config.resolve.batch).unwrap()
    }

    /// Whether there are connections enough for an actor more.
    pub(super) fn room(&self, width: u32) -> bool {
        self.actors.iter().map(|actor| actor.width).sum::<u32>() + width <= PLACES
    }

    pub(super) async fn step(&mut self, step: Step) {
        self.steps += 1;
        match step {
            Step::Release(gate) => self.release(gate).await,
            Step::Wake(actor) => self.run(actor).await,
            Step::Deliver(queue) => self.deliver(queue).await,
            Step::Announce(process) => {
                let rows = std::mem::take(&mut self.processes[process].held);
                let name = format!("relay of {} rows", rows.len());
                let context = self.processes[process].context.clone();
                self.start(process, name, 1, None, None, Box::pin(people::relay(context, rows))).await;
            }
            Step::Return(index) => self.give_back(index),
            Step::Errand(index) => self.errand(index).await,
            Step::Arrive(index) => self.arrive(index),
            Step::Poll(process, poller) => self.poll(process, poller).await,
            Step::Time => {
                let by = passing(&mut self.chance);
                self.pass_time(by);
            }
            Step::Fault => self.fault().await,
        }
    }

    pub(super) fn pass_time(&mut self, by: Duration) {
        self.ground.clock.advance(by);
        let now = self.now();
        self.trace.say(now, &format!("time: {} ms pass", by.as_millis()));
        for number in 0..self.processes.len() {
            let Some(Freeze { since, until }) = self.processes[number].frozen else { continue };
            // The broker misses its heartbeats, and the rest of the world goes on without it.
            if since + Duration::from_secs(20) <= now {
                self.lose_session(number);
            }
            if until <= now {
                self.processes[number].frozen = None;
                self.say(&format!("process {number} goes on"));
            }
        }
        if self.broker_away.is_some_and(|until| until <= now) {
            self.broker_comes_back();
        }
        if self.acquirer_away.is_some_and(|until| until <= now) {
            self.acquirer_away = None;
            self.say("the acquirer is back");
        }
    }

    pub(super) fn broker_comes_back(&mut self) {
        self.broker_away = None;
        self.processes.iter().for_each(|process| process.published.set_connected(true));
        self.say("the broker is back");
    }

    async fn release(&mut self, id: u32) {
        let gate = self.ground.stage.take(id);
        let actor = gate.actor;
        self.let_go(gate).await;
        self.run(actor).await;
    }

    /// Starts an actor and lets it run to its first gates.
    pub(super) async fn start(
        &mut self,
        process: usize,
        name: String,
        width: u32,
        poller: Option<usize>,
        errand: Option<Errand>,
        future: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) {
        self.acted += 1;
        let id = self.acted;
        self.say(&format!("process {process} begins #{id} {name}"));
        let ran_at = self.now();
        self.actors.push(Actor { id, name, process, future, width, poller, errand, ran_at });
        self.run(id).await;
    }

    /// Lets an actor run to its next gates, and takes up everything that it has done meanwhile.
    async fn run(&mut self, id: u32) {
        let now = self.now();
        if self.told_time != now {
            self.database.set_time(now).await;
            self.told_time = now;
        }
        let Some(index) = self.actors.iter().position(|actor| actor.id == id) else { return };
        let stage = Arc::clone(&self.ground.stage);
        let done = stage.run(id, &self.database.pool, &mut self.actors[index].future).await;
        self.actors[index].ran_at = now;
        let process = self.actors[index].process;
        self.processes[process].listen();
        while let Some(unanswered) = self.processes[process].published.take() {
            stage.publish(id, unanswered);
        }
        if done {
            let name = self.actors.remove(index).name;
            self.say(&format!("#{id} {name} is done"));
        }
        self.verdicts(id).await;
        self.hear();
    }

    /// Acts on the verdicts of an actor's messages.
    pub(super) async fn verdicts(&mut self, actor: u32) {
        let deliveries: Vec<u32> =
            self.rabbit.unacked.iter().filter(|(_, it)| it.actor == actor).map(|(delivery, _)| *delivery).collect();
        for delivery in deliveries {
            let unacked = self.rabbit.unacked.get_mut(&delivery).expect("it was there just now");
            let Some(watch) = &mut unacked.watch else { continue };
            let fate = watch.fate();
            match fate {
                Fate::InHand => {}
                Fate::Left => self.rabbit.redeliver(delivery),
                Fate::Settled(Verdict::Done) => {
                    unacked.watch = None;
                    let (queue, body) = (unacked.queue, unacked.stored.parcel.body.clone());
                    super::effects::check(self, actor, queue, &body).await;
                    if self.chance.percent(self.weather.unacked) {
                        self.say(&format!("#{actor} is done with a message of {}; the ack is lost", queue.name()));
                        self.rabbit.redeliver(delivery);
                    } else {
                        self.rabbit.unacked.remove(&delivery);
                    }
                }
                Fate::Settled(verdict) => {
                    unacked.watch = None;
                    let (queue, parcel, process) = (unacked.queue, unacked.stored.parcel.clone(), unacked.process);
                    let why = format!("{verdict:?}");
                    let (message, _, word) = onward(&self.ground.broker, queue, parcel, verdict);
                    let why = self.trace.names_in(&why);
                    self.say(&format!("#{actor} sends a message of {} to {word}: {why}", queue.name()));
                    self.returns.push(Return { delivery, process, message });
                }
            }
        }
    }

    /// Publishes a message to its tier or its dead letters, and acknowledges it only then.
    fn give_back(&mut self, index: usize) {
        let now = self.now();
        if !self.broker_is_there() {
            return;
        }
        let fails = self.chance.percent(self.weather.unconfirmed);
        if fails && self.chance.percent(50) {
            return;
        }
        self.rabbit.store(&self.returns[index].message, now);
        if !fails {
            let done = self.returns.remove(index);
            self.rabbit.unacked.remove(&done.delivery);
        }
    }

    /// What comes from outside straight to the broker.
    pub(super) fn publish_from_outside(&mut self, errand: &Errand) {
        let now = self.now();
        if !self.broker_is_there() {
            return self.errands.push((now + Duration::from_secs(5), errand.clone()));
        }
        match errand {
            Errand::Publish(payer, event, payment, card, wrong) => {
                let body = people::foreign(&self.payers[*payer], *event, *payment, *card, *wrong, now);
                let name = self.trace.name(*payment);
                self.say(&format!("a foreign site publishes {name}"));
                self.rabbit.store(&Outgoing::event(Topic::PaymentRequested, *event, body, None), now);
            }
            _ => {
                let body = format!("garbage {}", self.steps).into_bytes();
                self.poison.push(body.clone());
                self.say("somebody publishes garbage");
                let queue = *self.chance.pick(&WORKED);
                self.rabbit.queue(queue).push(Stored {
                    parcel: tolom::broker::Parcel { id: "garbage".to_owned(), body, ..Default::default() },
                    ready_at: now,
                });
            }
        }
    }

    fn arrive(&mut self, index: usize) {
        let now = self.now();
        let (_, request, plan) = self.ground.bank.lock().unwrap().inbox.remove(index);
        let outcome = self.ground.bank.lock().unwrap().take(&request, plan, now);
        let name = self.trace.reference(&request.reference);
        self.say(&format!("late, {} {name} arrives at the bank: {}", request.kind.as_str(), outcome.as_str()));
    }
}
