//! Messages that no client can read: each ends the connection of whoever gets it, and is set aside by the broker.

use futures::future::join_all;
use tolom::broker::{Depths, Queue};
use uuid::Uuid;

use crate::{
    processes::Process,
    support::{
        raw_amqp,
        world::{World, wait_for},
    },
};

const NOT_UTF8: &[u8] = b"\xff\xfe";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_set_aside_and_its_neighbours_go_their_way() {
    // Whoever is tried again waits longer than this test does.
    let mut world = World::prepared(|config| config.broker.retry_delays_ms = vec![600_000]).await;
    world.run(Vec::new()).await;
    world.make_sealing_key().await;
    let codes: Vec<String> = (0..20).map(|number| format!("11000071{number:02}")).collect();
    let bills = world.bills(&codes).await;
    let pay = async |bills: &[_]| {
        join_all(bills.iter().map(async |bill| world.pay(bill, super::NUMBER).await.id().unwrap())).await
    };
    let url = world.config.broker.url.expose().to_owned();
    let (authorize, capture) =
        (world.broker.names().queue(Queue::Authorize), world.broker.names().queue(Queue::Capture));
    let mut payments = pay(&bills[..10]).await;
    raw_amqp::publish(&url, &authorize, NOT_UTF8, b"", b"{}").await;
    raw_amqp::publish(&url, &capture, NOT_UTF8, b"", b"{}").await;
    raw_amqp::publish(&url, &capture, b"large", &large(), b"{}").await;
    payments.extend(pay(&bills[10..]).await);
    world.run(tolom::workers::ALL.to_vec()).await;
    for payment in &payments {
        assert_eq!(world.end_of(*payment).await, "captured");
    }
    let depths = Depths::open(&world.broker).await.unwrap();
    wait_for(async || (depths.unreadable().await.unwrap() == 3).then_some(())).await;
    // The letter that comes after them is parked as ever.
    let id = Uuid::new_v4().to_string();
    super::publish(&world.broker, vec![super::to_queue(&world.broker, Queue::Authorize, &id, b"junk")]).await;
    world.wait_until("SELECT count(*) FROM dead_letter", 1).await;
    world.finish().await;
}

/// More than a frame of ours holds: `{"a": "xxx..."}`.
fn large() -> Vec<u8> {
    let text = vec![b'x'; 100_000];
    let value = [b"\x01aS".as_slice(), &u32::try_from(text.len()).unwrap().to_be_bytes(), &text].concat();
    [u32::try_from(value.len()).unwrap().to_be_bytes().as_slice(), &value].concat()
}

/// Tables within tables, as many as fit into one frame: `{"a": {"a": ...}}`.
fn nested() -> Vec<u8> {
    const LEVEL: usize = 7;
    let levels = (48 * 1024 - 200) / LEVEL;
    let mut table = Vec::with_capacity(levels * LEVEL);
    for level in (0..levels).rev() {
        table.extend(u32::try_from(level * LEVEL).unwrap().to_be_bytes());
        if level > 0 {
            table.extend(b"\x01aF");
        }
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_without_end_do_not_end_the_process() {
    let world = World::prepared(|_| ()).await;
    let mut worker = Process::start(&world, &["worker", "authorize", "park"], None);
    let queue = world.broker.names().queue(Queue::Authorize);
    raw_amqp::publish(world.config.broker.url.expose(), &queue, b"nested", &nested(), b"junk").await;
    world.wait_until("SELECT count(*) FROM dead_letter WHERE message_id = 'nested'", 1).await;
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success(), "it drains as ever");
    world.finish_without_acquirer().await;
}
