//! The words of receipts and notices, from the Fluent files in `texts/`, compiled in.

use super::fluent::texts;

const SOURCES: [&str; 3] = [include_str!("texts/ky.ftl"), include_str!("texts/ru.ftl"), include_str!("texts/en.ftl")];

texts! { SOURCES,
    Subject = "subject",
    SubjectAgain = "subject-again",
    Title = "title",
    Paid = "paid",
    Intro = "intro",
    IntroAgain = "intro-again",
    Amount = "amount",
    CurrencyKgs = "currency-kgs",
    LabelNumber = "label-number",
    LabelPaidAt = "label-paid-at",
    LabelService = "label-service",
    LabelBill = "label-bill",
    LabelApplicant = "label-applicant",
    LabelAmount = "label-amount",
    LabelCard = "label-card",
    LabelAuthorization = "label-authorization",
    LabelRrn = "label-rrn",
    LabelPayment = "label-payment",
    ServicePassport = "service-passport",
    ServiceDrivingLicence = "service-driving-licence",
    ServiceMekenCard = "service-meken-card",
    ServiceOther = "service-other",
    BrandVisa = "brand-visa",
    BrandMastercard = "brand-mastercard",
    BrandMir = "brand-mir",
    BrandUnionpay = "brand-unionpay",
    BrandElcart = "brand-elcart",
    BrandOther = "brand-other",
    Online = "online",
    Verify = "verify",
    Scan = "scan",
    Sms = "sms",
    SmsShort = "sms-short",
    Questions = "questions",
    NotYours = "not-yours",
    UnknownSubject = "unknown-subject",
    UnknownTitle = "unknown-title",
    UnknownHappened = "unknown-happened",
    UnknownMoney = "unknown-money",
    FailedSubject = "failed-subject",
    FailedTitle = "failed-title",
    FailedHappened = "failed-happened",
    DeclinedHappened = "declined-happened",
    FailedMoney = "failed-money",
    ReversedSubject = "reversed-subject",
    ReversedTitle = "reversed-title",
    ReversedHappened = "reversed-happened",
    ReversedMoney = "reversed-money",
    AdviceWait = "advice-wait",
    AdviceAgain = "advice-again",
    AdviceHeld = "advice-held",
    AdvicePaid = "advice-paid",
    AdviceClosed = "advice-closed",
    LinkStatus = "link-status",
    LinkAgain = "link-again",
}

impl Text {
    /// The name of a service by its word in the configuration, which may list more than there are texts for.
    pub(super) fn service(word: &str) -> Self {
        match word {
            "passport" => Self::ServicePassport,
            "driving_licence" => Self::ServiceDrivingLicence,
            "meken_card" => Self::ServiceMekenCard,
            _ => Self::ServiceOther,
        }
    }

    /// The name of a card network by the word in `MaskedCard::brand`.
    pub(super) fn brand(word: &str) -> Self {
        match word {
            "visa" => Self::BrandVisa,
            "mastercard" => Self::BrandMastercard,
            "mir" => Self::BrandMir,
            "unionpay" => Self::BrandUnionpay,
            "elcart" => Self::BrandElcart,
            _ => Self::BrandOther,
        }
    }
}
