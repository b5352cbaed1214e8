//! `tolom demo`: the whole pipeline at work on one machine, with nothing prepared.
//!
//! It finds or starts the servers, serves everything on loopback, pays sample bills over the public API with cards that
//! fail in every known way, and then holds the rules of money against the books. What it made, it removes.

mod play;
mod report;
mod scenes;
mod table;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use futures::future::join_all;
use uuid::Uuid;

use self::{
    play::Played,
    report::{Receipts, Repetition, Report, Times, Unknown},
    scenes::SCENES,
    table::{Board, Screen},
};
use crate::{
    app,
    payer::Payer,
    payment::PaymentCode,
    simulator::SimulatorOptions,
    stage::{Plan, Set, Stage, Topology},
    store::books,
    verify,
};

/// How long receipts and reversals may take once the last payment has ended.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Between looks at whether everything has settled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An acquirer that is slow to answer is given up soon, so that nobody has to wait for the demo's point.
const SETTINGS: [(&str, &str); 8] = [
    ("acquirer.connect_timeout_ms", "500"),
    ("acquirer.answer_timeout_ms", "3000"),
    ("acquirer.grace_ms", "500"),
    ("resolve.poll_ms", "200"),
    ("resolve.schedule_s", "[1, 2, 5]"),
    ("intake.lookups_per_minute", "6000"),
    ("shutdown.drain_s", "10"),
    ("log.format", "pretty"),
];

/// What the demo is asked for.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// End after the findings.
    pub once: bool,
    /// Print one JSON document instead of tables.
    pub json: bool,
    /// The settings file.
    pub config_file: Option<PathBuf>,
    /// Settings, stronger than everything but the demo's own addresses and names.
    pub flags: Vec<(String, String)>,
}

/// Runs the demo. True if every payment ended as its card says, every receipt was caught once by mail and once by SMS,
/// and every rule is kept.
///
/// # Errors
/// When there is no database or no broker, or something of the demo's own cannot be made. Whatever was made is removed.
pub async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    let screen = Screen::new(options.json);
    // One for the whole run: its second signal ends the process at once.
    let mut signalled = std::pin::pin!(app::until_signalled());
    let mut stage = Stage::default();
    let acted = tokio::select! {
        acted = act(&options, &mut stage, screen) => acted.map(Some),
        () = &mut signalled => Ok(None),
    };
    let well = match acted {
        Ok(Some(well)) if !options.once => tokio::select! {
            () = &mut signalled => Ok(well),
            () = stage.failed() => Err(cannot_go_on()),
        },
        Ok(well) => Ok(well.unwrap_or(false)),
        Err(error) => Err(error),
    };
    screen.say("taking everything down");
    let left = stage.strike().await;
    left.iter().for_each(|what| screen.say(&format!("left behind: {what}")));
    well.map(|well| well && left.is_empty())
}

fn cannot_go_on() -> anyhow::Error {
    anyhow::anyhow!("a part of the pipeline cannot go on; the log in target/demo.log says why")
}

/// Everything from the first server to the last finding.
async fn act(options: &DemoOptions, stage: &mut Stage, screen: Screen) -> anyhow::Result<bool> {
    let plan = Plan {
        name: "demo",
        config_file: options.config_file.clone(),
        settings: SETTINGS.map(|(key, value)| (key, value.to_owned())).to_vec(),
        flags: options.flags.clone(),
        simulator: SimulatorOptions::default(),
        short_messages: true,
        durable: false,
        private: false,
        topology: Topology::Here,
        grown: None,
    };
    let set = stage.raise(&plan, |text| screen.say(text)).await?;
    let bills = scenes::issue_bills(&set).await?;
    screen.say(&format!("{} sample bills issued", bills.len()));
    let report = tokio::select! {
        report = perform(&set, &bills, screen) => report?,
        () = stage.failed() => return Err(cannot_go_on()),
    };
    screen.write(&report.text());
    if !options.once {
        screen.write(&report.places());
    }
    if options.json {
        let document = serde_json::to_string_pretty(&report)?;
        // A reader that has gone away is no failure.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{document}\n").as_bytes());
    }
    Ok(report.ok)
}

/// Pays, waits until everything has settled, and looks at what there is.
async fn perform(set: &Set, bills: &[PaymentCode], screen: Screen) -> anyhow::Result<Report> {
    let payer = Payer::new(&set.addresses.site)?;
    let payments = pay_all(set, bills, &payer, screen).await;
    let repetition = repeat(set, &payer, &payments).await?;
    let receipts = settle(set, &payments).await?;
    let findings = verify::verify(&set.config, &set.pool, &set.broker, &set.clock, Duration::ZERO, None).await?;
    let mut report = Report {
        ok: false,
        unknown: Unknown::count(&payments),
        accepted_to_captured: Times::of(&payments),
        unpaid: bills.iter().skip(SCENES.len()).map(ToString::to_string).collect(),
        payments,
        repetition,
        receipts,
        findings,
        addresses: set.addresses.clone(),
    };
    report.judge();
    Ok(report)
}

/// Pays a bill with every card, side by side.
async fn pay_all(set: &Set, bills: &[PaymentCode], payer: &Payer, screen: Screen) -> Vec<Played> {
    let cast: Vec<_> = SCENES.iter().copied().zip(bills).collect();
    let board = Board::new(screen, cast.iter().map(|(scene, bill)| Played::new(*scene, bill)).collect());
    let shown = &board;
    let plays = cast.into_iter().enumerate().map(|(index, (scene, bill))| {
        play::play(payer, &set.clock, scene, bill, move |played| shown.show(index, played))
    });
    join_all(plays).await;
    board.finish()
}

/// Sends the first request once more, then another card for the same bill.
async fn repeat(set: &Set, payer: &Payer, payments: &[Played]) -> anyhow::Result<Repetition> {
    let first = payments.first().context("nothing was paid")?;
    let (key, request) = first.sent.as_ref().context("the first payment was not submitted")?;
    let again = payer.submit(request, key).await?;
    let keys = payer.keys().await?;
    let sealing_key = keys.first().context("there is no sealing key")?;
    let now = set.clock.now();
    let mut second = request.clone();
    second.card = payer.seal(sealing_key, &request.bill, &SCENES[1].card(now), now);
    let second = payer.submit(&second, &Uuid::new_v4().to_string()).await?;
    let problem = second.body["type"].as_str().and_then(|kind| kind.rsplit(['/', '#', ':']).next());
    Ok(Repetition {
        status: again.status.as_u16(),
        replayed: again.is_replay(),
        same_payment: again.id().is_some() && again.id() == first.payment,
        second_card_status: second.status.as_u16(),
        second_card_problem: problem.unwrap_or_default().to_owned(),
    })
}

/// Waits until the receipts are caught, by mail and by SMS, and nothing is on its way any more.
async fn settle(set: &Set, payments: &[Played]) -> anyhow::Result<Receipts> {
    let paid = payments.iter().filter(|played| played.is_paid()).count();
    // What does not settle is for the findings to tell.
    let _ = tokio::time::timeout(SETTLED_WITHIN, async {
        set.mail.wait_for_count(paid).await;
        set.mail.wait_for_sms(|caught| caught.len() >= paid).await;
        while books::on_their_way(&set.pool).await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok::<_, crate::store::StoreError>(())
    })
    .await;
    Ok(Receipts::compare(payments, &set.mail.messages(), &set.mail.sms(), &set.config.mail.domain))
}
