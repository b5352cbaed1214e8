//! Who calls: nobody in particular, or a client with a bearer token (RFC 6750).

use std::net::IpAddr;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{Intake, limits::Asker, problem::Problem};
use crate::store::clients::{self, Client, ClientKind};

/// Ours have 49.
pub(super) const MAX_TOKEN_CHARS: usize = 256;
const WANTED: &str = "Bearer realm=\"tolom\"";
const INVALID: &str = "Bearer realm=\"tolom\", error=\"invalid_token\"";

/// The caller of a request. A token that is not known is refused, never taken for no token.
pub(super) enum Caller {
    /// Without a token: the public site.
    Public,
    /// With a token.
    Client(Client),
}

impl Caller {
    /// The scope of its idempotency keys.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Public => clients::PUBLIC,
            Self::Client(client) => &client.id,
        }
    }

    /// Who is held to what it asks about codes, from this address.
    pub(super) fn asker(&self, address: IpAddr) -> Asker {
        match self {
            Self::Public => Asker::Address(address),
            Self::Client(client) => Asker::Client(client.id.clone()),
        }
    }

    /// Whether it may submit payments and cards.
    pub(super) fn may_pay(&self) -> Result<(), Problem> {
        match self {
            Self::Public => Ok(()),
            Self::Client(client) => match client.kind {
                ClientKind::Agency | ClientKind::Site => Ok(()),
                ClientKind::Finance => Err(Problem::forbidden("a finance token takes no payments")),
            },
        }
    }
}

impl FromRequestParts<Intake> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        let Some(token) = bearer(&parts.headers)? else { return Ok(Self::Public) };
        let client = clients::by_token(&intake.pool, token).await?;
        client.map(Self::Client).ok_or_else(|| Problem::unauthorized(INVALID))
    }
}

/// The bearer token, if the request says who calls: 1 to 256 characters. Any other scheme is refused.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token.filter(|token| (1..=MAX_TOKEN_CHARS).contains(&token.len())) {
        Some(token) => Ok(Some(token)),
        None => Err(Problem::unauthorized(INVALID)),
    }
}

/// An agency; anybody else is refused.
pub(super) struct Agency(pub(super) Client);

impl FromRequestParts<Intake> for Agency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, intake).await? {
            Caller::Public => Err(Problem::unauthorized(WANTED)),
            Caller::Client(client) if client.kind == ClientKind::Agency => Ok(Self(client)),
            Caller::Client(_) => Err(Problem::forbidden("only an agency issues, changes and withdraws bills")),
        }
    }
}
