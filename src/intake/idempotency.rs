//! The Idempotency-Key and the fingerprint of what it stands for.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use sha2::{Digest, Sha256};

use super::{Intake, problem::Problem};
use crate::{
    contracts::Payer,
    payment::{Money, PaymentCode},
};

/// SHA-256 of the header, in hex; the header has 1 to 255 printable ASCII characters, taken as they are.
///
/// Keys are kept for weeks, and a site that by mistake makes them of what its payer typed must not have a card's number
/// kept with them (rule 7). Whether two are the same, which is all that is ever asked of them, a digest tells as well.
pub(super) struct IdempotencyKey(pub(super) String);

impl FromRequestParts<Intake> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Intake) -> Result<Self, Problem> {
        key(&parts.headers).map(Self)
    }
}

/// Reads the header; a request has exactly one.
pub(super) fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = values.next().ok_or_else(Problem::key_missing)?;
    let fits = (1..=255).contains(&value.len()) && value.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte));
    match value.to_str() {
        Ok(text) if fits && !text.trim().is_empty() && values.next().is_none() => Ok(hex(&Sha256::digest(text))),
        _ => Err(Problem::key_invalid()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over the stable business fields, each with its length before it so that no two requests run together. The
/// sealed card is left out, for it differs at each submit; so is the locale, which changes nothing that is owed.
pub(super) fn fingerprint(bill: &PaymentCode, amount: Money, payer: &Payer, terms: &str) -> [u8; 32] {
    let value = amount.value.to_string();
    let parts = [bill.as_str(), &value, amount.currency.as_str(), &payer.email, &payer.phone, terms];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payment::Currency;

    type Request = (String, i64, String, String, String);

    fn of((bill, value, email, phone, terms): &Request) -> [u8; 32] {
        let payer = Payer { email: email.clone(), phone: phone.clone() };
        fingerprint(&bill.parse().unwrap(), Money::new(*value, Currency::KGS), &payer, terms)
    }

    fn requests() -> impl Strategy<Value = Request> {
        ("[0-9]{6,8}", 1_i64..1000, "[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}")
    }

    proptest! {
        #[test]
        fn two_requests_have_one_fingerprint_only_if_they_are_the_same(one in requests(), other in requests()) {
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
