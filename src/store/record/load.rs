//! What a batch of reports is about.

use std::collections::HashMap;

use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    contracts::OperationCompleted,
    payment::{Money, OperationKind, Outcome, PaymentCode, Status, card::MaskedCard, ledger::Position},
    store::StoreError,
};

/// An operation with its payment and bill, as they were a moment ago.
pub(super) struct Loaded {
    pub(super) operation: Uuid,
    pub(super) payment: Uuid,
    pub(super) kind: OperationKind,
    pub(super) reference: String,
    /// The reference of the authorization that it is about.
    pub(super) original: String,
    pub(super) acquirer: String,
    pub(super) amount: Money,
    pub(super) outcome: Option<String>,
    pub(super) status: Status,
    pub(super) version: i32,
    pub(super) bill: PaymentCode,
    pub(super) agency: String,
    pub(super) service: String,
    pub(super) bill_awaits: bool,
    pub(super) position: Position,
    pub(super) reversal_exists: bool,
    /// The number of its receipt, should this pay the bill.
    pub(super) receipt: Option<String>,
    pub(super) card: Option<MaskedCard>,
    pub(super) traceparent: Option<String>,
    /// Seconds since its acceptance; none of a payment that its payer had to confirm.
    pub(super) age_s: Option<f64>,
}

/// An operation that is asked for.
pub(super) struct Asked {
    pub(super) operation: Uuid,
    /// Whether its report may pay the bill: then a receipt's number is taken.
    pub(super) may_pay: bool,
}

impl Asked {
    /// By its report.
    pub(super) fn by(report: &OperationCompleted) -> Self {
        let may_pay = match &report.result {
            Outcome::Approved(approval) => approval.captured || report.kind == OperationKind::Capture,
            Outcome::Challenged(_) | Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. } => false,
        };
        Self { operation: report.operation, may_pay }
    }
}

/// Reads what a batch of reports is about, by operation.
pub(super) async fn load(db: &mut PgConnection, asked: &[Asked]) -> Result<HashMap<Uuid, Loaded>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.id AS operation, o.payment_id, o.kind, o.reference, o.original_reference, o.acquirer, o.amount_minor,
                o.currency, o.outcome, p.status, p.version, p.bill_code, p.card_number_masked, p.card_brand, p.traceparent,
                b.agency, b.service, (b.status = 'open' OR b.paid_by IS NOT DISTINCT FROM p.id) AS bill_awaits,
                l.held, l.captured,
                EXISTS (SELECT FROM operation r WHERE r.payment_id = p.id AND r.kind = 'reverse') AS reversal_exists,
                CASE WHEN p.challenge IS NULL THEN extract(epoch FROM now() - p.accepted_at)::float8 END AS age_s,
                CASE WHEN n.may_pay THEN next_receipt_number() END AS receipt
         FROM unnest($1::uuid[], $2::bool[]) AS n (id, may_pay)
         JOIN operation o ON o.id = n.id
         JOIN payment p ON p.id = o.payment_id
         JOIN bill b ON b.code = p.bill_code
         CROSS JOIN LATERAL (
             SELECT count(*) FILTER (WHERE kind = 'hold') > count(*) FILTER (WHERE kind = 'release') AS held,
                    count(*) FILTER (WHERE kind = 'capture') > count(*) FILTER (WHERE kind = 'reversal') AS captured
             FROM posting WHERE payment_id = p.id) l",
    )
    .bind(asked.iter().map(|asked| asked.operation).collect::<Vec<_>>())
    .bind(asked.iter().map(|asked| asked.may_pay).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("operation")?, loaded(row)?))).collect()
}

/// Locks bills, then payments, each in one order, for who reads more than once before he writes. No payment is looked at
/// before all bills are counted, and so locked.
///
/// A statement of its own: what is read must be read *after* the wait for the locks. Within one statement PostgreSQL
/// would see the locked rows as they are now, and everything joined to them as it was before the wait (manual, 13.2.1).
pub(super) async fn lock(transaction: &mut PgConnection, operations: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query(
        "WITH bills AS MATERIALIZED (
             SELECT FROM unnest($1::uuid[]) AS n (id) JOIN operation o ON o.id = n.id
             JOIN payment p ON p.id = o.payment_id JOIN bill b ON b.code = p.bill_code
             ORDER BY b.code FOR NO KEY UPDATE OF b)
         SELECT FROM unnest($1::uuid[]) AS n (id) JOIN operation o ON o.id = n.id JOIN payment p ON p.id = o.payment_id
         WHERE (SELECT count(*) FROM bills) >= 0 ORDER BY p.id FOR NO KEY UPDATE OF p",
    )
    .bind(operations)
    .execute(transaction)
    .await?;
    Ok(())
}

fn loaded(row: &PgRow) -> Result<Loaded, StoreError> {
    let word = |column: &str| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
    let unreadable = |column: &str| StoreError::Unreadable(format!("operation: {column}"));
    let number: Option<String> = row.try_get("card_number_masked")?;
    let brand: Option<String> = row.try_get("card_brand")?;
    let (held, captured): (bool, bool) = (row.try_get("held")?, row.try_get("captured")?);
    let currency = word("currency")?.parse().map_err(|_| unreadable("currency"))?;
    Ok(Loaded {
        operation: row.try_get("operation")?,
        payment: row.try_get("payment_id")?,
        kind: word("kind")?.parse().map_err(|_| unreadable("kind"))?,
        reference: word("reference")?,
        original: word("original_reference")?,
        acquirer: word("acquirer")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
        outcome: row.try_get("outcome")?,
        status: word("status")?.parse().map_err(|_| unreadable("status"))?,
        version: row.try_get("version")?,
        bill: word("bill_code")?.parse().map_err(|_| unreadable("bill_code"))?,
        agency: word("agency")?,
        service: word("service")?,
        bill_awaits: row.try_get("bill_awaits")?,
        position: match (held, captured) {
            (_, true) => Position::Captured,
            (true, false) => Position::Held,
            (false, false) => Position::Nothing,
        },
        reversal_exists: row.try_get("reversal_exists")?,
        receipt: row.try_get("receipt")?,
        card: number.zip(brand).map(|(number, brand)| MaskedCard { number, brand }),
        traceparent: row.try_get("traceparent")?,
        age_s: row.try_get("age_s")?,
    })
}
