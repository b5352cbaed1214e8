//! Rule 7 with real processes on servers of their own: a canary card, which has never been before, goes through
//! everything that can become of a payment, with everything logged that can be logged. Then it is searched for, in every
//! form it could have been written in, in every place where a byte of ours could have come to rest.

mod foreign_site;
mod house;
mod needles;
mod panicking;
mod site;

use tolom::{payment::card::CardInput, simulator::cards::Behaviour};

use self::{
    house::{House, stands_in},
    needles::{Needles, canary},
    site::Site,
};

/// The payer's address: that it is found shows that the search finds.
const PAYER: &str = "canary-payer@mail.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_card_is_found_nowhere_whatever_becomes_of_its_payment() {
    let [apart, at_once, declined, lost, challenged, busy, panicking, typed] = std::array::from_fn(|_| canary());
    let mut expired = canary();
    expired.expiry_year = 2020;
    let cards = [&apart, &at_once, &declined, &lost, &challenged, &busy, &panicking, &typed, &expired];
    let mut house = House::open(vec![
        (declined.number.clone(), Behaviour::Decline("51")),
        (lost.number.clone(), Behaviour::TimeoutAfter),
        (challenged.number.clone(), Behaviour::Challenge),
        (busy.number.clone(), Behaviour::Busy),
    ])
    .await;
    let mut site = Site::new(house.intake("intake", "after_recording").await);
    let mut other = Site::new(house.intake("intake_at_once", "at_authorization").await);
    let codes: Vec<String> = (0..9).map(|number| format!("11000777000{number}")).collect();
    house.bills(&codes).await;

    let mut ids = Vec::new();
    for (code, card, end) in [
        (&codes[0], &apart, "captured"),
        (&codes[1], &declined, "declined"),
        (&codes[2], &lost, "captured"),
        (&codes[3], &challenged, "captured"),
        (&codes[4], &busy, "captured"),
        (&codes[5], &expired, "declined"),
    ] {
        let id = site.pay(code, card).await;
        assert_eq!(site.end_of(id).await, end, "{code}");
        ids.push(id);
    }
    let id = other.pay(&codes[6], &at_once).await;
    assert_eq!(other.end_of(id).await, "captured");
    house.mail.wait_for_count(5).await;
    house.mail.wait_for_sms(|sms| sms.len() >= 5).await;
    site.read_everything(&ids).await;

    // Before anybody types a card where it does not belong: what reaches a process is in its memory for a while.
    search_memory(&house, &cards);

    site.type_the_card_everywhere(&codes[7], &typed).await;

    house.end("authorize").await;
    let worker = panicking::Worker::start(&house);
    let id = site.pay(&codes[8], &panicking).await;
    assert_eq!(site.end_of(id).await, "failed");
    let panics = worker.stop();
    assert!(panics.contains("Card(***)"), "{panics}");

    let found = search(&house, &cards, &[&site, &other], &panics).await;
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    the_search_finds(&house, &codes[0], ids[0], &[&site, &other]).await;
    house.close().await;
}

/// Every place but the memory of processes.
async fn search(house: &House, cards: &[&CardInput], sites: &[&Site], panics: &str) -> Vec<String> {
    let needles = Needles::of(cards.iter().copied());
    house.checkpoint().await;
    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("the books of the acquirer".to_owned(), house.books().into_bytes()),
        ("what panics said".to_owned(), panics.as_bytes().to_vec()),
    ];
    places.extend(house.rows().await.into_iter().map(|(table, row)| (format!("a row of {table}"), row.into_bytes())));
    places.extend(
        house.metrics().await.into_iter().map(|(role, text)| (format!("metrics of {role}"), text.into_bytes())),
    );
    places.extend(house.mails().into_iter().map(|mail| ("a mail".to_owned(), mail)));
    places.extend(sites.iter().flat_map(|site| site.heard.iter().cloned()));
    for role in &house.roles {
        for file in ["environ", "cmdline"] {
            let path = format!("/proc/{}/{file}", role.pid());
            places.extend(std::fs::read(&path).ok().map(|bytes| (format!("{file} of {}", role.name), bytes)));
        }
    }
    // Database with its write-ahead log, broker, logs of both and of every role, keys, temporary files.
    let mut found = needles.find_in_files(&house.folder);
    for (place, bytes) in places {
        found.extend(needles.find(&bytes).map(|what| format!("{place}: {what}")));
    }
    found
}

/// The same search, for what is there: were it blind in one of the places, it would be here too.
async fn the_search_finds(house: &House, code: &str, id: uuid::Uuid, sites: &[&Site]) {
    let servers = house.servers();
    for folder in ["postgres/data/base", "postgres/data/pg_wal", "rabbitmq/mnesia"] {
        assert!(stands_in(code, &servers.join(folder)), "{code} in {folder}");
    }
    for role in ["authorize", "record", "capture", "receipt", "resolve", "intake", "intake_at_once"] {
        let log = std::fs::read(house.path("logs").join(format!("{role}.log"))).unwrap();
        for (text, what) in [("\"level\":\"TRACE\"", "everything"), ("\"level\":\"DEBUG\"", "queries")] {
            assert!(Needles::text(text).find(&log).is_some(), "{role} logs {what}");
        }
    }
    assert!(stands_in(&id.to_string(), &house.path("logs")), "logs name the payment");
    assert!(stands_in("a call to the acquirer panicked", &house.path("logs")));
    assert!(house.metrics().await.iter().all(|(_, text)| text.contains("tolom_")));
    assert!(house.mails().iter().any(|mail| Needles::text(code).find(mail).is_some()), "receipts name the bill");
    assert!(house.mail.sms().iter().any(|sms| sms.text.contains("/receipts/TLM-")), "short messages are searched");
    assert!(house.rows().await.iter().any(|(table, row)| table == "payment" && row.contains(PAYER)));
    assert!(house.rows().await.iter().any(|(table, row)| table == "payment" && row.contains("******")));
    for site in sites {
        assert!(
            site.heard.iter().any(|(_, bytes)| Needles::text("******").find(bytes).is_some()),
            "answers have masks"
        );
    }
}

/// No process has a number in its memory: the authorize worker not any more, all others never had.
#[cfg(target_os = "linux")]
fn search_memory(house: &House, cards: &[&CardInput]) {
    let numbers = Needles::numbers(cards.iter().copied());
    let known = Needles::text(house.config.acquirer.url.as_str());
    for role in &house.roles {
        let Some(memory) = house::memory_of(role.pid()) else {
            // Where root does not run this, nobody here can see more.
            assert_eq!(role.name, "authorize", "only this one is shut");
            continue;
        };
        let found: Vec<String> = memory.iter().filter_map(|piece| numbers.find(piece)).collect();
        assert_eq!(found, Vec::<String>::new(), "in the memory of {}", role.name);
        assert!(
            memory.iter().any(|piece| known.find(piece).is_some()),
            "{}: the search finds in memory too",
            role.name
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn search_memory(_: &House, _: &[&CardInput]) {}
