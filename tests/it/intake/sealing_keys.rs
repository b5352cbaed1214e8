//! Sealing keys over their life.

use std::time::Duration;

use serde_json::Value;
use tolom::sealing::{KeyDir, SealError, ensure_current, public_key};

use super::{App, app::card};

const CODE: &str = "1100000001";

#[tokio::test]
async fn what_is_sealed_with_an_offered_key_is_opened_by_the_worker() {
    let app = App::start().await;
    let response = app.get("/v1/encryption-keys").await;
    assert_eq!(response.headers()["cache-control"], "public, max-age=60");
    let set: Value = response.json().await.unwrap();
    let (kid, public) = public_key(&set["keys"][0]).unwrap();
    assert!(set["keys"][0].get("d").is_none());
    let (now, bill) = (app.clock.now(), CODE.parse().unwrap());
    let jwe = tolom::sealing::seal(&public, &kid, &bill, now + time::Duration::minutes(5), &card());
    assert_eq!(app.keys.open_card(&jwe, &bill, now).unwrap().unwrap().number, "4111111111111111");
}

#[tokio::test]
async fn a_key_is_followed_in_time_and_destroyed_a_day_after_it_sealed() {
    let app = App::start().await;
    let rotate = || async { ensure_current(&app.pool, &app.keys, &app.config.sealing, app.clock.now()).await.unwrap() };
    let hours = |count: u64| app.clock.advance(Duration::from_secs(3600 * count));
    assert_eq!(rotate().await, Default::default(), "a young key needs no successor");
    hours(19);
    let second = rotate().await.made.expect("a successor before the end");
    assert_eq!(rotate().await.made, None);
    let set: Value = app.get("/v1/encryption-keys").await.json().await.unwrap();
    assert_eq!((set["keys"].as_array().unwrap().len(), set["keys"][0]["kid"].as_str()), (2, Some(second.as_str())));
    hours(6);
    let set: Value = app.get("/v1/encryption-keys").await.json().await.unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1, "a day is over");
    hours(24);
    let rotated = rotate().await;
    assert_eq!(rotated.destroyed, std::slice::from_ref(&app.key.0));
    assert!(app.keys.get(&app.key.0).unwrap().is_none());
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT kid FROM sealing_key ORDER BY kid").fetch_all(&app.pool).await.unwrap();
    assert_eq!(rows, [second.to_string(), rotated.made.unwrap().to_string()]);
}

#[tokio::test]
async fn a_host_without_the_private_half_makes_a_key_of_its_own() {
    let app = App::start().await;
    let path = std::env::temp_dir().join(format!("tolom-test-keys-{}", uuid::Uuid::now_v7()));
    let other = KeyDir::open(&path).unwrap();
    let made = ensure_current(&app.pool, &other, &app.config.sealing, app.clock.now()).await.unwrap().made;
    assert!(other.get(&made.unwrap()).unwrap().is_some());
    let jwe = app.sealed(CODE);
    let opened = other.open_card(&jwe, &CODE.parse().unwrap(), app.clock.now()).unwrap();
    assert_eq!(opened.unwrap_err(), SealError::UnknownKey);
    std::fs::remove_dir_all(path).unwrap();
}

#[tokio::test]
async fn a_retired_key_opens_what_waits_and_is_then_destroyed() {
    let app = App::start().await;
    app.bill(CODE).await;
    app.pay(CODE).await;
    let (jwe,): (String,) = sqlx::query_as("SELECT jwe FROM sealed_card").fetch_one(&app.pool).await.unwrap();
    assert!(tolom::sealing::retire(&app.pool, &app.key.0, app.clock.now()).await.unwrap());
    assert!(!tolom::sealing::retire(&app.pool, &"nobody".parse().unwrap(), app.clock.now()).await.unwrap());
    assert!(app.keys.open_card(&jwe, &CODE.parse().unwrap(), app.clock.now()).unwrap().is_ok());
    assert_eq!(app.get("/v1/encryption-keys").await.status().as_u16(), 503);
    app.clock.advance(Duration::from_secs(901));
    let rotated = ensure_current(&app.pool, &app.keys, &app.config.sealing, app.clock.now()).await.unwrap();
    assert_eq!(rotated.destroyed, std::slice::from_ref(&app.key.0));
    assert_eq!(app.get("/v1/encryption-keys").await.status().as_u16(), 200);
}
