//! What a run came to, for people and as one document.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::kind::Kind;
use crate::verify;

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nothing lost, nobody charged twice, every rule kept, everything at its end or before a person with a reason.
    pub ok: bool,
    /// What decided about the faults.
    pub seed: u64,
    /// How long faults were to come.
    pub minutes: f64,
    /// How long they came: mending takes its time.
    pub faults_s: f64,
    /// From the last answer to a payer until nothing was on its way.
    pub quiet_s: f64,
    /// `dev` or `release`.
    pub profile: &'static str,
    /// Processors; everything shares them.
    pub cpus: usize,
    /// The processes that were broken.
    pub processes: Vec<String>,
    /// What differs from the defaults.
    pub settings: Vec<Setting>,
    /// What payers did and heard.
    pub load: Load,
    /// Faults by kind.
    pub faults: Vec<FaultLine>,
    /// Faults that could not be done as planned, and drains that were cut.
    pub troubles: Vec<String>,
    /// Payments that a payer knows were accepted.
    pub accepted: usize,
    /// All payments by where they ended.
    pub ended: BTreeMap<String, usize>,
    /// Payments that failed, not charged, by the reason that was noted.
    pub failed: BTreeMap<String, usize>,
    /// Payments that a person has to settle, with the reason.
    pub in_review: Vec<(Uuid, String)>,
    /// What has not come to its end.
    pub on_their_way: Vec<String>,
    /// Payments that were accepted and that no book knows.
    pub lost: Vec<Uuid>,
    /// Bills for which the acquirer took money twice.
    pub charged_twice: Vec<String>,
    /// What came more than once and changed nothing.
    pub absorbed: Absorbed,
    /// Receipts.
    pub receipts: Receipts,
    /// What finance has.
    pub settlement: Settlement,
    /// Dead letters.
    pub dead_letters: DeadLetters,
    /// Processes that ended although nobody had ended them.
    pub deaths: Vec<String>,
    /// Panics in their logs.
    pub panics: Vec<String>,
    /// Processes that did not drain when all was over.
    pub undrained: Vec<String>,
    /// Whether every rule of money is kept.
    pub verify_ok: bool,
    /// Rule by rule.
    pub findings: Vec<verify::Finding>,
    /// Where the logs of all processes and servers are.
    pub logs: PathBuf,
}

/// A setting of the roles that differs from its default.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value here.
    pub value: String,
    /// Its default.
    pub default: String,
}

/// What payers did and heard.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Payers a second.
    pub rate: f64,
    /// Payments that somebody wanted to make.
    pub offered: u64,
    /// Payers who turned away, for too many were waiting already.
    pub turned_away: u64,
    /// Answers to submissions by kind, repetitions included.
    pub answers: BTreeMap<String, u64>,
    /// Requests that nobody answered by the end.
    pub unanswered: u64,
    /// Confirmations with the bank that were taken.
    pub confirmed: u64,
    /// Bills that were paid by another channel meanwhile.
    pub paid_elsewhere: u64,
    /// Keys under which more than one payment was answered.
    pub contradictions: Vec<String>,
}

/// Faults of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct FaultLine {
    /// The kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// How many there were.
    pub count: usize,
    /// See [`RECOVERY`].
    pub worst_recovery_s: Option<f64>,
    /// Faults after whose end no payment was both accepted and captured.
    pub not_recovered: usize,
}

/// What came more than once and changed nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Absorbed {
    /// Requests of payers under a key that had been answered.
    pub requests: u64,
    /// Requests to the acquirer under a reference that it knew.
    pub acquirer: u64,
    /// News in the journal that changed no status.
    pub journal: i64,
    /// Operations that were sent or asked about more than once.
    pub operations: i64,
}

