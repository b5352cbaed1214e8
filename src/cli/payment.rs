//! `tolom payment show`: what is known of a payment, for a person.

use clap::Subcommand;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Failure, Session};
use crate::store::payments::{self, OperationLine};

#[derive(Debug, Subcommand)]
pub(super) enum Payment {
    /// Show a payment, its operations and its timeline.
    Show {
        /// The payment's id.
        id: Uuid,
    },
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
}

#[derive(Serialize)]
struct Line {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    event: String,
    status: &'static str,
}

pub(super) async fn run(session: &Session, Payment::Show { id }: Payment) -> Result<(), Failure> {
    let pool = session.pool()?;
    let Some((payment, steps)) = payments::read_with_timeline(&pool, id).await? else {
        eprintln!("there is no payment {id}");
        return Err(Failure::Wrong);
    };
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
    };
    session.print(&shown, || text(&shown))?;
    Ok(())
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
    for operation in &shown.operations {
        text.push_str(&format!(
            "operation {:<18} {:<9} reference {} attempts {}{}\n",
            operation.kind,
            operation.outcome.as_deref().unwrap_or("open"),
            operation.reference,
            operation.attempts,
            operation.conflict.as_ref().map(|conflict| format!("  CONFLICT: {conflict}")).unwrap_or_default(),
        ));
    }
    for line in &shown.timeline {
        text.push_str(&format!("{}  {:<22} -> {}\n", line.at, line.event, line.status));
    }
    text
}
