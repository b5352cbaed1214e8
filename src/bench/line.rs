//! A payer's connection, as cheap as it can be: whoever offers the load shares the machine with those who bear it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use uuid::Uuid;

/// The intake answers or sheds load long before.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Of a refusal, what is told.
const TOLD: usize = 300;

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) key: HeaderValue,
    /// The payer's address, as a proxy would tell it.
    pub(super) address: HeaderValue,
    /// The browser's cookie.
    pub(super) cookie: HeaderValue,
    pub(super) body: Bytes,
}

/// What the intake answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// 202: the payment.
    Accepted(Uuid),
    /// 503: more than the intake takes at a time.
    Shed,
    /// Anything else, in words.
    Refused(String),
}

/// Where to.
#[derive(Debug, Clone)]
pub(super) struct Site {
    address: SocketAddr,
    headers: HeaderMap,
}

impl Site {
    pub(super) fn new(address: &str) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::HOST, HeaderValue::from_str(address)?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { address: address.parse().context("the intake's address")?, headers })
    }
}

/// One connection, kept alive; opened when it is needed.
pub(super) struct Line {
    site: Site,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub(super) const fn new(site: Site) -> Self {
        Self { site, sender: None }
    }

    /// Connects now, so that the first payment need not.
    pub(super) async fn open(mut self) -> anyhow::Result<Self> {
        self.sender = Some(self.connect().await?);
        Ok(self)
    }

    /// Submits a payment; once more, under the same key, if an old connection has broken.
    pub(super) async fn pay(&mut self, request: &Prepared) -> Answer {
        let was_open = self.sender.is_some();
        let answered = match self.try_to_pay(request).await {
            Err(_) if was_open => self.try_to_pay(request).await,
            answered => answered,
        };
        answered.unwrap_or_else(|error| Answer::Refused(format!("no answer: {error:#}")))
    }

    async fn try_to_pay(&mut self, request: &Prepared) -> anyhow::Result<Answer> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = async {
            sender.ready().await?;
            let response = sender.send_request(self.post(request)).await?;
            read(response).await
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await.context("in time")??;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.site.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn post(&self, prepared: &Prepared) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/payments");
        *request.headers_mut() = self.site.headers.clone();
        request.headers_mut().insert("idempotency-key", prepared.key.clone());
        request.headers_mut().insert("x-forwarded-for", prepared.address.clone());
        request.headers_mut().insert(header::COOKIE, prepared.cookie.clone());
        request
    }
}

/// The payment's id stands in the header already; the body is read past, so that the connection can be used again.
async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::ACCEPTED {
        let bytes = body.collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TOLD)]).into_owned();
        let shed = head.status == StatusCode::SERVICE_UNAVAILABLE;
        return Ok(if shed { Answer::Shed } else { Answer::Refused(format!("{}: {text}", head.status)) });
    }
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let id = location.and_then(|location| location.rsplit('/').next()?.parse().ok());
    Ok(Answer::Accepted(id.context("a 202 names its payment in Location")?))
}
