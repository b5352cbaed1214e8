//! The listening socket: one task a connection, bounded, with a time for the headers to arrive and for answers to leave.
//!
//! `axum::serve` sets no time-out for headers, so that a client that sends a byte a minute would hold its connection for
//! ever; hence hyper directly.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Intake, housekeeping,
    limits::{Backlog, Place, Places, network_of},
    router,
};

const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// A peer that does not take what is sent for so long is gone, or holds its connection for nothing.
#[cfg(target_os = "linux")]
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Serves until `shutdown`, then takes no more connections, lets requests in progress end (for at most three quarters of
/// `shutdown.drain_s`: the rest of it is for what they have promised), accepts what is queued, and returns.
pub async fn serve(listener: TcpListener, intake: Intake, shutdown: CancellationToken) -> io::Result<()> {
    let supervisor = &intake.supervisor;
    futures::join!(
        connections(listener, &intake, &shutdown),
        supervisor.keep("housekeeping", || housekeeping::run(&intake, &shutdown)),
        supervisor.keep("outbox watch", || Backlog::watch(&intake, &shutdown)),
    );
    Ok(())
}

async fn connections(listener: TcpListener, intake: &Intake, shutdown: &CancellationToken) {
    let app = router(intake.clone());
    let most = intake.config.intake.max_in_flight.max(1);
    // Requests in progress, open streams, and as many idle ones.
    let connections = Arc::new(Semaphore::new(4 * most));
    let by_peer = Places::new(4 * most);
    let graceful = GracefulShutdown::new();
    while let Some(Ok(permit)) = shutdown.run_until_cancelled(connections.clone().acquire_owned()).await {
        match shutdown.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, peer))) => {
                // Many payers stand behind a proxy. Of anybody else, what is more than a share is closed.
                let place = by_peer.take(network_of(peer.ip()));
                if place.is_some() || intake.proxies.contain(peer.ip()) {
                    tokio::spawn(connection(stream, peer, app.clone(), &graceful, (permit, place)));
                }
            }
            // Out of file descriptors, most likely: wait until some are given back.
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    intake.stopping.cancel();
    let drain = Duration::from_secs(intake.config.shutdown.drain_s) * 3 / 4;
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were cut after the drain time");
    }
    intake.batcher.drain().await;
}

/// Serves one connection until it or the server ends.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    graceful: &GracefulShutdown,
    places: (OwnedSemaphorePermit, Option<Place>),
) -> impl Future<Output = ()> + use<> {
    // Answers are small: do not hold them back for more (Nagle).
    let _ = stream.set_nodelay(true);
    // Neither hyper nor tokio bounds a write. Linux does (tcp(7)); elsewhere a peer that never reads is not cut.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, TAKEN_WITHIN.as_millis() as u32);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let watched = graceful.watch(connection);
    async move {
        // A client that hangs up in the middle is no news.
        let _ = watched.await;
        drop(places);
    }
}
