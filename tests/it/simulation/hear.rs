//! What those outside hear, and what they do about it.

use std::time::Duration;

use tolom::contracts::{Event, PaymentFact, Topic};
use uuid::Uuid;

use super::{
    faults::passing,
    people::{Errand, News},
    scheduler::Scheduler,
};

impl Scheduler<'_> {
    /// Takes up what people were told and what the facts say.
    pub(super) fn hear(&mut self) {
        let news = std::mem::take(&mut *self.told.lock().unwrap());
        for news in news {
            self.hear_news(news);
        }
        while self.facts_seen < self.rabbit.facts.len() {
            let (topic, body) = self.rabbit.facts[self.facts_seen].clone();
            self.facts_seen += 1;
            if !topic.is_command() && !matches!(topic, Topic::SettlementEntry | Topic::PaymentRefused) {
                let fact = Event::<PaymentFact>::read(topic, &body).expect("a fact of ours is readable").data;
                let name = self.trace.name(fact.payment);
                self.say(&format!("fact: {name} is {}", fact.status));
                self.react(topic, fact.payment);
            }
        }
    }

    fn hear_news(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Accepted(payer, payment) => {
                if !self.accepted.iter().any(|(_, known)| *known == payment) {
                    self.accepted.push((payer, payment));
                    let name = format!("pay{}", self.accepted.len());
                    self.trace.call(payment, name);
                    if self.chance.percent(15) {
                        self.errands.push((now, Errand::Withdraw(payment)));
                    }
                    if self.chance.percent(15) {
                        let at = now + passing(&mut self.chance);
                        self.errands.push((at, Errand::PaidElsewhere(self.payers[payer].bill.clone())));
                    }
                }
                let name = self.trace.name(payment);
                self.say(&format!("payer {payer} is answered 202: {name}"));
            }
            News::Refused(payer, why) => self.say(&format!("payer {payer} is refused: {why}")),
            News::CardStored(payer, card) => {
                let (event, payment) = (tolom::clock::new_id(), tolom::clock::new_secret_id());
                let wrong = self.chance.percent(10);
                for _ in 0..=self.chance.below(3) {
                    let at = now + passing(&mut self.chance);
                    self.errands.push((at, Errand::Publish(payer, event, payment, card, wrong)));
                }
            }
            News::Answered(payment, word) => {
                let name = self.trace.name(payment);
                self.say(&format!("the answer of {name} is {word}"));
            }
            News::Changed(what) => self.say(&what),
            News::Withdrawn(payment, word) => {
                let name = self.trace.name(payment);
                self.say(&format!("the withdrawal of {name} {word}"));
            }
            News::Failed(what) => self.stage().broken(format!("somebody was not answered: {what}")),
        }
    }

    /// What a payer does on hearing of the payment.
    fn react(&mut self, topic: Topic, payment: Uuid) {
        let now = self.now();
        match topic {
            Topic::PaymentChallenged => {
                for _ in 0..self.chance.below(3) {
                    let at = now + Duration::from_secs(self.chance.between(1, 700));
                    let right = self.chance.percent(80);
                    self.errands.push((at, Errand::Answer(payment, right)));
                }
            }
            Topic::PaymentDeclined | Topic::PaymentFailed | Topic::PaymentReversed => {
                let payer = self.accepted.iter().find(|(_, known)| *known == payment).map(|(payer, _)| *payer);
                if let Some(payer) = payer.filter(|payer| self.payers[*payer].tries < 2) {
                    let again = &mut self.payers[payer];
                    again.tries += 1;
                    again.key.push_str(", again");
                    self.errands.push((now + passing(&mut self.chance), Errand::Submit(payer)));
                }
            }
            _ => {}
        }
    }
}
