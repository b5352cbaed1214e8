//! The site's few files, compiled in and named by their content, so that a browser may keep them for ever.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha384};

use super::super::problem::Problem;

/// A file of the site.
#[derive(Debug)]
pub(super) struct Asset {
    /// Where it is, its content's hash in the name.
    pub(super) path: String,
    /// Its hash for the tag that loads it (Subresource Integrity).
    pub(super) integrity: String,
    media_type: &'static str,
    body: &'static str,
}

/// All of them.
pub(super) struct Assets {
    /// How every page looks.
    pub(super) style: Asset,
    /// The code's form.
    pub(super) code: Asset,
    /// The card's form.
    pub(super) card: Asset,
    /// A payment's page.
    pub(super) payment: Asset,
    /// The mark in the browser's tab.
    pub(super) icon: Asset,
}

/// A script, with what all of them begin with. Not a module that they import: what a script imports carries no hash in the
/// page (Subresource Integrity), and browsers that know the integrity policy refuse it.
macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("assets/store.js"), include_str!($file))
    };
}

pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("site", "css", include_str!("assets/site.css")),
    code: Asset::new("code", "js", script!("assets/code.js")),
    card: Asset::new("card", "js", script!("assets/card.js")),
    payment: Asset::new("payment", "js", script!("assets/payment.js")),
    icon: Asset::new("icon", "svg", include_str!("assets/icon.svg")),
});

impl Asset {
    fn new(name: &str, extension: &str, body: &'static str) -> Self {
        let hash = Sha384::digest(body);
        let short: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let media_type = match extension {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        };
        Self {
            path: format!("/assets/{name}.{short}.{extension}"),
            integrity: format!("sha384-{}", STANDARD.encode(hash)),
            media_type,
            body,
        }
    }
}

impl Assets {
    fn all(&self) -> [&Asset; 5] {
        [&self.style, &self.code, &self.card, &self.payment, &self.icon]
    }
}

/// One of the files. Another version of it is not here: the page that names it is as old, and says so by a reload.
pub(super) async fn serve(Path(name): Path<String>) -> Result<Response, Problem> {
    let asset = ASSETS.all().into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(&name));
    let asset = asset.ok_or_else(Problem::no_such_page)?;
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)), (header::CACHE_CONTROL, for_ever)];
    Ok((headers, asset.body).into_response())
}
