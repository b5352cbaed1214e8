//! Who calls the API with a token: agencies, sites, finance.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Row};

use super::StoreError;
use crate::{config::Secret, payment::bill::UnknownWord};

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// Issues, changes and cancels its bills.
    Agency,
    /// Takes payments for payers of its own.
    Site,
    /// Refunds.
    Finance,
}

impl ClientKind {
    /// The word used in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agency => "agency",
            Self::Site => "site",
            Self::Finance => "finance",
        }
    }
}

impl FromStr for ClientKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Agency, Self::Site, Self::Finance]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// A client of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its short name: lower-case letters, digits and `-`.
    pub id: String,
    /// What it may do.
    pub kind: ClientKind,
    /// Its name for people.
    pub name: String,
}

/// The caller of requests without a token: the public site. No client may take this name.
pub const PUBLIC: &str = "public";

/// Why a client was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Not a name for a client.
    #[error("`{0}` is no client's name: 1 to 40 lower-case letters, digits and `-`, and not `public`")]
    Name(String),
    /// There is one of this name.
    #[error("there is a client `{0}` already")]
    Exists(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds a client and returns its token, which is stored only as a hash: this is the one time that it is seen.
pub async fn add(pool: &PgPool, client: &Client) -> Result<Secret, AddError> {
    let fits = (1..=40).contains(&client.id.len())
        && !client.id.starts_with('-')
        && client.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !fits || client.id == PUBLIC {
        return Err(AddError::Name(client.id.chars().take(60).collect()));
    }
    let token = new_token();
    let added = sqlx::query(
        "INSERT INTO api_client (id, kind, name, token_hash) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&client.id)
    .bind(client.kind.as_str())
    .bind(&client.name)
    .bind(hash(&token))
    .execute(pool)
    .await
    .map_err(StoreError::from)?;
    if added.rows_affected() == 1 { Ok(token.into()) } else { Err(AddError::Exists(client.id.clone())) }
}

/// The client with this token.
pub async fn by_token(pool: &PgPool, token: &str) -> Result<Option<Client>, StoreError> {
    let row = sqlx::query("SELECT id, kind, name FROM api_client WHERE token_hash = $1")
        .bind(hash(token))
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The client of this name.
pub async fn by_id(pool: &PgPool, id: &str) -> Result<Option<Client>, StoreError> {
    let row = sqlx::query("SELECT id, kind, name FROM api_client WHERE id = $1").bind(id).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Client, StoreError> {
    let kind: &str = row.try_get("kind")?;
    Ok(Client {
        id: row.try_get("id")?,
        kind: kind.parse().map_err(|word: UnknownWord| StoreError::Unreadable(word.to_string()))?,
        name: row.try_get("name")?,
    })
}

/// 256 random bits; the prefix lets secret scanners find a token that leaked.
fn new_token() -> String {
    use aes_gcm::aead::Generate;
    format!("tolom_{}", URL_SAFE_NO_PAD.encode(<[u8; 32]>::generate()))
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}
