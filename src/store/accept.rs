//! Accepting payments: a whole batch in one transaction, one conflict failing alone.
//!
//! Order of locks, the same for everybody: bills (by code), idempotency keys (by caller and key), payments (by bill).
//! The database is the judge: a primary key for "same key, once", a partial unique index for "one live payment per
//! bill". Whoever loses there is told why by what the winner has written.

mod batch;
mod limits;
mod rows;

use std::collections::HashMap;

use futures::StreamExt;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, cards::NewCard, limits::Origin, outbox::OutboxRow};
use crate::{
    config,
    contracts::Payer,
    payment::{Money, PaymentCode, limits::By},
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
    /// Requests over HTTP.
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

/// What makes a repeated request harmless (IETF draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A digest of the header's value; its scope is the caller.
    pub key: String,
    /// SHA-256 over the stable business fields.
    pub fingerprint: [u8; 32],
    /// The exact body of the answer if it is accepted.
    pub answer: String,
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

/// Why a payment is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The same Idempotency-Key came with another request.
    KeyReused,
    /// The same request, or a change of its bill, is being worked on: try again soon.
    InFlight,
    /// No such bill.
    BillUnknown,
    /// It is paid.
    BillPaid,
    /// It was withdrawn.
    BillCancelled,
    /// Its time has passed.
    BillExpired,
    /// Another payment of it is live.
    PaymentLive,
    /// Not the bill's amount.
    AmountDiffers,
    /// Not the bill's currency.
    CurrencyDiffers,
    /// The sealing key is unknown or retired.
    CardKeyUnknown,
    /// No stored card has this id: it has expired, or never was.
    CardUnknown,
    /// The sealed card has expired.
    CardExpired,
    /// Sealed for another bill.
    CardOfOtherBill,
    /// A payment has used it.
    CardUsed,
    /// Too many attempts have failed: wait so long.
    TooManyAttempts {
        /// What they have in common.
        by: By,
        /// Seconds.
        wait_s: u32,
    },
    /// The database went away; whether anything was stored is told by a repetition with the same key.
    Unavailable,
    /// The database refuses this request for a reason that is ours.
    Internal,
}

impl Refusal {
    /// The last part of the problem's type.
    pub const fn problem(self) -> &'static str {
        match self {
            Self::KeyReused => "idempotency-key-reused",
            Self::InFlight => "request-in-flight",
            Self::BillUnknown => "bill-unknown",
            Self::BillPaid => "bill-paid",
            Self::BillCancelled => "bill-cancelled",
            Self::BillExpired => "bill-expired",
            Self::PaymentLive => "payment-in-progress",
            Self::AmountDiffers => "amount-differs",
            Self::CurrencyDiffers => "currency-differs",
            Self::CardKeyUnknown => "card-key-unknown",
            Self::CardUnknown => "card-unknown",
            Self::CardExpired => "card-expired",
            Self::CardOfOtherBill => "card-of-other-bill",
            Self::CardUsed => "card-used",
            Self::TooManyAttempts { .. } => "too-many-attempts",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// For people.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::KeyReused => "this Idempotency-Key was used for another request; make a new one",
            Self::InFlight => "the same request or its bill is being worked on; try again in a moment",
            Self::BillUnknown => "there is no bill with this payment code",
            Self::BillPaid => "this bill is paid",
            Self::BillCancelled => "this bill was withdrawn by its agency",
            Self::BillExpired => "this bill's time has passed",
            Self::PaymentLive => "another payment of this bill is on its way; do not pay again",
            Self::AmountDiffers => "the amount is not the bill's",
            Self::CurrencyDiffers => "the currency is not the bill's",
            Self::CardKeyUnknown => "the card is sealed with a key that is not in use; fetch /v1/encryption-keys again",
            Self::CardUnknown => "no sealed card of this id is waiting; enter the card again",
            Self::CardExpired => "the sealed card has expired; enter the card again",
            Self::CardOfOtherBill => "the sealed card is for another bill",
            Self::CardUsed => "the sealed card has been used; enter the card again",
            Self::TooManyAttempts { by: By::Bill, .. } => {
                "too many payments of this bill were declined; ask your bank why, and try again later"
            }
            Self::TooManyAttempts { .. } => "too many attempts have failed; try again later",
            Self::Unavailable => "the service is not available; repeat the request with the same Idempotency-Key",
            Self::Internal => "the request could not be stored",
        }
    }

    /// The member at fault, if one is.
    pub const fn field(self) -> Option<&'static str> {
        match self {
            Self::AmountDiffers => Some("amount.value"),
            Self::CurrencyDiffers => Some("amount.currency"),
            Self::CardKeyUnknown | Self::CardOfOtherBill | Self::CardExpired | Self::CardUsed => Some("card"),
            Self::CardUnknown => Some("card.id"),
            Self::BillUnknown => Some("bill"),
            Self::KeyReused
            | Self::InFlight
            | Self::BillPaid
            | Self::BillCancelled
            | Self::BillExpired
            | Self::PaymentLive
            | Self::TooManyAttempts { .. }
            | Self::Unavailable
            | Self::Internal => None,
        }
    }

    /// Whether it tells who asks that the bill exists.
    pub const fn tells_of_the_bill(self) -> bool {
        !matches!(
            self,
            Self::KeyReused
                | Self::InFlight
                | Self::BillUnknown
                | Self::TooManyAttempts { .. }
                | Self::Unavailable
                | Self::Internal
        )
    }

    const fn is_about_the_card(self) -> bool {
        matches!(
            self,
            Self::CardKeyUnknown | Self::CardUnknown | Self::CardExpired | Self::CardOfOtherBill | Self::CardUsed
        )
    }
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
/// The whole batch is one transaction. When a member breaks it (a lock that is not given, data the database refuses),
/// the members are tried alone, so none fails its neighbours. An error means that no member was tried alone yet, and
/// the database is away.
pub async fn accept(
    pool: &PgPool,
    now: OffsetDateTime,
    limits: &config::Limits,
    requests: &[NewPayment],
) -> Result<Accepted, StoreError> {
    let terms = &Terms { pool, now, limits };
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
    pool: &'a PgPool,
    now: OffsetDateTime,
    limits: &'a config::Limits,
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
    let (mut results, mut outbox) = match batch::attempt(terms, members, false).await {
        Ok(attempt) => (attempt.fates, attempt.outbox),
        Err(error) if is_contention(&error) || !error.is_transient() => (vec![None; members.len()], Vec::new()),
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
    match batch::attempt(terms, &[member], true).await {
        Ok(attempt) => Ok(Done {
            results: attempt
                .fates
                .into_iter()
                .map(|fate| fate.unwrap_or(Acceptance::Refused(Refusal::InFlight)))
                .collect(),
            outbox: attempt.outbox,
        }),
        Err(error) if is_contention(&error) => Ok(Done::all_refused(1, Refusal::InFlight)),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, payment.id = %member.id, "a payment was refused by the database");
            Ok(Done::all_refused(1, Refusal::Internal))
        }
    }
}

/// Lock time-out, statement time-out, deadlock, serialization failure: somebody else is in the way.
fn is_contention(error: &StoreError) -> bool {
    let StoreError::Unavailable(sqlx::Error::Database(database)) = error else { return false };
    database.code().is_some_and(|code| ["55P03", "57014", "40P01", "40001"].contains(&code.as_ref()))
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
