//! The rules of money as questions to the database. Each answers with what breaks it, and how much it looked at.

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    books::{on_its_way, operation},
    report,
};

/// Offending rows that are named at most, per question.
const NAMED: i64 = 100;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The rule (design, section 4).
    pub rule: u8,
    /// How many things the question is about: one number. `$1` is the moment before which things must be done.
    checked: &'static str,
    /// What breaks the rule: one text column. `$1` as above, `$2` the limit.
    offending: &'static str,
}

/// The questions, in the order of the rules.
pub const QUESTIONS: &[Question] = &[
    // Ended, in review, waiting for the payer, or with an operation that resolve is about to look into, or was a moment ago.
    Question {
        rule: 1,
        checked: "SELECT count(*) AS checked FROM payment WHERE accepted_at <= $1",
        offending: "SELECT p.id::text || ' is still ' || p.status FROM payment p
            WHERE p.accepted_at <= $1
              AND p.status NOT IN ('captured', 'settled', 'declined', 'failed', 'reversed', 'review')
              AND NOT (p.status = 'challenged' AND coalesce(p.challenge_until > now() - interval '1 minute', false))
              AND NOT (p.status IN ('authorized', 'unknown', 'reversing') AND EXISTS (
                  SELECT FROM operation o WHERE o.payment_id = p.id AND (o.outcome IS NULL OR o.outcome = 'unknown')
                  AND NOT o.closing AND o.next_attempt_at > $1))
            ORDER BY p.accepted_at LIMIT $2",
    },
    Question {
        rule: 1,
        checked: "SELECT count(*) AS checked FROM idempotency_key WHERE created_at <= $1 AND refusal IS NULL",
        offending: "SELECT k.payment_id::text || ' was answered 202 and is not stored' FROM idempotency_key k
            WHERE k.created_at <= $1 AND k.refusal IS NULL
              AND NOT EXISTS (SELECT FROM payment p WHERE p.id = k.payment_id) LIMIT $2",
    },
    Question {
        rule: 1,
        checked: "SELECT count(*) AS checked FROM outbox WHERE created_at <= $1",
        offending: "SELECT coalesce(subject, id::text) || ' waits in the outbox as ' || routing_key FROM (
                SELECT id, routing_key, convert_from(body, 'UTF8')::json ->> 'subject' AS subject, created_at
                FROM outbox WHERE created_at <= $1) late ORDER BY created_at LIMIT $2",
    },
    Question {
        rule: 2,
        checked: "SELECT count(*) AS checked FROM bill",
        offending: "SELECT string_agg(p.id::text, ' and ') || ' both hold bill ' || p.bill_code FROM payment p
            WHERE p.status NOT IN ('declined', 'failed', 'reversed')
            GROUP BY p.bill_code HAVING count(*) > 1 LIMIT $2",
    },
    Question {
        rule: 2,
        checked: "SELECT count(*) AS checked FROM payment
                  WHERE status IN ('captured', 'settled')",
        offending: "SELECT p.id::text || ' is captured and its bill is ' || b.status || coalesce(' by ' || b.paid_by, '')
            FROM payment p JOIN bill b ON b.code = p.bill_code
            WHERE p.status IN ('captured', 'settled') AND b.paid_by IS DISTINCT FROM p.id
            LIMIT $2",
    },
    Question {
        rule: 2,
        checked: "SELECT count(*) AS checked FROM bill WHERE paid_by IS NOT NULL",
        offending: "SELECT p.id::text || ' paid bill ' || b.code || ' and is ' || p.status
            FROM bill b JOIN payment p ON p.id = b.paid_by
            WHERE p.status NOT IN ('captured', 'settled') LIMIT $2",
    },
    Question {
        rule: 3,
        checked: "SELECT count(*) AS checked FROM operation",
        offending: "SELECT payment_id::text || ' has ' || count(*) || ' approved operations of kind ' || kind
            FROM operation WHERE outcome = 'approved' AND kind <> 'refund'
            GROUP BY payment_id, kind HAVING count(*) > 1 LIMIT $2",
    },
    Question {
        rule: 3,
        checked: "SELECT count(*) AS checked FROM operation WHERE conflict IS NOT NULL",
        offending: "SELECT o.payment_id::text || ': ' || o.conflict FROM operation o
            JOIN payment p ON p.id = o.payment_id
            WHERE o.conflict IS NOT NULL AND p.status <> 'review'
              -- Of a dead payment everything goes back; until it has, the reversal is an open operation.
              AND NOT EXISTS (SELECT FROM operation r WHERE r.payment_id = p.id AND r.kind = 'reverse')
              AND NOT EXISTS (SELECT FROM journal j WHERE j.payment_id = p.id AND j.to_status = 'review') LIMIT $2",
    },
    Question {
        rule: 4,
        checked: "SELECT count(*) AS checked FROM payment WHERE status = 'failed'",
        offending: "SELECT p.id::text || ' failed although its ' || o.kind || ' came to ' || coalesce(o.outcome, 'nothing')
            FROM payment p JOIN operation o ON o.payment_id = p.id AND o.kind IN ('authorize', 'complete_challenge')
            WHERE p.status = 'failed' AND o.outcome IS DISTINCT FROM 'not_sent' AND o.outcome IS DISTINCT FROM 'challenged'
              AND NOT EXISTS (SELECT FROM operation r WHERE r.payment_id = p.id AND r.kind = 'reverse')
            LIMIT $2",
    },
    Question {
        rule: 5,
        checked: "SELECT count(*) AS checked FROM journal",
        offending: "SELECT payment_id::text || ' went from ' || from_status || ' to ' || to_status FROM journal
            WHERE from_status IN ('declined', 'failed', 'reversed', 'settled') AND to_status <> from_status
            LIMIT $2",
    },
    Question {
        rule: 5,
        checked: "SELECT count(*) AS checked FROM operation WHERE kind = 'reverse'",
        offending: "SELECT o.payment_id::text || ' is ' || p.status || ' and its reversal is not acknowledged yet'
            FROM operation o JOIN payment p ON p.id = o.payment_id
            WHERE o.kind = 'reverse' AND o.outcome IS DISTINCT FROM 'approved' AND o.created_at <= $1
              AND p.status IN ('declined', 'failed', 'reversed') LIMIT $2",
    },
    // What no foreign key says.
    Question {
        rule: 5,
        checked: "SELECT count(*) AS checked FROM journal WHERE at <= $1",
        offending: "SELECT 'journal row ' || j.id || ' is of no payment' FROM journal j
            WHERE j.at <= $1 AND NOT EXISTS (SELECT FROM payment p WHERE p.id = j.payment_id) LIMIT $2",
    },
    Question {
        rule: 6,
        checked: "SELECT count(*) AS checked FROM posting",
        offending: "SELECT s.operation_id::text || ': its ' || s.kind || ' names another payment than its operation'
            FROM (SELECT operation_id, kind, payment_id FROM posting
                  UNION ALL SELECT operation_id, kind, payment_id FROM settlement_entry) s
              WHERE NOT EXISTS (SELECT FROM operation o WHERE o.id = s.operation_id AND o.payment_id = s.payment_id)
            LIMIT $2",
    },
    Question {
        rule: 6,
        checked: "SELECT count(*) AS checked FROM posting",
        offending: "SELECT p.payment_id::text || ': no settlement entry for its ' || p.kind FROM posting p
            WHERE p.kind IN ('capture', 'reversal', 'refund')
              AND NOT EXISTS (SELECT FROM settlement_entry s WHERE s.operation_id = p.operation_id AND s.kind = p.kind
                              AND s.amount_minor = p.amount_minor AND s.currency = p.currency AND s.day = p.day)
            LIMIT $2",
    },
    Question {
        rule: 6,
        checked: "SELECT count(DISTINCT payment_id) AS checked FROM posting",
        offending: "SELECT p.id::text || ' is ' || p.status || ' and the books show ' || l.taken || ' taken, '
                    || l.held || ' held'
            FROM payment p CROSS JOIN LATERAL (
                SELECT coalesce(sum(CASE kind WHEN 'capture' THEN amount_minor WHEN 'reversal' THEN -amount_minor END), 0)
                           AS taken,
                       coalesce(sum(CASE kind WHEN 'hold' THEN amount_minor WHEN 'release' THEN -amount_minor END), 0)
                           AS held
                FROM posting WHERE payment_id = p.id) l
            WHERE (p.status IN ('captured', 'settled') AND (l.taken <> p.amount_minor OR l.held <> 0)
                OR p.status IN ('declined', 'failed', 'reversed') AND (l.taken <> 0 OR l.held <> 0)
                   AND NOT EXISTS (SELECT FROM operation o WHERE o.payment_id = p.id AND o.kind = 'reverse'
                                   AND o.outcome IS DISTINCT FROM 'approved'))
            LIMIT $2",
    },
    Question {
        rule: 7,
        checked: "SELECT count(*) AS checked FROM sealed_card",
        offending: "SELECT p.id::text || ' is ' || p.status || ' and its sealed card is still stored'
            FROM sealed_card c JOIN payment p ON p.card_id = c.id
            WHERE p.status NOT IN ('accepted', 'authorizing') LIMIT $2",
    },
    Question {
        rule: 7,
        checked: "SELECT count(*) AS checked FROM sealed_card",
        offending: "SELECT 'sealed card ' || id || ' expired at ' || expires_at FROM sealed_card
            WHERE expires_at < now() - interval '20 minutes' LIMIT $2",
    },
    Question {
        rule: 7,
        checked: "SELECT count(*) AS checked FROM pg_class WHERE relname ~ '^sealed_card_[0-9]$'",
        offending: "SELECT relname || ' is written to the WAL' FROM pg_class
            WHERE relname ~ '^sealed_card_[0-9]$' AND relkind = 'r' AND relpersistence <> 'u'
            LIMIT $2",
    },
    Question {
        rule: 8,
        checked: "SELECT count(*) AS checked FROM payment
                  WHERE status IN ('captured', 'settled')",
        offending: "SELECT p.id::text || ' is ' || p.status || ' and its payer was promised no receipt' FROM payment p
            WHERE p.status IN ('captured', 'settled') AND NOT EXISTS (SELECT FROM receipt r WHERE r.payment_id = p.id)
            LIMIT $2",
    },
];

