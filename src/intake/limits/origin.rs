//! From where a payer submits: an address, and a browser by its cookie. Stored only as keyed hashes.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::super::{Intake, auth::Caller, problem::Problem};
use crate::{
    clock::new_secret_id,
    store::limits::{self, KeyedHash, Origin},
};

/// Names the browser to the limits, and to nothing else. The prefix `__Host-` would want another name than pages were
/// promised; what it demands (Secure, Path=/, no Domain) is kept all the same.
const COOKIE: &str = "tolom_device";
const YEAR_S: u32 = 365 * 24 * 3600;

/// The browser, by its cookie: 32 hexadecimal digits that nobody can guess. Anything else is no cookie of ours.
pub(in super::super) struct Device(pub(in super::super) Option<Uuid>);

impl FromRequestParts<Intake> for Device {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Intake) -> Result<Self, Self::Rejection> {
        Ok(Self(device(&parts.headers)))
    }
}

/// Gives a browser that has none its cookie. Stands around pages, which are never cached, and to which browsers send it.
pub async fn remember_device(request: Request, next: Next) -> Response {
    let known = device(request.headers()).is_some();
    let mut response = next.run(request).await;
    if !known {
        let cookie = new_secret_id().simple();
        let cookie = format!("{COOKIE}={cookie}; Max-Age={YEAR_S}; Path=/; Secure; HttpOnly; SameSite=Lax");
        response.headers_mut().extend(HeaderValue::try_from(cookie).ok().map(|value| (header::SET_COOKIE, value)));
    }
    response
}

/// Reads the cookie (RFC 6265, 4.2.1).
fn device(headers: &HeaderMap) -> Option<Uuid> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    let digits = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { Uuid::try_parse(value).ok() } else { None }
}

impl Intake {
    /// From where a payment comes; none if its caller has a token, for many payers stand behind one.
    pub(in super::super) async fn origin(
        &self,
        caller: &Caller,
        address: IpAddr,
        device: Option<Uuid>,
    ) -> Result<Option<Origin>, Problem> {
        if !matches!(caller, Caller::Public) {
            return Ok(None);
        }
        let key = self.origin_key.get_or_try_init(|| limits::origin_key(&self.pool)).await?;
        Ok(Some(Origin {
            address: keyed(key, b"address", address.to_string().as_bytes()),
            device: device.map(|device| keyed(key, b"device ", device.as_bytes())),
            shut_until: self.codes.shut_until(&address.into(), self.clock.now()),
        }))
    }
}

/// HMAC-SHA256 (RFC 2104) of a value of one kind.
fn keyed(key: &KeyedHash, kind: &[u8; 7], value: &[u8]) -> KeyedHash {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(kind);
    mac.update(value);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn only_a_cookie_of_ours_names_a_browser() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.extend(lines.iter().map(|line| (header::COOKIE, line.parse().unwrap())));
            device(&headers).map(|id| id.simple().to_string())
        };
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(read(&[&format!("lang=ky; tolom_device={id}; x=y")]).as_deref(), Some(id));
        assert_eq!(read(&["lang=ky", &format!("tolom_device={id}")]).as_deref(), Some(id));
        for other in ["", "tolom_device", "tolom_device=", "tolom_device=x", &format!("tolom_device={id}0")] {
            assert_eq!(read(&[other]), None, "{other}");
        }
        assert_eq!(read(&["tolom_device=01234567-89ab-cdef-0123-456789abcdef"]), None);
    }

    #[tokio::test]
    async fn a_browser_is_given_a_cookie_once() {
        let app = Router::new().route("/", get(async || "")).layer(middleware::from_fn(remember_device));
        let ask = async |cookie: Option<&str>| {
            let request = Request::get("/");
            let request = cookie.into_iter().fold(request, |request, cookie| request.header(header::COOKIE, cookie));
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            response.headers().get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
        };
        let given = ask(None).await.unwrap();
        let (pair, rest) = given.split_once("; ").unwrap();
        assert_eq!(rest, "Max-Age=31536000; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(ask(Some(pair)).await, None);
        let other = ask(Some("tolom_device=forged")).await.unwrap();
        assert_ne!(other, given);
    }

    #[test]
    fn hashes_differ_by_kind_value_and_key() {
        let hashes = [
            keyed(&[1; 32], b"address", b"192.0.2.1"),
            keyed(&[1; 32], b"device ", b"192.0.2.1"),
            keyed(&[1; 32], b"address", b"192.0.2.2"),
            keyed(&[2; 32], b"address", b"192.0.2.1"),
        ];
        assert!((1..4).all(|index| !hashes[..index].contains(&hashes[index])));
    }
}
