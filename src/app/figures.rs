//! Keeps the gauges that need a look at the database, the broker and the acquirer's books.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    acquirer::books as theirs,
    broker::{BrokerError, Depths, UNREADABLE},
    clock::bishkek_day,
    store::{
        StoreError,
        books::{Conservation, Figures, conservation, figures, now},
        limits,
    },
    verify::differences,
    worker::Context,
};

const EVERY: Duration = Duration::from_secs(15);
/// A look that takes longer hangs on a server that is gone.
const LOOK_WITHIN: Duration = Duration::from_secs(60);
/// The same of adding up the whole books, each statement of which ends by itself before that.
const ADD_UP_WITHIN: Duration = Duration::from_secs(3_600);
/// Adding up the whole books may take this part of the time, however large they grow.
const REST_AFTER_ADDING_UP: u32 = 100;

/// Looks every fifteen seconds, and adds up the books beside that, until the context stops.
pub(super) async fn keep(context: Context) -> anyhow::Result<()> {
    let stop = context.stop.clone();
    // Nobody waits for a look when the process is to stop.
    stop.run_until_cancelled(async { futures::join!(look_around(&context), add_up(&context)) }).await;
    Ok(())
}

async fn look_around(context: &Context) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = Looks { context, depths: None };
    loop {
        tick.tick().await;
        looks.look().await;
    }
}

/// Holds our books, the settlement entries and the acquirer's books together, again and again.
async fn add_up(context: &Context) {
    let mut currencies = BTreeSet::new();
    loop {
        let began = Instant::now();
        if let Err(error) = add_up_once(context, &mut currencies).await {
            let error: &dyn std::error::Error = error.as_ref();
            tracing::warn!(error, "the books are not added up");
        }
        tokio::time::sleep(EVERY.max(began.elapsed() * REST_AFTER_ADDING_UP)).await;
    }
}

/// Of what cannot be read, or compared, the gauges keep what they show. `currencies` are those met so far.
async fn add_up_once(context: &Context, currencies: &mut BTreeSet<String>) -> anyhow::Result<()> {
    // Asked before the acquirer's books are read: what changes afterwards may be in one book and not in the other.
    let before = within(LOOK_WITHIN, now(&context.pool)).await?;
    show_ours(&within(ADD_UP_WITHIN, conservation(&context.pool)).await?);
    let Some(theirs) = theirs::read(&context.config.acquirer).await? else { return Ok(()) };
    // Books that are kept for some days only say nothing of the days before.
    let from = theirs.iter().map(|row| bishkek_day(row.at)).min();
    let mut off: BTreeMap<String, f64> = BTreeMap::new();
    let look = differences(&context.pool, &theirs, from, before, |difference| {
        *off.entry(difference.currency).or_default() += difference.by;
    });
    within(ADD_UP_WITHIN, look).await?;
    currencies.extend(theirs.iter().map(|row| row.currency.clone()).chain(off.keys().cloned()));
    for currency in &*currencies {
        show_captured("acquirer", currency, theirs::captured(&theirs, currency));
        show_difference("acquirer", currency, off.get(currency).copied().unwrap_or_default());
    }
    Ok(())
}

struct Looks<'a> {
    context: &'a Context,
    /// The connection to the broker that its depths are read by.
    depths: Option<Depths>,
}

impl Looks<'_> {
    async fn look(&mut self) {
        let context = self.context;
        match within(LOOK_WITHIN, figures(&context.pool)).await {
            Ok(figures) => show(&figures),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no figures from the books"),
        }
        let shut = limits::shut(&context.pool, &context.config.limits, context.clock.now());
        match within(LOOK_WITHIN, shut).await {
            Ok(shut) => shut.into_iter().for_each(|(by, count)| {
                metrics::gauge!("tolom_limits_shut", "by" => by.as_str()).set(count as f64);
            }),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no figures of the limits"),
        }
        let looked = tokio::time::timeout(LOOK_WITHIN, depths(context, &mut self.depths)).await;
        if let Err(error) = looked.unwrap_or(Err(BrokerError::TimedOut(LOOK_WITHIN))) {
            self.depths = None;
            tracing::debug!(error = &error as &dyn std::error::Error, "no figures from the broker");
        }
    }
}

async fn within<T>(limit: Duration, look: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, look).await.unwrap_or(Err(StoreError::TimedOut))
}

fn show(figures: &Figures) {
    metrics::gauge!("tolom_outbox_rows").set(figures.outbox_rows as f64);
    metrics::gauge!("tolom_outbox_oldest_age_seconds").set(figures.outbox_oldest_s);
    metrics::gauge!("tolom_oldest_unknown_age_seconds").set(figures.oldest_unknown_s);
    metrics::gauge!("tolom_payments_in_review").set(figures.in_review as f64);
}

fn show_ours(ours: &Conservation) {
    metrics::gauge!("tolom_bills_paid_twice").set(ours.bills_paid_twice as f64);
    for (currency, books, entries) in &ours.captured {
        show_captured("books", currency, *books);
        show_captured("settlement", currency, *entries);
        show_difference("settlement", currency, books.abs_diff(*entries) as f64);
    }
}

fn show_captured(source: &'static str, currency: &str, minor: i64) {
    metrics::gauge!("tolom_captured_minor", "source" => source, "currency" => currency.to_owned()).set(minor as f64);
}

/// How far a source is from the ledger; the acquirer's books over payments at rest alone, so that it is zero unless
/// something is wrong.
fn show_difference(source: &'static str, currency: &str, minor: f64) {
    metrics::gauge!("tolom_conservation_difference_minor", "source" => source, "currency" => currency.to_owned())
        .set(minor);
}

async fn depths(context: &Context, connection: &mut Option<Depths>) -> Result<(), BrokerError> {
    let depths = match connection {
        Some(depths) => depths,
        None => connection.insert(Depths::open(&context.broker).await?),
    };
    for (queue, waiting, dead) in depths.read().await? {
        metrics::gauge!("tolom_queue_messages", "queue" => queue.name()).set(f64::from(waiting));
        metrics::gauge!("tolom_dead_letters", "queue" => queue.name()).set(f64::from(dead));
    }
    metrics::gauge!("tolom_dead_letters", "queue" => UNREADABLE).set(f64::from(depths.unreadable().await?));
    Ok(())
}
