//! What an answer means. Pure: any status and any bytes give a verdict, and none panics.
//!
//! The reader gives the acquirer no credit: only a whole operation object that names our reference and the kind we
//! asked for is a result, and only a status that the contract defines as "not processed" proves that there was none.

use std::time::Duration;

use super::wire::{KEY_REUSED, Operation, Problem, Refusal, State};
use time::{OffsetDateTime, UtcOffset};

use crate::{
    acquirer::{codes::decline_reason, retry::Attempt},
    payment::{
        OperationKind, Outcome,
        operation::{Approval, Challenge, Decline, Inquiry, Undone},
    },
};

/// Characters kept of an identifier that the acquirer gives.
const IDENTIFIER: usize = 64;
/// Characters kept of a decline code or a problem's code.
const CODE: usize = 32;
const CHALLENGE_FIELDS: usize = 32;

/// An answer as it came off the wire.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: u16,
    /// The header `Retry-After`; zero if it was there but cannot be read.
    pub(super) retry_after: Option<Duration>,
    /// The body, or why there is none.
    pub(super) body: Result<Vec<u8>, String>,
}

impl Received {
    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        let body = self.body.as_deref().map_err(|why| format!("status {}: {why}", self.status))?;
        // serde_json's messages name fields and positions, and may quote a value: kept out of what is stored.
        serde_json::from_slice(body).map_err(|_| format!("status {} with a body that cannot be read", self.status))
    }

    /// A problem document that speaks of this very answer.
    fn problem(&self) -> Option<Problem> {
        self.json::<Problem>().ok().filter(|problem| problem.status == self.status)
    }
}

/// What the answer to a request that may move money means.
pub(super) fn of_call(kind: OperationKind, reference: &str, received: &Received) -> Attempt {
    let unknown = |why: String| Attempt::Done(Outcome::Unknown { why });
    let again = |in_flight, why: &str| Attempt::Again {
        why: format!("{why} (status {})", received.status),
        in_flight,
        after: received.retry_after,
    };
    match received.status {
        200..=299 => match received.json::<Operation>().and_then(|answer| result(kind, reference, answer)) {
            Ok(outcome) => Attempt::Done(outcome),
            Err(why) => unknown(why),
        },
        402 => match declined(kind, reference, received) {
            Ok(outcome) => Attempt::Done(outcome),
            Err(why) => unknown(why),
        },
        // The earlier request with this key may be the one being worked on.
        408 | 409 => again(true, "the acquirer is at work on an earlier request"),
        425 | 429 => again(false, "the acquirer asks to come later"),
        503 if received.retry_after.is_some() => again(false, "the acquirer asks to come later"),
        400..=499 => Attempt::Done(refused(kind, received)),
        status => unknown(format!("status {status}")),
    }
}

/// A refused request (RFC 9457): not processed, if it is the acquirer who says so and not something on the way.
fn refused(kind: OperationKind, received: &Received) -> Outcome {
    let status = received.status;
    let Some(problem) = received.problem() else {
        return Outcome::Unknown { why: format!("status {status} without a problem document") };
    };
    let code = problem.code.as_deref().map_or_else(|| "no code".to_owned(), word);
    let why = format!("refused with status {status} ({code})");
    match (kind, status) {
        // Something else stands under our reference, and it may have moved money.
        (_, 422) if problem.code.as_deref() == Some(KEY_REUSED) => Outcome::Unknown { why },
        // An acquirer acknowledges the reversal of what it never saw, so a 404 comes from somewhere else, and the
        // reversal goes on being sent.
        (OperationKind::Reverse, 404) => Outcome::Unknown { why },
        // A capture or refund of what the acquirer does not have moved nothing.
        (_, _) => Outcome::NotSent { why },
    }
}

/// 402: the operation object, declined; or from a plainer acquirer, a problem document whose code says why.
fn declined(kind: OperationKind, reference: &str, received: &Received) -> Result<Outcome, String> {
    if let Ok(answer) = received.json::<Operation>() {
        return match result(kind, reference, answer)? {
            Outcome::Approved(_) | Outcome::Challenged(_) => Err("status 402 with an approval in it".to_owned()),
            outcome @ (Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. }) => Ok(outcome),
        };
    }
    let problem = received.problem().ok_or("status 402 with a body that cannot be read")?;
    if problem.reference.is_some_and(|named| named != reference) {
        return Err("the answer names another reference".to_owned());
    }
    Ok(decline(problem.code))
}