impl Question {
    /// Asks: how much was checked, and what breaks the rule. `before` is when things must have been done.
    pub async fn ask(&self, pool: &PgPool, before: OffsetDateTime) -> Result<(i64, Vec<String>), StoreError> {
        let mut report = report(pool).await?;
        let checked = sqlx::query_scalar(asked(self.checked)).bind(before).bind(NAMED).fetch_one(&mut *report).await?;
        let offending = sqlx::query_scalar(asked(self.offending)).bind(before).bind(NAMED);
        Ok((checked, offending.fetch_all(&mut *report).await?))
    }
}

/// A question that need not name both of what it is asked with.
fn asked(question: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("WITH asked AS (SELECT $1::timestamptz, $2::bigint) {question}"))
}

/// Shows 13 to 19 digits in a row, in whatever may hold foreign text, to `look`: where, and the digits. How many rows were
/// looked at.
///
/// Names of ours are left out, 32 hexadecimal digits with a letter among them: of some thousand, one holds what looks like
/// a card's number.
pub async fn long_digits(pool: &PgPool, mut look: impl FnMut(&str, &str)) -> Result<i64, StoreError> {
    let mut report = report(pool).await?;
    let checked = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM operation) + (SELECT count(*) FROM payment)",
    )
    .fetch_one(&mut *report)
    .await?;
    let mut rows = sqlx::query(
        "SELECT payment || ': ' || place AS place, (regexp_matches(regexp_replace(text,
                    '(?<![0-9a-f])(?=[0-9]*[a-f])[0-9a-f]{32}(?![0-9a-f])', '-', 'g'), '[0-9]{13,19}', 'g'))[1] AS digits
         FROM (SELECT payment_id AS payment, 'journal' AS place, detail AS text FROM journal
               UNION ALL SELECT payment_id, 'operation', detail::text FROM operation
               UNION ALL SELECT id, 'payment', concat_ws(' ', note, card_number_masked, challenge::text,
                                                         challenge_response::text) FROM payment) texts",
    )
    .fetch(&mut *report);
    while let Some(row) = rows.try_next().await? {
        look(row.try_get("place")?, row.try_get("digits")?);
    }
    drop(rows);
    Ok(checked)
}

