//! `tolom payment`: what is known of a payment, for a person, and that person's word where the ladder ended.

use clap::{Args, Subcommand};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{Failure, Session};
use crate::{
    contracts::mask,
    payment::{
        by_hand::{self, Case, Reversal, Word},
        ledger::Position,
    },
    store::{
        payments::{self, OperationLine},
        record::{self, ByHand, Settled},
    },
};

const EVIDENCE_CHARS: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Payment {
    /// Show a payment, its operations, its timeline, and the commands that settle it if it waits for a person.
    Show {
        /// The payment's id.
        id: Uuid,
    },
    /// Settle a payment that is unknown, being reversed or in review, with evidence from the acquirer.
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The payment's id.
    id: Uuid,
    #[command(flatten)]
    said: Said,
    /// When the acquirer approved or reversed it, by its statement: RFC 3339, for example 2026-11-27T16:05:00+06:00.
    #[arg(long, value_parser = moment, required_unless_present = "declined", conflicts_with = "declined")]
    at: Option<OffsetDateTime>,
    /// Why it is so, for example the acquirer's statement and line; stands in the journal. No card numbers.
    #[arg(long)]
    evidence: String,
    /// Who says so (default: the user of this machine).
    #[arg(long)]
    by: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Said {
    /// The acquirer has approved it: what it holds is to be taken, and what it took in the same message to be kept.
    #[arg(long)]
    approved: bool,
    /// The acquirer has taken the payer's money for it, and it is to be kept.
    #[arg(long)]
    captured: bool,
    /// Nothing was charged, nor will it be.
    #[arg(long)]
    declined: bool,
    /// What was held or taken has been given back.
    #[arg(long)]
    reversed: bool,
}

#[derive(Serialize)]
struct Shown {
    payment: Uuid,
    bill: String,
    status: &'static str,
    public_status: &'static str,
    amount: String,
    card: Option<String>,
    decline_reason: Option<&'static str>,
    receipt_number: Option<String>,
    operations: Vec<OperationLine>,
    timeline: Vec<Line>,
    /// What is known of it where it may wait for a person, in sentences.
    known: Vec<&'static str>,
    /// What may be said of it.
    commands: Vec<Saying>,
}

#[derive(Serialize)]
struct Line {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    event: String,
    status: &'static str,
}

#[derive(Serialize)]
struct Saying {
    command: String,
    when: &'static str,
}

pub(super) async fn run(session: &Session, command: Payment) -> Result<(), Failure> {
    match command {
        Payment::Show { id } => show(session, id).await,
        Payment::Resolve(resolve) => settle(session, resolve).await,
    }
}

async fn show(session: &Session, id: Uuid) -> Result<(), Failure> {
    let pool = session.pool()?;
    let Some((payment, steps)) = payments::read_with_timeline(&pool, id).await? else {
        eprintln!("there is no payment {id}");
        return Err(Failure::Wrong);
    };
    let case = record::case(&pool, id).await?;
    let commands = case.map(|case| sayings(id, case)).unwrap_or_default();
    let shown = Shown {
        payment: id,
        bill: payment.bill,
        status: payment.status.as_str(),
        public_status: payment.public_status.as_str(),
        amount: payment.amount.to_string(),
        card: payment.card.map(|card| format!("{} {}", card.brand, card.number)),
        decline_reason: payment.decline_reason.map(|reason| reason.as_str()),
        receipt_number: payment.receipt_number,
        operations: payments::operations(&pool, id).await?,
        timeline: steps
            .into_iter()
            .map(|step| Line { at: step.at, event: step.event, status: step.status.as_str() })
            .collect(),
        known: if commands.is_empty() { Vec::new() } else { case.map(known).unwrap_or_default() },
        commands,
    };
    session.print(&shown, || text(&shown))?;
    Ok(())
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("RFC 3339 is expected: {error}"))
}

