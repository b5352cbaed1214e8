//! The simulated acquirer as the workers see it: the port's contract, kept, over a network that is not.

use std::sync::{Arc, Mutex};

use futures::{FutureExt, future::BoxFuture};
use tolom::{
    acquirer::{Acquirer, Call},
    clock::Clock,
    payment::{OperationKind, Outcome, card::Card, operation::Inquiry},
};

use super::{
    bank::{Bank, Request},
    gates::{At, Go, Hearing, Leave, Stage, Telling, Way},
};

/// The code that the bank wants to hear from a payer.
pub(super) const RIGHT_CODE: &str = "123456";

pub(super) struct Desk {
    pub(super) stage: Arc<Stage>,
    pub(super) bank: Arc<Mutex<Bank>>,
    pub(super) clock: Clock,
}

impl Desk {
    async fn call(&self, call: &Call, request: Request) -> Outcome {
        let Go::Call(way, leave) = self.stage.pass(At::Call(request.kind, request.reference.clone())).await else {
            unreachable!("a call is told its way")
        };
        let not_sent = |why: &str| Outcome::NotSent { why: why.to_owned() };
        if way == Way::Refused {
            return not_sent("connection refused");
        }
        // What the port asks of every adapter, right before its bytes leave.
        if !call.may_be_sent(self.clock.now()) {
            return not_sent("send_before has passed");
        }
        self.leaves(call, &request, leave);
        let now = self.clock.now();
        let answer = match way {
            Way::Refused | Way::Lost => None,
            Way::Arrives(plan) => Some(self.bank.lock().unwrap().take(&request, plan, now)),
            Way::Late(after, plan) => {
                self.bank.lock().unwrap().inbox.push((now + after, request.clone(), plan));
                None
            }
        };
        let unknown = |why: &str| Outcome::Unknown { why: why.to_owned() };
        match (self.stage.pass(At::Answer(request.kind, request.reference)).await, answer) {
            (Go::Answer(Hearing::Panic), _) => std::panic::resume_unwind(Box::new("the adapter panics")),
            (Go::Answer(Hearing::Heard), Some(answer)) => answer,
            (Go::Answer(_), None) => unknown("no answer"),
            (Go::Answer(Hearing::Unheard), Some(_)) => unknown("status 500"),
            (_, _) => unreachable!("an answer is told whether it is heard"),
        }
    }

    /// Rule 3, in the moment that it is about: the reference is stored, and the leave to send has not run out.
    fn leaves(&self, call: &Call, request: &Request, leave: Leave) {
        let (now, kind) = (self.clock.now(), request.kind.as_str());
        match leave.0 {
            None => self.stage.broken(format!("rule 3: {kind} {} left before it was stored", call.reference)),
            Some(books) if now >= call.send_before || books.is_some_and(|end| now >= end) => {
                self.stage.broken(format!("rule 3: {kind} {} left after its send_before", call.reference));
            }
            Some(_) => {}
        }
    }
}

fn request(kind: OperationKind, call: &Call, original: &str) -> Request {
    Request {
        kind,
        reference: call.reference.clone(),
        original: original.to_owned(),
        amount: call.amount,
        capture: false,
        confirmed: false,
    }
}

impl Acquirer for Desk {
    fn authorize<'a>(&'a self, call: &'a Call, _: &'a Card, capture: bool) -> BoxFuture<'a, Outcome> {
        let request = Request { capture, ..request(OperationKind::Authorize, call, &call.reference) };
        self.call(call, request).boxed()
    }

    fn complete_challenge<'a>(
        &'a self,
        call: &'a Call,
        original: &'a str,
        response: &'a [(String, String)],
        capture: bool,
    ) -> BoxFuture<'a, Outcome> {
        let confirmed = response.iter().any(|(name, value)| name == "otp" && value == RIGHT_CODE);
        let request = Request { capture, confirmed, ..request(OperationKind::CompleteChallenge, call, original) };
        self.call(call, request).boxed()
    }

    fn capture<'a>(&'a self, call: &'a Call, original: &'a str) -> BoxFuture<'a, Outcome> {
        self.call(call, request(OperationKind::Capture, call, original)).boxed()
    }

    fn reverse<'a>(&'a self, call: &'a Call, original: &'a str, _: bool) -> BoxFuture<'a, Outcome> {
        self.call(call, request(OperationKind::Reverse, call, original)).boxed()
    }

    fn refund<'a>(&'a self, _: &'a Call, _: &'a str) -> BoxFuture<'a, Outcome> {
        unreachable!("no worker sends refunds yet")
    }

    fn inquire<'a>(&'a self, kind: OperationKind, reference: &'a str) -> BoxFuture<'a, Inquiry> {
        async move {
            let Go::Inquiry(telling) = self.stage.pass(At::Inquiry(kind, reference.to_owned())).await else {
                unreachable!("an inquiry is told what it hears")
            };
            let now = self.clock.now();
            let mut bank = self.bank.lock().unwrap();
            match telling {
                Telling::Truth => bank.inquire(kind, reference, now),
                Telling::NoAnswer => Inquiry::NoAnswer { why: "no answer".to_owned() },
                Telling::Pending => Inquiry::Pending,
                Telling::NotFound => {
                    // Of a capture it is no contradiction: sent again, it is answered as it was.
                    if bank.knows(reference) && kind != OperationKind::Capture {
                        bank.contradicted.push(reference.to_owned());
                    }
                    Inquiry::NotFound
                }
                Telling::Lie => {
                    bank.contradicted.push(reference.to_owned());
                    Inquiry::Found(Outcome::Declined(tolom::payment::operation::Decline {
                        reason: tolom::payment::card::DeclineReason::Other,
                        code: Some("91".to_owned()),
                    }))
                }
            }
        }
        .boxed()
    }
}
