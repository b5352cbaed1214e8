//! Accepting payments: a whole batch read in one statement and written in one more, one conflict failing alone.
//!
//! What is decided between the two is decided without locks, so the database has the last word: a primary key for "same
//! key, once", unique indexes for "one live payment per bill" and "one payment per card", and the bill itself, held while it
//! is written.

mod attempt;
mod judge;
mod known;
mod refusal;
mod told;
mod write;

use std::collections::HashMap;

use futures::StreamExt;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    refusal::Refusal,
    told::{refuse, told},
};
use super::{StoreError, cards::NewCard, limits::Origin, outbox::OutboxRow, sessions::Sessions};
use crate::{
    config::Config,
    contracts::Payer,
    payment::{Money, PaymentCode},
};

/// Members of a broken batch that are retried alone at the same time.
const ALONE_AT_ONCE: usize = 4;

/// A payment that wants to be accepted. Its parts have passed [`super::request::validate`].
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// Its id, chosen by the caller.
    pub id: Uuid,
    /// The bill.
    pub bill: PaymentCode,
    /// Must equal the bill's.
    pub amount: Money,
    /// The sealed card.
    pub card: CardSource,
    /// Who pays.
    pub payer: Payer,
    /// `ky`, `ru` or `en`.
    pub locale: String,
    /// The accepted version of the terms.
    pub terms: String,
    /// Which acquirer will take it.
    pub acquirer: String,
    /// Take the money in the authorization's own message.
    pub capture_at_once: bool,
    /// An API client's id, or [`super::clients::PUBLIC`].
    pub caller: String,
    /// What makes a repetition harmless.
    pub idempotency: Option<Idempotency>,
    /// The source and id of a foreign site's message; unique.
    pub event: Option<(String, String)>,
    /// From where, of a payer of the public site.
    pub origin: Option<Origin>,
    /// `traceparent` (W3C Trace Context), if any.
    pub traceparent: Option<String>,
}

/// Where the card is.
#[derive(Debug, Clone)]
pub enum CardSource {
    /// It came with the request.
    Inline(NewCard),
    /// It was stored before, through `POST /v1/cards`.
    Stored(Uuid),
}

impl CardSource {
    /// The card's name.
    pub(super) const fn id(&self) -> Uuid {
        match self {
            Self::Inline(NewCard { id, .. }) | Self::Stored(id) => *id,
        }
    }
}

/// What makes a repeated request harmless (IETF draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A digest of the header's value, or a foreign message's id; its scope is the caller.
    pub key: String,
    /// SHA-256 over the stable business fields.
    pub fingerprint: [u8; 32],
    /// The exact body of the answer if it is accepted.
    pub answer: String,
}

impl Idempotency {
    /// Of a foreign message: it is what its id says, whatever else a repetition holds.
    pub fn of_event(event: Uuid) -> Self {
        Self { key: told::key_of_event(event), fingerprint: [0; 32], answer: String::new() }
    }
}

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// Accepted now, and kept from now on (rule 1).
    New,
    /// The same request was accepted before.
    Replayed {
        /// The payment it made then.
        payment: Uuid,
        /// The body that was answered then; empty for a foreign message.
        answer: String,
    },
    /// Nothing was stored.
    Refused(Refusal),
}

/// What came of a batch, in the order of the requests, and what is to be announced now that it is committed.
#[derive(Debug, Default)]
pub struct Accepted {
    /// One for each request.
    pub results: Vec<Acceptance>,
    /// For `Relay::announce`.
    pub outbox: Vec<OutboxRow>,
}

/// Accepts payments, each once or not at all.
///
/// The whole batch is written by one statement. When a member breaks it (a lock that is not given, data the database
/// refuses), the members are tried alone, so none fails its neighbours. An error means that no member was tried alone yet,
/// and the database is away.
pub async fn accept(
    sessions: &Sessions,
    now: OffsetDateTime,
    config: &Config,
    requests: &[NewPayment],
) -> Result<Accepted, StoreError> {
    let terms = &Terms { sessions, now, config };
    let mut results: Vec<Option<Acceptance>> = vec![None; requests.len()];
    let mut outbox = Vec::new();
    let (mut round, followers) = leaders_and_followers(requests);
    let mut first = true;
    while !round.is_empty() {
        let members: Vec<&NewPayment> = round.iter().map(|index| &requests[*index]).collect();
        let done = match together_or_alone(terms, &members).await {
            Err(error) if first => return Err(error),
            Err(_) => Done::all_refused(members.len(), Refusal::Unavailable),
            Ok(done) => done,
        };
        first = false;
        outbox.extend(done.outbox);
        for (index, result) in round.iter().zip(done.results) {
            results[*index] = Some(result);
        }
        round = follow(requests, &followers, &mut results);
    }
    let results = results.into_iter().map(|result| result.unwrap_or(Acceptance::Refused(Refusal::Internal))).collect();
    Ok(Accepted { results, outbox })
}

/// Of requests with the same caller and key, the first one leads; each other one follows it.
fn leaders_and_followers(requests: &[NewPayment]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let mut seen = HashMap::new();
    let (mut leaders, mut followers) = (Vec::new(), Vec::new());
    for (index, request) in requests.iter().enumerate() {
        match &request.idempotency {
            Some(idempotency) => match seen.entry((&request.caller, &idempotency.key)) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(index);
                    leaders.push(index);
                }
                std::collections::hash_map::Entry::Occupied(leader) => followers.push((index, *leader.get())),
            },
            None => leaders.push(index),
        }
    }
    (leaders, followers)
}

