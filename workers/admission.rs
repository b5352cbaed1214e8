//! Admission of payments that foreign sites publish: by the intake's own rules and its own store function.

use crate::{
    broker::{Outgoing, PublishError},
    clock,
    config::CaptureMode,
    contracts::{Event, ForeignRequest, PaymentRefused, PaymentRequested, Topic},
    store::{
        accept::{self, Acceptance, CardSource, Idempotency, NewPayment, Refusal, accept},
        request::validate,
    },
    worker::Context,
};

/// What became of a foreign request.
pub(super) enum Admission {
    /// The payment exists now.
    Admitted(uuid::Uuid),
    /// Refused, and its sender told.
    Refused,
    /// Later it may work.
    Later(String),
    /// It will never work.
    Broken(String),
    /// The process is to stop.
    Stopped,
}

/// Admits a request, or tells its sender why not. Idempotent by the event's source and id: the first answer stands.
pub(super) async fn admit(context: &Context, event: &Event<PaymentRequested>) -> Admission {
    let Some(request) = &event.data.request else {
        return Admission::Broken("there is no such payment, and the event holds no request".to_owned());
    };
    match context.until_available(|| accept::told(&context.pool, &event.source, event.id)).await {
        None => return Admission::Stopped,
        Some(Err(error)) => return Admission::Broken(error.to_string()),
        Some(Ok(Some(told))) => return tell(context, told).await,
        Some(Ok(None)) => {}
    }
    if let Err(invalid) = validate(request.amount, &request.payer, &request.locale) {
        return refuse(context, event, "invalid-field", &format!("{} {}", invalid.field, invalid.detail)).await;
    }
    let (now, payment) = (context.clock.now(), new_payment(context, event, request));
    let accepted = context
        .until_available(|| accept(&context.sessions, now, &context.config, std::slice::from_ref(&payment)))
        .await;
    let result = match accepted {
        None => return Admission::Stopped,
        Some(Err(error)) => return Admission::Broken(error.to_string()),
        Some(Ok(mut accepted)) => {
            context.relay.announce(accepted.outbox);
            accepted.results.pop()
        }
    };
    match result {
        Some(Acceptance::New) => Admission::Admitted(payment.id),
        Some(Acceptance::Replayed { payment, .. }) => Admission::Admitted(payment),
        Some(Acceptance::Refused(refusal @ (Refusal::InFlight | Refusal::Unavailable))) => {
            Admission::Later(refusal.detail().to_owned())
        }
        // Ours to mend, not the sender's: kept as a dead letter.
        Some(Acceptance::Refused(refusal @ Refusal::Internal)) => Admission::Broken(refusal.detail().to_owned()),
        Some(Acceptance::Refused(refusal)) => {
            if let Refusal::TooManyAttempts { by, .. } = refusal {
                metrics::counter!("tolom_limited_total", "by" => by.as_str(), "what" => "payment").increment(1);
            }
            refuse(context, event, refusal.problem(), refusal.detail()).await
        }
        None => Admission::Later("the request was not answered".to_owned()),
    }
}

fn new_payment(context: &Context, event: &Event<PaymentRequested>, request: &ForeignRequest) -> NewPayment {
    let acquirer = &context.config.acquirer;
    NewPayment {
        id: event.data.payment,
        bill: request.bill.clone(),
        amount: request.amount,
        card: CardSource::Stored(request.card.id),
        payer: request.payer.clone(),
        locale: request.locale.clone(),
        terms: request.terms.clone(),
        acquirer: acquirer.name.clone(),
        capture_at_once: acquirer.capture == CaptureMode::AtAuthorization,
        caller: event.source.clone(),
        idempotency: Some(Idempotency::of_event(event.id)),
        event: Some((event.source.clone(), event.id.to_string())),
        origin: None,
        traceparent: None,
    }
}

/// Notes the refusal, and tells it.
async fn refuse(context: &Context, event: &Event<PaymentRequested>, reason: &str, detail: &str) -> Admission {
    let data = PaymentRefused {
        payment: event.data.payment,
        request: event.id,
        reason: reason.to_owned(),
        detail: detail.to_owned(),
    };
    match context.until_available(|| accept::refuse(&context.pool, &event.source, &data)).await {
        None => Admission::Stopped,
        Some(Err(error)) => Admission::Broken(error.to_string()),
        Some(Ok(false)) => Admission::Later("another copy of it was answered meanwhile".to_owned()),
        Some(Ok(true)) => tell(context, data).await,
    }
}

/// Tells the sender; once more if nobody knows whether it was told before.
async fn tell(context: &Context, data: PaymentRefused) -> Admission {
    let (id, topic) = (clock::new_id(), Topic::PaymentRefused);
    let body = Event::new(topic, id, "/tolom/authorize", data.payment, context.clock.now(), data).to_bytes();
    match context.publisher.publish(Outgoing::event(topic, id, body, None)).await {
        // That nobody listens is the foreign site's choice.
        Ok(()) | Err(PublishError::Unroutable) => Admission::Refused,
        Err(error) => Admission::Later(error.to_string()),
    }
}
