//! The table of payments: redrawn in place on a terminal, a line a payment elsewhere.

use std::{
    io::{IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use super::play::Played;
use crate::payment::PublicStatus;

/// Columns and their widths. The last one is as wide as it has to be.
const COLUMNS: [(&str, usize); 8] = [
    ("payment code", 14),
    ("service", 15),
    ("amount", 11),
    ("card", 16),
    ("the card is for", 26),
    ("outcome", 28),
    ("took", 8),
    ("receipt", 14),
];

/// Where text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Screen {
    /// Standard output is a terminal: lines may be drawn again.
    Terminal,
    /// Standard output is read by something else: each line is written once.
    Lines,
    /// Standard output is for a document: people read standard error.
    Document,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Document,
            (false, true) => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }

    /// Writes for people. A reader that has gone away is no failure.
    pub(super) fn write(self, text: &str) {
        let _ = match self {
            Self::Document => std::io::stderr().write_all(text.as_bytes()),
            Self::Terminal | Self::Lines => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
    }

    /// A line of progress.
    pub(super) fn say(self, text: &str) {
        self.write(&format!("  {text}\n"));
    }
}

/// The payments as they go.
pub(super) struct Board {
    screen: Screen,
    rows: Mutex<Vec<Played>>,
}

impl Board {
    /// Shows a table of payments that are about to begin.
    pub(super) fn new(screen: Screen, rows: Vec<Played>) -> Self {
        match screen {
            Screen::Terminal => screen.write(&format!("{CUT}{}{WRAP}", table(&rows))),
            Screen::Lines | Screen::Document => screen.write(&head()),
        }
        Self { screen, rows: Mutex::new(rows) }
    }

    /// Shows a payment's news.
    pub(super) fn show(&self, index: usize, played: &Played) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get_mut(index) {
            row.clone_from(played);
        }
        match self.screen {
            Screen::Terminal => self.screen.write(&format!("{CUT}{}{WRAP}", redrawn(&rows))),
            // Its end is all that a log needs.
            Screen::Lines | Screen::Document if is_over(played) => self.screen.write(&line(&cells(played))),
            Screen::Lines | Screen::Document => {}
        }
    }

    /// Shows all rows once more, whole on a narrow terminal too.
    pub(super) fn finish(self) -> Vec<Played> {
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.screen == Screen::Terminal {
            self.screen.write(&redrawn(&rows));
        }
        rows
    }
}

/// Lines are cut at the terminal's edge while the table changes, for a wrapped line would count twice (DECAWM).
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

fn head() -> String {
    let titles = COLUMNS.map(|(title, _)| title.to_owned());
    format!("\n{}  {}\n", line(&titles), "-".repeat(width() - 2))
}

fn table(rows: &[Played]) -> String {
    rows.iter().fold(head(), |text, row| text + &line(&cells(row)))
}

/// The table in the place of itself: cursor up, and everything below erased (ECMA-48 CUU and ED).
fn redrawn(rows: &[Played]) -> String {
    let lines = table(rows).matches('\n').count();
    format!("\x1b[{lines}A\r\x1b[J{}", table(rows))
}

fn is_over(played: &Played) -> bool {
    played.took_ms.is_some()
}

fn width() -> usize {
    COLUMNS.iter().map(|(_, width)| width + 2).sum()
}

/// A line in columns. Width is counted in characters, which is right for everything that is shown here.
fn line(cells: &[String; COLUMNS.len()]) -> String {
    let mut text = String::with_capacity(width());
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        text.push_str(&format!("{cell:<width$}  "));
    }
    format!("  {}\n", text.trim_end())
}

fn cells(played: &Played) -> [String; COLUMNS.len()] {
    let took = played.took_ms.filter(|took| *took > 0);
    [
        played.bill.to_string(),
        played.service.replace('_', " "),
        played.amount.map_or_else(String::new, |amount| amount.to_string()),
        played.card.clone().unwrap_or_default(),
        played.card_does.to_owned(),
        outcome(played),
        took.map_or_else(String::new, |took| format!("{took:>5} ms")),
        played.receipt.clone().unwrap_or_default(),
    ]
}

/// What became of a payment, in words.
fn outcome(played: &Played) -> String {
    if let Some(wrong) = &played.wrong {
        return format!("WRONG: {wrong}");
    }
    let reason = || played.decline_reason.as_deref().unwrap_or("without a reason").replace('_', " ");
    let mut words = match played.public_status {
        None => "...".to_owned(),
        Some(PublicStatus::Processing) => "processing ...".to_owned(),
        Some(PublicStatus::Confirm) => "the bank wants a code ...".to_owned(),
        Some(PublicStatus::Unknown) => "unknown: do not pay again ...".to_owned(),
        Some(PublicStatus::Paid) => "paid".to_owned(),
        Some(PublicStatus::Declined) => format!("declined: {}", reason()),
        Some(PublicStatus::NotCharged) => "not charged".to_owned(),
        Some(PublicStatus::Refunded) => "refunded".to_owned(),
    };
    if is_over(played) {
        words.push_str(if played.was_unknown { " (was unknown)" } else { "" });
        words.push_str(if played.was_confirmed { " (code confirmed)" } else { "" });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scenes::SCENES;

    #[test]
    fn a_row_is_one_line_and_a_table_is_drawn_over_itself() {
        let bill = "130009264559".parse().unwrap();
        let mut played = Played::new(SCENES[0], &bill);
        assert!(line(&cells(&played)).contains("130009264559"));
        played.took_ms = Some(41);
        played.public_status = Some(PublicStatus::Paid);
        played.was_unknown = true;
        let text = line(&cells(&played));
        assert!(text.contains("paid (was unknown)") && text.ends_with("41 ms\n"), "{text}");
        let rows = vec![played.clone(), played];
        assert!(redrawn(&rows).starts_with(&format!("\x1b[{}A", table(&rows).lines().count())));
    }
}
