//! Open pages: a payment's news as server-sent events (WHATWG HTML 9.2), from facts, without polling.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use uuid::Uuid;

use super::{
    Intake,
    extract::PaymentId,
    limits::{ClientAddress, Place, shed},
    problem::Problem,
    wire::PaymentState,
};
use crate::{live::LiveNews, payment::PublicStatus, store::payments};

const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream that has seen no end by then is closed; the browser opens a new one by itself.
const LONGEST: Duration = Duration::from_secs(3600);

/// Follow a payment: `status` events until it is paid, declined, not charged or refunded.
#[utoipa::path(get, path = "/v1/payments/{id}/events", tag = "payments", params(("id" = Uuid, Path, description = "The payment's id")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String, description = "`status` events, their data as PaymentState"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`payment-unknown`"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`overloaded`; see Retry-After"),
    ))]
pub(super) async fn events(
    State(intake): State<Intake>,
    ClientAddress(address): ClientAddress,
    PaymentId(id): PaymentId,
) -> Result<Response, Problem> {
    let place = intake.streams.take(address).ok_or_else(|| shed("streams"))?;
    // Before the row is read, so that nothing falls between the two.
    let news = intake.live.subscribe();
    let payment = payments::read(&intake.pool, id).await?.ok_or_else(Problem::payment_unknown)?;
    let (stopping, seen, ended) = (intake.stopping.clone(), payment.version, payment.public_status.is_final());
    let first = status_event(&PaymentState::from(payment));
    let page = Page { intake, id, news, seen, ended, _place: place };
    let end = async move {
        tokio::select! { () = stopping.cancelled() => {}, () = tokio::time::sleep(LONGEST) => {} }
    };
    let all = stream::iter([first]).chain(page.follow()).map(Ok::<_, Infallible>).take_until(Box::pin(end));
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// One open page.
struct Page {
    intake: Intake,
    id: Uuid,
    news: Receiver<LiveNews>,
    /// The version that was sent last.
    seen: i32,
    ended: bool,
    _place: Place,
}

impl Page {
    fn follow(self) -> impl Stream<Item = Event> {
        stream::unfold(self, |mut page| async move {
            while !page.ended {
                let fact = match page.news.recv().await {
                    Ok(LiveNews::Fact(fact)) if fact.payment == page.id && fact.version > page.seen => Some(fact),
                    Ok(LiveNews::Fact(_)) => continue,
                    // Facts may have been missed: the row knows.
                    Ok(LiveNews::Resync) | Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => return None,
                };
                if let Some(event) = page.tell(fact).await {
                    return Some((event, page));
                }
            }
            None
        })
    }

    /// The event for a fact, or for what the row says when there is none, or when the fact does not say all: it has no
    /// form to confirm with, and knows nothing of refunds.
    async fn tell(&mut self, fact: Option<Arc<crate::contracts::PaymentFact>>) -> Option<Event> {
        let (state, version, public) = match fact {
            Some(fact) if fact.public_status != PublicStatus::Confirm => {
                (PaymentState::from(&*fact), fact.version, fact.public_status)
            }
            _ => match payments::read(&self.intake.pool, self.id).await {
                Ok(Some(payment)) => {
                    let (version, public) = (payment.version, payment.public_status);
                    (PaymentState::from(payment), version, public)
                }
                // The page closes, and its browser opens it anew.
                Ok(None) | Err(_) => {
                    self.ended = true;
                    return None;
                }
            },
        };
        if version <= self.seen {
            return None;
        }
        self.seen = version;
        self.ended = public.is_final();
        Some(status_event(&state))
    }
}

fn status_event(state: &PaymentState) -> Event {
    let data = serde_json::to_string(state).unwrap_or_default();
    Event::default().event("status").data(data)
}