/// Receipts.
#[derive(Debug, Clone, Serialize)]
pub struct Receipts {
    /// Receipts that count as sent.
    pub sent: usize,
    /// Those of them that never reached the mailbox.
    pub never_arrived: Vec<String>,
    /// Receipts that never came by SMS.
    pub no_sms: Vec<String>,
    /// Messages that the mailbox has.
    pub mails: u64,
    /// Those with a Message-ID that it had already.
    pub repeated: u64,
    /// Short messages that the gateway has.
    pub sms: usize,
    /// Requests for one that it had already.
    pub sms_repeated: u64,
}

/// What finance has.
#[derive(Debug, Clone, Serialize)]
pub struct Settlement {
    /// Entries in our books.
    pub entries: usize,
    /// Messages in finance's queue.
    pub messages: usize,
    /// Those with an id that finance had already.
    pub repeated: usize,
    /// Entries that finance never got.
    pub never_arrived: Vec<Uuid>,
    /// Messages of entries that are not in our books.
    pub strangers: Vec<Uuid>,
    /// Streams that a broker's crash left without a writer, and that were declared anew.
    pub streams_renewed: u32,
}

/// Dead letters.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetters {
    /// In the broker, by queue.
    pub in_broker: BTreeMap<String, u32>,
    /// Parked in the database.
    pub parked: i64,
}

/// The definition of the recovery time.
pub(super) const RECOVERY: &str = "from a fault's end (connections can be made, the server serves, the process was started) \
    until the first payment accepted after it is captured in the books; other faults go on meanwhile";

impl Report {
    /// Whether all is as it must be.
    pub(super) fn is_well(&self) -> bool {
        let nothing = self.lost.is_empty()
            && self.charged_twice.is_empty()
            && self.on_their_way.is_empty()
            && self.load.contradictions.is_empty()
            && self.load.unanswered == 0
            && self.receipts.never_arrived.is_empty()
            && self.receipts.no_sms.is_empty()
            && self.settlement.never_arrived.is_empty()
            && self.settlement.strangers.is_empty()
            && self.deaths.is_empty()
            && self.panics.is_empty();
        nothing && self.verify_ok && self.in_review.iter().all(|(_, why)| !why.is_empty())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.head();
        text.push_str(&self.about_faults());
        text.push_str(&self.about_payers());
        text.push_str(&self.about_books());
        for (title, lines) in [
            ("not as planned", &self.troubles),
            ("ended by themselves", &self.deaths),
            ("panics", &self.panics),
            ("did not drain at the end", &self.undrained),
        ] {
            text.push_str(&list(title, lines));
        }
        text.push_str(&verify::table(&self.findings));
        text.push_str(&format!("\n  {}\n  the logs are in {}\n", self.verdict(), self.logs.display()));
        text
    }

    fn verdict(&self) -> String {
        let verify = if self.verify_ok { "every rule is kept" } else { "RULES ARE BROKEN" };
        let ended = match self.on_their_way.len() {
            0 => "everything has come to its end".to_owned(),
            count => format!("{count} THINGS HAVE NOT COME TO THEIR END"),
        };
        let (lost, twice) = (self.lost.len(), self.charged_twice.len());
        let word = if self.ok { "WELL" } else { "NOT WELL" };
        format!("{word}: lost {lost}, charged twice {twice}, {verify}, {ended}")
    }

    fn head(&self) -> String {
        let mut text = format!(
            "\n  seed {}, {} minutes of faults (took {:.0} s), {} build, {} CPUs for everything\n  {} processes: {}\n  \
             settings that differ from the defaults:\n",
            self.seed,
            self.minutes,
            self.faults_s,
            self.profile,
            self.cpus,
            self.processes.len(),
            self.processes.join(" "),
        );
        for Setting { key, value, default } in &self.settings {
            text.push_str(&format!("    {key} = {value} (default {default})\n"));
        }
        text
    }

