//! The words of receipts and notices, from the Fluent files in `texts/`, compiled in.

use std::sync::LazyLock;

use fluent_bundle::FluentValue;

use super::{Locale, fluent::Catalogue};

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
            const fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }
        }
    };
}

messages! {
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
