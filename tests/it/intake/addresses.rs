//! Whose address a request has, and what an intake wants to be told of its proxies.

use std::sync::Arc;

use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tolom::app::{self, Roles};

use super::App;

const PATH: &str = "/v1/bills/1100000001";

/// How three look-ups from one peer end, where an address has two a minute.
async fn three(app: &App, peer: [u8; 4], forwarded: [&str; 3]) -> [u16; 3] {
    let (client, mut statuses) = (app.client_at(peer), [0; 3]);
    for (status, forwarded) in statuses.iter_mut().zip(forwarded) {
        let get = client.get(app.url(PATH)).header("x-forwarded-for", forwarded);
        *status = get.send().await.unwrap().status().as_u16();
    }
    statuses
}

#[tokio::test]
async fn x_forwarded_for_counts_from_a_listed_proxy_and_from_nobody_else() {
    let app = App::with(|config| {
        config.intake.lookups_per_minute = 2;
        config.intake.proxies = vec!["127.0.0.2/32".to_owned(), "10.0.0.0/8".to_owned()];
    })
    .await;
    app.bill("1100000001").await;
    let (apart, refused) = ([200; 3], [200, 200, 429]);
    let proxy = [127, 0, 0, 2];
    assert_eq!(three(&app, proxy, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await, apart);
    assert_eq!(three(&app, proxy, ["192.0.2.4", "1.1.1.1, 192.0.2.4", "2.2.2.2, 192.0.2.4, 10.0.0.1"]).await, refused);
    assert_eq!(three(&app, [127, 0, 0, 3], ["192.0.2.5", "192.0.2.6", "192.0.2.7"]).await, refused);
}

#[tokio::test]
async fn a_role_that_starts_has_all_descriptors_and_an_intake_behind_tls_names_its_proxy() {
    let limit = getrlimit(Resource::Nofile);
    let lower = limit.maximum.map(|most| most - 1);
    setrlimit(Resource::Nofile, Rlimit { current: lower, maximum: limit.maximum }).unwrap();
    let app = App::start().await;
    let mut config = (*app.config).clone();
    config.database.url = app.database.url.clone().into();
    config.intake.public_url = "https://pay.example".to_owned();
    let intake = Some(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let started = app::App::start(Arc::new(config), app.clock.clone(), Roles { intake, ..Roles::default() });
    let error = format!("{:#}", started.err().expect("its payers would all have one address"));
    assert!(error.starts_with("intake.proxies: "), "{error}");
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    assert_eq!(app.get(PATH).await.status(), StatusCode::NOT_FOUND);
}
