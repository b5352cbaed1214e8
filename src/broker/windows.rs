//! The connection that publishes, and its windows.
//!
//! Messages that wait together go out as one window on a channel that carries nothing else meanwhile, and the window
//! is settled only when all its confirms are in. That matters: lapin hands a returned message to whichever confirm
//! comes next, so returns are matched here, by `message_id`, over the whole window.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, future::try_join_all};
use lapin::{
    Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::sync::{Mutex, mpsc, watch};

use super::{
    Broker, BrokerError, CLOSE_TIMEOUT, Lane, Link, PUBLISHED_FRAME, PublishError, Rebuild, close, publisher::Job,
    set_up, topology,
};

/// Windows in flight at once on a lane, each on its own channel: while one is confirmed, the next one goes out.
const WINDOWS: usize = 2;
const WINDOW: usize = 500;

/// What waits on a lane.
pub(super) type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

/// Keeps a connection until every publisher is dropped.
pub(super) async fn supervise(broker: &Broker, waiting: &[Jobs], link: &watch::Sender<Link>) {
    let mut rebuild = Rebuild::new();
    loop {
        // Also what a panic has left behind.
        show(link, Link::Away);
        match session(broker, waiting, link, &mut rebuild).await {
            Ok(()) => return show(link, Link::Away),
            Err(error) => {
                show(link, Link::Away);
                tracing::warn!(error = &error as &dyn std::error::Error, "publisher lost the broker, rebuilding");
            }
        }
        rebuild.wait().await;
        if link.is_closed() {
            return;
        }
    }
}

fn show(link: &watch::Sender<Link>, now: Link) {
    metrics::gauge!("tolom_broker_blocked").set(if now == Link::Blocked { 1.0 } else { 0.0 });
    link.send_replace(now);
}

async fn session(
    broker: &Broker,
    waiting: &[Jobs],
    link: &watch::Sender<Link>,
    rebuild: &mut Rebuild,
) -> Result<(), BrokerError> {
    let connection = set_up(open(broker)).await?;
    show(link, Link::Up);
    rebuild.reset();
    let windows = Lane::all().zip(waiting).flat_map(|lane| [lane; WINDOWS]);
    let lanes = windows.map(|(lane, jobs)| work(broker, &connection, lane, jobs, link.subscribe()));
    tokio::select! {
        ended = try_join_all(lanes) => ended.map(drop)?,
        error = watch(&connection, link) => return Err(error),
    }
    close(&connection).await;
    Ok(())
}

/// A connection to a broker that has everything we publish to.
async fn open(broker: &Broker) -> Result<Connection, BrokerError> {
    let connection = broker.connect_with("publisher", PUBLISHED_FRAME).await?;
    topology::declare_what_can_be(&connection, broker, None).await?;
    Ok(connection)
}

/// Ends when the connection breaks; shows `connection.blocked` (a memory or disk alarm at the broker) meanwhile.
async fn watch(connection: &Connection, link: &watch::Sender<Link>) -> BrokerError {
    let mut events = Box::pin(connection.events_listener());
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishing");
                show(link, Link::Blocked);
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker takes messages again");
                show(link, Link::Up);
            }
            Event::Error(error) => return BrokerError::Amqp(error),
            _ => {}
        }
    }
    BrokerError::Ended
}

/// Publishes window after window of a lane; `Ok` once every publisher is dropped.
async fn work(
    broker: &Broker,
    connection: &Connection,
    lane: Lane,
    waiting: &Jobs,
    mut link: watch::Receiver<Link>,
) -> Result<(), BrokerError> {
    loop {
        let channel = set_up(async { Ok(connection.create_channel().await?) }).await?;
        set_up(async { Ok(channel.confirm_select(ConfirmSelectOptions::default()).await?) }).await?;
        // A channel with a window that broke is done for: late confirms must not meet a new window.
        match windows(broker, &channel, lane, waiting, &mut link).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a window was not confirmed");
                // While the broker blocks, nothing is written: neither this nor a new channel would get through. A
                // connection that is torn down for that would only come back to be blocked again.
                unblocked(&mut link).await;
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "unconfirmed".into())).await;
                // Should it fail, the next window meets the same error.
                if error.is_missing() {
                    let _ = set_up(topology::declare_what_can_be(connection, broker, lane.queue())).await;
                }
            }
        }
        if !connection.status().connected() {
            return Err(BrokerError::Ended);
        }
    }
}

/// Waits while the broker blocks.
async fn unblocked(link: &mut watch::Receiver<Link>) {
    // An error means that nobody shows it any more, and then this lane ends too.
    let _ = link.wait_for(|link| *link != Link::Blocked).await;
}

async fn windows(
    broker: &Broker,
    channel: &Channel,
    lane: Lane,
    waiting: &Jobs,
    link: &mut watch::Receiver<Link>,
) -> Result<(), BrokerError> {
    let mut window = Vec::with_capacity(WINDOW);
    loop {
        unblocked(link).await;
        if waiting.lock().await.recv_many(&mut window, WINDOW).await == 0 {
            return Ok(());
        }
        // Whoever gave up will publish again with the same id: sending now would only make a duplicate.
        window.retain(|job| !job.reply.is_closed());
        let Some(deadline) = window.iter().map(|job| job.deadline).max() else { continue };
        let published = tokio::time::timeout_at(deadline, async {
            if let Some(queue) = lane.queue() {
                topology::make_sure_of_facts(channel, broker, queue).await?;
            }
            publish_window(broker, channel, &window).await
        });
        let error = match published.await {
            Ok(Ok(results)) => {
                for (job, result) in window.drain(..).zip(results) {
                    let _ = job.reply.send(result);
                }
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => BrokerError::TimedOut(Duration::from_millis(broker.settings().publish_timeout_ms)),
        };
        // Some of the window may be stored.
        for job in window.drain(..) {
            let _ = job.reply.send(Err(PublishError::Unconfirmed));
        }
        return Err(error);
    }
}

async fn publish_window(
    broker: &Broker,
    channel: &Channel,
    window: &[Job],
) -> Result<Vec<Result<(), PublishError>>, BrokerError> {
    let mut confirms = Vec::with_capacity(window.len());
    for Job { message, headers, .. } in window {
        let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
        let (exchange, key) = (message.exchange.name(broker.names()).into(), message.routing_key.as_str().into());
        let properties = message.properties(headers);
        confirms.push(channel.basic_publish(exchange, key, options, &message.body, properties).await?);
    }
    let mut acked = Vec::with_capacity(window.len());
    let mut returned = HashSet::new();
    for confirm in confirms {
        let confirmation = confirm.await?;
        acked.push(matches!(confirmation, Confirmation::Ack(_)));
        if let Some(message) = confirmation.take_message()
            && let Some(id) = message.delivery.properties.message_id()
        {
            returned.insert(id.as_str().to_owned());
        }
    }
    let result = |(job, acked): (&Job, bool)| match acked {
        _ if returned.contains(&job.message.message_id) => Err(PublishError::Unroutable),
        true => Ok(()),
        false => Err(PublishError::Refused),
    };
    Ok(window.iter().zip(acked).map(result).collect())
}
