//! Our books against the acquirer's.

use std::collections::HashMap;

use sqlx::PgPool;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::{
    acquirer::books::BookRow,
    clock,
    store::{
        StoreError,
        books::{self, Difference, Moved},
        verify::{self, KnownReference},
    },
};

/// The rules that are held against them.
pub(super) const RULES: [u8; 4] = [2, 3, 4, 6];
const CHUNK: usize = 10_000;
/// Payments that are named at most.
const NAMED: usize = 100;

/// What the acquirer has of one payment.
#[derive(Default)]
struct Taken {
    holds: i64,
    captures: i64,
    given_back: i64,
}

/// Compares, rule by rule: (rule, checked, offending). What moved on days before `from` is not in the acquirer's books.
///
/// The books were read at one moment and ours are read at later ones, so that they can be held together only over payments
/// at rest since `before`; but what nothing excuses, two effects or a reference that nobody stored, is named at once.
pub(super) async fn compare(
    pool: &PgPool,
    rows: &[BookRow],
    from: Option<Date>,
    before: OffsetDateTime,
) -> Result<Vec<(u8, i64, Vec<String>)>, StoreError> {
    let known = look_up(pool, rows, before).await?;
    let checked = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let stray = rows
        .iter()
        .filter(|row| !known.contains_key(&row.reference))
        .map(|row| format!("the acquirer has {} {}, which we never stored", row.kind, row.reference))
        .collect();
    let payments = by_payment(rows, &known);
    let (mut twice, mut charged) = (Vec::new(), Vec::new());
    let mut bills: HashMap<&str, (i64, Vec<Uuid>)> = HashMap::new();
    for (payment, (taken, reference)) in &payments {
        let kept = taken.captures - taken.given_back;
        // What is held beside a capture is a second authorization's: one that was captured is not held any more.
        if taken.holds + taken.captures > 1 {
            twice.push(format!("{payment}: {} holds and {} captures at the acquirer", taken.holds, taken.captures));
        }
        if !reference.at_rest {
            continue;
        }
        let dead = matches!(reference.status.as_str(), "declined" | "failed" | "reversed");
        if dead && (kept > 0 || taken.holds > 0) {
            charged.push(format!("{payment} is {} and the acquirer still has its money", reference.status));
        }
        if kept > 0 {
            let bill = bills.entry(&reference.bill).or_default();
            bill.0 += kept;
            bill.1.push(*payment);
        }
    }
    let paid_twice = bills
        .iter()
        .filter(|(_, (kept, _))| *kept > 1)
        .map(|(bill, (kept, payments))| format!("bill {bill} was paid {kept} times, by {payments:?}"))
        .collect();
    Ok(vec![
        (2, i64::try_from(bills.len()).unwrap_or(i64::MAX), paid_twice),
        (3, checked, [stray, twice].concat()),
        (4, i64::try_from(payments.len()).unwrap_or(i64::MAX), charged),
        (6, checked, contradicted(pool, rows, from, before).await?),
    ])
}

async fn look_up(
    pool: &PgPool,
    rows: &[BookRow],
    before: OffsetDateTime,
) -> Result<HashMap<String, KnownReference>, StoreError> {
    let mut known = HashMap::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        let references: Vec<String> = chunk.iter().map(|row| row.reference.clone()).collect();
        let found = verify::references(pool, &references, before).await?;
        known.extend(found.into_iter().map(|found| (found.reference.clone(), found)));
    }
    Ok(known)
}

fn by_payment<'a>(
    rows: &[BookRow],
    known: &'a HashMap<String, KnownReference>,
) -> HashMap<Uuid, (Taken, &'a KnownReference)> {
    let mut payments: HashMap<Uuid, (Taken, &KnownReference)> = HashMap::new();
    for row in rows {
        let Some(reference) = known.get(&row.reference) else { continue };
        let (taken, _) = payments.entry(reference.payment).or_insert_with(|| (Taken::default(), reference));
        match (row.kind.as_str(), row.state.as_str()) {
            ("authorize", "held") => taken.holds += 1,
            ("capture", state) if state != "declined" => taken.captures += 1,
            ("reverse", _) if row.undone.as_deref() == Some("capture") => taken.given_back += 1,
            _ => {}
        }
    }
    payments
}

/// Rule 6: payments of which the acquirer's books and our entries say different things.
async fn contradicted(
    pool: &PgPool,
    rows: &[BookRow],
    from: Option<Date>,
    before: OffsetDateTime,
) -> Result<Vec<String>, StoreError> {
    let (mut named, mut more) = (Vec::new(), 0_u64);
    differences(pool, rows, from, before, |difference| {
        if named.len() == NAMED {
            more += 1;
            return;
        }
        let Difference { of, day, currency, theirs, ours, .. } = difference;
        named.push(format!(
            "{of} on {day}, {currency}: the acquirer took {} and gave back {}, our entries say {} and {}",
            theirs.0, theirs.1, ours.0, ours.1
        ));
    })
    .await?;
    named.extend((more > 0).then(|| format!("and {more} more")));
    Ok(named)
}

/// Shows to `look` what differs between the acquirer's books and our entries, over payments at rest since `before`.
pub(crate) async fn differences(
    pool: &PgPool,
    rows: &[BookRow],
    from: Option<Date>,
    before: OffsetDateTime,
    look: impl FnMut(Difference),
) -> Result<(), StoreError> {
    let moved = rows.iter().filter(|row| row.moved() != 0).map(|row| Moved {
        reference: row.reference.clone(),
        day: clock::bishkek_day(row.at),
        currency: row.currency.clone(),
        taken: row.moved().max(0),
        given_back: (-row.moved()).max(0),
    });
    books::differences(pool, &moved.collect::<Vec<_>>(), from, before, look).await
}