/// Answers the followers whose leader is answered. Those that are not bound by their leader's refusal (another request,
/// or another card) are returned: the first of each key leads the next round.
fn follow(requests: &[NewPayment], followers: &[(usize, usize)], results: &mut [Option<Acceptance>]) -> Vec<usize> {
    let mut leading: HashMap<usize, usize> = HashMap::new();
    for (follower, leader) in followers {
        if results[*follower].is_some() || leading.contains_key(leader) {
            continue;
        }
        let same = fingerprint(&requests[*leader]) == fingerprint(&requests[*follower]);
        let answer = match results[*leader].clone() {
            Some(Acceptance::New | Acceptance::Replayed { .. }) if !same => Acceptance::Refused(Refusal::KeyReused),
            Some(Acceptance::New) => Acceptance::Replayed {
                payment: requests[*leader].id,
                answer: requests[*leader].idempotency.as_ref().map(|it| it.answer.clone()).unwrap_or_default(),
            },
            Some(Acceptance::Refused(refusal)) if !same || refusal.is_about_the_card() => {
                leading.insert(*leader, *follower);
                continue;
            }
            Some(other) => other,
            None => Acceptance::Refused(Refusal::Internal),
        };
        results[*follower] = Some(answer);
    }
    leading.into_values().collect()
}

fn fingerprint(request: &NewPayment) -> Option<&[u8; 32]> {
    request.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint)
}

/// What every attempt of one call goes by.
struct Terms<'a> {
    sessions: &'a Sessions,
    now: OffsetDateTime,
    config: &'a Config,
}

struct Done {
    results: Vec<Acceptance>,
    outbox: Vec<OutboxRow>,
}

impl Done {
    fn all_refused(count: usize, refusal: Refusal) -> Self {
        Self { results: vec![Acceptance::Refused(refusal); count], outbox: Vec::new() }
    }
}

async fn together_or_alone(terms: &Terms<'_>, members: &[&NewPayment]) -> Result<Done, StoreError> {
    if let [member] = members {
        return alone(terms, member).await;
    }
    let (mut results, mut outbox) = match attempt::attempt(terms, members, false).await {
        Ok(attempt) => (attempt.fates, attempt.outbox),
        Err(error) if error.is_contention() || !error.is_transient() => (vec![None; members.len()], Vec::new()),
        Err(error) => return Err(error),
    };
    let left: Vec<usize> = (0..members.len()).filter(|index| results[*index].is_none()).collect();
    let mut alone = futures::stream::iter(left)
        .map(|index| async move { (index, alone(terms, members[index]).await) })
        .buffer_unordered(ALONE_AT_ONCE);
    while let Some((index, done)) = alone.next().await {
        match done {
            Ok(done) => {
                outbox.extend(done.outbox);
                results[index] = done.results.into_iter().next();
            }
            Err(_) => results[index] = Some(Acceptance::Refused(Refusal::Unavailable)),
        }
    }
    let results = results.into_iter().map(|result| result.unwrap_or(Acceptance::Refused(Refusal::Internal))).collect();
    Ok(Done { results, outbox })
}

async fn alone(terms: &Terms<'_>, member: &NewPayment) -> Result<Done, StoreError> {
    match attempt::attempt(terms, &[member], true).await {
        Ok(attempt) => Ok(Done {
            results: attempt
                .fates
                .into_iter()
                .map(|fate| fate.unwrap_or(Acceptance::Refused(Refusal::InFlight)))
                .collect(),
            outbox: attempt.outbox,
        }),
        Err(error) if error.is_contention() => Ok(Done::all_refused(1, Refusal::InFlight)),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, payment.id = %member.id, "a payment was refused by the database");
            Ok(Done::all_refused(1, Refusal::Internal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: Option<&str>, fingerprint: u8) -> NewPayment {
        NewPayment {
            id: Uuid::now_v7(),
            bill: "1100000001".parse().unwrap(),
            amount: Money::new(1, crate::payment::Currency::KGS),
            card: CardSource::Stored(Uuid::nil()),
            payer: Payer { email: String::new(), phone: String::new() },
            locale: "ky".into(),
            terms: String::new(),
            acquirer: String::new(),
            capture_at_once: false,
            caller: "public".into(),
            idempotency: key.map(|key| Idempotency {
                key: key.into(),
                fingerprint: [fingerprint; 32],
                answer: format!("answer {key}"),
            }),
            event: None,
            origin: None,
            traceparent: None,
        }
    }

    #[test]
    fn of_equal_keys_the_first_leads_and_the_others_replay_or_are_refused() {
        let requests = [request(Some("a"), 1), request(Some("a"), 1), request(Some("a"), 2), request(None, 0)];
        let (leaders, followers) = leaders_and_followers(&requests);
        assert_eq!((leaders, followers.clone()), (vec![0, 3], vec![(1, 0), (2, 0)]));
        let mut results = vec![Some(Acceptance::New), None, None, Some(Acceptance::New)];
        assert!(follow(&requests, &followers, &mut results).is_empty());
        let replayed = Acceptance::Replayed { payment: requests[0].id, answer: "answer a".into() };
        assert_eq!(results[1], Some(replayed));
        assert_eq!(results[2], Some(Acceptance::Refused(Refusal::KeyReused)));
    }

    #[test]
    fn a_refused_leader_binds_only_the_same_request() {
        let requests = [request(Some("a"), 1), request(Some("a"), 1), request(Some("a"), 2), request(Some("a"), 2)];
        let (_, followers) = leaders_and_followers(&requests);
        let mut results = vec![Some(Acceptance::Refused(Refusal::BillPaid)), None, None, None];
        assert_eq!(follow(&requests, &followers, &mut results), [2]);
        assert_eq!(results[1], Some(Acceptance::Refused(Refusal::BillPaid)));
        let mut results = vec![Some(Acceptance::Refused(Refusal::CardExpired)), None, None, None];
        assert_eq!(follow(&requests, &followers, &mut results), [1], "another card may do");
    }
}
