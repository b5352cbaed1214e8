//! What goes wrong beside the calls and publishes: crashes, freezes, panics, lost sessions, outages.

use std::time::Duration;

use super::{
    process::{Freeze, Process},
    scheduler::{Actor, Scheduler, WORKED},
};

impl Scheduler<'_> {
    /// A process's connection to the broker is lost: everything it has not acknowledged is delivered again, also while
    /// it is still at work on it.
    pub(super) fn lose_session(&mut self, process: usize) {
        let lost: Vec<u32> =
            self.rabbit.unacked.iter().filter(|(_, it)| it.process == process).map(|(delivery, _)| *delivery).collect();
        self.returns.retain(|it| it.process != process);
        if !lost.is_empty() {
            self.say(&format!("process {process} loses its session with {} messages", lost.len()));
        }
        lost.into_iter().for_each(|delivery| self.rabbit.redeliver(delivery));
    }

    /// A crash: what is in memory is gone.
    pub(super) async fn crash(&mut self, process: usize) {
        self.say(&format!("process {process} crashes"));
        self.lose_session(process);
        let (gone, kept): (Vec<Actor>, Vec<Actor>) =
            std::mem::take(&mut self.actors).into_iter().partition(|actor| actor.process == process);
        self.actors = kept;
        let now = self.now();
        for actor in gone {
            self.stage().forget(actor.id);
            self.errands.extend(actor.errand.clone().map(|errand| (now + Duration::from_secs(2), errand)));
        }
        let life = self.processes[process].life + 1;
        self.processes[process] = Process::start(&self.ground, process, life);
        self.processes[process].published.set_connected(self.broker_is_there());
        self.stage().settle(&self.database.pool).await;
        self.database.fill(&self.ground.stage).await;
    }

    /// An actor panics at a gate: its session goes on without it.
    async fn panic(&mut self, index: usize) {
        let actor = self.actors.remove(index);
        self.say(&format!("#{} {} panics", actor.id, actor.name));
        let id = actor.id;
        self.errands
            .extend(actor.errand.clone().map(|errand| (self.ground.clock.now() + Duration::from_secs(2), errand)));
        self.stage().forget(id);
        drop(actor);
        self.stage().settle(&self.database.pool).await;
        self.database.fill(&self.ground.stage).await;
        self.verdicts(id).await;
    }

    pub(super) async fn fault(&mut self) {
        let process = self.chance.below(self.processes.len());
        let now = self.now();
        match self.chance.below(20) {
            0..=4 => self.crash(process).await,
            5..=9 if !self.is_frozen(process) => {
                let most = *self.chance.pick(&[30, 60, 120, 1_200, 90_000]);
                let until = now + Duration::from_secs(self.chance.between(5, most));
                self.processes[process].frozen = Some(Freeze { since: now, until });
                self.say(&format!("process {process} freezes for {:.0} s", (until - now).as_seconds_f64()));
            }
            10 | 11 => self.lose_session(process),
            12 if !self.actors.is_empty() => {
                let index = self.chance.below(self.actors.len());
                self.panic(index).await;
            }
            13 | 14 if self.broker_is_there() => {
                self.broker_away = Some(now + Duration::from_secs(self.chance.between(1, 90)));
                self.say("the broker goes away");
                self.processes.iter().for_each(|process| process.published.set_connected(false));
                (0..self.processes.len()).for_each(|process| self.lose_session(process));
            }
            15 | 16 if self.acquirer_away.is_none() => {
                self.acquirer_away = Some(now + Duration::from_secs(self.chance.between(5, 600)));
                self.say("the acquirer goes away");
            }
            17 => {
                let cleared = self.ground.bank.lock().unwrap().clear_early(now);
                if let Some(reference) = cleared {
                    let name = self.trace.reference(&reference);
                    self.say(&format!("the bank clears {name} early"));
                }
            }
            18 => {
                let lapsed = self.ground.bank.lock().unwrap().lapse();
                if let Some(reference) = lapsed {
                    let name = self.trace.reference(&reference);
                    self.say(&format!("the bank lets the hold of {name} lapse"));
                }
            }
            _ => {
                let queue = *self.chance.pick(&WORKED);
                let now = self.now();
                if let Some(index) = self.rabbit.ready(queue, now).first().copied() {
                    let copy = self.rabbit.queue(queue)[index].clone();
                    self.say(&format!("a message of {} is there twice", queue.name()));
                    self.rabbit.queue(queue).push(copy);
                }
            }
        }
    }
}
