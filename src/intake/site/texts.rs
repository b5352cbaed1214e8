//! The words of the site, from the Fluent files in `texts/`, compiled in.

use std::sync::LazyLock;

use fluent_bundle::FluentValue;

use crate::notify::{Locale, fluent::Catalogue};

/// Declares the messages, so that one which nothing says is an unused variant and stops the build, and one which a
/// file lacks (or has beyond these) stops a test.
macro_rules! messages {
    ($($name:ident = $id:literal),* $(,)?) => {
        /// A message of the files in `texts/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Text { $($name),* }

        impl Text {
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The message's name in the files.
            pub(super) const fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }
        }
    };
}

messages! {
    SkipToMain = "skip-to-main",
    LanguageLabel = "language-label",
    FooterHelp = "footer-help",
    FooterDocuments = "footer-documents",
    SummaryTitle = "summary-title",
    ErrorTitle = "error-title",
    LookAgain = "look-again",
    TryAgain = "try-again",
    AnotherCode = "another-code",
    CodeTitle = "code-title",
    CodeLead = "code-lead",
    CodeLabel = "code-label",
    CodeHint = "code-hint",
    CodeSubmit = "code-submit",
    CodeMissing = "code-missing",
    CodeNotDigits = "code-not-digits",
    CodeLength = "code-length",
    CodePrefix = "code-prefix",
    WhereTitle = "where-title",
    WhereFound = "where-found",
    KindsTitle = "kinds-title",
    NeedTitle = "need-title",
    NeedCard = "need-card",
    NeedPhone = "need-phone",
    LabelAmount = "label-amount",
    LabelService = "label-service",
    LabelApplicant = "label-applicant",
    LabelCode = "label-code",
    LabelValidUntil = "label-valid-until",
    LabelCard = "label-card",
    LabelReceipt = "label-receipt",
    LabelPaidAt = "label-paid-at",
    LabelRefunded = "label-refunded",
    BillTitle = "bill-title",
    BillCheck = "bill-check",
    PayButton = "pay-button",
    PaySafely = "pay-safely",
    BillBeingPaidTitle = "bill-being-paid-title",
    BillBeingPaid = "bill-being-paid",
    BillBeingPaidNext = "bill-being-paid-next",
    BillOwnPayment = "bill-own-payment",
    BillPaidTitle = "bill-paid-title",
    BillPaidHere = "bill-paid-here",
    BillPaidElsewhere = "bill-paid-elsewhere",
    BillPaidElsewhereNext = "bill-paid-elsewhere-next",
    BillCancelledTitle = "bill-cancelled-title",
    BillCancelled = "bill-cancelled",
    BillCancelledNext = "bill-cancelled-next",
    BillExpiredTitle = "bill-expired-title",
    BillExpired = "bill-expired",
    BillExpiredNext = "bill-expired-next",
    ReceiptAgain = "receipt-again",
    ReceiptAgainHint = "receipt-again-hint",
    ReceiptAsked = "receipt-asked",
    CardTitle = "card-title",
    CardNumber = "card-number",
    CardExpiry = "card-expiry",
    CardExpiryHint = "card-expiry-hint",
    CardExpiryMask = "card-expiry-mask",
    CardCvc = "card-cvc",
    CardCvcHint = "card-cvc-hint",
    CardHolder = "card-holder",
    CardHolderHint = "card-holder-hint",
    Email = "email",
    EmailHint = "email-hint",
    Phone = "phone",
    PhoneHint = "phone-hint",
    PhoneCountry = "phone-country",
    PhoneNumber = "phone-number",
    CountryOther = "country-other",
    CountryKg = "country-kg",
    CountryRu = "country-ru",
    CountryKz = "country-kz",
    CountryTr = "country-tr",
    CountryKr = "country-kr",
    CountryUs = "country-us",
    CountryDe = "country-de",
    CountryUz = "country-uz",
    CountryAe = "country-ae",
    CountryGb = "country-gb",
    CountryIt = "country-it",
    CountryFr = "country-fr",
    CountryPl = "country-pl",
    CountryCz = "country-cz",
    CountryCn = "country-cn",
    CountryJp = "country-jp",
    CountryBy = "country-by",
    CountryTj = "country-tj",
    CountryUa = "country-ua",
    CountryGe = "country-ge",
    CountryAz = "country-az",
    CountrySa = "country-sa",
    CountryEg = "country-eg",
    CountryIl = "country-il",
    AgreementBefore = "agreement-before",
    AgreementVersion = "agreement-version",
    CardSafe = "card-safe",
    CardTaken = "card-taken",
    CardAllNetworks = "card-all-networks",
    BackToBill = "back-to-bill",
    ScriptTitle = "script-title",
    ScriptNeeded = "script-needed",
    ScriptLate = "script-late",
    NumberMissing = "number-missing",
    NumberLength = "number-length",
    NumberWrong = "number-wrong",
    NetworkNotTaken = "network-not-taken",
    ExpiryMissing = "expiry-missing",
    ExpiryWrong = "expiry-wrong",
    ExpiryPast = "expiry-past",
    CvcMissing = "cvc-missing",
    CvcWrong = "cvc-wrong",
    HolderMissing = "holder-missing",
    HolderCyrillic = "holder-cyrillic",
    HolderWrong = "holder-wrong",
    EmailMissing = "email-missing",
    EmailWrong = "email-wrong",
    PhoneMissing = "phone-missing",
    PhoneWrong = "phone-wrong",
    Sealing = "sealing",
    Sending = "sending",
    Accepted = "accepted",
    TryingAgain = "trying-again",
    Waiting = "waiting",
    StillTrying = "still-trying",
    NoAnswer = "no-answer",
    ResumeEarlier = "resume-earlier",
    CannotSeal = "cannot-seal",
    ProblemBillUnknown = "problem-bill-unknown",
    ProblemBillPaid = "problem-bill-paid",
    ProblemBillCancelled = "problem-bill-cancelled",
    ProblemBillExpired = "problem-bill-expired",
    ProblemPaymentInProgress = "problem-payment-in-progress",
    ProblemKeyReused = "problem-key-reused",
    ProblemTerms = "problem-terms",
    ProblemAmount = "problem-amount",
    ProblemCard = "problem-card",
    ProblemEmail = "problem-email",
    ProblemPhone = "problem-phone",
    ProblemTooMany = "problem-too-many",
    ProblemWait = "problem-wait",
    ProblemLater = "problem-later",
    ProblemPage = "problem-page",
    ToTheBill = "to-the-bill",
    ProcessingTitle = "processing-title",
    Processing = "processing",
    ProcessingNext = "processing-next",
    ConfirmTitle = "confirm-title",
    Confirm = "confirm",
    ConfirmButton = "confirm-button",
    ConfirmUntil = "confirm-until",
    ConfirmedTitle = "confirmed-title",
    Confirmed = "confirmed",
    ConfirmOverTitle = "confirm-over-title",
    ConfirmOver = "confirm-over",
    PaidTitle = "paid-title",
    Paid = "paid",
    DeclinedTitle = "declined-title",
    Declined = "declined",
    DeclinedInvalidNumber = "declined-invalid-number",
    DeclinedExpiredCard = "declined-expired-card",
    DeclinedInvalidCvc = "declined-invalid-cvc",
    DeclinedInvalidHolder = "declined-invalid-holder",
    DeclinedUnsupportedNetwork = "declined-unsupported-network",
    DeclinedUnreadableCard = "declined-unreadable-card",
    DeclinedCardTimedOut = "declined-card-timed-out",
    DeclinedInsufficientFunds = "declined-insufficient-funds",
    DeclinedLostOrStolen = "declined-lost-or-stolen",
    DeclinedLimitExceeded = "declined-limit-exceeded",
    DeclinedAuthenticationFailed = "declined-authentication-failed",
    DeclinedSuspectedFraud = "declined-suspected-fraud",
    DeclinedDoNotHonor = "declined-do-not-honor",
    DeclinedTooManyAttempts = "declined-too-many-attempts",
    DeclinedOther = "declined-other",
    NotChargedTitle = "not-charged-title",
    NotCharged = "not-charged",
    NotChargedNext = "not-charged-next",
    UnknownTitle = "unknown-title",
    Unknown = "unknown",
    UnknownNext = "unknown-next",
    RefundedTitle = "refunded-title",
    Refunded = "refunded",
    PayAgain = "pay-again",
    LiveLost = "live-lost",
    ReceiptPdf = "receipt-pdf",
    ReceiptPrint = "receipt-print",
    ReceiptMailed = "receipt-mailed",
    QrHint = "qr-hint",
    GenuineTitle = "genuine-title",
    Genuine = "genuine",
    RefundedInPart = "refunded-in-part",
    GivenBackTitle = "given-back-title",
    GivenBack = "given-back",
    NotGenuineTitle = "not-genuine-title",
    NotGenuine = "not-genuine",
    GenuineHint = "genuine-hint",
    DocumentsTitle = "documents-title",
    DocumentsOther = "documents-other",
    DocumentSince = "document-since",
    DocumentNotInForce = "document-not-in-force",
    BillUnknownTitle = "bill-unknown-title",
    BillUnknown = "bill-unknown",
    PaymentUnknownTitle = "payment-unknown-title",
    PaymentUnknown = "payment-unknown",
    ReceiptUnavailableTitle = "receipt-unavailable-title",
    ReceiptUnavailable = "receipt-unavailable",
    PageUnknownTitle = "page-unknown-title",
    PageUnknown = "page-unknown",
    TooManyTitle = "too-many-title",
    TooMany = "too-many",
    CrossSiteTitle = "cross-site-title",
    CrossSite = "cross-site",
    AwayTitle = "away-title",
    Away = "away",
    BadTitle = "bad-title",
    Bad = "bad",
    BrokenTitle = "broken-title",
    Broken = "broken",
    WaitSeconds = "wait-seconds",
    WaitMinutes = "wait-minutes",
}

const SOURCES: [&str; 3] = [include_str!("texts/ky.ftl"), include_str!("texts/ru.ftl"), include_str!("texts/en.ftl")];

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::read(SOURCES));

/// A message that takes no arguments.
pub(super) fn say(locale: Locale, text: Text) -> String {
    say_with::<&str>(locale, text, &[])
}

/// A message with its arguments. Texts are inserted as they are; numbers choose the plural form too.
pub(super) fn say_with<'a, V>(locale: Locale, text: Text, arguments: &[(&'a str, V)]) -> String
where
    V: Copy + Into<FluentValue<'a>>,
{
    CATALOGUE.say(locale, text.id(), arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fluent::faults;

    #[test]
    fn every_message_is_there_once_in_every_language_and_takes_the_same_arguments() {
        let declared: Vec<&str> = Text::ALL.iter().map(|text| text.id()).collect();
        assert_eq!(faults(SOURCES, &declared), Vec::<String>::new());
    }
}
