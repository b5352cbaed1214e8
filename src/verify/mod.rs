//! `tolom verify`: the rules of money, held against the live database, the broker and the acquirer's own books.

mod acquirer_books;
mod bounds;
mod card_numbers;
mod dead_letters;

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use time::Date;

pub(crate) use self::acquirer_books::differences;
use crate::{
    acquirer::books,
    broker::{self, Broker},
    clock::Clock,
    config::Config,
    store::verify::QUESTIONS,
};

/// The rules' names (design, section 4).
const RULES: [(u8, &str); 9] = [
    (1, "accepted is kept"),
    (2, "a bill is paid at most once"),
    (3, "one effect per operation"),
    (4, "unknown is not failed"),
    (5, "terminal absorbs"),
    (6, "money is conserved"),
    (7, "card data is nowhere"),
    (8, "no message vanishes"),
    (9, "nothing is unbounded"),
];

/// What became of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: u8,
    /// Its name.
    pub title: &'static str,
    /// Whether it is kept.
    pub ok: bool,
    /// How many things were looked at.
    pub checked: i64,
    /// What breaks it, payments named.
    pub offending: Vec<String>,
    /// What a person should know, though it breaks nothing.
    pub notes: Vec<String>,
}

/// Checks every rule. Payments accepted within `grace` may still be on their way, and those that changed within it may be
/// in one book and not in the other. Where the acquirer's books are younger than ours, `books_from` is the day on which
/// they begin: earlier days are then held against our own rows alone, and the finding says so.
///
/// # Errors
/// When the database, the broker or the acquirer's books cannot be read: then nothing is proven.
pub async fn verify(
    config: &Config,
    pool: &PgPool,
    broker: &Broker,
    clock: &Clock,
    grace: Duration,
    books_from: Option<Date>,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = RULES
        .into_iter()
        .map(|(rule, title)| Finding { rule, title, ok: true, checked: 0, offending: Vec::new(), notes: Vec::new() })
        .collect();
    let mut add = |rule: u8, checked: i64, offending: Vec<String>| {
        let finding = &mut findings[usize::from(rule) - 1];
        finding.checked += checked;
        finding.offending.extend(offending);
    };
    let before = clock.now() - grace;
    for question in QUESTIONS {
        let (checked, offending) = question.ask(pool, before).await?;
        add(question.rule, checked, offending);
    }
    let theirs = books::read(&config.acquirer).await?;
    if let Some(rows) = &theirs {
        for (rule, checked, offending) in acquirer_books::compare(pool, rows, books_from, before).await? {
            add(rule, checked, offending);
        }
    }
    let (checked, offending) = card_numbers::look(pool).await?;
    add(7, checked, offending);
    let letters = dead_letters::look(pool, broker, before).await?;
    add(7, letters.checked, letters.with_card_data);
    add(8, letters.checked, letters.unparked);
    // Where a queue or a binding is missing, what is published there ends nowhere.
    let topology = broker::verify(broker).await?;
    let wrong = topology.iter().filter(|finding| !finding.ok);
    let wrong = wrong.map(|finding| format!("{} is not as declared: {}", finding.name, finding.detail)).collect();
    add(8, i64::try_from(topology.len()).unwrap_or(i64::MAX), wrong);
    let (checked, offending) = bounds::look(config, pool, broker, clock.now()).await?;
    add(9, checked, offending);
    findings[7].notes = letters.notes;
    if theirs.is_none() {
        for rule in acquirer_books::RULES {
            findings[usize::from(rule) - 1]
                .notes
                .push("held against our own books alone: the acquirer serves none".into());
        }
    }
    findings[5].notes.extend(books_from.map(|day| format!("the acquirer's books are read from {day} on")));
    for finding in &mut findings {
        finding.ok = finding.offending.is_empty();
    }
    Ok(findings)
}

/// Whether every rule is kept.
pub fn all_kept(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.ok)
}

/// The findings for people.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = if finding.ok { "kept  " } else { "BROKEN" };
        text.push_str(&format!("  {mark}  {}. {:<28} {:>7} checked\n", finding.rule, finding.title, finding.checked));
        for offending in &finding.offending {
            text.push_str(&format!("            {offending}\n"));
        }
        for note in &finding.notes {
            text.push_str(&format!("            note: {note}\n"));
        }
    }
    text
}
