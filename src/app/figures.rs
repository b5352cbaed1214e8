//! Keeps the gauges that need a look at the database, the broker and the acquirer's books.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    acquirer::books as theirs,
    broker::{BrokerError, Depths, Names, Queue, UNREADABLE},
    clock::bishkek_day,
    payment::limits::By,
    store::{
        StoreError,
        books::{Conservation, Figures, conservation, figures, now},
        limits,
    },
    verify::differences,
    worker::Context,
};

/// What a gauge shows that could not be read: its last value would pass for today's.
const NOT_KNOWN: f64 = f64::NAN;
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
    for of in ["books", "limits", "queues"] {
        // Old, if none is ever taken.
        looks.taken(of, Ok::<_, StoreError>(()));
    }
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
            let error: &dyn Error = error.as_ref();
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
        let figures = within(LOOK_WITHIN, figures(&context.pool)).await;
        show(self.taken("books", figures).as_ref());
        let now = context.clock.now();
        let shut = within(LOOK_WITHIN, limits::shut(&context.pool, &context.config.limits, now)).await;
        show_shut(self.taken("limits", shut));
        let depths = self.depths().await;
        self.taken("queues", depths);
    }

    /// What a look has brought; tells when it last did.
    fn taken<T, E: Error + 'static>(&self, of: &'static str, looked: Result<T, E>) -> Option<T> {
        match looked {
            Ok(figures) => {
                let now = self.context.clock.now().unix_timestamp();
                metrics::gauge!("tolom_figures_timestamp_seconds", "of" => of).set(now as f64);
                Some(figures)
            }
            Err(error) => {
                tracing::warn!(of, error = &error as &dyn Error, "figures are not known");
                None
            }
        }
    }

    /// Shows how much waits in each queue; an error if that is not known of all of them.
    async fn depths(&mut self) -> Result<(), BrokerError> {
        let broker = &self.context.broker;
        let depths = match self.depths.take() {
            Some(depths) => Ok(depths),
            None => Depths::open(broker).await,
        };
        let (depths, mut known) = depths.map_or_else(|error| (None, Err(error)), |depths| (Some(depths), Ok(())));
        for (gauge, queue, name) in counted(broker.names()) {
            let count = match &depths {
                Some(depths) => depths.count(name).await.map_err(|error| known = Err(error)).ok(),
                None => None,
            };
            gauge(queue).set(count.map_or(NOT_KNOWN, f64::from));
        }
        self.depths = depths.filter(|_| known.is_ok());
        known
    }
}

/// What is counted at the broker: the gauge, its label, and the queue's name there.
fn counted(names: &Names) -> impl Iterator<Item = (fn(&'static str) -> metrics::Gauge, &'static str, String)> {
    let waiting: fn(&'static str) -> metrics::Gauge = |queue| metrics::gauge!("tolom_queue_messages", "queue" => queue);
    let dead: fn(&'static str) -> metrics::Gauge = |queue| metrics::gauge!("tolom_dead_letters", "queue" => queue);
    let of = move |queue: Queue| [(waiting, queue.name(), names.queue(queue)), (dead, queue.name(), names.dead(queue))];
    let unreadable = (dead, UNREADABLE, names.unreadable());
    Queue::ALL.into_iter().flat_map(of).chain([unreadable])
}

async fn within<T>(limit: Duration, look: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, look).await.unwrap_or(Err(StoreError::TimedOut))
}

fn show(figures: Option<&Figures>) {
    let known = |figure: fn(&Figures) -> f64| figures.map_or(NOT_KNOWN, figure);
    metrics::gauge!("tolom_outbox_rows").set(known(|figures| figures.outbox_rows as f64));
    metrics::gauge!("tolom_outbox_oldest_age_seconds").set(known(|figures| figures.outbox_oldest_s));
    metrics::gauge!("tolom_oldest_unknown_age_seconds").set(known(|figures| figures.oldest_unknown_s));
    metrics::gauge!("tolom_payments_in_review").set(known(|figures| figures.in_review as f64));
}

fn show_shut(shut: Option<[(By, u64); 3]>) {
    let shut = shut.map(|shut| shut.map(|(by, count)| (by, count as f64)));
    for (by, count) in shut.unwrap_or([By::Bill, By::Device, By::Card].map(|by| (by, NOT_KNOWN))) {
        metrics::gauge!("tolom_limits_shut", "by" => by.as_str()).set(count);
    }
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
