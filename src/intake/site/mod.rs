//! The payer's site: code, bill, card, the bank's confirmation, receipt, in three languages.
//!
//! Pages are made here and say what the books say; nothing is decided in them. They hand what a payer does to the same
//! functions as the API. The card never passes through here in clear: the browser seals it and sends it to
//! `POST /v1/payments`. One small script a page, ours, listed in `scripts.toml`; what needs none works without.

mod assets;
mod bill;
mod card;
mod documents;
mod home;
mod language;
mod page;
mod payment;
mod policy;
mod receipt;
mod refusal;
mod scripts;
mod texts;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tower_http::compression::CompressionLayer;

pub use documents::{Documents, MissingDocument};
pub(super) use policy::{harden, same_site, styled};
pub(super) use refusal::for_people;

use super::{Intake, limits};

/// The pages and what they need.
pub(super) fn routes() -> Router<Intake> {
    Router::new()
        .route("/", get(language::begin))
        .route("/{lang}/", get(home::show))
        .route("/{lang}/bills/{code}", get(bill::show))
        .route("/{lang}/bills/{code}/receipt", post(receipt::send_again))
        .route("/{lang}/bills/{code}/pay", get(card::show))
        .route("/{lang}/payments/{id}", get(payment::show))
        .route("/{lang}/payments/{id}/receipt.pdf", get(receipt::pdf))
        .route("/{lang}/receipts/{number}", get(receipt::verify))
        .route("/{lang}/documents/", get(documents::list))
        .route("/{lang}/documents/{document}/{version}", get(documents::show))
        .layer(middleware::from_fn(limits::remember_device))
        // A form post of the bank's site carries no cookie of ours (SameSite=Lax), whatever the browser has.
        .route("/{lang}/payments/{id}/return", get(payment::came_back).post(payment::was_posted_back))
        // Kept by caches, so without a cookie.
        .route("/assets/{name}", get(assets::serve))
        .layer(CompressionLayer::new())
}
