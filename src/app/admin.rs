//! The operators' port: metrics and health.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::{broker::Link, telemetry, worker::Context};

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

async fn ready(State(context): State<Context>, needs_broker: bool) -> (StatusCode, String) {
    match obstacle(&context, needs_broker).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Why the process is not ready, if it is not: nobody asked it to stop, no task of it panics again and again, the
/// broker takes messages where that matters, and the database answers.
async fn obstacle(context: &Context, needs_broker: bool) -> Option<String> {
    if context.stop.is_cancelled() {
        return Some("draining".to_owned());
    }
    let unwell = context.supervisor().unwell();
    if !unwell.is_empty() {
        return Some(format!("panicking again and again: {}", unwell.join(", ")));
    }
    match context.publisher.link() {
        Link::Away if needs_broker => return Some("the broker is away".to_owned()),
        Link::Blocked if needs_broker => return Some("the broker blocks publishing".to_owned()),
        Link::Away | Link::Blocked | Link::Up => {}
    }
    let answered = tokio::time::timeout(Duration::from_secs(2), database_answers(context)).await.unwrap_or(false);
    (!answered).then(|| "the database is away".to_owned())
}

async fn database_answers(context: &Context) -> bool {
    context.pool.acquire().await.is_ok()
}
