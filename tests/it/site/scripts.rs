//! The inventory of scripts (PCI DSS 4.0.1, 6.4.3): what is listed is what there is, and nothing else runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;
use sha2::{Digest, Sha384};

use super::look::{browser, every_page, look};
use crate::intake::app::App;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inventory {
    script: Vec<Script>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    name: String,
    pages: Vec<String>,
    purpose: String,
    owner: String,
    authorized: String,
    integrity: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/intake/site")
}

fn inventory() -> BTreeMap<String, Script> {
    let read: Inventory = Figment::from(Toml::file_exact(folder().join("scripts.toml"))).extract().unwrap();
    read.script.into_iter().map(|script| (script.name.clone(), script)).collect()
}

fn hash(bytes: &[u8]) -> String {
    format!("sha384-{}", STANDARD.encode(Sha384::digest(bytes)))
}

#[test]
fn every_script_is_listed_with_its_purpose_its_owner_and_its_hash() {
    let listed = inventory();
    let files: Vec<_> = fs::read_dir(folder().join("assets")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let script = |path: &&PathBuf| path.extension().is_some_and(|end| end == "js");
    // What each of them begins with.
    let (store, scripts): (Vec<_>, Vec<_>) = files.iter().filter(script).partition(|path| path.ends_with("store.js"));
    let store = fs::read(store[0]).unwrap();
    assert_eq!(scripts.len(), listed.len());
    for path in scripts {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let script = listed.get(name).unwrap_or_else(|| panic!("{name} is not listed"));
        let now = hash(&[store.as_slice(), &fs::read(path).unwrap()].concat());
        assert_eq!(script.integrity, now, "{name} has changed: review it, then put its hash into scripts.toml");
        for said in [&script.purpose, &script.owner, &script.authorized] {
            assert!(!said.is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_page_loads_what_is_listed_for_it_with_its_hash_and_runs_nothing_inline() {
    let (app, listed) = (App::start().await, inventory());
    for place in every_page(&app).await {
        let page = look(&app, &format!("/en{place}")).await;
        let tags = page.html.split("<script").skip(1).map(|rest| rest.split('>').next().unwrap());
        for tag in tags {
            let attribute =
                |name: &str| tag.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            let Some(source) = attribute("src") else {
                assert_eq!(attribute("type"), Some("application/json"), "{place}: {tag}");
                continue;
            };
            let name = source.strip_prefix("/assets/").unwrap().split('.').next().unwrap();
            let script = &listed[name];
            assert_eq!(attribute("integrity"), Some(script.integrity.as_str()), "{place}: {name}");
            assert!(script.pages.iter().any(|pattern| fits(pattern, &format!("/en{place}"))), "{name} on {place}");
            let served = browser().get(app.url(source)).send().await.unwrap();
            assert_eq!(served.headers()["cache-control"], "public, max-age=31536000, immutable");
            assert!(served.headers().get("set-cookie").is_none());
            assert_eq!(hash(&served.bytes().await.unwrap()), script.integrity);
        }
    }
}

/// Whether an address is one of a route's.
fn fits(pattern: &str, address: &str) -> bool {
    let address = address.split('?').next().unwrap();
    let (pattern, address): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), address.split('/').collect());
    pattern.len() == address.len()
        && pattern.iter().zip(&address).all(|(part, word)| part == word || (part.starts_with('{') && !word.is_empty()))
}

#[tokio::test]
async fn a_script_says_nothing_that_its_page_does_not_give_it() {
    let app = App::start().await;
    app.bill(super::look::CODE).await;
    let bill = super::look::CODE;
    for (script, page) in [("card", format!("/en/bills/{bill}/pay")), ("code", "/en/".to_owned())] {
        let page = look(&app, &page).await;
        let text = fs::read_to_string(folder().join(format!("assets/{script}.js"))).unwrap();
        let given = page.html.split("id=\"words\">").nth(1).unwrap().split("</script>").next().unwrap();
        let given: serde_json::Value = serde_json::from_str(given).unwrap();
        let words = given["words"].as_object().unwrap();
        // An apostrophe in a comment begins no text, so every pair of quotes is tried.
        let name = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let quoted: Vec<&str> = text.split('\'').filter(name).collect();
        for name in words.keys() {
            assert!(quoted.contains(&name.as_str()), "{script}.js says nothing of {name}");
        }
        let shaped = |word: &&str| {
            ["number-", "expiry-", "cvc-", "holder-", "email-", "phone-", "problem-", "code-"]
                .iter()
                .any(|start| word.starts_with(start))
                && !["code-form", "code-error", "code-field"].contains(word)
        };
        for word in quoted.into_iter().filter(shaped) {
            assert!(words.contains_key(word), "{script}.js wants {word}");
        }
    }
}
