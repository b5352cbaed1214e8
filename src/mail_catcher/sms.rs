//! The gateway's end of `schemas/sms.openapi.json`: keeps each short message once, however often it is sent, and fails on
//! demand in the ways real gateways fail.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::http::HARMLESS;
use crate::{clock::Clock, simulator::Line, store::request::is_phone};

/// Messages kept; the oldest go first.
const KEPT: usize = 10_000;
/// Longest text, in letters: more segments than any network joins.
const LONGEST_TEXT: usize = 1_600;
/// Far more than the longest message has.
const LARGEST_BODY: usize = 16 * 1024;

/// How the gateway is to treat the requests that come next, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsFault {
    /// Answer with this status, and `Retry-After` in seconds if given; the message is forgotten.
    Answer(u16, Option<u32>),
    /// Keep the message, then hang up instead of answering: taken, but the sender cannot know.
    HangUpAfterKeeping,
    /// Say nothing for ever; the message is forgotten.
    Stall,
}

/// A message as it was sent.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    id: Uuid,
    #[serde(default)]
    from: String,
    to: String,
    text: String,
}

/// A message as it was caught.
#[derive(Clone, Serialize)]
pub struct CaughtSms {
    /// Its number since the start, from 1.
    pub number: u64,
    /// Its id.
    pub id: Uuid,
    /// The sender's name or number.
    pub from: String,
    /// The recipient's number (ITU-T E.164).
    pub to: String,
    /// What it says.
    pub text: String,
    /// When it was first taken.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// How often it came again and was known by its id.
    pub repeats: u64,
}

impl fmt::Debug for CaughtSms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaughtSms").field("number", &self.number).field("id", &self.id).finish_non_exhaustive()
    }
}

/// The messages, shared by the HTTP view and the tests.
pub(super) struct Outlet {
    kept: Mutex<Kept>,
    /// Changes with each request that has been dealt with.
    pub(super) changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<CaughtSms>,
    /// What each message that is kept said, to know a repeat from another message under its id.
    by_id: HashMap<Uuid, Message>,
    count: u64,
    faults: VecDeque<SmsFault>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

/// What is done with a request that can be read.
enum Fate {
    Taken,
    /// Another message has this id.
    Conflict,
    Fault(SmsFault),
}

impl Outlet {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), changes: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn messages(&self) -> Vec<CaughtSms> {
        self.lock().messages.iter().cloned().collect()
    }

    pub(super) fn set_faults(&self, faults: impl IntoIterator<Item = SmsFault>) {
        self.lock().faults = faults.into_iter().collect();
    }

    fn take_in(&self, message: Message) -> Fate {
        let mut kept = self.lock();
        let fate = match kept.faults.pop_front() {
            Some(fault @ (SmsFault::Answer(..) | SmsFault::Stall)) => Fate::Fault(fault),
            fault @ (Some(SmsFault::HangUpAfterKeeping) | None) => match kept.keep(message) {
                true => fault.map_or(Fate::Taken, Fate::Fault),
                false => Fate::Conflict,
            },
        };
        // Still under the lock: who is told of a message finds it.
        self.changes.send_modify(|changes| *changes += 1);
        fate
    }
}

impl Kept {
    /// Keeps a message once; false if another one has its id.
    fn keep(&mut self, message: Message) -> bool {
        if let Some(known) = self.by_id.get(&message.id) {
            let same = *known == message;
            if let Some(caught) = self.messages.iter_mut().find(|caught| same && caught.id == message.id) {
                caught.repeats += 1;
            }
            return same;
        }
        self.count += 1;
        let Message { id, from, to, text } = message.clone();
        let received_at = Clock::system().now();
        self.messages.push_back(CaughtSms { number: self.count, id, from, to, text, received_at, repeats: 0 });
        self.by_id.insert(message.id, message);
        if self.messages.len() > KEPT
            && let Some(oldest) = self.messages.pop_front()
        {
            self.by_id.remove(&oldest.id);
        }
        true
    }
}

/// `POST /sms` takes a message, `GET /sms` shows those that are kept.
pub(super) fn routes(outlet: Arc<Outlet>) -> Router {
    Router::new().route("/sms", post(take).get(list)).layer(DefaultBodyLimit::max(LARGEST_BODY)).with_state(outlet)
}

async fn list(State(outlet): State<Arc<Outlet>>) -> impl IntoResponse {
    (HARMLESS, Json(outlet.messages()))
}

async fn take(
    State(outlet): State<Arc<Outlet>>,
    ConnectInfo(line): ConnectInfo<Line>,
    headers: HeaderMap,
    message: Result<Json<Message>, JsonRejection>,
) -> Response {
    let message = match message {
        Ok(Json(message)) => message,
        Err(rejection) => return refused(rejection.status(), "the body is no message"),
    };
    if let Err(why) = check(&message, &headers) {
        return refused(StatusCode::BAD_REQUEST, why);
    }
    let id = message.id;
    match outlet.take_in(message) {
        Fate::Taken => (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response(),
        Fate::Conflict => refused(StatusCode::CONFLICT, "another message has this id"),
        Fate::Fault(SmsFault::Answer(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = refused(status, "as asked for");
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            answer
        }
        Fate::Fault(SmsFault::HangUpAfterKeeping) => {
            line.cut();
            StatusCode::ACCEPTED.into_response()
        }
        Fate::Fault(SmsFault::Stall) => std::future::pending().await,
    }
}

fn check(message: &Message, headers: &HeaderMap) -> Result<(), &'static str> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()?.parse::<Uuid>().ok());
    if key != Some(message.id) {
        return Err("the header Idempotency-Key is not the id");
    }
    if !is_phone(&message.to) {
        return Err("`to` must be + and 7 to 15 digits (ITU-T E.164)");
    }
    if message.text.is_empty() || message.text.chars().count() > LONGEST_TEXT {
        return Err("`text` must have 1 to 1600 letters");
    }
    Ok(())
}

/// RFC 9457, without a word of the message.
fn refused(status: StatusCode, title: &str) -> Response {
    let mut answer = (status, Json(json!({ "status": status.as_u16(), "title": title }))).into_response();
    let media_type = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u128, text: &str) -> Message {
        Message { id: Uuid::from_u128(id), from: String::new(), to: "+996555123456".into(), text: text.into() }
    }

    #[test]
    fn a_message_is_kept_once_and_its_id_is_its_own() {
        let mut kept = Kept::default();
        assert!(kept.keep(message(1, "a")) && kept.keep(message(1, "a")) && kept.keep(message(2, "a")));
        assert!(!kept.keep(message(1, "b")), "another message under a known id");
        let found: Vec<_> = kept.messages.iter().map(|caught| (caught.number, caught.repeats)).collect();
        assert_eq!(found, [(1, 1), (2, 0)]);
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut kept = Kept::default();
        for number in 0..KEPT as u128 + 5 {
            assert!(kept.keep(message(number, "a")));
        }
        assert_eq!((kept.messages.len(), kept.by_id.len(), kept.messages[0].number), (KEPT, KEPT, 6));
    }
}
