//! The rows of captured payments, table by table, as the pipeline leaves them.
//!
//! All that names or times a payment follows from its number, so that each table is made without a look at another.

use sqlx::PgConnection;

use super::Past;
use crate::store::StoreError;

/// The tables with what fills them, the most work first.
pub(super) const TABLES: [(&str, &str); 8] = [
    ("operation", OPERATIONS),
    ("journal", JOURNAL),
    ("posting", POSTINGS),
    ("payment", PAYMENTS),
    ("bill", BILLS),
    ("settlement_entry", ENTRIES),
    ("receipt", RECEIPTS),
    ("idempotency_key", KEYS),
];

/// Of each payment its names and times; all names stand in the order of time (UUID version 7). Without `OFFSET 0` the server would work out each as often as it is used.
const PAID: &str = "CREATE TEMPORARY VIEW paid AS
    SELECT n, at AS accepted_at, at + interval '150 ms' AS claimed_at, at + interval '250 ms' AS approved_at,
           at + interval '300 ms' AS recorded_at, at + interval '350 ms' AS capture_claimed_at, captured_at,
           captured_at - interval '50 ms' AS taken_at,
           ((captured_at - interval '50 ms') AT TIME ZONE interval '+06:00')::date AS day,
           amount_minor, currency, agency, service, acquirer, terms, at_once, keys_since,
           prefix || (first_bill + n)::text AS code, hash,
           ('0' || to_hex(ms) || '7' || substr(hash, 29, 3) || 'a' || substr(hash, 17, 15))::uuid AS payment,
           ('0' || to_hex(ms + 150) || random)::uuid AS authorize,
           ('0' || to_hex(ms + 350) || random)::uuid AS capture,
           ('0' || to_hex(ms + 500) || random)::uuid AS entry
    FROM (SELECT past.*, '7' || substr(hash, 1, 3) || 'b' || substr(hash, 4, 15) AS random,
                 to_timestamp(ms / 1000.0::float8) AS at,
                 to_timestamp(ms / 1000.0::float8) + CASE WHEN at_once THEN interval '300 ms' ELSE interval '500 ms' END
                     AS captured_at
          FROM (SELECT past.*, n, since_ms + (n * span_ms) / payments AS ms, md5('payment ' || n) AS hash
                FROM past CROSS JOIN generate_series(0, past.payments - 1) AS n OFFSET 0) past
          OFFSET 0) past
    OFFSET 0";

const BILLS: &str = "INSERT INTO bill (code, agency, service, applicant, amount_minor, currency, valid_until, status,
                                       paid_by, paid_at, created_at, updated_at)
    SELECT code, agency, service, 'Асанов Айбек Маратович', amount_minor, currency, accepted_at + interval '29 days',
           'paid', payment, captured_at, accepted_at - interval '1 day', captured_at
    FROM paid";

const PAYMENTS: &str = "INSERT INTO payment (id, bill_code, status, previous_status, version, amount_minor, currency,
                                             acquirer, capture_at_once, card_id, card_number_masked, card_brand,
                                             payer_email, payer_phone, locale, terms_version, authorization_code, rrn,
                                             traceparent, caller, accepted_at, updated_at, captured_at)
    SELECT payment, code, 'captured', CASE WHEN at_once THEN 'authorizing' ELSE 'authorized' END,
           CASE WHEN at_once THEN 3 ELSE 4 END, amount_minor, currency, acquirer, at_once,
           -- Its card's name stands in the order of time as well, under another version of UUID.
           overlay(payment::text PLACING '8' FROM 15)::uuid,
           '490001******' || lpad((n % 10000)::text, 4, '0'), 'visa', 'payer-' || code || '@mail.example',
           '+996555123456', 'ky', terms, lpad((n % 1000000)::text, 6, '0'), lpad(n::text, 12, '0'),
           '00-' || hash || '-' || substr(hash, 9, 16) || '-01', 'public', accepted_at, captured_at, captured_at
    FROM paid";

