//! Rule 1 with real processes: roles are killed in the middle of the work and started again, the broker goes away for
//! a while, and everything accepted ends.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tolom::{
    payer::{Payer, Request},
    services::{Server, Services, Wanted},
    workers,
};
use uuid::Uuid;

use crate::support::world::{World, wait_for};

/// A role as a process of its own, killed with this value.
pub(crate) struct Process {
    arguments: Vec<String>,
    child: Child,
}

impl Process {
    /// Starts `tolom <role>` on the world's database and broker.
    pub(crate) fn start(world: &World, role: &[&str], intake: Option<&str>) -> Self {
        Self::with(world, role, intake, &[])
    }

    /// The same with settings of the test's own.
    pub(crate) fn with(world: &World, role: &[&str], intake: Option<&str>, own: &[(&str, String)]) -> Self {
        let config = &world.config;
        let settings = [
            ("database.url", config.database.url.expose().to_owned()),
            ("database.max_connections", "4".to_owned()),
            ("broker.url", config.broker.url.expose().to_owned()),
            ("broker.prefix", config.broker.prefix.clone()),
            ("broker.retry_delays_ms", "[100, 500]".to_owned()),
            ("acquirer.url", config.acquirer.url.clone()),
            ("acquirer.answer_timeout_ms", "5000".to_owned()),
            ("acquirer.send_within_ms", "1000".to_owned()),
            ("acquirer.connect_timeout_ms", "500".to_owned()),
            ("acquirer.grace_ms", "500".to_owned()),
            ("resolve.poll_ms", "50".to_owned()),
            ("resolve.schedule_s", "[1]".to_owned()),
            ("resolve.stalled_after_s", "5".to_owned()),
            ("mail.url", config.mail.url.expose().to_owned()),
            ("mail.claim_s", "3".to_owned()),
            ("sealing.keys_dir", config.sealing.keys_dir.clone()),
            ("intake.lookups_per_minute", "100000".to_owned()),
            ("admin.listen", "127.0.0.1:0".to_owned()),
            ("intake.listen", intake.unwrap_or("127.0.0.1:0").to_owned()),
        ];
        let mut arguments: Vec<String> = role.iter().map(|word| (*word).to_owned()).collect();
        for (key, value) in settings.iter().chain(own) {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        Self { child: spawn(&arguments), arguments }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended, and tells how.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        wait_for(async || self.child.try_wait().unwrap()).await
    }

    /// `kill -9`, and start it again.
    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.arguments);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tolom"))
        .args(arguments)
        .env("TOLOM_LOG__FILTER", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port that no other test gets by chance: below those that the system gives away.
pub(crate) fn free_address() -> String {
    loop {
        let port = 10_000 + u16::from_be_bytes([Uuid::new_v4().as_bytes()[0], Uuid::new_v4().as_bytes()[1]]) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// What a browser does: the same request under the same key, until there is an answer.
async fn pay_stubbornly(payer: &Payer, request: &Request) -> Uuid {
    let key = Uuid::new_v4().to_string();
    wait_for(async || match payer.submit(request, &key).await {
        Ok(submitted) => submitted.id(),
        Err(_) => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_killed_in_the_middle_of_200_payments_and_all_of_them_end() {
    let mut world = World::prepared(|_| ()).await;
    let address = free_address();
    world.payer = Payer::new(&format!("http://{address}")).unwrap();
    let mut roles: Vec<Process> = vec![Process::start(&world, &["intake"], Some(&address))];
    roles.extend(workers::ALL.iter().map(|role| Process::start(&world, &["worker", role.name], None)));
    let codes: Vec<String> = (0..200).map(|number| format!("11000{number:05}")).collect();
    let bills = world.bills(&codes).await;
    wait_for(async || world.payer.keys().await.ok()).await;
    let mut requests = Vec::new();
    for (number, bill) in bills.iter().enumerate() {
        // Mostly good cards; some that are declined, and some whose answer is lost after the approval.
        let card = match number % 20 {
            7 => "4000000000009995",
            13 => "4000000000050064",
            _ => "4111111111111111",
        };
        requests.push(world.request(bill, card).await);
    }
    let offered = async {
        futures::future::join_all(requests.iter().enumerate().map(async |(number, request)| {
            tokio::time::sleep(Duration::from_millis(25 * number as u64)).await;
            pay_stubbornly(&world.payer, request).await
        }))
        .await
    };
    let killed = async {
        for role in &mut roles {
            // A kill every 700 ms, over the five seconds of the offer.
            tokio::time::sleep(Duration::from_millis(700)).await;
            role.kill_and_restart();
        }
    };
    let (ids, ()) = futures::join!(offered, killed);
    assert_eq!(ids.len(), 200);
    world
        .wait_until(
            "SELECT count(*) FROM payment WHERE status IN ('captured', 'declined', 'failed', 'reversed', 'review')",
            200,
        )
        .await;
    let captured = world.count("SELECT count(*) FROM payment WHERE status = 'captured'").await;
    // What a kill stranded between claim and call is provably not charged; everything else is paid or declined.
    assert!(captured > 100, "{captured} of 200 captured");
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    world.finish().await;
}

/// A world on a broker of its own, with 40 requests ready to be submitted.
async fn on_own_broker() -> (Services, World, Vec<Request>) {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services");
    let own = Services::ensure(&Wanted::private(directory), |step| eprintln!("{step}")).await.unwrap();
    let mut world = World::on_broker(&own.amqp_url, |_| ()).await;
    world.run(workers::ALL.to_vec()).await;
    let bills = world.bills(&(0..40).map(|number| format!("16100000{number:02}")).collect::<Vec<_>>()).await;
    let mut requests = Vec::new();
    for bill in &bills {
        requests.push(world.request(bill, "4111111111111111").await);
    }
    (own, world, requests)
}

async fn accept_all(world: &World, requests: &[Request]) {
    for request in requests {
        assert_eq!(world.payer.submit(request, &Uuid::new_v4().to_string()).await.unwrap().status.as_u16(), 202);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_intake_goes_on_accepting_while_the_broker_is_away_and_all_ends_well_after_its_return() {
    let (mut own, world, requests) = on_own_broker().await;
    accept_all(&world, &requests[..10]).await;
    own.shut_down(Server::Broker).await.unwrap();
    accept_all(&world, &requests[10..]).await;
    own.start_again(Server::Broker).await.unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 40).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    world.finish().await;
    own.stop().await;
}

/// After a crash RabbitMQ 3.10 may leave a stream without a writer for good. Finance waits then; payers do not.
#[tokio::test(flavor = "multi_thread")]
async fn payments_end_after_the_broker_has_crashed_whatever_becomes_of_finances_stream() {
    let (mut own, mut world, requests) = on_own_broker().await;
    accept_all(&world, &requests[..20]).await;
    own.crash(Server::Broker).unwrap();
    accept_all(&world, &requests[20..]).await;
    own.start_again(Server::Broker).await.unwrap();
    world.wait_until("SELECT count(*) FROM payment WHERE status = 'captured'", 40).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NULL", 0).await;
    // Nothing is lost: what the broker has not confirmed is still promised.
    world.wait_until("SELECT count(*) FROM outbox WHERE routing_key <> 'settlement.entry'", 0).await;
    world.stop().await;
    own.stop().await;
}
