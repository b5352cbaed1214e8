//! Dead letters as people and scripts read them.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::store::dead::{Group, Line, Whole};

const REASON_CHARS: usize = 100;

pub(super) fn list(letters: &[Line], all: i64) -> String {
    let mut text =
        format!("{:>8}  {:<18}  {:<20}  {:<9}  {:>5}  reason\n", "letter", "queue", "died", "state", "times");
    for letter in letters {
        let mark = if letter.unreplayable.is_some() { "  (not replayable)" } else { "" };
        text.push_str(&format!(
            "{:>8}  {:<18}  {:<20}  {:<9}  {:>5}  {}{mark}\n",
            letter.id,
            letter.queue,
            second(letter.last_at),
            letter.state.as_str(),
            letter.times,
            shown(&letter.reason, REASON_CHARS),
        ));
    }
    let more = all - i64::try_from(letters.len()).unwrap_or(i64::MAX);
    match (all, more) {
        (0, _) => text.push_str("none\n"),
        (_, 1..) => text.push_str(&format!("and {more} more\n")),
        _ => {}
    }
    text
}

pub(super) fn groups(groups: &[Group]) -> String {
    let mut text = format!("{:>8}  {:<18}  {:<20}  {:<20}  reason\n", "letters", "queue", "first failed", "died last");
    for group in groups {
        let not = match group.unreplayable {
            0 => String::new(),
            not => format!("  ({not} not replayable)"),
        };
        text.push_str(&format!(
            "{:>8}  {:<18}  {:<20}  {:<20}  {}{not}\n",
            group.letters,
            group.queue,
            second(group.first_at),
            second(group.last_at),
            shown(&group.reason, REASON_CHARS),
        ));
    }
    if groups.is_empty() {
        text.push_str("none\n");
    }
    text
}

pub(super) fn whole(letter: &Whole) -> String {
    let line = &letter.line;
    let mut text = format!(
        "letter     {}\nqueue      {}\nstate      {}\nmessage    {}\n",
        line.id,
        line.queue,
        line.state,
        shown(&letter.message_id, 255)
    );
    let payment = line.payment.map(|payment| payment.to_string());
    let optional = [
        ("type", line.event_type.as_deref()),
        ("payment", payment.as_deref()),
        ("NOT REPLAYABLE", line.unreplayable.as_deref()),
    ];
    for (label, value) in optional {
        if let Some(value) = value {
            text.push_str(&format!("{label:<10} {}\n", shown(value, 500)));
        }
    }
    text.push_str(&format!("died       {} times, {} retries before the last\n", line.times, line.attempts));
    text.push_str(&format!("between    {} and {}\n", second(line.first_at), second(line.last_at)));
    text.push_str(&format!("reason     {}\n", shown(&line.reason, 1_000)));
    for failure in &letter.reasons {
        let reason = shown(&failure.reason, 500);
        text.push_str(&format!("  {}  attempt {:>2}  {reason}\n", second(failure.at), failure.attempt));
    }
    for (name, value) in letter.headers.as_object().into_iter().flatten() {
        text.push_str(&format!("header     {} = {}\n", shown(name, 255), shown(value.as_str().unwrap_or("?"), 500)));
    }
    for done in &letter.audit {
        let why = done.why.as_deref().map_or_else(String::new, |why| format!(": {}", shown(why, 500)));
        let (at, action) = (second(done.at), &done.action);
        text.push_str(&format!("{at}  {action} by {} ({}){why}\n", shown(&done.who, 100), done.os_user));
    }
    text.push_str(&format!("body, {} bytes:\n{}\n", letter.body.len(), printable(&letter.body)));
    text
}

pub(super) fn json(letter: &Whole) -> Value {
    let mut value = json!(letter.line);
    value["message_id"] = letter.message_id.as_str().into();
    value["headers"] = letter.headers.clone();
    value["reasons"] = json!(letter.reasons);
    value["audit"] = json!(letter.audit);
    match std::str::from_utf8(&letter.body) {
        Ok(body) => value["body"] = body.into(),
        Err(_) => value["body_base64"] = STANDARD.encode(&letter.body).into(),
    }
    value
}

fn second(at: time::OffsetDateTime) -> String {
    let form = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_else(|_| at.to_string())
}

/// A foreign text on one line, cut, and without anything that a terminal would obey.
fn shown(text: &str, chars: usize) -> String {
    let short: String =
        text.chars().take(chars).map(|char| if char.is_control() { '\u{FFFD}' } else { char }).collect();
    if text.chars().nth(chars).is_some() { format!("{short}...") } else { short }
}

/// A foreign body: its lines stay lines, whatever else a terminal would obey is replaced.
fn printable(body: &[u8]) -> String {
    let harmless = |char: char| if char.is_control() && char != '\n' && char != '\t' { '\u{FFFD}' } else { char };
    String::from_utf8_lossy(body).chars().map(harmless).collect()
}
