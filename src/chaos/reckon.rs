//! Afterwards: every book is read, and held against every other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZero,
    thread::available_parallelism,
    time::Duration,
};

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ChaosOptions,
    faults::{Broken, Diary},
    kind::Kind,
    load::Heard,
    report::{Absorbed, DeadLetters, FaultLine, Load, Receipts, Report, Setting, Settlement},
    world::{SETTINGS, World},
};
use crate::{
    broker::{self, Depths, Queue},
    config::Config,
    payment::OperationKind,
    simulator::{BookRow, BookState},
    store::{self, reckoning::Stand},
    verify,
};

/// More than a run can leave in finance's queue.
const MOST_ENTRIES: usize = 100_000;

/// How it came to rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// How long faults came.
    pub(super) faults_s: f64,
    /// Whether everything came to its end in time.
    pub(super) quiet: bool,
    /// How long that took after the last answer to a payer.
    pub(super) quiet_s: f64,
    /// Streams without a writer that were declared anew.
    pub(super) streams_renewed: u32,
    /// Processes that did not drain when they were asked to end.
    pub(super) undrained: Vec<String>,
}

/// Reads everything and draws the sum.
pub(super) async fn reckon(
    options: &ChaosOptions,
    world: &World,
    heard: &Heard,
    diary: &Diary,
    ending: Ending,
) -> anyhow::Result<Report> {
    let pool = &world.pool;
    let on_their_way = if ending.quiet { Vec::new() } else { store::reckoning::on_their_way(pool).await? };
    let payments = store::reckoning::payments(pool).await?;
    let findings = verify::verify(&world.config, pool, &world.broker, &world.clock, Duration::ZERO, None).await?;
    let books = world.simulator.books();
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for payment in &payments {
        *ended.entry(payment.status.clone()).or_default() += 1;
    }
    let mut failed: BTreeMap<String, usize> = BTreeMap::new();
    for payment in payments.iter().filter(|payment| payment.status == "failed") {
        *failed.entry(payment.note.clone().unwrap_or_else(|| "no reason noted".to_owned())).or_default() += 1;
    }
    let in_review = payments.iter().filter(|payment| payment.status == "review");
    let broken = diary.faults();
    let report = Report {
        ok: false,
        seed: options.seed,
        minutes: options.length.as_secs_f64() / 60.0,
        faults_s: ending.faults_s,
        quiet_s: ending.quiet_s,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        cpus: available_parallelism().map_or(1, NonZero::get),
        processes: world.processes.iter().map(|process| process.actor.to_string()).collect(),
        settings: settings(&options.flags),
        load: Load {
            rate: options.rate,
            offered: heard.offered,
            turned_away: heard.turned_away,
            answers: heard.answers.clone(),
            unanswered: heard.unanswered,
            confirmed: heard.confirmed,
            paid_elsewhere: heard.paid_elsewhere,
            contradictions: heard.contradictions.clone(),
        },
        faults: fault_lines(&broken, &payments),
        troubles: broken.iter().filter_map(trouble).collect(),
        accepted: heard.accepted.len(),
        ended,
        failed,
        in_review: in_review.map(|payment| (payment.id, payment.note.clone().unwrap_or_default())).collect(),
        on_their_way,
        lost: lost(&heard.accepted, &payments),
        charged_twice: charged_twice(world, &books).await?,
        absorbed: Absorbed {
            requests: heard.answers.iter().filter(|(word, _)| word.contains("replayed")).map(|(_, count)| count).sum(),
            acquirer: world.simulator.repeats(),
            journal: store::reckoning::absorbed_news(pool).await?,
            operations: store::reckoning::repeated_operations(pool).await?,
        },
        receipts: receipts(world).await?,
        settlement: settlement(world, ending.streams_renewed).await?,
        dead_letters: dead_letters(world).await?,
        deaths: diary.deaths(),
        panics: world.panics(),
        undrained: ending.undrained,
        verify_ok: verify::all_kept(&findings),
        findings,
        logs: world.directory.clone(),
    };
    Ok(Report { ok: report.is_well(), ..report })
}

