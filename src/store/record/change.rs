//! A report with what it does to its payment.

use time::OffsetDateTime;

use super::load::Loaded;
use crate::{
    contracts::OperationCompleted,
    payment::{Outcome, Status, card::DeclineReason, decision::Decision},
    store::{
        facts::{self, FactOf},
        outbox::OutboxRow,
        status::{Learnt, StatusWrite},
    },
};

const SOURCE: &str = "/tolom/record";

/// One report with what it does.
pub(super) struct Change<'a> {
    pub(super) known: &'a Loaded,
    pub(super) report: &'a OperationCompleted,
    pub(super) decision: Decision,
    /// The person who said so and the evidence, if it was one.
    pub(super) by: Option<(String, String)>,
}

impl Change<'_> {
    pub(super) fn to(&self) -> Status {
        self.decision.steps.last().map_or(self.known.status, |(_, status)| *status)
    }

    /// Whether this is the capture that pays the bill.
    pub(super) fn is_paid(&self) -> bool {
        self.to() == Status::Captured && self.known.status != Status::Captured
    }

    /// Whether operations of its payment besides its own are settled or opened by it.
    pub(super) const fn touches_other_operations(&self) -> bool {
        self.decision.reverse || self.decision.authorization_ends.is_some()
    }

    pub(super) fn entered(&self) -> Option<(Status, Option<f64>)> {
        (self.to() != self.known.status).then(|| (self.to(), self.known.age_s))
    }

    pub(super) fn status_write(&self) -> StatusWrite {
        let mut learnt = Learnt { card: self.report.card.clone(), ..Learnt::default() };
        let detail = match &self.report.result {
            Outcome::Approved(approval) => {
                learnt.authorization_code.clone_from(&approval.authorization_code);
                learnt.rrn.clone_from(&approval.rrn);
                let closed = match (approval.undone, self.to()) {
                    (Some(_), Status::Failed) => Some("nothing had come of it, and our reference is closed"),
                    (Some(_), Status::Reversed) => Some("the acquirer acknowledged the reversal"),
                    _ => None,
                };
                self.decision.conflict.or(closed).map(str::to_owned)
            }
            Outcome::Challenged(challenge) => {
                learnt.challenge = Some(challenge.clone());
                None
            }
            Outcome::Declined(decline) => {
                learnt.decline_reason = Some(decline.reason);
                decline.code.as_ref().map(|code| format!("the acquirer's code is {code}"))
            }
            Outcome::NotSent { why } | Outcome::Unknown { why } => Some(why.clone()),
        };
        if self.to() == Status::Declined && learnt.decline_reason.is_none() {
            learnt.decline_reason = Some(DeclineReason::AuthenticationFailed);
        }
        let (actor, detail) = match &self.by {
            Some((person, evidence)) => (person.clone(), Some(evidence.clone())),
            None => ("record".to_owned(), detail),
        };
        StatusWrite {
            payment: self.known.payment,
            from: self.known.status,
            version: self.known.version,
            steps: self.decision.steps.clone(),
            learnt,
            operation: Some(self.known.operation),
            actor,
            detail,
        }
    }

    /// The fact of the new status.
    pub(super) fn message(&self, now: OffsetDateTime) -> Option<OutboxRow> {
        let write = self.status_write();
        if write.to() == write.from {
            return None;
        }
        let of = FactOf {
            payment: self.known.payment,
            bill: self.known.bill.clone(),
            version: write.version_after(),
            status: write.to(),
            amount: self.known.amount,
            card: self.report.card.clone().or_else(|| self.known.card.clone()),
            decline_reason: write.learnt.decline_reason,
            receipt_number: self.known.receipt.clone().filter(|_| self.is_paid()),
            traceparent: self.known.traceparent.clone(),
        };
        facts::fact(of, SOURCE, now)
    }
}