async fn settle(session: &Session, resolve: Resolve) -> Result<(), Failure> {
    let evidence = resolve.evidence.trim();
    if evidence.is_empty() || evidence.chars().count() > EVIDENCE_CHARS || evidence.chars().any(char::is_control) {
        let allowed = format!("--evidence: 1 to {EVIDENCE_CHARS} characters in one line are allowed");
        return Err(Failure::Unusable(allowed));
    }
    if mask::mask_text(evidence.to_owned()).1.any() {
        return Err(Failure::Unusable("--evidence: a card's number or code is not allowed".to_owned()));
    }
    let word = match resolve.said {
        Said { approved: true, .. } => Word::Approved,
        Said { captured: true, .. } => Word::Captured,
        Said { declined: true, .. } => Word::Declined,
        Said { .. } => Word::Reversed,
    };
    // Who says to have done it, and the account that did.
    let (by, now) = (format!("{} ({})", super::person(resolve.by)?, super::os_user()), session.clock.now());
    let at = resolve.at.unwrap_or(now);
    if at > now {
        return Err(Failure::Unusable("--at: a moment in the future is not allowed".to_owned()));
    }
    let hand = ByHand { payment: resolve.id, word, at, by: &by, evidence, now };
    // The outbox holds the messages; a running relay sends them.
    match record::settle_by_hand(&session.pool()?, &hand).await? {
        Settled::Done(status, _) => {
            let done = serde_json::json!({ "payment": resolve.id, "status": status.as_str(), "by": by });
            session.print(&done, || format!("payment {} is {status}", resolve.id))?;
            Ok(())
        }
        Settled::Refused(why) => {
            eprintln!("payment {} cannot be settled as {}: {why}", resolve.id, word.as_str());
            Err(Failure::Wrong)
        }
        Settled::Unknown => {
            eprintln!("there is no payment {} of which anything was sent to the acquirer", resolve.id);
            Err(Failure::Wrong)
        }
    }
}

/// What a person may say of it, and when it is right to.
fn sayings(id: Uuid, case: Case) -> Vec<Saying> {
    let when = |word| match word {
        Word::Approved if case.capture_at_once => "the acquirer has approved it, and so taken the payer's money",
        Word::Approved => "the acquirer has approved it and holds the payer's money, which is then taken",
        Word::Captured => "the acquirer has taken the payer's money for it, and it is to be kept",
        Word::Declined => "nothing was charged, nor will it be",
        Word::Reversed => "what was held or taken has been given back",
    };
    let at = |word| match word {
        Word::Approved | Word::Captured | Word::Reversed => " --at '...'",
        Word::Declined => "",
    };
    let may = Word::ALL.into_iter().filter(|word| by_hand::settle(case, *word).is_ok());
    may.map(|word| Saying {
        command: format!("tolom payment resolve {id} --{} --evidence '...'{}", word.as_str(), at(word)),
        when: when(word),
    })
    .collect()
}

fn known(case: Case) -> Vec<&'static str> {
    vec![
        match case.position {
            Position::Nothing => "the books have no money of it",
            Position::Held => "the books have a hold of it, neither captured nor released",
            Position::Captured => "the books have its capture",
        },
        if case.bill_awaits { "its bill is still to be paid by it" } else { "its bill was paid by another channel" },
        match case.reversal {
            Reversal::None => "no reversal was opened",
            Reversal::Open => "its reversal is being sent until it is acknowledged",
            Reversal::Refused => "the acquirer refused to reverse it",
            Reversal::Acknowledged => "the acquirer acknowledged its reversal",
        },
    ]
}

fn text(shown: &Shown) -> String {
    let mut text = format!(
        "payment   {}\nbill      {}\nstatus    {} (the payer sees: {})\namount    {}\n",
        shown.payment, shown.bill, shown.status, shown.public_status, shown.amount
    );
    let optional = [
        ("card", shown.card.as_deref()),
        ("declined", shown.decline_reason),
        ("receipt", shown.receipt_number.as_deref()),
    ];
    for (label, value) in optional {
        if let Some(value) = value {
            text.push_str(&format!("{label:<9} {value}\n"));
        }
    }
    shown.operations.iter().for_each(|operation| text.push_str(&operation_text(operation)));
    for line in &shown.timeline {
        text.push_str(&format!("{}  {:<22} -> {}\n", line.at, line.event, line.status));
    }
    if !shown.commands.is_empty() {
        text.push_str("\nWhat is known:\n");
        shown.known.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        text.push_str(
            "What settles it, with evidence (the acquirer's statement, or its word about the reference), and the\n",
        );
        text.push_str("moment at which the acquirer did it by that:\n");
        for saying in &shown.commands {
            text.push_str(&format!("  if {}:\n      {}\n", saying.when, saying.command));
        }
    }
    text
}

fn operation_text(operation: &OperationLine) -> String {
    let open = matches!(operation.outcome.as_deref(), None | Some("unknown"));
    let mut text = format!(
        "operation {:<18} {:<9} reference {} attempts {}",
        operation.kind,
        operation.outcome.as_deref().unwrap_or("open"),
        operation.reference,
        operation.attempts,
    );
    if open {
        text.push_str(&format!(" next {}", operation.next_attempt_at));
    }
    if let Some(why) = &operation.why {
        text.push_str(&format!("  ({why})"));
    }
    if let Some(conflict) = &operation.conflict {
        text.push_str(&format!("  CONFLICT: {conflict}"));
    }
    text.push('\n');
    text
}