/// What the answer to an inquiry means.
pub(super) fn of_inquiry(kind: OperationKind, reference: &str, received: &Received) -> Inquiry {
    let found = || -> Result<Inquiry, String> {
        match received.status {
            200..=299 => {
                let answer: Operation = received.json()?;
                Ok(match answer.state {
                    State::Pending if answer.reference == reference && answer.kind == kind => Inquiry::Pending,
                    _ => Inquiry::Found(result(kind, reference, answer)?),
                })
            }
            // It must name our reference: a gateway's or a wrong address's 404 says nothing about the operation.
            404 if received.problem().is_some_and(|problem| problem.reference.as_deref() == Some(reference)) => {
                Ok(Inquiry::NotFound)
            }
            status => Err(format!("status {status}")),
        }
    };
    found().unwrap_or_else(|why| Inquiry::NoAnswer { why })
}

/// The outcome that an operation object reports; an error if it breaks the contract.
fn result(kind: OperationKind, reference: &str, answer: Operation) -> Result<Outcome, String> {
    if answer.reference != reference {
        return Err("the answer names another reference".to_owned());
    }
    if answer.kind != kind || kind == OperationKind::Inquire {
        return Err(format!("the answer is of kind {}", answer.kind.as_str()));
    }
    if answer.amount.value < 0 {
        return Err("the answer has a negative amount".to_owned());
    }
    let authorization = matches!(kind, OperationKind::Authorize | OperationKind::CompleteChallenge);
    match answer.state {
        State::Approved => approved(kind, answer),
        State::Declined => Ok(decline(answer.decline.map(|Refusal { code, .. }| code))),
        State::Pending => Ok(Outcome::Unknown { why: "the acquirer is still at work on it".to_owned() }),
        State::Challenged if authorization => challenged(answer.challenge),
        State::Closed if authorization => match answer.undone {
            Some(Undone::Nothing) => {
                Ok(Outcome::NotSent { why: "our reference was closed before anything came of it".to_owned() })
            }
            // It had been approved. What that means for the payment is told by the reversal, not by this.
            Some(Undone::Hold | Undone::Capture) => {
                Ok(Outcome::Unknown { why: "it was approved and has been undone".to_owned() })
            }
            None => Err("closed without saying what was undone".to_owned()),
        },
        State::Challenged | State::Closed => Err(format!("a {} cannot be in that state", kind.as_str())),
    }
}

fn approved(kind: OperationKind, answer: Operation) -> Result<Outcome, String> {
    let undone = match (kind, answer.undone) {
        (OperationKind::Reverse, None) => return Err("a reversal that does not say what it undid".to_owned()),
        (OperationKind::Reverse, undone) => undone,
        (_, _) => None,
    };
    Ok(Outcome::Approved(Approval {
        acquirer_reference: answer.id.and_then(|text| clean(&text, IDENTIFIER)),
        authorization_code: answer.authorization_code.and_then(|text| clean(&text, IDENTIFIER)),
        rrn: answer.rrn.and_then(|text| clean(&text, IDENTIFIER)),
        amount: answer.amount,
        captured: answer.captured && matches!(kind, OperationKind::Authorize | OperationKind::CompleteChallenge),
        undone,
        at: plausible(answer.at)?,
    }))
}

/// The payer's browser will post to this address, so nothing but a web address passes.
fn challenged(challenge: Option<Challenge>) -> Result<Outcome, String> {
    let challenge = challenge.ok_or("challenged without a challenge")?;
    let url = reqwest::Url::parse(&challenge.url).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
    // As the browser will read it: what stood around it or in it unescaped, PostgreSQL might refuse.
    let url: String = url.ok_or("a challenge without a web address")?.into();
    let challenge = Challenge { url, expires_at: plausible(challenge.expires_at)?, ..challenge };
    let clean = |text: &str| !text.contains('\0');
    let fields = &challenge.fields;
    if fields.len() > CHALLENGE_FIELDS || !fields.iter().all(|(name, value)| clean(name) && clean(value)) {
        return Err("a challenge that cannot be shown".to_owned());
    }
    Ok(Outcome::Challenged(challenge))
}

/// A time that the books can hold, in UTC. The ends of representable time cannot be moved to another offset at all.
fn plausible(at: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let utc = at.checked_to_offset(UtcOffset::UTC).filter(|utc| (2000..2200).contains(&utc.year()));
    utc.ok_or_else(|| "a time out of this world".to_owned())
}

fn decline(code: Option<String>) -> Outcome {
    let code = code.and_then(|code| clean(&code, CODE));
    Outcome::Declined(Decline { reason: decline_reason(code.as_deref().unwrap_or_default()), code })
}

/// A foreign text cut and without control characters, which PostgreSQL or a terminal would trip over.
fn clean(text: &str, length: usize) -> Option<String> {
    let text: String = text.chars().filter(|character| !character.is_control()).take(length).collect();
    (!text.is_empty()).then_some(text)
}

/// A foreign word for people to read. Letters only: a problem document might quote the card.
fn word(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_alphabetic() || *character == '_').take(CODE).collect()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