/// What differs from the defaults.
fn settings(flags: &[(String, String)]) -> Vec<Setting> {
    let defaults = serde_json::to_value(Config::defaults()).unwrap_or_default();
    let own = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let all: BTreeMap<String, String> = own.chain(flags.iter().cloned()).collect();
    let default = |key: &str| key.split('.').fold(&defaults, |value, part| &value[part]).to_string().replace(',', ", ");
    let all = all.into_iter().map(|(key, value)| Setting { default: default(&key), key, value });
    all.filter(|setting| setting.value != setting.default.trim_matches('"')).collect()
}

fn trouble(fault: &Broken) -> Option<String> {
    let why = fault.trouble.as_ref()?;
    Some(format!("{} of {} at {}: {why}", fault.kind.word(), fault.target, fault.began))
}

/// By kind: how many, and how long until a payment that was made afterwards was captured.
fn fault_lines(broken: &[Broken], payments: &[Stand]) -> Vec<FaultLine> {
    let mut lines: BTreeMap<Kind, FaultLine> = BTreeMap::new();
    for fault in broken {
        let line = lines.entry(fault.kind).or_insert_with(|| FaultLine {
            kind: fault.kind,
            name: fault.kind.word(),
            about: fault.kind.about(),
            count: 0,
            worst_recovery_s: None,
            not_recovered: 0,
        });
        line.count += 1;
        match recovery(fault.over, payments) {
            Some(seconds) => line.worst_recovery_s = Some(line.worst_recovery_s.unwrap_or(0.0).max(seconds)),
            None => line.not_recovered += 1,
        }
    }
    lines.into_values().collect()
}

/// Seconds from the end of a fault until the first payment that was accepted after it was captured.
fn recovery(over: OffsetDateTime, payments: &[Stand]) -> Option<f64> {
    let later = payments.iter().filter(|payment| payment.accepted_at >= over);
    let captured = later.filter_map(|payment| payment.captured_at).min()?;
    Some((captured - over).as_seconds_f64())
}

/// Payments that a payer was told were accepted, and that the books do not know.
fn lost(accepted: &BTreeSet<Uuid>, payments: &[Stand]) -> Vec<Uuid> {
    let known: BTreeSet<Uuid> = payments.iter().map(|payment| payment.id).collect();
    accepted.difference(&known).copied().collect()
}

/// Bills for which the acquirer took or holds money more than once and has not given it back: from its own books.
async fn charged_twice(world: &World, books: &[BookRow]) -> anyhow::Result<Vec<String>> {
    let references: Vec<String> = books.iter().map(|row| row.reference.clone()).collect();
    let known = store::verify::references(&world.pool, &references, world.clock.now()).await?;
    let bills: HashMap<&str, &str> =
        known.iter().map(|known| (known.reference.as_str(), known.bill.as_str())).collect();
    let mut taken: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in books {
        // What was given back stands as reversed, and an authorization whose money was taken as captured.
        let on_the_card = [(OperationKind::Authorize, BookState::Held), (OperationKind::Capture, BookState::Captured)];
        if on_the_card.contains(&(row.kind, row.state)) {
            let bill = bills.get(row.reference.as_str()).copied().unwrap_or("of a reference that we never stored");
            taken.entry(bill).or_default().push(&row.reference);
        }
    }
    let twice = taken.into_iter().filter(|(_, references)| references.len() > 1);
    Ok(twice.map(|(bill, references)| format!("bill {bill}: {}", references.join(" and "))).collect())
}

