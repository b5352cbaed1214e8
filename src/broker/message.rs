//! A message in hand: what came, and the verdict on it.

use lapin::{BasicProperties, types::AMQPValue};
use tokio::sync::mpsc;

use super::{ATTEMPT_HEADER, History};
use crate::{clock::Clock, contracts::mask};

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effect is committed: acknowledge it.
    Done,
    /// Provably no effect, and later it may work: to the next retry tier, and after the last one to the dead letters.
    Retry(String),
    /// It will never work: to the dead letters, with the reason.
    Dead(String),
}

/// A message as it came.
#[derive(Debug, Clone, Default)]
pub struct Parcel {
    /// The `message_id`; empty if there is none, or one that may be a card's number.
    pub id: String,
    /// The body.
    pub body: Vec<u8>,
    /// How often it has been tried before.
    pub attempt: u32,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// What it has been through.
    pub history: History,
}

/// A message in the hands of a handler.
#[derive(Debug)]
pub struct Message {
    pub(super) parcel: Parcel,
    pub(super) tag: u64,
    pub(super) settled: Option<mpsc::Sender<Settled>>,
}

/// A verdict on its way to the session; what must be sent elsewhere comes back with it.
#[derive(Debug)]
pub(super) enum Settled {
    Done(u64),
    /// Sent elsewhere, and confirmed; with the word for it.
    Sent(u64, &'static str),
    Return(u64, Parcel, Verdict),
    Left(u64, Parcel),
}

impl std::ops::Deref for Message {
    type Target = Parcel;

    fn deref(&self) -> &Parcel {
        &self.parcel
    }
}

/// What a handler has made of a message that no session watches over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    InHand,
    /// Left unacknowledged.
    Left,
    /// Settled.
    Settled(Verdict),
}

/// Tells the fate of a [`Message::detached`].
#[derive(Debug)]
pub struct Watch(mpsc::Receiver<Settled>);

impl Watch {
    /// What has become of the message; a verdict is told once.
    pub fn fate(&mut self) -> Fate {
        match self.0.try_recv() {
            Ok(Settled::Done(_)) => Fate::Settled(Verdict::Done),
            Ok(Settled::Return(_, _, verdict)) => Fate::Settled(verdict),
            Err(mpsc::error::TryRecvError::Empty) => Fate::InHand,
            Ok(Settled::Left(..) | Settled::Sent(..)) | Err(mpsc::error::TryRecvError::Disconnected) => Fate::Left,
        }
    }
}

impl Message {
    /// A message that came from no broker: whoever holds the other end plays its part, and sees the verdict.
    pub fn detached(parcel: Parcel) -> (Self, Watch) {
        let (settled, verdicts) = mpsc::channel(1);
        (Self { parcel, tag: 0, settled: Some(settled) }, Watch(verdicts))
    }

    /// Settles the message. The acknowledgement follows on its own.
    pub fn settle(mut self, verdict: Verdict) {
        self.send(|tag, parcel| match verdict {
            Verdict::Done => Settled::Done(tag),
            other => Settled::Return(tag, parcel, other),
        });
    }

    /// Whether the session it came with is gone: the broker delivers it again, and nothing said of it here counts.
    pub fn is_abandoned(&self) -> bool {
        self.settled.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Leaves the message for later, untried. A session that ends has the broker deliver it again; one that goes on
    /// sends it through the last retry tier, which costs it none of its attempts and none of the broker's deliveries.
    pub fn leave(mut self) {
        self.send(Settled::Left);
    }

    fn send(&mut self, settle: impl FnOnce(u64, Parcel) -> Settled) {
        let Some(settled) = self.settled.take() else { return };
        let parcel = std::mem::take(&mut self.parcel);
        // There is a place for every verdict of every message in hand. A session that is gone redelivers what it had
        // not acknowledged.
        let _ = settled.try_send(settle(self.tag, parcel));
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let verdict = Verdict::Retry("its handler ended without a word".to_owned());
        self.send(|tag, parcel| Settled::Return(tag, parcel, verdict));
    }
}

/// A message as it came, by the bytes of its properties (AMQP 0-9-1, section 4.2.6.1); none if they are no properties.
/// Of a `dead` letter it has all that is known of its end too.
pub fn read_parcel(properties: &[u8], body: Vec<u8>, dead: bool) -> Option<Parcel> {
    let (rest, properties) = lapin::protocol::basic::parse_properties(properties).ok()?;
    rest.is_empty().then(|| parcel(&properties, body, dead))
}

/// What a delivery holds; of a `dead` letter, all that is known of its end too.
pub(super) fn parcel(properties: &BasicProperties, body: Vec<u8>, dead: bool) -> Parcel {
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let history = match properties.headers() {
        Some(headers) if dead => History::of_dead_letter(headers, Clock::system().now()),
        Some(headers) => History::read(headers),
        None => History::default(),
    };
    let attempt = match header(ATTEMPT_HEADER) {
        Some(AMQPValue::LongUInt(attempt)) => *attempt,
        Some(AMQPValue::LongInt(attempt)) => u32::try_from(*attempt).unwrap_or(0),
        _ => 0,
    };
    let traceparent = match header("traceparent") {
        // It is put back on what is published on: nothing that a foreign sender could make too large for a frame, nor
        // anything else that it could hide there.
        Some(AMQPValue::LongString(text)) if mask::is_traceparent(text.as_bytes()) => {
            Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
        }
        _ => None,
    };
    // It stands in logs. Ours are UUIDs, and stay as they are.
    let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    let (id, _) = mask::mask_text(id);
    Parcel { id, body, attempt, traceparent, history }
}
