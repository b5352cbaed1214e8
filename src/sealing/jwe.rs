//! The compact JWE: checked without a key, opened, sealed. RFC 7516 (form), RFC 7518 4.6 (key agreement), 5.3 (AES-GCM).

use std::{borrow::Cow, fmt, str::FromStr};

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{AeadInOut, Generate},
};
use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{PublicKey, SecretKey, elliptic_curve::sec1::ToSec1Point};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::{Builder, Uuid};
use zeroize::{Zeroize, Zeroizing};

use crate::payment::{PaymentCode, card::CardInput};

/// How far ahead `exp` may lie, in seconds. The four slices of `sealed_card` rest on it.
pub const MAX_AHEAD_S: i64 = 900;
/// How far the clocks of intake and worker may be apart, in seconds: what the intake took is not refused later.
const SKEW_S: i64 = 60;
/// The longest sealed card that is looked at. A card of ours has about 500 characters.
pub const MAX_JWE_CHARS: usize = 4096;

const MAX_HEADER_CHARS: usize = 1536;
const MAX_PLAINTEXT_BYTES: usize = 1024;
const ALGORITHM: &str = "ECDH-ES";
const ENCRYPTION: &str = "A256GCM";

/// A sealing key's name: 1 to 64 letters, digits, `-` and `_`, so that it is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kid(String);

/// Why a text is no key name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's name has 1 to 64 letters, digits, `-` and `_`")]
pub struct NotAKid;

impl Kid {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Kid {
    type Err = NotAKid;

    fn from_str(text: &str) -> Result<Self, NotAKid> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fits.then(|| Self(text.to_owned())).ok_or(NotAKid)
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a sealed card says of itself: checked by form before it is opened, authenticated by its tag when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedHeader {
    /// The card's name: the same text has the same one, at every door, so that a card which was used is known again.
    pub id: Uuid,
    /// The sealing key.
    pub kid: Kid,
    /// The only bill it may pay.
    pub bill: PaymentCode,
    /// Until when it may be used; a whole second.
    pub expires_at: OffsetDateTime,
}

/// Why a sealed card is refused. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a compact JWE of the form that is wanted here.
    #[error("the sealed card is malformed: {0}")]
    Form(&'static str),
    /// Another algorithm.
    #[error("the sealed card's alg must be ECDH-ES and its enc A256GCM")]
    Algorithm,
    /// `exp` has passed.
    #[error("the sealed card has expired")]
    Expired,
    /// `exp` is more than 15 minutes ahead.
    #[error("the sealed card's exp is more than 15 minutes ahead")]
    TooFarAhead,
    /// Sealed for another bill.
    #[error("the sealed card is for another bill")]
    OtherBill,
    /// We do not hold the key.
    #[error("the sealing key is not known")]
    UnknownKey,
    /// The tag is wrong: altered, or sealed with another key.
    #[error("the sealed card cannot be opened")]
    Tag,
    /// It opens, and there is no card in it.
    #[error("the sealed card holds no card")]
    Content,
}

impl SealedHeader {
    /// Checks everything that can be checked without a key: form, sizes, algorithms, names, and that it does not live too
    /// long. Whether it has expired at `now` is not asked: that is no reason to refuse a repetition.
    pub fn parse(jwe: &str, now: OffsetDateTime) -> Result<Self, SealError> {
        let sealed = Sealed::parse(jwe)?;
        sealed.header.check_life(now, MAX_AHEAD_S)?;
        Ok(sealed.header)
    }

