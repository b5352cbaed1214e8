//! The payer came back from the bank.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Intake,
    extract::{ApiJson, PaymentId},
    problem::Problem,
    telemetry::Context,
    wire::PaymentState,
};
use crate::store::payments::{self, Returned};

const MAX_FIELDS: usize = 32;
const MAX_NAME_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 32 * 1024;
const TOO_MUCH: &str = "a field is too long, too many, or there twice";

/// What the bank's page posted back to the payer's browser.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChallengeBody {
    /// The form's fields, for example `{"cres": "..."}`.
    #[serde(deserialize_with = "fields")]
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub(super) response: Fields,
}

/// The fields of the bank's form, in their order, each name once, all of them bounded.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Takes one more field.
    pub(super) fn push(&mut self, name: String, value: String) -> Result<(), Problem> {
        let fits = self.0.len() < MAX_FIELDS
            && name.len() <= MAX_NAME_BYTES
            && value.len() <= MAX_VALUE_BYTES
            && !name.contains('\0')
            && !value.contains('\0')
            && self.0.iter().all(|(other, _)| *other != name);
        if !fits {
            return Err(Problem::invalid_field("response", TOO_MUCH));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The pairs themselves.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads an object as pairs, keeping their order and refusing a name that comes twice.
fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
    struct Pairs;
    impl<'de> de::Visitor<'de> for Pairs {
        type Value = Fields;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of at most 32 texts")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Fields::default();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                pairs.push(name, value).map_err(|_| de::Error::custom(TOO_MUCH))?;
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

/// Hand in what the bank's page gave the payer's browser. Repeating the same is harmless.
#[utoipa::path(post, path = "/v1/payments/{id}/challenge", tag = "payments", params(("id" = Uuid, Path, description = "The payment's id")),
    request_body = ChallengeBody,
    responses(
        (status = 202, body = PaymentState, headers(("Location" = String, description = "The payment")), description = "Taken, now or before"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`payment-unknown`"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`challenge-over`"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`invalid-field`"),
    ))]
pub(super) async fn complete_challenge(
    State(intake): State<Intake>,
    PaymentId(id): PaymentId,
    Extension(context): Extension<Context>,
    ApiJson(body): ApiJson<ChallengeBody>,
) -> Result<Response, Problem> {
    if hand_in(&intake, id, &body.response, context).await? == Awaited::NoMore {
        return Err(Problem::challenge_over());
    }
    let payment = payments::read(&intake.pool, id).await?.ok_or_else(Problem::payment_unknown)?;
    let location = [(header::LOCATION, format!("/v1/payments/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(PaymentState::from(payment))).into_response())
}

/// Whether anybody waited for the bank's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// It is taken, now or before.
    Yes,
    /// It came too late, or there was another.
    NoMore,
}

/// Hands the bank's answer to the books; the same one again is as good as once.
pub(super) async fn hand_in(intake: &Intake, id: Uuid, fields: &Fields, context: Context) -> Result<Awaited, Problem> {
    let (now, traceparent) = (intake.clock.now(), Some(context.traceparent));
    match payments::complete_challenge(&intake.pool, id, &fields.0, now, traceparent).await? {
        Returned::Stored(row) => intake.relay.announce(vec![row]),
        Returned::Already => {}
        Returned::Over => return Ok(Awaited::NoMore),
        Returned::Unknown => return Err(Problem::payment_unknown()),
    }
    Ok(Awaited::Yes)
}
