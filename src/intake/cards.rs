//! Sealing keys for browsers, and sealed cards that are stored before their payment.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Intake, auth::Caller, extract::ApiJson, limits::ClientAddress, problem::Problem};
use crate::{
    sealing::SealedHeader,
    store::{
        cards::{self, NewCard},
        keys,
    },
};

/// A JWK set (RFC 7517): seal with its first key.
#[derive(Serialize, ToSchema)]
pub(super) struct KeySet {
    /// Public keys on P-256, the newest first.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
}

/// The keys that cards are sealed with.
#[utoipa::path(get, path = "/v1/encryption-keys", tag = "cards",
    responses(
        (status = 200, body = KeySet, description = "Keys, the newest first; keep them for a minute at most"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`: there is no key"),
    ))]
pub(super) async fn encryption_keys(State(intake): State<Intake>) -> Result<Response, Problem> {
    let keys = keys::offered(&intake.pool, intake.clock.now()).await?;
    if keys.is_empty() {
        return Err(Problem::no_sealing_key());
    }
    let set = KeySet { keys: keys.into_iter().map(|key| key.jwk).collect() };
    // Far shorter than the grace in which a card sealed with an old key is still taken.
    Ok(([(header::CACHE_CONTROL, "public, max-age=60")], Json(set)).into_response())
}

/// A sealed card.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedCard {
    /// Compact JWE (RFC 7516): ECDH-ES on P-256, A256GCM, with `kid`, `bill` and `exp` in its protected header.
    #[schema(max_length = 4096)]
    pub(super) sealed: String,
}

/// The name of a stored card.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredCard {
    /// Use it in one payment, before the sealed card expires.
    id: Uuid,
}

/// Store a sealed card for a payment that follows. Repeated, it gives the same name.
#[utoipa::path(post, path = "/v1/cards", tag = "cards", request_body = SealedCard, security((), ("token" = [])),
    responses(
        (status = 201, body = StoredCard, description = "Stored"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`card-malformed`, `card-expired`, `card-key-unknown`, `card-used`, `invalid-field`"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "`rate-limited`; see Retry-After"),
    ))]
pub(super) async fn store_card(
    State(intake): State<Intake>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    ApiJson(body): ApiJson<SealedCard>,
) -> Result<Response, Problem> {
    caller.may_pay()?;
    if matches!(caller, Caller::Public) {
        intake.may_look_up(address)?;
    }
    let card = intake.sealed(body.sealed, "sealed")?;
    // What is no code of ours is kept nowhere: somebody might seal a card for its own number.
    if intake.config.service_of(&card.bill).is_none() {
        return Err(Problem::card_malformed("no service has codes that begin like its bill", "sealed"));
    }
    match cards::put(&intake.pool, &card, intake.clock.now()).await? {
        None => Ok((StatusCode::CREATED, Json(StoredCard { id: card.id })).into_response()),
        Some(refusal) => Err(refusal.into()),
    }
}

impl Intake {
    /// Checks a sealed card as far as it goes without a key and without the time.
    pub(super) fn sealed(&self, jwe: String, field: &'static str) -> Result<NewCard, Problem> {
        let header = SealedHeader::parse(&jwe, self.clock.now())
            .map_err(|error| Problem::card_malformed(error.to_string(), field))?;
        let SealedHeader { id, kid, bill, expires_at } = header;
        Ok(NewCard { id, bill, kid: kid.to_string(), jwe, expires_at })
    }
}
