//! The issuers' response codes, in words that a payer can act on.
//!
//! Shared by the adapters, because every acquirer passes on the same list: ISO 8583:1987, data element 39, with the
//! letters that Visa added to it.

use crate::payment::card::DeclineReason;

/// What a response code (ISO 8583 field 39) means to the payer. The set is open, so a code that is not listed is
/// [`DeclineReason::Other`]: refused all the same, only without advice.
pub(super) fn decline_reason(code: &str) -> DeclineReason {
    match code {
        // Invalid card number; no such issuer.
        "14" | "15" => DeclineReason::InvalidNumber,
        // Expired; expired, capture the card.
        "54" | "33" => DeclineReason::ExpiredCard,
        // Negative CVV result (Visa: 82 for chip and magnetic stripe, N7 for CVV2).
        "82" | "N7" => DeclineReason::InvalidCvc,
        "51" => DeclineReason::InsufficientFunds,
        // Lost; stolen.
        "41" | "43" => DeclineReason::LostOrStolen,
        // Amount limit; count limit. Mastercard in Europe also says 65 for "authenticate first": ISO's meaning is the
        // one an issuer may be asked about, and the advice (another card, another day) does no harm in either case.
        "61" | "65" => DeclineReason::LimitExceeded,
        // Strong customer authentication required or failed (Visa).
        "1A" => DeclineReason::AuthenticationFailed,
        // Suspected fraud; suspected fraud, capture the card; capture the card, special conditions; security violation.
        "59" | "34" | "07" | "63" => DeclineReason::SuspectedFraud,
        // Do not honor; refer to issuer; the same, special conditions; not permitted to this holder; restricted card.
        "05" | "01" | "02" | "57" | "62" => DeclineReason::DoNotHonor,
        _ => DeclineReason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_gives_the_payer_its_own_advice() {
        for (code, reason) in [
            ("05", DeclineReason::DoNotHonor),
            ("51", DeclineReason::InsufficientFunds),
            ("54", DeclineReason::ExpiredCard),
            ("14", DeclineReason::InvalidNumber),
            ("41", DeclineReason::LostOrStolen),
            ("43", DeclineReason::LostOrStolen),
            ("61", DeclineReason::LimitExceeded),
            ("65", DeclineReason::LimitExceeded),
            ("59", DeclineReason::SuspectedFraud),
            ("82", DeclineReason::InvalidCvc),
            ("N7", DeclineReason::InvalidCvc),
            ("1A", DeclineReason::AuthenticationFailed),
            ("12", DeclineReason::Other),
            ("", DeclineReason::Other),
            ("a code of the future", DeclineReason::Other),
        ] {
            assert_eq!(decline_reason(code), reason, "{code}");
        }
    }
}
