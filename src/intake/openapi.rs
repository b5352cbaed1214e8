//! The routes, and the OpenAPI document that is made from them: `schemas/openapi.json`.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Intake, bills, cards, challenge, events, payments, receipt};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tolom intake",
        version = "1",
        description = "Takes card payments for state services. Errors are problem details (RFC 9457); the last part of \
            a problem's `type` is given with each answer. Amounts are in minor units.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This intake")),
    // Without a token, unless a route says otherwise.
    security(()),
    tags(
        (name = "bills", description = "What is owed"),
        (name = "cards", description = "Sealed cards and the keys to seal them with"),
        (name = "payments", description = "Payments"),
    ),
    modifiers(&Token),
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// All routes with their descriptions.
pub(super) fn routes() -> OpenApiRouter<Intake> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(bills::get_bill, bills::put_bill, bills::delete_bill))
        .routes(routes!(cards::encryption_keys))
        .routes(routes!(cards::store_card))
        .routes(routes!(payments::submit))
        .routes(routes!(payments::get_payment))
        .routes(routes!(events::events))
        .routes(routes!(receipt::receipt))
        .routes(routes!(challenge::complete_challenge))
}

/// The OpenAPI document, as `schemas/openapi.json` has it.
pub fn openapi() -> String {
    let mut text = routes().to_openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_in_schemas_is_the_one_the_routes_make() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/openapi.json");
        if std::env::var_os("TOLOM_WRITE_SCHEMAS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")).unwrap();
            std::fs::write(path, super::openapi()).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == super::openapi(), "schemas/openapi.json is not current: run with TOLOM_WRITE_SCHEMAS=1");
    }
}
