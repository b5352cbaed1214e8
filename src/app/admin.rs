//! The operators' port: metrics and health.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::{telemetry, worker::Context};

/// Serves `/metrics`, `/health/live` and `/health/ready` until the context stops.
pub(super) async fn serve(listener: TcpListener, context: Context, needs_broker: bool) -> anyhow::Result<()> {
    let stop = context.stop.clone();
    let router = Router::new()
        .route("/metrics", get(|| async { telemetry::metrics().render() }))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(move |state| ready(state, needs_broker)))
        .with_state(context);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

/// Ready: the database answers, the broker takes messages where that matters, and nobody asked to stop.
async fn ready(State(context): State<Context>, needs_broker: bool) -> (StatusCode, &'static str) {
    if context.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if needs_broker && !context.publisher.is_connected() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the broker is away\n");
    }
    let ping = sqlx_ping(&context);
    match tokio::time::timeout(Duration::from_secs(2), ping).await {
        Ok(true) => (StatusCode::OK, "ready\n"),
        Ok(false) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database is away\n"),
    }
}

async fn sqlx_ping(context: &Context) -> bool {
    context.pool.acquire().await.is_ok()
}
