//! The HTTP adapter against servers that misbehave byte by byte, and against none at all.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tolom::{
    acquirer::{Acquirer, Call},
    clock::Clock,
    payment::{Outcome, operation::Inquiry},
};

use super::{APPROVED, NOON, adapter, call, card, contract::schema};

/// A server that reads one whole request on each connection, says its bytes and closes.
struct Hostile {
    address: SocketAddr,
    requests: tokio::sync::mpsc::Receiver<String>,
    _ends: DropGuard,
}

impl Hostile {
    async fn answering(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = tokio::sync::mpsc::channel(1_000);
        let ends = CancellationToken::new();
        tokio::spawn(ends.clone().run_until_cancelled_owned(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let _ = stream.write_all(bytes).await;
                let _ = seen.try_send(request);
            }
        }));
        Self { address, requests, _ends: ends.drop_guard() }
    }

    async fn authorize(&self) -> Outcome {
        let acquirer = adapter(format!("http://{}", self.address), 500, Clock::manual(NOON));
        acquirer.authorize(&call("ref-1"), &card(APPROVED), false).await
    }
}

/// Until the request's JSON ends, or what came cannot be one.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"}}") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 && buffer[0].is_ascii() && buffer[0] > 31 => {
                request.extend_from_slice(&buffer[..read])
            }
            _ => break,
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

#[tokio::test]
async fn no_misbehaviour_after_the_write_is_called_not_sent_or_approved() {
    const HUGE: &[u8] = &[b' '; 100_000];
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"reference\":\"ref-1\"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 307 Away\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 502 Bad Gateway\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\xfe",
        HUGE,
    ] {
        let hostile = Hostile::answering(answer).await;
        let outcome = hostile.authorize().await;
        assert_eq!(outcome.as_str(), "unknown", "{}", String::from_utf8_lossy(&answer[..answer.len().min(60)]));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n".to_vec();
    answer.resize(200_000, b' ');
    let outcome = Hostile::answering(answer.leak()).await.authorize().await;
    assert!(format!("{outcome:?}").contains("too large"), "{outcome:?}");
}

#[tokio::test]
async fn a_request_in_flight_elsewhere_leaves_doubt_to_the_end() {
    let answer = b"HTTP/1.1 409 Conflict\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let mut hostile = Hostile::answering(answer).await;
    assert_eq!(hostile.authorize().await.as_str(), "unknown");
    hostile.requests.close();
    let mut requests = 0;
    while hostile.requests.recv().await.is_some() {
        requests += 1;
    }
    assert!(requests > 1, "it is asked again: {requests}");
}

#[tokio::test]
async fn a_throttling_acquirer_ends_as_not_sent() {
    let answer = b"HTTP/1.1 429 Slow down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(Hostile::answering(answer).await.authorize().await.as_str(), "not_sent");
}

#[tokio::test]
async fn a_kept_connection_that_the_acquirer_closes_never_makes_two_requests_of_one() {
    // Answers as if it would keep the connection, and closes it: the next request may or may not run into that.
    let mut hostile = Hostile::answering(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let acquirer = adapter(format!("http://{}", hostile.address), 500, Clock::manual(NOON));
    let mut outcomes = Vec::new();
    for index in 0..30 {
        let call = call(&format!("ref-{index:02}"));
        outcomes.push(acquirer.authorize(&call, &card(APPROVED), false).await);
    }
    hostile.requests.close();
    let mut seen = Vec::new();
    while let Some(request) = hostile.requests.recv().await {
        seen.push(request);
    }
    for (index, outcome) in outcomes.iter().enumerate() {
        let times = seen.iter().filter(|request| request.contains(&format!("ref-{index:02}"))).count();
        assert!(times <= 1, "request {index} arrived {times} times");
        assert_eq!(outcome.as_str(), "unknown", "request {index}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_connection_that_takes_too_long_to_open_was_not_sent() {
    // A listener that accepts nothing: once its queue is full, the kernel drops further attempts.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let acquirer = adapter(format!("http://{address}"), 60_000, Clock::manual(NOON));
    let outcome = acquirer.authorize(&call("a"), &card(APPROVED), false).await;
    assert_eq!(outcome.as_str(), "not_sent", "{outcome:?}");
}

#[tokio::test]
async fn a_request_says_who_it_is_in_headers_and_body() {
    let mut hostile = Hostile::answering(b"").await;
    let acquirer = adapter(format!("http://{}/shim/", hostile.address), 500, Clock::manual(NOON));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = Call { traceparent: Some(trace.to_owned()), ..call("ref-1") };
    acquirer.authorize(&call, &card(APPROVED), true).await;
    let request = hostile.requests.recv().await.unwrap();
    assert!(request.starts_with("POST /shim/v1/authorizations HTTP/1.1\r\n"), "{request}");
    for header in ["idempotency-key: ref-1", "authorization: Bearer secret-token", &format!("traceparent: {trace}")] {
        assert!(request.contains(header), "{header}: {request}");
    }
    let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    schema("Authorize").validate(&body).unwrap();
    assert_eq!(body["reference"], "ref-1");
    assert_eq!(body["capture"], true);
}

#[tokio::test]
async fn what_never_connects_was_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // Speaks, but not TLS.
    let plain = Hostile::answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    for address in
        [format!("http://{free}"), "http://no-such-host.invalid".to_owned(), format!("https://{}", plain.address)]
    {
        let outcome = adapter(&address, 1_000, Clock::manual(NOON)).authorize(&call("a"), &card(APPROVED), false).await;
        assert_eq!(outcome.as_str(), "not_sent", "{address}: {outcome:?}");
        let inquiry =
            adapter(&address, 1_000, Clock::manual(NOON)).inquire(tolom::payment::OperationKind::Authorize, "a").await;
        assert!(matches!(inquiry, Inquiry::NoAnswer { .. }), "{address}");
    }
}