    fn check_life(&self, now: OffsetDateTime, max_ahead_s: i64) -> Result<(), SealError> {
        let too_far = self.expires_at - now > time::Duration::seconds(max_ahead_s);
        if too_far { Err(SealError::TooFarAhead) } else { Ok(()) }
    }
}

/// Opens a sealed card in memory that is wiped after use, checking once more form, time and bill.
///
/// `now` decides on expiry, `bill` is the bill of the payment that is about to be authorized.
pub fn open(private: &OpeningKey, jwe: &str, bill: &PaymentCode, now: OffsetDateTime) -> Result<CardInput, SealError> {
    Sealed::taken(jwe, now)?.open(private, bill)
}

/// A private key, ready to open cards. A queue of sealed cards is opened one after another, so the arithmetic is AWS-LC's:
/// it takes a sixth of p256's time.
#[derive(Debug)]
pub struct OpeningKey(agreement::PrivateKey);

impl OpeningKey {
    /// Makes the key ready.
    pub fn new(private: &SecretKey) -> Self {
        let scalar = Zeroizing::new(private.to_bytes());
        let key = agreement::PrivateKey::from_private_key(&ECDH_P256, &scalar);
        Self(key.expect("a private key of P-256 is one for both"))
    }

    /// What cards are sealed with for this key.
    pub fn public_key(&self) -> PublicKey {
        let point = self.0.compute_public_key().expect("a private key of P-256 has a public one");
        PublicKey::from_sec1_bytes(point.as_ref()).expect("both write a point alike (SEC 1, 2.3.3)")
    }

    /// The shared secret is wiped by neither library's caller; whoever can read this process's memory finds the private
    /// key in it anyway.
    fn agree(&self, public: &PublicKey, apu: &[u8], apv: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let point = public.to_sec1_point(false);
        let public = UnparsedPublicKey::new(&ECDH_P256, point.as_bytes());
        agreement::agree(&self.0, public, SealError::Tag, |shared| Ok(concat_kdf(shared, ENCRYPTION, apu, apv, 256)))
    }
}

/// Seals a card as a browser does: for the demo, the benchmark and tests.
pub fn seal(public: &PublicKey, kid: &Kid, bill: &PaymentCode, expires_at: OffsetDateTime, card: &CardInput) -> String {
    let ephemeral = SecretKey::generate();
    let point = Coordinates::of(&ephemeral.public_key());
    let header = serde_json::json!({
        "alg": ALGORITHM, "enc": ENCRYPTION, "kid": kid.as_str(), "bill": bill.as_str(),
        "exp": expires_at.unix_timestamp(), "epk": point,
    });
    let aad = URL_SAFE_NO_PAD.encode(header.to_string());
    let mut text = Zeroizing::new(Vec::with_capacity(512));
    serde_json::to_writer(&mut *text, card).expect("a card is plain data, and a vector takes every write");
    let key = agreed_key(&ephemeral, public, &[], &[]);
    let cipher = Aes256Gcm::new_from_slice(key.as_slice()).expect("the derived key has 32 bytes");
    let nonce = Nonce::generate();
    cipher.encrypt_in_place(&nonce, aad.as_bytes(), &mut *text).expect("a card is far below AES-GCM's limit");
    let (body, tag) = text.split_at(text.len() - 16);
    let [nonce, body, tag] = [&nonce[..], body, tag].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{aad}..{nonce}.{body}.{tag}")
}

/// The public JWK (RFC 7517) that payers' browsers seal with.
pub fn public_jwk(kid: &Kid, key: &PublicKey) -> serde_json::Value {
    let mut jwk = serde_json::json!(Coordinates::of(key));
    jwk["kid"] = kid.as_str().into();
    jwk["use"] = "enc".into();
    jwk["alg"] = ALGORITHM.into();
    jwk
}

/// Reads a public JWK: its name and its key, if it is a point of P-256.
pub fn public_key(jwk: &serde_json::Value) -> Option<(Kid, PublicKey)> {
    let kid = jwk.get("kid")?.as_str()?.parse().ok()?;
    let point: Coordinates<'_> = Deserialize::deserialize(jwk).ok()?;
    Some((kid, point.key().ok()?))
}

/// The protected header. Members that we do not know are ignored (RFC 7516 4), `crit` and `zip` are not.
#[derive(Deserialize)]
struct RawHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    enc: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    bill: Cow<'a, str>,
    exp: i64,
    #[serde(borrow)]
    epk: Coordinates<'a>,
    #[serde(borrow, default)]
    apu: Cow<'a, str>,
    #[serde(borrow, default)]
    apv: Cow<'a, str>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    zip: Option<serde::de::IgnoredAny>,
}

/// A point of P-256 as a JWK has it (RFC 7518 6.2.1).
#[derive(Deserialize, Serialize)]
struct Coordinates<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    crv: Cow<'a, str>,
    #[serde(borrow)]
    x: Cow<'a, str>,
    #[serde(borrow)]
    y: Cow<'a, str>,
}

