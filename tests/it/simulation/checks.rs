//! What must hold, at any time and at the end: the real questions of `tolom verify`, and the bank's own books.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use time::OffsetDateTime;
use tolom::{
    broker::Queue,
    contracts::{Event, SettlementEntry, Topic},
    store::verify::QUESTIONS,
};
use uuid::Uuid;

use super::scheduler::Scheduler;

/// A payment as our books have it.
struct Ours {
    id: Uuid,
    bill: String,
    status: String,
    /// Captured less given back, and held: by postings; and the first by settlement entries. Minor units.
    taken: i64,
    held: i64,
    entered: i64,
    in_conflict: bool,
    references: Vec<String>,
}

/// What holds in every moment between two transactions.
pub(super) async fn always(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    // Nothing was to be done before this moment, so only what is true at once is asked for.
    let never = OffsetDateTime::UNIX_EPOCH;
    let mut broken = questions(scheduler, never).await;
    // Cards past their time are cleared away within twenty minutes; nobody may have been there to do so.
    broken.retain(|what| !what.contains("sealed card") || !what.contains("expired at"));
    broken.extend(scheduler.ground.stage.violations());
    broken
}

/// What holds once nothing moves any more.
pub(super) async fn at_the_end(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    let payments = ours(scheduler).await;
    let excused = contradicted(scheduler, &payments);
    let now = scheduler.now();
    let mut broken = questions(scheduler, now).await;
    broken.retain(|what| !excused.iter().any(|id| what.contains(&id.to_string())));
    broken.extend(scheduler.ground.stage.violations());
    for (_, id) in &scheduler.accepted {
        if !payments.iter().any(|payment| payment.id == *id) {
            broken.push(format!("rule 1: {id} was answered 202 and is not there"));
        }
    }
    broken.extend(ends(&payments, &excused));
    broken.extend(books(scheduler, &payments, &excused));
    broken.extend(bills(scheduler, &payments, &excused));
    broken.extend(dead_letters(scheduler, &excused));
    broken.extend(messages(scheduler, &payments).await);
    broken
}

async fn questions(scheduler: &mut Scheduler<'_>, before: OffsetDateTime) -> Vec<String> {
    let mut broken = Vec::new();
    for question in QUESTIONS {
        let (_, offending) = question.ask(&scheduler.database.asking, before).await.expect("a question is answered");
        // What has many digits is no card number as long as it is an id.
        let offending = offending.into_iter().filter(|what| !what.contains(" holds "));
        broken.extend(offending.map(|what| format!("rule {}: {what}", question.rule)));
    }
    broken
}

async fn ours(scheduler: &mut Scheduler<'_>) -> Vec<Ours> {
    let rows = sqlx::query(
        "SELECT p.id, p.bill_code, p.status,
                (SELECT coalesce(sum(CASE kind WHEN 'capture' THEN amount_minor WHEN 'reversal' THEN -amount_minor END), 0)
                 FROM posting WHERE payment_id = p.id)::bigint AS taken,
                (SELECT coalesce(sum(CASE kind WHEN 'hold' THEN amount_minor WHEN 'release' THEN -amount_minor END), 0)
                 FROM posting WHERE payment_id = p.id)::bigint AS held,
                (SELECT coalesce(sum(CASE kind WHEN 'capture' THEN amount_minor ELSE -amount_minor END), 0)
                 FROM settlement_entry WHERE payment_id = p.id)::bigint AS entered,
                EXISTS (SELECT FROM operation WHERE payment_id = p.id AND conflict IS NOT NULL)
                AND NOT EXISTS (SELECT FROM operation WHERE payment_id = p.id AND kind = 'reverse'
                                AND outcome = 'approved') AS in_conflict,
                ARRAY(SELECT reference FROM operation WHERE payment_id = p.id ORDER BY id) AS references
         FROM payment p ORDER BY p.accepted_at, p.id",
    )
    .fetch_all(scheduler.database.own())
    .await
    .unwrap();
    rows.iter()
        .map(|row| Ours {
            id: row.get("id"),
            bill: row.get("bill_code"),
            status: row.get("status"),
            taken: row.get("taken"),
            held: row.get("held"),
            entered: row.get("entered"),
            in_conflict: row.get("in_conflict"),
            references: row.get("references"),
        })
        .collect()
}

/// Payments of which the acquirer has said two things that cannot both be true.
fn contradicted(scheduler: &Scheduler<'_>, payments: &[Ours]) -> BTreeSet<Uuid> {
    let bank = scheduler.ground.bank.lock().unwrap();
    let lied = |payment: &&Ours| payment.references.iter().any(|reference| bank.contradicted.contains(reference));
    payments.iter().filter(lied).map(|payment| payment.id).collect()
}

/// Everything reaches an end; review only where the acquirer contradicted itself.
fn ends(payments: &[Ours], excused: &BTreeSet<Uuid>) -> Vec<String> {
    let ended = |status: &str| matches!(status, "captured" | "declined" | "failed" | "reversed");
    payments
        .iter()
        .filter(|payment| !excused.contains(&payment.id))
        .filter(|payment| !ended(&payment.status) || payment.in_conflict)
        .map(|payment| {
            let conflict = if payment.in_conflict { ", in conflict" } else { "" };
            format!("rule 1: {} ends as {}{conflict}", payment.id, payment.status)
        })
        .collect()
}

