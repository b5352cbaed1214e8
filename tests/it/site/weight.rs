//! What the whole way weighs, and how soon its first page stands there on a slow connection.

use std::{collections::BTreeSet, io::Read};

use super::look::{CODE, browser, paid};
use crate::intake::app::App;

/// Lighthouse's throttling of a slow mobile connection ("slow 4G", formerly "fast 3G"): kbit/s down, ms a round trip.
const DOWN_KBPS: f64 = 1_600.0;
const ROUND_TRIP_MS: f64 = 150.0;

/// Bytes of an answer on the wire: status line, header fields and the compressed body.
async fn transferred(app: &App, path: &str) -> (usize, String) {
    let get = browser().get(app.url(path)).header("accept-encoding", "gzip, deflate, br");
    let response = get.send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let gzipped = response.headers().get("content-encoding").is_some_and(|value| value == "gzip");
    let headers: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let body = response.bytes().await.unwrap();
    let text = if gzipped {
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut whole).unwrap();
        String::from_utf8_lossy(&whole).into_owned()
    } else {
        String::from_utf8_lossy(&body).into_owned()
    };
    (17 + headers + body.len(), text)
}

fn assets(html: &str) -> BTreeSet<String> {
    let named = html.split("\"/assets/").skip(1).map(|rest| format!("/assets/{}", rest.split('"').next().unwrap()));
    named.collect()
}

#[tokio::test]
async fn the_whole_way_is_under_100_kb_and_its_first_view_under_a_second() {
    let app = App::start().await;
    app.bill("110000482921").await;
    let id = paid(&app, CODE).await;
    let open = {
        app.bill("110000482939").await;
        app.pay("110000482939").await
    };
    let (mut total, mut loaded) = (0, BTreeSet::new());
    let mut first_view = 0;
    for path in [
        "/ky/".to_owned(),
        "/ky/bills/110000482921".into(),
        "/ky/bills/110000482921/pay".into(),
        "/v1/encryption-keys".into(),
        format!("/ky/payments/{open}"),
        format!("/ky/payments/{id}"),
        format!("/ky/payments/{id}/receipt.pdf"),
    ] {
        let (bytes, html) = transferred(&app, &path).await;
        println!("{path}: {bytes} bytes");
        total += bytes;
        if path.ends_with("pdf") {
            continue;
        }
        for asset in assets(&html).difference(&loaded.clone()) {
            let (bytes, _) = transferred(&app, asset).await;
            println!("  {asset}: {bytes} bytes");
            total += bytes;
            loaded.insert(asset.clone());
            // What the first page needs before it can be seen; a module is deferred.
            if path == "/ky/" && asset.ends_with("css") {
                first_view += bytes;
            }
        }
        if path == "/ky/" {
            first_view += bytes;
        }
    }
    // Connection (TCP 1, TLS 1.3 1), the page 1, its style 1; DNS is left to the system's cache, as Lighthouse does.
    let round_trips = 4.0;
    let first_view_ms = round_trips * ROUND_TRIP_MS + first_view as f64 * 8.0 / DOWN_KBPS;
    println!("whole way {total} bytes, first view {first_view} bytes in {first_view_ms:.0} ms");
    assert!(total < 100_000, "{total}");
    assert!(first_view_ms < 1_000.0, "{first_view_ms}");
}
