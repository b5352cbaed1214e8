//! Keeps the gauges that need a look at the database, the broker and the acquirer's books.

use std::time::Duration;

use crate::{
    acquirer::books,
    broker::{BrokerError, Depths, UNREADABLE},
    store::{
        StoreError,
        books::{Figures, figures},
        limits,
    },
    worker::Context,
};

const EVERY: Duration = Duration::from_secs(15);
/// A look that takes longer hangs on a server that is gone.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// Looks every fifteen seconds until the context stops.
pub(super) async fn keep(context: Context) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = context.stop.cancelled() => return Ok(()),
        }
        // Nobody waits for a look when the process is to stop.
        context.stop.run_until_cancelled(look(&context, &mut connection)).await;
    }
}

async fn look(context: &Context, connection: &mut Option<Depths>) {
    let looked = tokio::time::timeout(LOOK_WITHIN, figures(&context.pool)).await;
    match looked.unwrap_or(Err(StoreError::TimedOut)) {
        Ok(figures) => show(context, &figures).await,
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no figures from the books"),
    }
    let shut = limits::shut(&context.pool, &context.config.limits, context.clock.now());
    match tokio::time::timeout(LOOK_WITHIN, shut).await.unwrap_or(Err(StoreError::TimedOut)) {
        Ok(shut) => shut.into_iter().for_each(|(by, count)| {
            metrics::gauge!("tolom_limits_shut", "by" => by.as_str()).set(count as f64);
        }),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no figures of the limits"),
    }
    let looked = tokio::time::timeout(LOOK_WITHIN, depths(context, connection)).await;
    if let Err(error) = looked.unwrap_or(Err(BrokerError::TimedOut(LOOK_WITHIN))) {
        *connection = None;
        tracing::debug!(error = &error as &dyn std::error::Error, "no figures from the broker");
    }
}

async fn show(context: &Context, figures: &Figures) {
    metrics::gauge!("tolom_outbox_rows").set(figures.outbox_rows as f64);
    metrics::gauge!("tolom_outbox_oldest_age_seconds").set(figures.outbox_oldest_s);
    metrics::gauge!("tolom_oldest_unknown_age_seconds").set(figures.oldest_unknown_s);
    metrics::gauge!("tolom_payments_in_review").set(figures.in_review as f64);
    metrics::gauge!("tolom_bills_paid_twice").set(figures.bills_paid_twice as f64);
    // What is on its way is in one book and not yet in the other: they are held together when all is quiet.
    let theirs = match figures.open_operations {
        0 => books::read(&context.config.acquirer).await.ok().flatten(),
        _ => None,
    };
    for (currency, ours, entries) in &figures.captured {
        let theirs = theirs.as_ref().map(|rows| books::captured(rows, currency));
        let known = [Some(*ours), Some(*entries), theirs];
        for (source, minor) in ["books", "settlement", "acquirer"].into_iter().zip(known) {
            if let Some(minor) = minor {
                let labels = [("source", source.to_owned()), ("currency", currency.clone())];
                metrics::gauge!("tolom_captured_minor", &labels).set(minor as f64);
            }
        }
        let known = || known.iter().copied().flatten();
        let difference = known().max().unwrap_or(0) - known().min().unwrap_or(0);
        metrics::gauge!("tolom_conservation_difference_minor", "currency" => currency.clone()).set(difference as f64);
    }
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
