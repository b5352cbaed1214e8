//! Guessing payment codes from one address.

use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::{Client, StatusCode};

use crate::support::world::{PATIENCE, World};

/// A world with an intake alone, on a clock of the test's, with the rule for codes as it is by default.
async fn intake() -> World {
    let mut world = World::prepared(|config| {
        config.limits = tolom::config::Config::defaults().limits;
    })
    .await;
    world.clock = tolom::clock::Clock::manual(world.clock.now());
    world.run(Vec::new()).await;
    world
}

fn client() -> Client {
    Client::builder().timeout(PATIENCE).build().unwrap()
}

async fn look_up(client: &Client, world: &World, code: &str) -> (StatusCode, u64) {
    let response = client.get(format!("{}/v1/bills/{code}", world.site)).send().await.unwrap();
    let wait = response.headers().get("retry-after").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    (response.status(), wait)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_codes_tried_from_one_address_twenty_are_answered() {
    let (world, client) = (intake().await, client());
    let look_up_one = |number| {
        let (world, client) = (&world, &client);
        async move { look_up(client, world, &format!("11000{number:05}")).await.0 }
    };
    let tried: Vec<StatusCode> = stream::iter(0..1_000).map(look_up_one).buffer_unordered(100).collect().await;
    let answers = |wanted| tried.iter().filter(|status| **status == wanted).count();
    let (unknown, refused) = (answers(StatusCode::NOT_FOUND), answers(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!((unknown, refused), (20, 980), "as many as are free, although a hundred were asked at once");
    let bill = world.bill("1100099999").await;
    assert_eq!(
        look_up(&client, &world, bill.as_str()).await.0,
        StatusCode::TOO_MANY_REQUESTS,
        "a known code is not told either"
    );
    world.finish_without_acquirer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_as_long_as_he_is_told_waits_longer_each_time() {
    let (world, client) = (intake().await, client());
    let (mut waits, mut answered, mut passed) = (Vec::new(), 0, 0);
    for number in 0..200 {
        let (status, wait) = look_up(&client, &world, &format!("11000{number:05}")).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            waits.push(wait);
            passed += wait;
            world.clock.advance(Duration::from_secs(wait));
        } else {
            answered += 1;
        }
        if passed >= 3_000 {
            break;
        }
    }
    assert!(waits.starts_with(&[5, 10, 20, 40, 80, 160, 320, 640, 900]), "{waits:?}");
    assert_eq!(answered, 20 + waits.len() - 1, "one code a wait");
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(look_up(&client, &world, "1100077777").await.0, StatusCode::NOT_FOUND, "it opens by itself");
    world.finish_without_acquirer().await;
}
