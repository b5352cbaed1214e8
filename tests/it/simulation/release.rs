//! Letting an actor through its gate, with what the world has in store for it.

use tolom::{
    broker::{
        PublishError::{Refused, Unconfirmed},
        Unanswered,
    },
    contracts::{Event, OperationCompleted, Topic},
    payment::OperationKind,
};

use super::{
    gates::{At, Gate, Go, Hearing, Leave, Telling, Way},
    scheduler::Scheduler,
};

impl Scheduler<'_> {
    pub(super) async fn let_go(&mut self, gate: Gate) {
        let actor = gate.actor;
        let (at, opener) = gate.open();
        match at {
            At::Database => {
                self.say(&format!("#{actor} uses the database"));
                opener.go(Go::On);
            }
            At::Call(kind, reference) => {
                let leave = self.leave(&reference).await;
                let way = self.way(kind);
                self.called.entry(actor).or_default().push(reference.clone());
                let name = self.trace.reference(&reference);
                self.say(&format!("#{actor} sends {} {name}: {way:?}", kind.as_str()));
                opener.go(Go::Call(way, leave));
            }
            At::Answer(kind, reference) => {
                let hearing = match self.acquirer_away {
                    Some(_) => Hearing::Unheard,
                    None => self.weather.hearing(&mut self.chance),
                };
                let name = self.trace.reference(&reference);
                self.say(&format!("#{actor} waits for the answer to {} {name}: {hearing:?}", kind.as_str()));
                opener.go(Go::Answer(hearing));
            }
            At::Inquiry(kind, reference) => {
                let telling = match self.acquirer_away {
                    Some(_) => Telling::NoAnswer,
                    None => self.weather.telling(&mut self.chance),
                };
                // Saying no to what never came, or was no yes, is no lie.
                let approved = self.ground.bank.lock().unwrap().has_approved(&reference);
                let telling = if telling == Telling::Lie && !approved { Telling::Truth } else { telling };
                let name = self.trace.reference(&reference);
                self.say(&format!("#{actor} inquires for {} {name}: {telling:?}", kind.as_str()));
                opener.go(Go::Inquiry(telling));
            }
            At::Publish(unanswered) => self.publish(unanswered),
        }
    }

    /// What the books say of a reference right now.
    async fn leave(&mut self, reference: &str) -> Leave {
        let leave = sqlx::query_scalar("SELECT send_before FROM operation WHERE reference = $1")
            .bind(reference)
            .fetch_optional(self.database.own())
            .await
            .unwrap();
        Leave(leave)
    }

    fn way(&mut self, kind: OperationKind) -> Way {
        if self.acquirer_away.is_some() {
            return if self.chance.percent(50) { Way::Refused } else { Way::Lost };
        }
        let plan = self.weather.plan(&mut self.chance, kind);
        self.weather.way(&mut self.chance, plan)
    }

    /// What an unanswered publish comes to.
    fn publish(&mut self, unanswered: Unanswered) {
        let now = self.now();
        let message = &unanswered.message;
        let (mut stored, mut result) = (true, Ok(()));
        if !self.broker_is_there() {
            (stored, result) = (false, Err(Unconfirmed));
        } else if self.chance.percent(self.weather.refused_publish) {
            (stored, result) = (false, Err(Refused));
        } else if self.chance.percent(self.weather.unconfirmed) {
            // The confirm is lost, or the message was.
            (stored, result) = (self.chance.percent(50), Err(Unconfirmed));
        }
        if stored {
            self.rabbit.store(message, now);
            if let Ok(event) = Event::<OperationCompleted>::read(Topic::OperationCompleted, &message.body) {
                self.reported.insert(event.data.reference);
            }
        }
        let word = match (stored, result.is_ok()) {
            (true, true) => "confirmed",
            (true, false) => "stored, and not confirmed",
            (false, _) => "not stored",
        };
        self.say(&format!("publish {}: {word}", unanswered.message.routing_key));
        unanswered.answer(result);
    }
}
