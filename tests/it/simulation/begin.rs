//! What begins: handlers with their messages, rounds of the pollers, and the errands of those outside.

use std::{pin::Pin, sync::Arc};

use tolom::{
    broker::{Handler, Message, Queue, Turn},
    contracts::Topic,
    workers::resolve,
};

use super::{
    people::{self, Errand},
    process::Process,
    rabbit::{Stored, Unacked},
    scheduler::{POLLERS, Scheduler},
};

impl Scheduler<'_> {
    pub(super) async fn deliver(&mut self, queue: Queue) {
        let now = self.now();
        let awake: Vec<usize> = (0..self.processes.len()).filter(|number| !self.is_frozen(*number)).collect();
        let process = *self.chance.pick(&awake);
        let most = 1 + self.chance.below(3);
        let mut batch: Vec<Stored> = Vec::new();
        for _ in 0..most {
            let width = u32::try_from(batch.len()).unwrap() + 1;
            let ready = self.rabbit.ready(queue, now);
            if ready.is_empty() || !self.room(width) {
                break;
            }
            let index = *self.chance.pick(&ready);
            let alone = self.rabbit.queue(queue)[index].parcel.attempt > 0;
            // What has failed before travels alone.
            if alone && !batch.is_empty() {
                break;
            }
            batch.push(self.rabbit.queue(queue).remove(index));
            if alone {
                break;
            }
        }
        let width = u32::try_from(batch.len()).unwrap();
        let actor = self.acted + 1;
        let mut messages = Vec::new();
        for stored in batch {
            let (message, watch) = Message::detached(stored.parcel.clone());
            messages.push(message);
            self.rabbit.deliver(Unacked { queue, stored, process, actor, watch: Some(watch) });
        }
        let (authorize, record, capture) = {
            let Process { authorize, record, capture, .. } = &self.processes[process];
            (Arc::clone(authorize), Arc::clone(record), Arc::clone(capture))
        };
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = match queue {
            Queue::Authorize => Box::pin(async move { authorize.handle(messages, Turn::default()).await }),
            Queue::Record => Box::pin(async move { record.handle(messages, Turn::default()).await }),
            _ => Box::pin(async move { capture.handle(messages, Turn::default()).await }),
        };
        self.start(process, format!("{} of {width}", queue.name()), width, None, None, future).await;
    }

    pub(super) async fn poll(&mut self, process: usize, poller: usize) {
        self.processes[process].polled[poller] = self.now();
        let context = self.processes[process].context.clone();
        let name = POLLERS[poller].0.to_owned();
        let width = if poller == 0 { self.batch() } else { 1 };
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = match poller {
            0 => Box::pin(async move { resolve::round(&context).await.expect("PostgreSQL is there") }),
            1 | 2 => Box::pin(async move {
                let entries = poller == 2;
                let topics = Topic::ALL.into_iter().filter(|topic| (*topic == Topic::SettlementEntry) == entries);
                if context.publisher.is_connected() {
                    tolom::relay::sweep_once(&context.pool, &context.publisher, &topics.collect::<Vec<_>>())
                        .await
                        .expect("PostgreSQL is there");
                }
            }),
            _ => Box::pin(async move {
                tolom::store::cards::truncate_past(&context.pool, &context.clock).await.expect("PostgreSQL is there");
            }),
        };
        self.start(process, name, width, Some(poller), None, future).await;
    }

    pub(super) async fn errand(&mut self, index: usize) {
        let (_, errand) = self.errands.remove(index);
        let awake: Vec<usize> = (0..self.processes.len()).filter(|number| !self.is_frozen(*number)).collect();
        let process = *self.chance.pick(&awake);
        let (context, seal, told) =
            (self.processes[process].context.clone(), self.seal.clone(), Arc::clone(&self.told));
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = match &errand {
            Errand::Submit(payer) => Box::pin(people::submit(context, *payer, self.payers[*payer].clone(), seal, told)),
            Errand::StoreCard(payer) => {
                Box::pin(people::store_card(context, *payer, self.payers[*payer].clone(), seal, told))
            }
            Errand::Answer(payment, right) => Box::pin(people::answer(context, *payment, *right, told)),
            Errand::PaidElsewhere(code) => Box::pin(people::change_bill(context, code.clone(), true, told)),
            Errand::Cancel(code) => Box::pin(people::change_bill(context, code.clone(), false, told)),
            Errand::Withdraw(payment) => Box::pin(people::withdraw(context, *payment, told)),
            Errand::Publish(..) | Errand::Garbage => return self.publish_from_outside(&errand),
        };
        let name = match &errand {
            Errand::Answer(payment, right) => {
                format!(
                    "payer of {} answers the bank ({})",
                    self.trace.name(*payment),
                    if *right { "right" } else { "wrong" }
                )
            }
            Errand::Withdraw(payment) => format!("a tool withdraws {}", self.trace.name(*payment)),
            other => format!("{other:?}"),
        };
        self.start(process, name, 1, None, Some(errand), future).await;
    }
}
