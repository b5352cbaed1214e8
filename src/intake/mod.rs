//! The HTTP intake: the API of payers' pages, agencies and sites.
//!
//! The intake answers 202 only after the payment, its sealed card and its message are committed. It sheds load before
//! it fails, never opens a card, and never logs a body.

mod auth;
mod batcher;
mod bills;
mod cards;
mod challenge;
mod events;
mod extract;
pub mod foreign;
mod housekeeping;
mod idempotency;
mod limits;
mod openapi;
mod payments;
mod problem;
mod receipt;
mod server;
mod site;
mod telemetry;
mod wire;

use std::{ops::Deref, sync::Arc};

use axum::{Router, middleware};
use sqlx::PgPool;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use limits::remember_device;
pub use openapi::openapi;
pub use problem::PROBLEM_BASE;
pub use server::serve;
pub use site::{Documents, MissingDocument};

use crate::{
    clock::Clock,
    config::Config,
    live::LiveFeed,
    relay::Relay,
    store::{limits::KeyedHash, sessions::Sessions},
    supervision::Supervisor,
};

/// What every handler shares.
#[derive(Clone)]
pub struct Intake(Arc<Shared>);

/// The parts of an [`Intake`].
pub struct Shared {
    pool: PgPool,
    config: Arc<Config>,
    clock: Clock,
    relay: Relay,
    live: LiveFeed,
    batcher: batcher::Batcher,
    proxies: limits::Proxies,
    lookups: limits::ByAddress,
    codes: limits::Codes,
    /// Of the hashes of addresses and cookies; read at the first payment.
    origin_key: OnceCell<KeyedHash>,
    backlog: limits::Backlog,
    supervisor: Supervisor,
    documents: site::Documents,
    /// Requests in progress; without a place a request is answered 503 at once.
    in_flight: limits::Places,
    /// Open event streams.
    streams: limits::Places,
    /// Ends the event streams, which would never end by themselves.
    stopping: CancellationToken,
}

impl Intake {
    /// Makes the shared state and starts the tasks that accept payments in batches. Needs a tokio runtime.
    pub fn start(
        pool: PgPool,
        config: Arc<Config>,
        clock: Clock,
        relay: Relay,
        live: LiveFeed,
        supervisor: Supervisor,
    ) -> Self {
        limits::show_shed();
        // Who runs the process has asked before; without documents payments can still be taken.
        let documents = Documents::read(&config).unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the site has no documents");
            Documents::default()
        });
        limits::show_limited();
        let most = config.intake.max_in_flight.max(1);
        Self(Arc::new(Shared {
            batcher: batcher::Batcher::start(
                Sessions::new(pool.clone()),
                Arc::clone(&config),
                clock.clone(),
                relay.clone(),
                most,
                &supervisor,
            ),
            backlog: limits::Backlog::default(),
            supervisor,
            documents,
            lookups: limits::ByAddress::per_minute(config.intake.lookups_per_minute),
            proxies: limits::Proxies::new(&config.intake.proxies),
            codes: limits::Codes::new(config.limits.codes.clone(), config.limits.client.clone()),
            origin_key: OnceCell::new(),
            in_flight: limits::Places::new(most),
            streams: limits::Places::new(2 * most),
            stopping: CancellationToken::new(),
            pool,
            config,
            clock,
            relay,
            live,
        }))
    }
}

impl Deref for Intake {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// All routes of the API and the site with their limits, ready to be served.
pub fn router(intake: Intake) -> Router {
    let (routes, _) = openapi::routes().split_for_parts();
    guard(routes.merge(site::routes()), intake)
}

/// Puts the limits, the answers to what is not there, and the eyes around routes.
fn guard(routes: Router<Intake>, intake: Intake) -> Router {
    routes
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(site::same_site(&intake.config.intake.public_url))
        .layer(middleware::from_fn_with_state(intake.clone(), limits::shed_and_time_out))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(intake.clone(), site::for_people))
        .layer(middleware::from_fn(site::harden))
        .layer(middleware::from_fn(telemetry::observe))
        .with_state(intake)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request, routing::get};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_request_and_says_nothing() {
        async fn broken() {
            panic!("4111111111111111");
        }
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/none").unwrap();
        let (relay, _) = crate::relay::channel(1);
        let (config, live) = (Arc::new(Config::defaults()), LiveFeed::new(1));
        let intake = Intake::start(pool, config, Clock::system(), relay, live, Supervisor::default());
        let app = guard(Router::new().route("/v1/broken", get(broken)), intake);
        for _ in 0..2 {
            let request = Request::get("/v1/broken").body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(!String::from_utf8_lossy(&body).contains("4111"));
        }
    }
}