/// Captured at the bank == captured in our books == settlement entries, for each payment; nothing held for the dead.
fn books(scheduler: &Scheduler<'_>, payments: &[Ours], excused: &BTreeSet<Uuid>) -> Vec<String> {
    let bank = scheduler.ground.bank.lock().unwrap();
    let mut broken = Vec::new();
    for payment in payments.iter().filter(|payment| !excused.contains(&payment.id)) {
        let (mut taken, mut held, mut approved) = (0, 0, 0);
        for (reference, authorization) in bank.authorizations() {
            if payment.references.contains(reference) {
                taken += i64::from(authorization.captures) - i64::from(authorization.given_back);
                held += i64::from(authorization.is_held());
                approved += i64::from(authorization.captures > 0 || authorization.is_held());
                if authorization.captures > 1 || authorization.given_back > 1 {
                    broken.push(format!("rule 3: {} was taken or given back more than once", payment.id));
                }
            }
        }
        let amount = super::people::AMOUNT.value;
        if approved > 1 {
            broken.push(format!("rule 3: {} was approved {approved} times at the bank", payment.id));
        }
        if (taken * amount, held * amount) != (payment.taken, payment.held) || payment.entered != payment.taken {
            broken.push(format!(
                "rule 6: {} ({}): the bank took {} and holds {}, our books say {} and {}, finance was told {}",
                payment.id,
                payment.status,
                taken * amount,
                held * amount,
                payment.taken,
                payment.held,
                payment.entered
            ));
        }
        let should = i64::from(payment.status == "captured");
        if taken != should || held != 0 {
            broken.push(format!(
                "rule 4: {} is {} and the bank took it {taken} times and holds it {held} times",
                payment.id, payment.status
            ));
        }
    }
    let known: BTreeSet<&String> = payments.iter().flat_map(|payment| &payment.references).collect();
    let stray = bank.authorizations().filter(|(reference, _)| !known.contains(reference));
    broken.extend(stray.map(|(reference, _)| format!("rule 3: the bank has {reference}, which we never stored")));
    broken
}

fn bills(scheduler: &Scheduler<'_>, payments: &[Ours], excused: &BTreeSet<Uuid>) -> Vec<String> {
    let bank = scheduler.ground.bank.lock().unwrap();
    let mut charged: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    for payment in payments.iter().filter(|payment| !excused.contains(&payment.id)) {
        let kept = bank.authorizations().any(|(reference, authorization)| {
            payment.references.contains(reference) && authorization.captures > authorization.given_back
        });
        if kept {
            charged.entry(&payment.bill).or_default().push(payment.id);
        }
    }
    charged.retain(|_, payments| payments.len() > 1);
    charged.into_iter().map(|(bill, payments)| format!("rule 2: bill {bill} was charged by {payments:?}")).collect()
}

/// Every dead letter is one that was made to fail, or has been tried as often as there are attempts.
fn dead_letters(scheduler: &Scheduler<'_>, excused: &BTreeSet<Uuid>) -> Vec<String> {
    let explained = |dead: &&super::rabbit::Dead| {
        let text = String::from_utf8_lossy(&dead.body);
        scheduler.poison.contains(&dead.body)
            || dead.attempt >= scheduler.ground.config.broker.max_attempts
            || excused.iter().any(|id| text.contains(&id.to_string()))
    };
    let unexplained = scheduler.rabbit.dead.iter().filter(|dead| !explained(dead));
    let mut broken: Vec<String> = unexplained
        .map(|dead| {
            let text = String::from_utf8_lossy(&dead.body);
            format!("rule 8: a dead letter of {}: {} ({text})", dead.queue.name(), dead.reason)
        })
        .collect();
    for poison in &scheduler.poison {
        if !scheduler.rabbit.dead.iter().any(|dead| dead.body == *poison) {
            broken.push(format!("rule 8: {} vanished", String::from_utf8_lossy(poison)));
        }
    }
    broken
}

/// Finance and the senders of receipts were told what is in the books, and nothing else.
async fn messages(scheduler: &mut Scheduler<'_>, payments: &[Ours]) -> Vec<String> {
    let stored: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM settlement_entry ORDER BY id")
        .fetch_all(scheduler.database.own())
        .await
        .unwrap();
    let told: BTreeSet<Uuid> = scheduler
        .rabbit
        .queue(Queue::Settlement)
        .iter()
        .map(|stored| {
            Event::<SettlementEntry>::read(Topic::SettlementEntry, &stored.parcel.body).expect("an entry of ours").id
        })
        .collect();
    let mut broken = Vec::new();
    if !told.iter().eq(stored.iter()) {
        broken.push(format!("rule 6: finance was told of entries {told:?}, the books have {stored:?}"));
    }
    for payment in payments.iter().filter(|payment| payment.status == "captured") {
        let subject = payment.id.to_string();
        let mut receipts = scheduler.rabbit.queue(Queue::Receipt).iter();
        if !receipts.any(|stored| String::from_utf8_lossy(&stored.parcel.body).contains(&subject)) {
            broken.push(format!("rule 8: {subject} is paid, and nobody was asked to send its receipt"));
        }
    }
    broken
}

/// With the acquirer away for the whole ladder, whatever may have reached it is with a person, and never failed.
pub(super) async fn unknown_is_in_review(scheduler: &mut Scheduler<'_>) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT 'rule 4: ' || p.id || ' is ' || p.status || ' though the acquirer was away for the whole ladder'
         FROM payment p JOIN operation o ON o.payment_id = p.id
         WHERE (o.outcome IS NULL OR o.outcome = 'unknown') AND NOT o.closing
           AND o.created_at < now() - interval '25 hours'
           AND p.status NOT IN ('review', 'captured', 'declined', 'failed', 'reversed')",
    )
    .fetch_all(scheduler.database.own())
    .await
    .unwrap()
}
