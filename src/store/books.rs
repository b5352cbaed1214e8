//! Figures for dashboards: what waits, what is unknown, and whether the books agree, with each other and with an acquirer's.

use futures::TryStreamExt;
use sqlx::{PgPool, Row, postgres::PgRow};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, report};

/// Whether payment `p` is not at rest: something of it is open or waits for a person, or it has changed after a moment.
/// Only of a payment at rest an acquirer's books, read after that moment, must say what ours say.
macro_rules! on_its_way {
    ($moment:literal) => {
        concat!(
            "(p.status IN ('unknown', 'review', 'authorizing', 'reversing') OR p.updated_at > ",
            $moment,
            " OR EXISTS (SELECT FROM operation x WHERE x.payment_id = p.id AND (x.outcome IS NULL
                         OR x.outcome = 'unknown' OR x.created_at > ",
            $moment,
            " OR x.completed_at > ",
            $moment,
            ")))"
        )
    };
}
pub(super) use on_its_way;

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

/// Now, by the database: what is written later bears a later time.
pub async fn now(pool: &PgPool) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar("SELECT now()").fetch_one(pool).await?)
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

/// Money that moved by an acquirer's books.
#[derive(Debug, Clone)]
pub struct Moved {
    /// By which of our references.
    pub reference: String,
    /// The acquirer's day in Asia/Bishkek.
    pub day: Date,
    /// ISO 4217.
    pub currency: String,
    /// To us, minor units.
    pub taken: i64,
    /// Back to the payer, minor units.
    pub given_back: i64,
}

/// A payment, a day and a currency of which an acquirer's books and our settlement entries say different things.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The payment; a reference of the acquirer's books where no payment of ours has it.
    pub of: String,
    /// The day.
    pub day: Date,
    /// The currency.
    pub currency: String,
    /// What the acquirer took and gave back, minor units. A sum may be larger than any integer of ours.
    pub theirs: (String, String),
    /// What our entries say.
    pub ours: (String, String),
    /// By how much they differ, minor units.
    pub by: f64,
}

/// Holds our settlement entries against all that moved by an acquirer's books, payment by payment, and shows each
/// difference to `look`. Only payments at rest since `before` are compared, which must be earlier than the acquirer's
/// books were read, and only days from `from` on.
pub async fn differences(
    pool: &PgPool,
    moved: &[Moved],
    from: Option<Date>,
    before: OffsetDateTime,
    mut look: impl FnMut(Difference),
) -> Result<(), StoreError> {
    let mut report = report(pool).await?;
    let each = || moved.iter().filter(|moved| from.is_none_or(|from| moved.day >= from));
    let mut rows = sqlx::query(concat!(
        "WITH theirs AS (
             SELECT o.payment_id, CASE WHEN o.id IS NULL THEN n.reference END AS stray, n.day, n.currency,
                    sum(n.taken) AS taken, sum(n.given_back) AS given_back
             FROM unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::bigint[], $6::bigint[])
                      AS n (operation, reference, day, currency, taken, given_back)
             LEFT JOIN operation o ON o.id = n.operation
             GROUP BY 1, 2, 3, 4),
         ours AS (
             SELECT payment_id, day, currency, sum(amount_minor) FILTER (WHERE kind = 'capture') AS taken,
                    sum(amount_minor) FILTER (WHERE kind <> 'capture') AS given_back
             FROM settlement_entry WHERE $7::date IS NULL OR day >= $7 GROUP BY 1, 2, 3),
         both_of_them AS (
             SELECT payment_id, stray, day, currency,
                    coalesce(theirs.taken, 0) AS their_taken, coalesce(theirs.given_back, 0) AS their_given_back,
                    coalesce(ours.taken, 0) AS our_taken, coalesce(ours.given_back, 0) AS our_given_back
             FROM theirs FULL JOIN ours USING (payment_id, day, currency))
         SELECT coalesce(stray, payment_id::text) AS of, day, currency, their_taken::text, their_given_back::text,
                our_taken::text, our_given_back::text,
                (abs(their_taken - our_taken) + abs(their_given_back - our_given_back))::float8 AS by
         FROM both_of_them d
         WHERE (their_taken <> our_taken OR their_given_back <> our_given_back)
           AND NOT EXISTS (SELECT FROM payment p WHERE p.id = d.payment_id AND ",
        on_its_way!("$8"),
        ") ORDER BY day, of"
    ))
    .bind(each().map(|moved| operation(&moved.reference)).collect::<Vec<_>>())
    .bind(each().map(|moved| moved.reference.as_str()).collect::<Vec<_>>())
    .bind(each().map(|moved| moved.day).collect::<Vec<_>>())
    .bind(each().map(|moved| moved.currency.as_str()).collect::<Vec<_>>())
    .bind(each().map(|moved| moved.taken).collect::<Vec<_>>())
    .bind(each().map(|moved| moved.given_back).collect::<Vec<_>>())
    .bind(from)
    .bind(before)
    .fetch(&mut *report);
    while let Some(row) = rows.try_next().await? {
        look(difference(&row)?);
    }
    Ok(())
}

fn difference(row: &PgRow) -> Result<Difference, StoreError> {
    Ok(Difference {
        of: row.try_get("of")?,
        day: row.try_get("day")?,
        currency: row.try_get("currency")?,
        theirs: (row.try_get("their_taken")?, row.try_get("their_given_back")?),
        ours: (row.try_get("our_taken")?, row.try_get("our_given_back")?),
        by: row.try_get("by")?,
    })
}

/// The operation of a reference: its id without dashes, if it is one of ours.
pub(super) fn operation(reference: &str) -> Option<Uuid> {
    reference.parse::<Uuid>().ok().filter(|id| id.simple().to_string() == reference)
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