async fn receipts(world: &World) -> anyhow::Result<Receipts> {
    let sent = store::reckoning::receipts_sent(&world.pool).await?;
    let mut caught: BTreeMap<String, u64> = BTreeMap::new();
    for mail in world.mail.messages() {
        *caught.entry(mail.message_id.clone().unwrap_or_default()).or_default() += 1;
    }
    let numbers: BTreeSet<&str> = caught.keys().filter_map(|id| id.trim_start_matches('<').split('@').next()).collect();
    let texts: BTreeMap<Uuid, u64> = world.mail.sms().into_iter().map(|sms| (sms.id, sms.repeats)).collect();
    let planned = store::reckoning::short_messages(&world.pool).await?.into_iter();
    let missing = planned.filter(|(_, sms)| !sms.is_some_and(|id| texts.contains_key(&id)));
    Ok(Receipts {
        no_sms: missing.map(|(number, _)| number).collect(),
        sms: texts.len(),
        sms_repeated: texts.values().sum(),
        sent: sent.len(),
        never_arrived: sent.iter().filter(|number| !numbers.contains(number.as_str())).cloned().collect(),
        mails: caught.values().sum(),
        repeated: caught.values().map(|count| count - 1).sum(),
    })
}

/// The part of an event that names it.
#[derive(Deserialize)]
struct Named {
    id: Uuid,
}

async fn settlement(world: &World, streams_renewed: u32) -> anyhow::Result<Settlement> {
    let entries: BTreeSet<Uuid> = store::reckoning::settlement_entries(&world.pool).await?.into_iter().collect();
    let bodies = broker::peek(&world.broker, Queue::Settlement, MOST_ENTRIES).await?;
    let heard: Vec<Uuid> =
        bodies.iter().filter_map(|body| serde_json::from_slice::<Named>(body).ok()).map(|named| named.id).collect();
    let distinct: BTreeSet<Uuid> = heard.iter().copied().collect();
    Ok(Settlement {
        entries: entries.len(),
        messages: bodies.len(),
        repeated: heard.len() - distinct.len(),
        never_arrived: entries.difference(&distinct).copied().collect(),
        strangers: distinct.difference(&entries).copied().collect(),
        streams_renewed,
    })
}

async fn dead_letters(world: &World) -> anyhow::Result<DeadLetters> {
    let depths = Depths::open(&world.broker).await?.read().await?;
    let dead = depths.into_iter().filter(|(_, _, dead)| *dead > 0);
    let in_broker = dead.map(|(queue, _, dead)| (queue.name().to_owned(), dead)).collect();
    Ok(DeadLetters { in_broker, parked: store::reckoning::parked(&world.pool).await? })
}

#[cfg(test)]
mod tests {
    use time::ext::NumericalDuration as _;

    use super::*;

    fn stand(accepted_s: i64, captured_s: Option<i64>) -> Stand {
        let at = |seconds: i64| OffsetDateTime::UNIX_EPOCH + seconds.seconds();
        Stand {
            id: Uuid::nil(),
            status: String::new(),
            note: None,
            accepted_at: at(accepted_s),
            captured_at: captured_s.map(at),
        }
    }

    #[test]
    fn a_fault_is_recovered_from_when_a_payment_made_afterwards_is_captured() {
        let over = OffsetDateTime::UNIX_EPOCH + 10.seconds();
        // One made before, one that is never captured, and of two made afterwards the one that is quicker.
        let payments = [stand(9, Some(11)), stand(10, None), stand(11, Some(17)), stand(12, Some(14))];
        assert_eq!(recovery(over, &payments), Some(4.0));
        assert_eq!(recovery(over, &payments[..2]), None);
    }

    #[test]
    fn what_differs_from_the_defaults_is_told_with_its_default() {
        let told =
            settings(&[("receipt.batch".to_owned(), "7".to_owned()), ("capture.batch".to_owned(), "250".to_owned())]);
        let told: BTreeMap<&str, (&str, &str)> =
            told.iter().map(|s| (s.key.as_str(), (s.value.as_str(), s.default.as_str()))).collect();
        assert_eq!(told["receipt.batch"], ("7", "100"));
        assert_eq!(told["resolve.schedule_s"], ("[1, 2, 4]", "[10, 60, 300, 900, 3600]"));
        assert!(!told.contains_key("capture.batch"), "as it is by default");
    }

    #[test]
    fn what_is_accepted_and_in_no_book_is_lost() {
        let lost_id = Uuid::from_u128(1);
        assert_eq!(lost(&[Uuid::nil(), lost_id].into(), &[stand(0, None)]), [lost_id]);
    }
}
