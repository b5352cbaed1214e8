//! One notice, as a message: that a payment is unknown, or that it did not go through.
//!
//! It says what is known and no more, what to do, and what happens to money that is held. Mail is read over many
//! shoulders: there is no name in it, and of the card only what its owner needs to know it.

use askama::Template;

use super::{
    Locale, Mail, RenderError,
    format::{LONGEST_NAME, amount, card, moment, one_line, questions},
    receipt::Row,
    texts::{Text, say, say_with},
};
use crate::{
    config::Operator,
    payment::Status,
    store::notices::{BillNow, Kind, Notice},
};

/// What the operator has to say in every notice.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// Whom to ask.
    pub operator: &'a Operator,
    /// The intake site's address.
    pub public_url: &'a str,
    /// Within how many days at most a bank releases or returns money.
    pub hold_days: u32,
}

/// A notice's words in its language.
struct Words {
    title: String,
    /// What is known.
    happened: String,
    /// What to do.
    advice: String,
    /// What happens to the money.
    money: String,
    rows: Vec<Row>,
    link: String,
    link_label: String,
    questions: String,
    not_yours: String,
}

#[derive(Template)]
#[template(path = "notice.html", config = "src/notify/askama.toml")]
struct Page<'a> {
    language: &'a str,
    operator: &'a str,
    words: &'a Words,
}

/// The four things a notice can say, each with its texts.
struct Story {
    subject: Text,
    title: Text,
    happened: Text,
    money: Text,
}

const UNKNOWN: Story = Story {
    subject: Text::UnknownSubject,
    title: Text::UnknownTitle,
    happened: Text::UnknownHappened,
    money: Text::UnknownMoney,
};
const FAILED: Story = Story {
    subject: Text::FailedSubject,
    title: Text::FailedTitle,
    happened: Text::FailedHappened,
    money: Text::FailedMoney,
};
const DECLINED: Story = Story { happened: Text::DeclinedHappened, ..FAILED };
const REVERSED: Story = Story {
    subject: Text::ReversedSubject,
    title: Text::ReversedTitle,
    happened: Text::ReversedHappened,
    money: Text::ReversedMoney,
};

/// The message that brings a notice to its payer.
pub fn notice_mail(notice: &Notice, sender: &Sender<'_>) -> Result<Mail, RenderError> {
    // The table's own check allows no other.
    let locale: Locale = notice.locale.parse().unwrap_or(Locale::Ky);
    let story = story(notice);
    let words = words(notice, sender, locale, &story);
    let operator = one_line(&sender.operator.name, LONGEST_NAME);
    let page = Page { language: locale.as_str(), operator: &operator, words: &words };
    Ok(Mail {
        id: format!("notice-{}", notice.id),
        to: notice.email.clone(),
        locale,
        subject: say_with(locale, story.subject, &[("amount", amount(notice.amount, locale).as_str())]),
        html: page.render().map_err(RenderError::Html)?,
        text: text(&words),
    })
}

fn story(notice: &Notice) -> Story {
    match (notice.kind, notice.status) {
        (Kind::Unknown, _) => UNKNOWN,
        (Kind::NotCharged, Status::Reversed) => REVERSED,
        (Kind::NotCharged, Status::Declined) => DECLINED,
        // Only ended payments have such a notice.
        (Kind::NotCharged, _) => FAILED,
    }
}

fn words(notice: &Notice, sender: &Sender<'_>, locale: Locale, story: &Story) -> Words {
    let (site, language) = (sender.public_url.trim_end_matches('/'), locale.as_str());
    let about = [("amount", amount(notice.amount, locale)), ("bill", notice.bill.to_string())];
    let about = about.each_ref().map(|(name, value)| (*name, value.as_str()));
    let advice = match (notice.kind, notice.bill_now) {
        (Kind::Unknown, _) => Text::AdviceWait,
        (Kind::NotCharged, BillNow::Open) => Text::AdviceAgain,
        (Kind::NotCharged, BillNow::Held) => Text::AdviceHeld,
        (Kind::NotCharged, BillNow::Paid) => Text::AdvicePaid,
        (Kind::NotCharged, BillNow::Closed) => Text::AdviceClosed,
    };
    let (link, link_label) = match advice {
        Text::AdviceAgain => (format!("{site}/{language}/bills/{}", notice.bill), Text::LinkAgain),
        _ => (format!("{site}/{language}/payments/{}", notice.payment), Text::LinkStatus),
    };
    Words {
        title: say(locale, story.title),
        happened: say_with(locale, story.happened, &about),
        advice: say(locale, advice),
        money: say_with(locale, story.money, &[("days", sender.hold_days)]),
        rows: rows(notice, locale),
        link,
        link_label: say(locale, link_label),
        questions: questions(sender.operator, locale),
        not_yours: say(locale, Text::NotYours),
    }
}

fn rows(notice: &Notice, locale: Locale) -> Vec<Row> {
    let given = [
        (Text::LabelPaidAt, Some(moment(notice.accepted_at))),
        (Text::LabelService, Some(say(locale, Text::service(&notice.service)))),
        (Text::LabelBill, Some(notice.bill.to_string())),
        (Text::LabelAmount, Some(amount(notice.amount, locale))),
        (Text::LabelCard, notice.card.as_ref().map(|masked| card(masked, locale))),
        (Text::LabelPayment, Some(notice.payment.to_string())),
    ];
    given.into_iter().filter_map(|(label, value)| Some(Row { label: say(locale, label), value: value? })).collect()
}

fn text(words: &Words) -> String {
    let mut text = format!("{}\n\n{}\n\n{}\n\n{}\n\n", words.title, words.happened, words.advice, words.money);
    for Row { label, value } in &words.rows {
        text.push_str(&format!("{label}: {value}\n"));
    }
    text.push_str(&format!("\n{}: {}\n\n{}\n{}\n", words.link_label, words.link, words.questions, words.not_yours));
    text
}

#[cfg(test)]
mod tests;