impl Coordinates<'_> {
    fn of(key: &PublicKey) -> Coordinates<'static> {
        let point = key.to_sec1_point(false);
        // SEC 1, 2.3.3: 0x04, x, y.
        let (x, y) = point.as_bytes()[1..].split_at(32);
        Coordinates {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: URL_SAFE_NO_PAD.encode(x).into(),
            y: URL_SAFE_NO_PAD.encode(y).into(),
        }
    }

    /// The point; refused unless it lies on the curve (an invalid-curve attack would leak the private key).
    fn key(&self) -> Result<PublicKey, SealError> {
        if self.kty != "EC" || self.crv != "P-256" {
            return Err(SealError::Algorithm);
        }
        let mut point = [4_u8; 65];
        for (part, place) in [(&self.x, 1), (&self.y, 33)] {
            let bytes: [u8; 32] = decode_fixed(part).ok_or(SealError::Form("epk's coordinates"))?;
            point[place..place + 32].copy_from_slice(&bytes);
        }
        PublicKey::from_sec1_bytes(&point).map_err(|_| SealError::Form("epk is not on the curve"))
    }
}

/// A sealed card, taken apart.
pub(super) struct Sealed<'a> {
    header: SealedHeader,
    ephemeral: PublicKey,
    apu: Vec<u8>,
    apv: Vec<u8>,
    /// The protected header as it came: what the tag authenticates (RFC 7516 5.1, step 14).
    aad: &'a str,
    nonce: [u8; 12],
    /// With the tag at its end.
    ciphertext: Zeroizing<Vec<u8>>,
}

impl<'a> Sealed<'a> {
    /// A card that the intake has taken already, by a clock that may be a little apart.
    pub(super) fn taken(jwe: &'a str, now: OffsetDateTime) -> Result<Self, SealError> {
        let sealed = Self::parse(jwe)?;
        if sealed.header.expires_at <= now {
            return Err(SealError::Expired);
        }
        sealed.header.check_life(now, MAX_AHEAD_S + SKEW_S)?;
        Ok(sealed)
    }

    /// The sealing key.
    pub(super) const fn kid(&self) -> &Kid {
        &self.header.kid
    }

