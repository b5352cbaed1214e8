//! Texts in three languages from Fluent files: receipts and pages have files of their own, and this in common.

use std::collections::{BTreeMap, BTreeSet};

use fluent_bundle::{FluentArgs, FluentResource, FluentValue, concurrent::FluentBundle};
use unic_langid::{LanguageIdentifier, langid};

use super::Locale;

/// Declares the messages of a set of files: `Text`, and `say` and `say_with` to say them. One which nothing says is an
/// unused variant and stops the build; one which a file lacks (or has beyond these) stops a test.
macro_rules! texts {
    ($sources:ident, $($name:ident = $id:literal),* $(,)?) => {
        /// A message of the files in `texts/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Text { $($name),* }

        impl Text {
            /// The message's name in the files.
            pub(super) const fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }
        }

        static CATALOGUE: std::sync::LazyLock<$crate::notify::fluent::Catalogue> =
            std::sync::LazyLock::new(|| $crate::notify::fluent::Catalogue::read($sources));

        /// A message that takes no arguments.
        pub(super) fn say(locale: $crate::notify::Locale, text: Text) -> String {
            say_with::<&str>(locale, text, &[])
        }

        /// A message with its arguments. Texts are inserted as they are; numbers choose the plural form too.
        pub(super) fn say_with<'a, V>(
            locale: $crate::notify::Locale,
            text: Text,
            arguments: &[(&'a str, V)],
        ) -> String
        where
            V: Copy + Into<fluent_bundle::FluentValue<'a>>,
        {
            CATALOGUE.say(locale, text.id(), arguments)
        }

        #[cfg(test)]
        mod tests {
            #[test]
            fn every_message_is_there_once_in_every_language_and_takes_the_same_arguments() {
                let faults = $crate::notify::fluent::faults(super::$sources, &[$($id),*]);
                assert_eq!(faults, Vec::<String>::new());
            }
        }
    };
}

pub(crate) use texts;

/// The messages of one set of files, a file a language.
pub struct Catalogue {
    bundles: [FluentBundle<FluentResource>; 3],
}

impl Catalogue {
    /// Reads the files in the order of [`Locale::ALL`]. What cannot be read of a file is left out: a receipt or page with
    /// a message's name in it is better than none. A test reads every file without an error.
    pub fn read([ky, ru, en]: [&'static str; 3]) -> Self {
        Self { bundles: [bundle(langid!("ky"), ky), bundle(langid!("ru"), ru), bundle(langid!("en"), en)] }
    }

    /// A message with its arguments. Texts are inserted as they are; numbers choose the plural form too.
    pub fn say<'a, V>(&self, locale: Locale, id: &str, arguments: &[(&'a str, V)]) -> String
    where
        V: Copy + Into<FluentValue<'a>>,
    {
        let [ky, ru, en] = &self.bundles;
        let bundle = match locale {
            Locale::Ky => ky,
            Locale::Ru => ru,
            Locale::En => en,
        };
        let Some(pattern) = bundle.get_message(id).and_then(|message| message.value()) else {
            return id.to_owned();
        };
        let mut named = FluentArgs::with_capacity(arguments.len());
        for (name, value) in arguments {
            named.set(*name, *value);
        }
        bundle.format_pattern(pattern, Some(&named), &mut Vec::new()).into_owned()
    }
}

fn bundle(language: LanguageIdentifier, source: &str) -> FluentBundle<FluentResource> {
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Isolation marks (U+2068, U+2069) are no good in subjects and in text that people copy.
    bundle.set_use_isolating(false);
    let resource = FluentResource::try_new(source.to_owned()).unwrap_or_else(|(readable, _)| readable);
    let _ = bundle.add_resource(resource);
    bundle
}

/// What is wrong with a set of files, for a test: what cannot be read, what stands twice, is missing, is beyond the
/// `declared` names, or takes other arguments than in English.
pub fn faults(sources: [&str; 3], declared: &[&str]) -> Vec<String> {
    let declared: BTreeSet<&str> = declared.iter().copied().collect();
    let mut faults = Vec::new();
    let read = sources.map(|source| messages(source, &mut faults));
    let [_, _, english] = &read;
    for ((locale, source), messages) in Locale::ALL.into_iter().zip(sources).zip(&read) {
        if let Err((_, errors)) = FluentResource::try_new(source.to_owned()) {
            faults.push(format!("{locale}: {errors:?}"));
        }
        let there: BTreeSet<&str> = messages.keys().map(String::as_str).collect();
        faults.extend(declared.difference(&there).map(|name| format!("{locale}: {name} is missing")));
        faults.extend(there.difference(&declared).map(|name| format!("{locale}: nothing says {name}")));
        let differs = |(name, arguments): (&String, &BTreeSet<String>)| {
            (english.get(name) != Some(arguments))
                .then(|| format!("{locale}: {name} takes other arguments than in English"))
        };
        faults.extend(messages.iter().filter_map(differs));
    }
    faults
}

/// Message names with the arguments they take, read from the file's lines.
fn messages(source: &str, faults: &mut Vec<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in source.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with([' ', '\t'])) {
            current = name.trim().to_owned();
            if found.insert(current.clone(), BTreeSet::new()).is_some() {
                faults.push(format!("{current} stands twice"));
            }
        }
        for argument in line.split('$').skip(1) {
            let end = argument.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(argument.len());
            found.entry(current.clone()).or_default().insert(argument[..end].to_owned());
        }
    }
    found
}
