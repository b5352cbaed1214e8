//! A request body that knows whether any of it left, and that will not leave too late.
//!
//! What a client library reports about a failed request is prose; what proves that the acquirer cannot have acted is
//! that the connection never took the body. The bytes are handed over in one piece, at the moment of writing, so this
//! is also the last place where `send_before` can be looked at: after waiting for a connection, not before it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{acquirer::Call, clock::Clock};

const UNTOUCHED: u8 = 0;
const TAKEN: u8 = 1;
const TOO_LATE: u8 = 2;

/// Holds every request with a card in it without growing: a buffer that grows leaves its old bytes behind.
const CAPACITY: usize = 4096;

/// The request as JSON, in memory that is overwritten when the last holder lets go of it.
///
/// What this cannot reach: the copies in the socket's or the TLS layer's buffers and in the kernel. Over plain and TLS
/// sockets hyper queues the buffer rather than copying it, because both write vectored.
pub(super) fn encode(request: &impl Serialize) -> serde_json::Result<Bytes> {
    let mut buffer = Zeroizing::new(Vec::with_capacity(CAPACITY));
    serde_json::to_writer(&mut *buffer, request)?;
    Ok(Bytes::from_owner(buffer))
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No byte of it was taken: the acquirer cannot have acted on the request.
    Untouched,
    /// Its time had passed when the connection asked for it: no byte was given.
    TooLate,
    /// The connection took it, and it may have arrived.
    Taken,
}

/// The sender's view of a body.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<AtomicU8>);

impl Watch {
    pub(super) fn fate(&self) -> Fate {
        match self.0.load(Ordering::SeqCst) {
            UNTOUCHED => Fate::Untouched,
            TOO_LATE => Fate::TooLate,
            _ => Fate::Taken,
        }
    }
}

/// `send_before` has passed.
#[derive(Debug, thiserror::Error)]
#[error("send_before has passed")]
pub(super) struct TooLate;

/// The body itself.
pub(super) struct Guarded {
    bytes: Option<Bytes>,
    call: Call,
    clock: Clock,
    watch: Watch,
}

impl Guarded {
    pub(super) fn new(bytes: Bytes, call: Call, clock: Clock) -> (Self, Watch) {
        let watch = Watch(Arc::new(AtomicU8::new(UNTOUCHED)));
        (Self { bytes: Some(bytes), call, clock, watch: watch.clone() }, watch)
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        if !self.call.may_be_sent(self.clock.now()) {
            self.watch.0.store(TOO_LATE, Ordering::SeqCst);
            return Poll::Ready(Some(Err(TooLate)));
        }
        self.watch.0.store(TAKEN, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::payment::{Currency, Money};

    #[tokio::test]
    async fn a_body_whose_time_passes_while_connecting_never_leaves() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
        let call = Call {
            reference: "r".to_owned(),
            amount: Money::new(1, Currency::KGS),
            send_before: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(5),
            traceparent: None,
        };
        let bytes = encode(&"the card").unwrap();
        let (body, watch) = Guarded::new(bytes, call, clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = String::new();
            stream.read_to_string(&mut received).await.unwrap();
            received
        });
        assert_eq!(watch.fate(), Fate::Untouched);
        clock.advance(Duration::from_secs(5));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(url).body(reqwest::Body::wrap(body)).send().await.unwrap_err();
        assert_eq!(watch.fate(), Fate::TooLate);
        assert!(!server.await.unwrap().contains("the card"));
    }
}
