//! AMQP 0-9-1 by hand: publishes what no client library would (a message id that is not UTF-8, headers without end).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
/// Content header flags (basic class): headers and message-id.
const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;

/// Publishes one message to a queue and sees that the broker has taken it. `message_id` and `headers` (an encoded
/// table, its length before it) go out as they are.
pub(crate) async fn publish(amqp_url: &str, queue: &str, message_id: &[u8], headers: &[u8], body: &[u8]) {
    let url = url::Url::parse(amqp_url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    expect(&mut stream, (10, 10)).await;
    let secret = [b"\0", url.username().as_bytes(), b"\0", url.password().unwrap_or_default().as_bytes()].concat();
    let arguments = [&long(b""), &short(b"PLAIN"), &long(&secret), &short(b"en_US")].map(Vec::as_slice).concat();
    method(&mut stream, 0, (10, 11), &arguments).await;
    let tune = expect(&mut stream, (10, 30)).await;
    method(&mut stream, 0, (10, 31), &[&tune[..6], &[0, 0]].concat()).await;
    let vhost = match url.path() {
        "" | "/" | "/%2f" | "/%2F" => "/",
        path => &path[1..],
    };
    method(&mut stream, 0, (10, 40), &[short(vhost.as_bytes()), vec![0, 0]].concat()).await;
    expect(&mut stream, (10, 41)).await;
    method(&mut stream, 1, (20, 10), &short(b"")).await;
    expect(&mut stream, (20, 11)).await;
    method(&mut stream, 1, (85, 10), &[0]).await;
    expect(&mut stream, (85, 11)).await;
    method(&mut stream, 1, (60, 40), &[vec![0, 0], short(b""), short(queue.as_bytes()), vec![0]].concat()).await;
    let mut header = [[0, 60, 0, 0].as_slice(), &(body.len() as u64).to_be_bytes()].concat();
    header.extend((MESSAGE_ID | if headers.is_empty() { 0 } else { HEADERS }).to_be_bytes());
    header.extend(headers);
    header.extend(short(message_id));
    frame(&mut stream, HEADER, 1, &header).await;
    frame(&mut stream, BODY, 1, body).await;
    expect(&mut stream, (60, 80)).await;
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text].concat()
}

async fn method(stream: &mut TcpStream, channel: u16, (class, id): (u16, u16), arguments: &[u8]) {
    let payload = [&class.to_be_bytes(), &id.to_be_bytes(), arguments].concat();
    frame(stream, METHOD, channel, &payload).await;
}

async fn frame(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap();
    let frame = [&[kind], channel.to_be_bytes().as_slice(), &length.to_be_bytes(), payload, &[FRAME_END]].concat();
    stream.write_all(&frame).await.unwrap();
}

/// The arguments of the method that comes next, which must be this one.
async fn expect(stream: &mut TcpStream, (class, id): (u16, u16)) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
    let mut payload = vec![0; length + 1];
    stream.read_exact(&mut payload).await.unwrap();
    let came = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
    assert_eq!((head[0], came), (METHOD, (class, id)), "{}", String::from_utf8_lossy(&payload));
    payload[4..length].to_vec()
}