const OPERATIONS: &str = r#"INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer,
                                                 amount_minor, currency, outcome, detail, owner, send_before, attempts,
                                                 next_attempt_at, created_at, completed_at)
    SELECT o.id, payment, o.kind, replace(o.id::text, '-', ''), replace(authorize::text, '-', ''), acquirer,
           amount_minor, currency, 'approved',
           ('{"outcome":"approved","acquirer_reference":"sim-' || n || '","authorization_code":"'
               || lpad((n % 1000000)::text, 6, '0') || '","rrn":"' || lpad(n::text, 12, '0')
               || '","amount":{"value":' || amount_minor || ',"currency":"' || currency
               || '"},"captured":' || o.captured || ',"at":"'
               || to_char(o.done AT TIME ZONE interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"}')::jsonb,
           'host/' || authorize, o.begun + interval '5 s', 1, o.begun + interval '42 s', o.begun, o.told
    FROM paid CROSS JOIN LATERAL (
        SELECT authorize AS id, 'authorize' AS kind, claimed_at AS begun, approved_at AS done, recorded_at AS told,
               at_once AS captured
        UNION ALL
        SELECT capture, 'capture', capture_claimed_at, taken_at, captured_at, false WHERE NOT at_once) o"#;

const JOURNAL: &str =
    "INSERT INTO journal (payment_id, version, event, from_status, to_status, operation_id, actor, at)
    SELECT payment, j.version, j.event, j.from_status, j.to_status, j.operation, j.actor, j.at
    FROM paid CROSS JOIN LATERAL (
        SELECT 1 AS version, 'accepted' AS event, NULL AS from_status, 'accepted' AS to_status, NULL::uuid AS operation,
               'intake' AS actor, accepted_at AS at
        UNION ALL SELECT 2, 'authorization_claimed', 'accepted', 'authorizing', NULL, 'authorize', claimed_at
        UNION ALL SELECT 3, 'approved_and_captured', 'authorizing', 'captured', authorize, 'record', captured_at
                  WHERE at_once
        UNION ALL SELECT 3, 'approved', 'authorizing', 'authorized', authorize, 'record', recorded_at WHERE NOT at_once
        UNION ALL SELECT 4, 'captured', 'authorized', 'captured', capture, 'record', captured_at WHERE NOT at_once) j";

const POSTINGS: &str =
    "INSERT INTO posting (operation_id, kind, payment_id, debit_account, credit_account, amount_minor,
                                             currency, at, day)
    SELECT p.operation, p.kind, payment, p.debit, p.credit, amount_minor, currency, p.at, p.day
    FROM paid CROSS JOIN LATERAL (
        SELECT CASE WHEN at_once THEN authorize ELSE capture END AS operation, 'capture' AS kind, 'acquirer' AS debit,
               'agency' AS credit, taken_at AS at, paid.day
        UNION ALL
        SELECT authorize, 'hold', 'held', 'allowed', approved_at, (approved_at AT TIME ZONE interval '+06:00')::date
        WHERE NOT at_once
        UNION ALL SELECT capture, 'release', 'allowed', 'held', taken_at, paid.day WHERE NOT at_once) p";

const ENTRIES: &str = "INSERT INTO settlement_entry (id, operation_id, kind, payment_id, amount_minor, currency, day,
                                                     created_at)
    SELECT entry, CASE WHEN at_once THEN authorize ELSE capture END, 'capture', payment, amount_minor, currency, day,
           captured_at
    FROM paid";

const RECEIPTS: &str = "INSERT INTO receipt (payment_id, issued_at, sent_at)
    SELECT payment, captured_at, captured_at + interval '700 ms' FROM paid";

const KEYS: &str = r#"INSERT INTO idempotency_key (caller, key, fingerprint, payment_id, answer, created_at)
    SELECT 'public', encode(sha256(convert_to('key ' || n, 'UTF8')), 'hex'), sha256(convert_to(code, 'UTF8')), payment,
           format('{"id":"%s","status":"accepted","public_status":"processing","bill":"%s",'
                  '"amount":{"value":%s,"currency":"%s"},"accepted_at":"%s"}', payment, code, amount_minor,
                  currency, to_char(accepted_at AT TIME ZONE interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
           accepted_at
    FROM paid WHERE accepted_at >= keys_since"#;

/// Tells a session what the past is like.
pub(super) async fn describe(connection: &mut PgConnection, past: &Past) -> Result<(), StoreError> {
    let millis = |at: time::OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    sqlx::query(
        "CREATE TEMPORARY TABLE past AS
         SELECT $1::bigint AS payments, $2::bigint AS since_ms, $3::bigint AS span_ms, $4::timestamptz AS keys_since,
                $5::text AS agency, $6::text AS prefix, $7::text AS service, $8::bigint AS amount_minor,
                $9::text AS currency, $10::text AS acquirer, $11::boolean AS at_once, $12::text AS terms,
                $13::bigint AS first_bill",
    )
    .bind(past.payments.cast_signed())
    .bind(millis(past.since))
    .bind(millis(past.until) - millis(past.since))
    .bind(past.keys_since)
    .bind(&past.agency)
    .bind(&past.prefix)
    .bind(&past.service)
    .bind(past.amount.value)
    .bind(past.amount.currency.as_str())
    .bind(&past.acquirer)
    .bind(past.capture_at_once)
    .bind(&past.terms)
    .bind(super::FIRST_BILL.cast_signed())
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql(PAID).execute(connection).await?;
    Ok(())
}
