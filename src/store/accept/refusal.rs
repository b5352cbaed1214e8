//! Why a payment is not accepted, in words for programs and for people.

use crate::payment::limits::By;

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
    /// Not the version of the terms that is in force.
    TermsNotInForce,
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
            Self::TermsNotInForce => "terms-not-in-force",
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
            Self::TermsNotInForce => "this version of the terms is not in force; read and accept the current one",
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
            Self::TermsNotInForce => Some("terms"),
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
                | Self::TermsNotInForce
                | Self::TooManyAttempts { .. }
                | Self::Unavailable
                | Self::Internal
        )
    }

    pub(super) const fn is_about_the_card(self) -> bool {
        matches!(
            self,
            Self::CardKeyUnknown | Self::CardUnknown | Self::CardExpired | Self::CardOfOtherBill | Self::CardUsed
        )
    }
}