    /// Opens it for this bill, in memory that is wiped after use.
    pub(super) fn open(self, private: &OpeningKey, bill: &PaymentCode) -> Result<CardInput, SealError> {
        if self.header.bill != *bill {
            return Err(SealError::OtherBill);
        }
        let mut text = self.ciphertext;
        let key = private.agree(&self.ephemeral, &self.apu, &self.apv)?;
        let cipher = Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| SealError::Tag)?;
        cipher
            .decrypt_in_place(&Nonce::from(self.nonce), self.aad.as_bytes(), &mut *text)
            .map_err(|_| SealError::Tag)?;
        read_card(&text)
    }

    fn parse(jwe: &'a str) -> Result<Self, SealError> {
        if jwe.len() > MAX_JWE_CHARS {
            return Err(SealError::Form("too long"));
        }
        let mut parts = jwe.split('.');
        let (Some(aad), Some(""), Some(nonce), Some(body), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SealError::Form("five parts are wanted, the second one empty"));
        };
        if aad.len() > MAX_HEADER_CHARS {
            return Err(SealError::Form("the header is too long"));
        }
        let json = URL_SAFE_NO_PAD.decode(aad).map_err(|_| SealError::Form("the header is not base64url"))?;
        let raw: RawHeader<'_> = serde_json::from_slice(&json).map_err(|_| SealError::Form("the header"))?;
        if raw.alg != ALGORITHM || raw.enc != ENCRYPTION {
            return Err(SealError::Algorithm);
        }
        if raw.crit.is_some() || raw.zip.is_some() {
            return Err(SealError::Form("crit and zip are not taken"));
        }
        let nonce = decode_fixed(nonce).ok_or(SealError::Form("the initialization vector"))?;
        let tag: [u8; 16] = decode_fixed(tag).ok_or(SealError::Form("the tag"))?;
        let mut ciphertext =
            Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| SealError::Form("the ciphertext"))?);
        if !(1..=MAX_PLAINTEXT_BYTES).contains(&ciphertext.len()) {
            return Err(SealError::Form("the ciphertext's length"));
        }
        ciphertext.extend_from_slice(&tag);
        let expires_at = OffsetDateTime::from_unix_timestamp(raw.exp).map_err(|_| SealError::Form("exp"))?;
        Ok(Self {
            header: SealedHeader {
                id: name(jwe, expires_at),
                kid: raw.kid.parse().map_err(|_| SealError::Form("kid"))?,
                bill: raw.bill.parse().map_err(|_| SealError::Form("bill"))?,
                expires_at,
            },
            ephemeral: raw.epk.key()?,
            apu: party_info(&raw.apu)?,
            apv: party_info(&raw.apv)?,
            aad,
            nonce,
            ciphertext,
        })
    }
}

/// UUID version 8 (RFC 9562, 5.8): 48 bits of the expiry in milliseconds since 1970, so that the cards of one time stand
/// together in every index, then 74 of SHA-256. Nobody can write one sealed card in two ways, for its first part is
/// authenticated as it is written, and base64url leaves no choice in the others.
fn name(jwe: &str, expires_at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(expires_at.unix_timestamp()).unwrap_or(0).saturating_mul(1_000);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&Sha256::digest(jwe)[..10]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn party_info(text: &str) -> Result<Vec<u8>, SealError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Form("apu or apv"))?;
    if bytes.len() > 64 { Err(SealError::Form("apu or apv")) } else { Ok(bytes) }
}

fn decode_fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

fn agreed_key(private: &SecretKey, public: &PublicKey, apu: &[u8], apv: &[u8]) -> Zeroizing<[u8; 32]> {
    let shared = private.diffie_hellman(public);
    concat_kdf(shared.raw_secret_bytes(), ENCRYPTION, apu, apv, 256)
}

/// The Concat KDF (NIST SP 800-56A 5.8.1) as RFC 7518 4.6.2 uses it. One round of SHA-256 gives up to 256 bits.
fn concat_kdf(shared: &[u8], algorithm: &str, apu: &[u8], apv: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut hash = Sha256::new().chain_update(1_u32.to_be_bytes()).chain_update(shared);
    for part in [algorithm.as_bytes(), apu, apv] {
        hash = hash.chain_update(length(part)).chain_update(part);
    }
    let mut digest = hash.chain_update(bits.to_be_bytes()).finalize();
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&digest);
    digest.as_mut_slice().zeroize();
    key
}

/// Reads the card without copies outside wiped memory: plain members are borrowed from the opened text. Only the
/// holder's name may be escaped (PHP writes `\/`); digits are never.
fn read_card(text: &[u8]) -> Result<CardInput, SealError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Borrowed<'a> {
        number: &'a str,
        expiry_month: u8,
        expiry_year: u16,
        cvc: &'a str,
        #[serde(borrow)]
        holder: Cow<'a, str>,
    }
    // The reader's message may quote what it read, so it ends here.
    let card: Borrowed<'_> = serde_json::from_slice(text).map_err(|_| SealError::Content)?;
    Ok(CardInput {
        number: card.number.to_owned(),
        expiry_month: card.expiry_month,
        expiry_year: card.expiry_year,
        cvc: card.cvc.to_owned(),
        holder: card.holder.into_owned(),
    })
}

#[cfg(test)]
mod tests;
