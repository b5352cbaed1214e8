//! Our books against the acquirer's.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgPool;
use time::Date;
use uuid::Uuid;

use crate::{
    acquirer::books::BookRow,
    clock,
    store::{
        StoreError,
        verify::{self, KnownReference},
    },
};

const CHUNK: usize = 10_000;

/// What the acquirer has of one payment.
#[derive(Default)]
struct Taken {
    holds: i64,
    captures: i64,
    given_back: i64,
}

/// Compares, rule by rule: (rule, checked, offending). Sums of days before `from` are not in the acquirer's books.
pub(super) async fn compare(
    pool: &PgPool,
    rows: &[BookRow],
    from: Option<Date>,
) -> Result<Vec<(u8, i64, Vec<String>)>, StoreError> {
    let known = look_up(pool, rows).await?;
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
        if taken.holds > 1 || taken.captures > 1 {
            twice.push(format!("{payment}: {} holds and {} captures at the acquirer", taken.holds, taken.captures));
        }
        let dead = matches!(reference.status.as_str(), "declined" | "failed" | "reversed") && !reference.open;
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
        (6, checked, differences(pool, rows, &known, from).await?),
    ])
}

async fn look_up(pool: &PgPool, rows: &[BookRow]) -> Result<HashMap<String, KnownReference>, StoreError> {
    let mut known = HashMap::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        let references: Vec<String> = chunk.iter().map(|row| row.reference.clone()).collect();
        let found = verify::references(pool, &references).await?;
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

type Sums = BTreeMap<(Date, String), (i64, i64)>;

/// Days and currencies on which the acquirer's sums and ours differ, with the payments that make the difference.
async fn differences(
    pool: &PgPool,
    rows: &[BookRow],
    known: &HashMap<String, KnownReference>,
    from: Option<Date>,
) -> Result<Vec<String>, StoreError> {
    let mut theirs = Sums::new();
    for row in rows {
        if known.get(&row.reference).is_none_or(|reference| reference.open) {
            continue;
        }
        let moved = row.moved();
        if moved != 0 {
            let sums = theirs.entry((clock::bishkek_day(row.at), row.currency.clone())).or_default();
            sums.0 = sums.0.saturating_add(moved.max(0));
            sums.1 = sums.1.saturating_add((-moved).max(0));
        }
    }
    let mut ours = Sums::new();
    for (day, currency, taken, given_back) in verify::captured_by_day(pool).await? {
        // What stands in theirs is compared whatever its day.
        if from.is_none_or(|from| day >= from) || theirs.contains_key(&(day, currency.clone())) {
            ours.insert((day, currency), (taken, given_back));
        }
    }
    let mut keys: Vec<_> = theirs.keys().chain(ours.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    Ok(keys
        .into_iter()
        .filter_map(|key| {
            let (their, our) =
                (theirs.get(&key).copied().unwrap_or_default(), ours.get(&key).copied().unwrap_or_default());
            let (day, currency) = key;
            (their != our).then(|| {
                format!(
                    "{day} {currency}: the acquirer took {} and gave back {}, our entries say {} and {}",
                    their.0, their.1, our.0, our.1
                )
            })
        })
        .collect())
}
