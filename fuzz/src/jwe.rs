//! Sealed cards, and the public keys that a payer's side reads.

use p256::SecretKey;
use time::{Duration, OffsetDateTime};
use tolom::{
    payment::PaymentCode,
    sealing::{self, MAX_AHEAD_S, MAX_JWE_CHARS, OpeningKey, SealError, SealedHeader},
};

/// Every sealed card that the test key's owner has ever been sent, made by two libraries that know nothing of each
/// other. All for the bill 1100000001, all good until 1795000000.
const SEALED: [&str; 3] = [
    include_str!("../corpus/jwe/jose"),
    include_str!("../corpus/jwe/jwcrypto"),
    include_str!("../corpus/jwe/escaped_holder"),
];
const EXPIRES: i64 = 1_795_000_000;
const BILL: &str = "1100000001";

/// A sealed card is opened only as it was sealed, to the last character, for its own bill and in its own time; and
/// what opens has passed the check that needs no key.
pub fn target(bytes: &[u8]) {
    read_key(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = at(EXPIRES - 100);
    let header = SealedHeader::parse(text, now);
    if let Ok(header) = &header {
        assert!(text.len() <= MAX_JWE_CHARS);
        assert!(header.expires_at <= now + Duration::seconds(MAX_AHEAD_S));
        assert_eq!(header.kid.as_str().parse().as_ref(), Ok(&header.kid));
    }
    let bill: PaymentCode = BILL.parse().expect("a code");
    let opened = sealing::open(&key(), text, &bill, now);
    let Ok(card) = opened else { return };
    assert!(SEALED.contains(&text), "opened, and nobody sealed it: {text}");
    assert!(header.is_ok_and(|header| header.bill == bill && header.expires_at == at(EXPIRES)));
    assert_eq!(card.number, "4111111111111111");
    let open = |bill: &str, now| sealing::open(&key(), text, &bill.parse().expect("a code"), now).err();
    assert_eq!(open("1100000002", now), Some(SealError::OtherBill));
    assert_eq!(open(BILL, at(EXPIRES)), Some(SealError::Expired));
    assert_eq!(open(BILL, at(EXPIRES - 10_000)), Some(SealError::TooFarAhead));
}

/// A key that is read is written as one that reads the same.
fn read_key(bytes: &[u8]) {
    let Ok(jwk) = serde_json::from_slice(bytes) else { return };
    if let Some((kid, key)) = sealing::public_key(&jwk) {
        assert_eq!(sealing::public_key(&sealing::public_jwk(&kid, &key)), Some((kid, key)));
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time of this century")
}

/// The private half of the key in `corpus/jwe/public_key`; it seals nothing but these seeds.
fn key() -> OpeningKey {
    const D: [u8; 32] = [
        0x8c, 0xb2, 0x6f, 0x49, 0x23, 0xba, 0xfb, 0x40, 0x08, 0x04, 0xcd, 0xfb, 0x54, 0xf3, 0x13, 0x34, 0x71, 0x8e,
        0xc4, 0x85, 0x37, 0x05, 0x6b, 0xfa, 0x32, 0xc8, 0x02, 0x7f, 0x47, 0x0f, 0x7d, 0x38,
    ];
    OpeningKey::new(&SecretKey::from_slice(&D).expect("a private key"))
}
