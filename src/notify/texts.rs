//! The words of receipts and notices, from the Fluent files in `texts/`, compiled in.

use std::sync::LazyLock;

use fluent_bundle::{FluentArgs, FluentResource, FluentValue, concurrent::FluentBundle};
use unic_langid::{LanguageIdentifier, langid};

use super::Locale;

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

static KY: LazyLock<FluentBundle<FluentResource>> = LazyLock::new(|| bundle(langid!("ky"), source(Locale::Ky)));
static RU: LazyLock<FluentBundle<FluentResource>> = LazyLock::new(|| bundle(langid!("ru"), source(Locale::Ru)));
static EN: LazyLock<FluentBundle<FluentResource>> = LazyLock::new(|| bundle(langid!("en"), source(Locale::En)));

const fn source(locale: Locale) -> &'static str {
    match locale {
        Locale::Ky => include_str!("texts/ky.ftl"),
        Locale::Ru => include_str!("texts/ru.ftl"),
        Locale::En => include_str!("texts/en.ftl"),
    }
}

/// What cannot be read of a file is left out: a receipt or notice with a message's name in it is better than none. A test reads
/// every file without an error.
fn bundle(language: LanguageIdentifier, source: &str) -> FluentBundle<FluentResource> {
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Isolation marks (U+2068, U+2069) are no good in subjects and in text that people copy.
    bundle.set_use_isolating(false);
    let resource = FluentResource::try_new(source.to_owned()).unwrap_or_else(|(readable, _)| readable);
    let _ = bundle.add_resource(resource);
    bundle
}

/// A message that takes no arguments.
pub(super) fn say(locale: Locale, text: Text) -> String {
    say_with::<&str>(locale, text, &[])
}

/// A message with its arguments. Texts are inserted as they are; numbers choose the plural form too.
pub(super) fn say_with<'a, V>(locale: Locale, text: Text, arguments: &[(&'a str, V)]) -> String
where
    V: Copy + Into<FluentValue<'a>>,
{
    let bundle = match locale {
        Locale::Ky => &KY,
        Locale::Ru => &RU,
        Locale::En => &EN,
    };
    let Some(pattern) = bundle.get_message(text.id()).and_then(|message| message.value()) else {
        return text.id().to_owned();
    };
    let mut named = FluentArgs::with_capacity(arguments.len());
    for (name, value) in arguments {
        named.set(*name, *value);
    }
    bundle.format_pattern(pattern, Some(&named), &mut Vec::new()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Message names with the arguments they take, read from the file's lines.
    fn messages(locale: Locale) -> BTreeMap<String, BTreeSet<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut current = String::new();
        for line in source(locale).lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with([' ', '\t'])) {
                current = name.trim().to_owned();
                assert!(found.insert(current.clone(), BTreeSet::new()).is_none(), "{locale}: {current} stands twice");
            }
            for argument in line.split('$').skip(1) {
                let end = argument.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(argument.len());
                found.get_mut(&current).unwrap().insert(argument[..end].to_owned());
            }
        }
        found
    }

    #[test]
    fn every_file_is_read_without_an_error() {
        for locale in Locale::ALL {
            let read = FluentResource::try_new(source(locale).to_owned());
            assert!(read.is_ok(), "{locale}: {:?}", read.err().map(|(_, errors)| errors));
        }
    }

    #[test]
    fn no_message_is_missing_and_none_is_unused() {
        let declared: BTreeSet<String> = Text::ALL.iter().map(|text| text.id().to_owned()).collect();
        for locale in Locale::ALL {
            let there: BTreeSet<String> = messages(locale).into_keys().collect();
            assert_eq!(there, declared, "{locale}");
        }
    }

    #[test]
    fn a_message_takes_the_same_arguments_in_every_language() {
        let english = messages(Locale::En);
        for locale in Locale::ALL {
            assert_eq!(messages(locale), english, "{locale}");
        }
    }
}