    fn about_faults(&self) -> String {
        let count: usize = self.faults.iter().map(|line| line.count).sum();
        let mut text = format!(
            "\n  {count} faults of {} kinds\n  {:<20} {:>5}  worst recovery\n",
            self.faults.len(),
            "",
            "count",
        );
        for line in &self.faults {
            let recovery = line.worst_recovery_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
            let never = if line.not_recovered > 0 { format!("  {} never", line.not_recovered) } else { String::new() };
            text.push_str(&format!("  {:<20} {:>5}  {recovery:>8}  {}{never}\n", line.name, line.count, line.about));
        }
        text.push_str(&format!("  recovery: {RECOVERY}\n"));
        text
    }

    fn about_payers(&self) -> String {
        let Load { rate, offered, turned_away, answers, unanswered, confirmed, paid_elsewhere, contradictions } =
            &self.load;
        let mut text = format!(
            "\n  {offered} payments offered, {rate} payers a second, {turned_away} turned away when too many waited; answers:\n"
        );
        for (answer, count) in answers {
            text.push_str(&format!("    {count:>7} {answer}\n"));
        }
        text.push_str(&format!(
            "    {unanswered:>7} never answered\n  {confirmed} challenges confirmed, {paid_elsewhere} bills paid by \
             another channel meanwhile\n",
        ));
        text.push_str(&list("one key, more than one payment", contradictions));
        text
    }

    fn about_books(&self) -> String {
        let total: usize = self.ended.values().sum();
        let mut text = format!(
            "\n  {} payments accepted as payers know, {total} in the books; {:.0} s after the last answer they are:\n",
            self.accepted, self.quiet_s,
        );
        for (status, count) in &self.ended {
            text.push_str(&format!("    {count:>7} {status}\n"));
        }
        for (why, count) in &self.failed {
            text.push_str(&format!("    {count:>7} failed: {why}\n"));
        }
        let Absorbed { requests, acquirer, journal, operations } = self.absorbed;
        let Receipts { sent, mails, repeated, sms, sms_repeated, .. } = self.receipts;
        let settlement = &self.settlement;
        text.push_str(&format!(
            "  came again and changed nothing: {requests} requests of payers, {acquirer} requests to the acquirer, \
             {journal} reports in the journal;\n    {operations} operations were sent or asked about more than once\n  \
             receipts: {sent} sent, {mails} mails, {repeated} of them repeated; {sms} SMS, \
             {sms_repeated} repeats of them absorbed\n  finance: {} entries, {} messages, {} of \
             them repeated; stream declared anew {} times\n  dead letters: {} in the broker, {} parked\n",
            settlement.entries,
            settlement.messages,
            settlement.repeated,
            settlement.streams_renewed,
            self.dead_letters.in_broker.values().sum::<u32>(),
            self.dead_letters.parked,
        ));
        let words = |ids: &[Uuid]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let review: Vec<_> = self.in_review.iter().map(|(id, why)| format!("{id}: {why}")).collect();
        let dead: Vec<_> = self.dead_letters.in_broker.iter().map(|(queue, dead)| format!("{queue}: {dead}")).collect();
        for (title, lines) in [
            ("before a person", &review),
            ("dead letters", &dead),
            ("still on their way", &self.on_their_way),
            ("LOST", &words(&self.lost)),
            ("CHARGED TWICE", &self.charged_twice),
            ("receipts that never arrived", &self.receipts.never_arrived),
            ("receipts that never came by SMS", &self.receipts.no_sms),
            ("entries that finance never got", &words(&settlement.never_arrived)),
            ("messages to finance that the books do not know", &words(&settlement.strangers)),
        ] {
            text.push_str(&list(title, lines));
        }
        text.push('\n');
        text
    }
}

/// The longest list that is printed; JSON has all of it.
const PRINTED: usize = 20;

fn list(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("  {title}:\n");
    for line in lines.iter().take(PRINTED) {
        text.push_str(&format!("    {line}\n"));
    }
    if lines.len() > PRINTED {
        text.push_str(&format!("    and {} more\n", lines.len() - PRINTED));
    }
    text
}
