//! Sealed cards: how a card stays closed from the payer's browser to the memory of the authorize worker.
//!
//! A sealed card is a compact JWE (RFC 7516) that any JOSE library can make: ECDH-ES on P-256, A256GCM. What it is for
//! (bill, expiry, key) stands in its protected header, so the intake checks that without a key, and the tag makes it
//! true. The intake never opens one: private keys are files that only the authorize worker reads ([`KeyDir`]).

mod fingerprint;
mod jwe;
mod keys;
mod rotation;

pub use fingerprint::FingerprintKey;
pub use jwe::{
    Kid, MAX_AHEAD_S, MAX_JWE_CHARS, NotAKid, OpeningKey, SealError, SealedHeader, open, public_jwk, public_key, seal,
};
pub use keys::{KeyDir, KeyDirError};
pub use rotation::{Rotated, RotationError, create, ensure_current, retire};
