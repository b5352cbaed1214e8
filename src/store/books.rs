//! Figures for dashboards: what waits, what is unknown, and whether the books agree.

use sqlx::{PgPool, Row};

use super::{StoreError, report};

/// A look at the books.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Committed messages not confirmed yet.
    pub outbox_rows: i64,
    /// Age of the oldest of them, seconds.
    pub outbox_oldest_s: f64,
    /// Age of the oldest operation that is unknown, or reversal that is not acknowledged, seconds; zero if there is none.
    pub oldest_unknown_s: f64,
    /// Payments that a person has to settle: in review, or dead with an operation in conflict.
    pub in_review: i64,
}

/// Whether money is conserved, over all that is in the books.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conservation {
    /// Bills with more than one payment that was taken.
    pub bills_paid_twice: i64,
    /// By currency: captured less given back in the ledger, and the same over settlement entries; minor units.
    pub captured: Vec<(String, i64, i64)>,
}

/// Takes the figures. It costs the same however much the books hold.
pub async fn figures(pool: &PgPool) -> Result<Figures, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM outbox) AS outbox_rows,
                (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM outbox) AS outbox_oldest,
                (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM operation
                 WHERE (outcome IS NULL OR outcome = 'unknown') AND (outcome = 'unknown' OR kind = 'reverse'))
                    AS oldest_unknown,
                (SELECT count(*) FROM payment WHERE status = 'review')
                    + (SELECT count(*) FROM operation o JOIN payment p ON p.id = o.payment_id
                       WHERE o.conflict IS NOT NULL AND p.status IN ('declined', 'failed', 'reversed')) AS in_review",
    )
    .fetch_one(pool)
    .await?;
    Ok(Figures {
        outbox_rows: row.try_get("outbox_rows")?,
        outbox_oldest_s: row.try_get("outbox_oldest")?,
        oldest_unknown_s: row.try_get("oldest_unknown")?,
        in_review: row.try_get("in_review")?,
    })
}

/// Where the books stand, if no operation is on its way. The same place again means that no money has moved in between: an
/// operation is open until it is recorded, and that writes the journal.
pub async fn standstill(pool: &PgPool) -> Result<Option<i64>, StoreError> {
    let place = sqlx::query_scalar(
        "SELECT CASE WHEN EXISTS (SELECT FROM operation WHERE outcome IS NULL OR outcome = 'unknown') THEN NULL
                     ELSE (SELECT last_value FROM journal_id_seq) END",
    );
    Ok(place.fetch_one(pool).await?)
}

/// Adds up the whole books: not too often.
pub async fn conservation(pool: &PgPool) -> Result<Conservation, StoreError> {
    let mut report = report(pool).await?;
    let bills_paid_twice = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM payment WHERE status IN ('captured', 'settled')
                               GROUP BY bill_code HAVING count(*) > 1) twice",
    )
    .fetch_one(&mut *report)
    .await?;
    let captured = sqlx::query(
        "SELECT currency, sum(books)::bigint AS books, sum(entries)::bigint AS entries FROM (
             SELECT currency, CASE kind WHEN 'capture' THEN amount_minor ELSE -amount_minor END AS books, 0 AS entries
             FROM posting WHERE kind IN ('capture', 'reversal', 'refund')
             UNION ALL
             SELECT currency, 0, CASE kind WHEN 'capture' THEN amount_minor ELSE -amount_minor END
             FROM settlement_entry) moved
         GROUP BY currency",
    )
    .fetch_all(&mut *report)
    .await?;
    let captured = captured
        .iter()
        .map(|row| Ok((row.try_get("currency")?, row.try_get("books")?, row.try_get("entries")?)))
        .collect::<Result<_, StoreError>>()?;
    Ok(Conservation { bills_paid_twice, captured })
}

/// How much is not done yet: payments without an end, operations without an outcome, receipts that were not sent, and
/// committed messages that were not confirmed. Zero when all is quiet. What waits for a person, or was given up,
/// does not count.
pub async fn on_their_way(pool: &PgPool) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM payment
                 WHERE status IN ('accepted', 'authorizing', 'challenged', 'authorized', 'unknown', 'reversing'))
              + (SELECT count(*) FROM operation WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing)
              + (SELECT count(*) FROM receipt WHERE sent_at IS NULL AND given_up_at IS NULL)
              + (SELECT count(*) FROM receipt_copy WHERE sent_at IS NULL AND given_up_at IS NULL)
              + (SELECT count(*) FROM outbox)",
    );
    Ok(count.fetch_one(pool).await?)
}
