//! What the scripts are given: their words, from the same files as the pages', and what they need to know.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    home::prefixes,
    texts::{Text, say, say_with},
};
use crate::{
    config::Config,
    notify::{Locale, shown},
    store::bills::Bill,
};

/// A block of JSON in a page. A content security policy does not run it, so it needs no hash.
pub(super) struct Words(Value);

impl Words {
    /// As it stands between `<script type="application/json">` and its end.
    pub(super) fn json(&self) -> String {
        // `</script>` and `<!--` would end or change the element (WHATWG HTML 13.2.5.4).
        self.0.to_string().replace('<', "\\u003c")
    }
}

/// A script's words: each by its name in the Fluent files. What it fills in itself arrives as `{name}`.
fn words(lang: Locale, texts: &[Text], filled: &[(Text, &'static str)]) -> Map<String, Value> {
    let plain = texts.iter().map(|text| (text.id().to_owned(), json!(say(lang, *text))));
    let with = filled.iter().map(|(text, name)| {
        let placeholder = format!("{{{name}}}");
        (text.id().to_owned(), json!(say_with(lang, *text, &[(*name, placeholder.as_str())])))
    });
    plain.chain(with).collect()
}

/// For the code's form.
pub(super) const CODE: [Text; 3] = [Text::CodeMissing, Text::CodeNotDigits, Text::CodeLength];

/// For the card's form.
pub(super) const CARD: [Text; 38] = [
    Text::NumberMissing,
    Text::NumberLength,
    Text::NumberWrong,
    Text::NetworkNotTaken,
    Text::ExpiryMissing,
    Text::ExpiryWrong,
    Text::ExpiryPast,
    Text::CvcMissing,
    Text::CvcWrong,
    Text::HolderMissing,
    Text::HolderCyrillic,
    Text::HolderWrong,
    Text::EmailMissing,
    Text::EmailWrong,
    Text::PhoneMissing,
    Text::PhoneWrong,
    Text::Sealing,
    Text::Sending,
    Text::Accepted,
    Text::StillTrying,
    Text::NoAnswer,
    Text::ResumeEarlier,
    Text::CannotSeal,
    Text::ProblemBillUnknown,
    Text::ProblemBillPaid,
    Text::ProblemBillCancelled,
    Text::ProblemBillExpired,
    Text::ProblemPaymentInProgress,
    Text::ProblemKeyReused,
    Text::ProblemTerms,
    Text::ProblemAmount,
    Text::ProblemCard,
    Text::ProblemEmail,
    Text::ProblemPhone,
    Text::ProblemTooMany,
    Text::ProblemLater,
    Text::ProblemPage,
    Text::ToTheBill,
];

/// For a payment's page.
pub(super) const PAYMENT: [Text; 1] = [Text::LiveLost];

/// What the code's form needs.
pub(super) fn code(lang: Locale, config: &Config) -> Words {
    let mut all = words(lang, &CODE, &[]);
    let prefixes_told = prefixes(config);
    let text = say_with(lang, Text::CodePrefix, &[("prefixes", prefixes_told.as_str())]);
    all.insert(Text::CodePrefix.id().to_owned(), json!(text));
    let prefixes: Vec<&str> = config.services.iter().map(|service| service.prefix.as_str()).collect();
    Words(json!({ "words": all, "prefixes": prefixes }))
}

/// The card networks that are told apart (`payment::card::brand`).
const BRANDS: [&str; 5] = ["visa", "mastercard", "mir", "unionpay", "elcart"];

/// What the card's form needs: the request it will send, without the card, and the rules of cards.
pub(super) fn card(lang: Locale, config: &Config, bill: &Bill, terms: &str) -> Words {
    #[derive(Serialize)]
    struct Known<'a> {
        bill: &'a str,
        amount: crate::payment::Money,
        locale: &'a str,
        terms: &'a str,
        lengths: &'a [usize],
        networks: &'a [String],
        brands: Map<String, Value>,
        words: Map<String, Value>,
    }
    let known = Known {
        bill: bill.terms.code.as_str(),
        amount: bill.terms.amount,
        locale: lang.as_str(),
        terms,
        lengths: &config.card.lengths,
        networks: &config.card.networks,
        brands: BRANDS.iter().map(|word| ((*word).to_owned(), json!(shown::brand(word, lang)))).collect(),
        words: words(
            lang,
            &CARD,
            &[(Text::TryingAgain, "seconds"), (Text::Waiting, "seconds"), (Text::ProblemWait, "minutes")],
        ),
    };
    Words(serde_json::to_value(known).unwrap_or_default())
}

/// What a payment's page needs.
pub(super) fn payment(lang: Locale) -> Words {
    Words(json!({ "words": words(lang, &PAYMENT, &[]) }))
}