/// Until when things may be kept that are kept for a time.
#[derive(Debug, Clone, Copy)]
pub struct KeptUntil {
    /// Idempotency keys of payments that are definite, stored before.
    pub idempotency_keys: OffsetDateTime,
    /// Dead letters replayed or discarded before.
    pub dead_letters: OffsetDateTime,
    /// What people did with dead letters before.
    pub audits: OffsetDateTime,
}

/// How many rows of each are kept beyond their time: (what, rows).
pub async fn kept_beyond(pool: &PgPool, until: KeptUntil) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT 'idempotency keys' AS what, count(*) AS beyond FROM idempotency_key k
                LEFT JOIN payment p ON p.id = k.payment_id
         WHERE k.created_at < $1
           AND (p.id IS NULL OR p.status IN ('captured', 'settled', 'declined', 'failed', 'reversed'))
         UNION ALL SELECT 'settled dead letters', count(*) FROM dead_letter WHERE settled_at < $2
         UNION ALL SELECT 'audits of dead letters', count(*) FROM dead_letter_audit WHERE at < $3",
    )
    .bind(until.idempotency_keys)
    .bind(until.dead_letters)
    .bind(until.audits)
    .fetch_all(&mut *report(pool).await?)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("what")?, row.try_get::<i64, _>("beyond")?.unsigned_abs()))).collect()
}

