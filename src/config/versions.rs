//! The versions of the site's documents, and which of them is in force.

use time::Date;

use super::Config;

/// The document whose version in force a payer accepts by paying: the versions of `[[terms]]`.
pub const AGREEMENT: &str = "user-agreement";

/// A date of the settings, `2026-01-01`.
pub fn parse_date(text: &str) -> Option<Date> {
    Date::parse(text, time::macros::format_description!("[year]-[month]-[day]")).ok()
}

/// Of versions with the days from which they are in force, the one that is on a day: the newest whose day has come.
pub fn in_force<T>(versions: impl IntoIterator<Item = (Date, T)>, day: Date) -> Option<T> {
    let begun = versions.into_iter().filter(|(from, _)| *from <= day);
    begun.max_by_key(|(from, _)| *from).map(|(_, version)| version)
}

impl Config {
    /// Every version of every document, the agreement first: document, version, and since when it is in force.
    pub fn editions(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let agreement = self.terms.iter().map(|it| (AGREEMENT, it.version.as_str(), it.in_force_from.as_str()));
        let others = self.documents.iter();
        agreement.chain(others.map(|it| (it.document.as_str(), it.version.as_str(), it.in_force_from.as_str())))
    }

    /// The version of the terms in force on a day; empty before the first one's.
    pub fn terms_in_force(&self, day: Date) -> &str {
        let dated = self.terms.iter().filter_map(|it| Some((parse_date(&it.in_force_from)?, it.version.as_str())));
        in_force(dated, day).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn the_newest_version_whose_day_has_come_is_in_force_in_whatever_order_they_stand() {
        let (first, second) = ((date!(2026 - 01 - 01), "first"), (date!(2030 - 01 - 01), "second"));
        for versions in [[first, second], [second, first]] {
            assert_eq!(in_force(versions, date!(2025 - 12 - 31)), None);
            assert_eq!(in_force(versions, date!(2026 - 01 - 01)), Some("first"));
            assert_eq!(in_force(versions, date!(2029 - 12 - 31)), Some("first"));
            assert_eq!(in_force(versions, date!(2030 - 01 - 01)), Some("second"));
        }
    }
}