/// Messages that wait to be published.
pub async fn outbox_rows(pool: &PgPool) -> Result<u64, StoreError> {
    Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox").fetch_one(pool).await?.unsigned_abs())
}

/// What we know of a reference that stands in an acquirer's books.
#[derive(Debug, Clone)]
pub struct KnownReference {
    /// Our reference.
    pub reference: String,
    /// The payment.
    pub payment: Uuid,
    /// Its bill.
    pub bill: String,
    /// Its status.
    pub status: String,
    /// The operation's kind.
    pub kind: String,
    /// The payment's amount, minor units.
    pub amount_minor: i64,
    /// Whether nothing of the payment is open or waits for a person, and it has not changed since a moment.
    pub at_rest: bool,
}

/// Looks up references of an acquirer's books, and which of their payments are at rest since `before`.
pub async fn references(
    pool: &PgPool,
    references: &[String],
    before: OffsetDateTime,
) -> Result<Vec<KnownReference>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT o.reference, o.payment_id, p.bill_code, p.status, o.kind, p.amount_minor, NOT ",
        on_its_way!("$2"),
        " AS at_rest FROM operation o JOIN payment p ON p.id = o.payment_id WHERE o.id = ANY($1)"
    ))
    .bind(references.iter().filter_map(|reference| operation(reference)).collect::<Vec<_>>())
    .bind(before)
    .fetch_all(&mut *report(pool).await?)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(KnownReference {
                reference: row.try_get("reference")?,
                payment: row.try_get("payment_id")?,
                bill: row.try_get("bill_code")?,
                status: row.try_get("status")?,
                kind: row.try_get("kind")?,
                amount_minor: row.try_get("amount_minor")?,
                at_rest: row.try_get("at_rest")?,
            })
        })
        .collect()
}
