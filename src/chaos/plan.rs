//! What is broken, when and for how long: a pure function of the seed, the length and who takes part.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

/// Faults that may be under way at once. More would only hide each other.
const AT_ONCE: usize = 4;
/// Before the first fault: something has to be under way.
const QUIET_START: Duration = Duration::from_secs(2);
/// Between the beginnings of two faults, in milliseconds.
const GAP_MS: (u64, u64) = (1_000, 2_400);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`Kind::about` says what each one is")]
pub enum Kind {
    Kill,
    Drain,
    Freeze,
    FreezeLong,
    Cut,
    Delay,
    Throttle,
    BlackHole,
    AnswersLost,
    HalfOpen,
    DatabaseStopped,
    DatabaseKilled,
    SessionsEnded,
    DiskFull,
    BrokerStopped,
    BrokerKilled,
    ConnectionsClosed,
    MemoryAlarm,
    DiskAlarm,
    AcquirerAway,
    AcquirerSlow,
    MailFails,
}

/// What a kind is about, and how often and how long it comes.
struct Traits {
    word: &'static str,
    about: &'static str,
    /// Its share among all faults.
    share: u32,
    /// How long it lasts, in milliseconds: from, to.
    lasts_ms: (u64, u64),
    /// What it takes until its target can be broken anew.
    mended_ms: u64,
}

const fn traits(word: &'static str, about: &'static str, share: u32, lasts_ms: (u64, u64), mended_ms: u64) -> Traits {
    Traits { word, about, share, lasts_ms, mended_ms }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Kill,
        Self::Drain,
        Self::Freeze,
        Self::FreezeLong,
        Self::Cut,
        Self::Delay,
        Self::Throttle,
        Self::BlackHole,
        Self::AnswersLost,
        Self::HalfOpen,
        Self::DatabaseStopped,
        Self::DatabaseKilled,
        Self::SessionsEnded,
        Self::DiskFull,
        Self::BrokerStopped,
        Self::BrokerKilled,
        Self::ConnectionsClosed,
        Self::MemoryAlarm,
        Self::DiskAlarm,
        Self::AcquirerAway,
        Self::AcquirerSlow,
        Self::MailFails,
    ];

    const fn traits(self) -> Traits {
        match self {
            Self::Kill => traits("kill -9", "a process is killed, and started again", 24, (0, 2_000), 1_500),
            Self::Drain => traits("rolling deploy", "SIGTERM, a drain, and a new process", 10, (0, 500), 4_000),
            Self::Freeze => {
                traits("freeze", "SIGSTOP for longer than a claim's lease, then SIGCONT", 14, (8_000, 11_000), 500)
            }
            Self::FreezeLong => {
                traits("long freeze", "SIGSTOP until the broker has given the peer up", 2, (24_000, 30_000), 500)
            }
            Self::Cut => traits("cut", "connections reset, new ones refused", 16, (500, 4_000), 500),
            Self::Delay => traits("delay", "every piece of data held back", 10, (2_000, 6_000), 200),
            Self::Throttle => traits("throttle", "a few KiB a second", 8, (2_000, 6_000), 200),
            Self::BlackHole => {
                traits("black hole", "accepted, and nothing passes; later it does", 12, (2_000, 8_000), 200)
            }
            Self::AnswersLost => traits("answers held up", "requests pass and answers do not", 10, (2_000, 8_000), 200),
            Self::HalfOpen => traits("half-open", "one end is gone and the other is not told", 8, (2_000, 8_000), 200),
            Self::DatabaseStopped => {
                traits("database stopped", "PostgreSQL's fast shutdown, and a start", 3, (1_000, 4_000), 4_000)
            }
            Self::DatabaseKilled => traits(
                "database killed",
                "no shutdown at all: crash recovery, sealed cards gone",
                3,
                (500, 3_000),
                6_000,
            ),
            Self::SessionsEnded => {
                traits("sessions ended", "pg_terminate_backend of every session", 5, (0, 100), 1_000)
            }
            Self::DiskFull => traits("disk full", "the database's disk has no room", 3, (3_000, 6_000), 3_000),
            Self::BrokerStopped => {
                traits("broker stopped", "RabbitMQ's orderly shutdown, and a start", 2, (500, 3_000), 30_000)
            }
            Self::BrokerKilled => traits("broker killed", "no shutdown at all, and a start", 2, (500, 3_000), 30_000),
            Self::ConnectionsClosed => {
                traits("connections closed", "rabbitmqctl close_all_connections", 3, (0, 100), 5_000)
            }
            Self::MemoryAlarm => traits(
                "memory alarm",
                "rabbitmqctl set_vm_memory_high_watermark: publishing blocks",
                2,
                (2_000, 6_000),
                8_000,
            ),
            Self::DiskAlarm => {
                traits("disk alarm", "rabbitmqctl set_disk_free_limit: publishing blocks", 2, (2_000, 6_000), 8_000)
            }
            Self::AcquirerAway => {
                traits("acquirer away", "connections reset and refused for all", 4, (2_000, 8_000), 500)
            }
            Self::AcquirerSlow => {
                traits("acquirer slow", "every answer later than anyone waits", 4, (3_000, 6_000), 500)
            }
            Self::MailFails => {
                traits("mail server fails", "busy, hanging up around the answer, silent", 5, (2_000, 4_000), 500)
            }
        }
    }

    /// Its name for people.
    pub const fn word(self) -> &'static str {
        self.traits().word
    }

    /// What is done.
    pub const fn about(self) -> &'static str {
        self.traits().about
    }
}

/// One process: `authorize-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Actor {
    /// Its role.
    pub role: &'static str,
    /// From 1.
    pub number: u8,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role, self.number)
    }
}

/// The far end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Peer {
    Database,
    Broker,
    Acquirer,
    Mail,
    /// From the payers: the process is the far end.
    Payers,
}

impl Peer {
    const ALL: [Self; 5] = [Self::Database, Self::Broker, Self::Acquirer, Self::Mail, Self::Payers];
}

/// A pair that talks, with a proxy of ours between.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// The process.
    pub actor: Actor,
    /// Whom it talks to.
    pub peer: Peer,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Peer::Database => write!(f, "{} to the database", self.actor),
            Peer::Broker => write!(f, "{} to the broker", self.actor),
            Peer::Acquirer => write!(f, "{} to the acquirer", self.actor),
            Peer::Mail => write!(f, "{} to the mail server", self.actor),
            Peer::Payers => write!(f, "payers to {}", self.actor),
        }
    }
}

/// What a fault befalls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Target {
    Process(Actor),
    Link(Link),
    Database,
    Broker,
    Acquirer,
    Mail,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(actor) => actor.fmt(f),
            Self::Link(link) => link.fmt(f),
            Self::Database => f.write_str("the database"),
            Self::Broker => f.write_str("the broker"),
            Self::Acquirer => f.write_str("the acquirer"),
            Self::Mail => f.write_str("the mail server"),
        }
    }
}

/// Faults of one lane come one after the other: each would undo what another does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Lane {
    Process(Actor),
    Link(Link),
    Database,
    Broker,
    Acquirer,
    Mail,
}

impl Target {
    /// The lane it belongs to: a link to the acquirer is the acquirer's, for all of these may be cut at once.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Process(actor) => Lane::Process(actor.clone()),
            Self::Link(Link { peer: Peer::Acquirer, .. }) | Self::Acquirer => Lane::Acquirer,
            Self::Link(Link { peer: Peer::Mail, .. }) | Self::Mail => Lane::Mail,
            Self::Link(link) => Lane::Link(link.clone()),
            Self::Database => Lane::Database,
            Self::Broker => Lane::Broker,
        }
    }
}

/// A fault as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// From the beginning of the run.
    #[serde(rename = "at_s", serialize_with = "seconds")]
    pub at: Duration,
    /// What is done.
    pub kind: Kind,
    /// To whom.
    #[serde(serialize_with = "words")]
    pub target: Target,
    /// For how long; mending it takes its own time.
    #[serde(rename = "lasts_s", serialize_with = "seconds")]
    pub lasts: Duration,
    /// Where there is more than one way of it: which.
    pub variant: u64,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn words<S: serde::Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(target)
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The processes.
    pub actors: Vec<Actor>,
    /// The pairs.
    pub links: Vec<Link>,
}

/// Roles of which two processes run, so that some work is contended for and some waits for its only worker.
const TWICE: [&str; 4] = ["intake", "authorize", "record", "resolve"];
const CALLS_ACQUIRER: [&str; 3] = ["authorize", "capture", "resolve"];
const SENDS_MAIL: [&str; 2] = ["receipt", "notice"];

impl Cast {
    /// The intake and these workers.
    pub fn of(workers: &[&'static str]) -> Self {
        let roles = std::iter::once("intake").chain(workers.iter().copied());
        let numbers = |role: &str| 1..=if TWICE.contains(&role) { 2 } else { 1 };
        let actors: Vec<Actor> =
            roles.flat_map(|role| numbers(role).map(move |number| Actor { role, number })).collect();
        let talks = |actor: &Actor, peer| match peer {
            Peer::Database | Peer::Broker => true,
            Peer::Acquirer => CALLS_ACQUIRER.contains(&actor.role),
            Peer::Mail => SENDS_MAIL.contains(&actor.role),
            Peer::Payers => actor.role == "intake",
        };
        let pairs = actors.iter().flat_map(|actor| Peer::ALL.map(|peer| (actor, peer)));
        let links = pairs.filter(|(actor, peer)| talks(actor, *peer));
        let links = links.map(|(actor, peer)| Link { actor: actor.clone(), peer }).collect();
        Self { actors, links }
    }

    /// How many roles there are.
    pub fn roles(&self) -> usize {
        self.actors.iter().filter(|actor| actor.number == 1).count()
    }

    fn targets(&self, kind: Kind) -> Vec<Target> {
        match kind {
            Kind::Kill | Kind::Drain | Kind::Freeze | Kind::FreezeLong => {
                self.actors.iter().cloned().map(Target::Process).collect()
            }
            Kind::Cut | Kind::Delay | Kind::Throttle | Kind::BlackHole | Kind::AnswersLost | Kind::HalfOpen => {
                self.links.iter().cloned().map(Target::Link).collect()
            }
            Kind::DatabaseStopped | Kind::DatabaseKilled | Kind::SessionsEnded | Kind::DiskFull => {
                vec![Target::Database]
            }
            Kind::BrokerStopped
            | Kind::BrokerKilled
            | Kind::ConnectionsClosed
            | Kind::MemoryAlarm
            | Kind::DiskAlarm => vec![Target::Broker],
            Kind::AcquirerAway | Kind::AcquirerSlow => vec![Target::Acquirer],
            Kind::MailFails => vec![Target::Mail],
        }
    }
}

/// Random numbers that are the same everywhere for ever: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same for a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn within(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        usize::try_from(self.below(count)).ok().and_then(|at| from.get(at)).cloned()
    }
}

/// The faults of a run, in the order of their beginning. Each is over before the run is; lanes never overlap.
pub fn plan(seed: u64, length: Duration, cast: &Cast) -> Vec<Fault> {
    let mut dice = Dice::new(seed);
    let total: u64 = Kind::ALL.iter().map(|kind| u64::from(kind.traits().share)).sum();
    // Each kind saves up its share, and whoever has saved most comes next: every kind comes, and never in the same order.
    let mut saved: BTreeMap<Kind, u64> = Kind::ALL.into_iter().map(|kind| (kind, dice.below(total))).collect();
    let mut busy: BTreeMap<Lane, Duration> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut at = QUIET_START;
    while at < length {
        let under_way = busy.values().filter(|until| **until > at).count();
        let mut kinds: Vec<(u64, Kind)> = saved.iter().map(|(kind, saved)| (*saved, *kind)).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        let chosen = kinds.into_iter().filter(|_| under_way < AT_ONCE).find_map(|(_, kind)| {
            let traits = kind.traits();
            let lasts = dice.within(traits.lasts_ms);
            let until = at + lasts + Duration::from_millis(traits.mended_ms);
            let targets: Vec<Target> = cast.targets(kind);
            let free = targets.into_iter().filter(|target| busy.get(&target.lane()).is_none_or(|until| *until <= at));
            let target = pick_target(&mut dice, &free.collect::<Vec<_>>())?;
            (until <= length).then_some((Fault { at, kind, target, lasts, variant: 0 }, until))
        });
        if let Some((mut fault, until)) = chosen {
            fault.variant = dice.next() >> 32;
            for (kind, saved) in &mut saved {
                *saved += u64::from(kind.traits().share);
            }
            if let Some(spent) = saved.get_mut(&fault.kind) {
                *spent = spent.saturating_sub(total);
            }
            busy.insert(fault.target.lane(), until);
            faults.push(fault);
        }
        at += dice.within(GAP_MS);
    }
    faults
}

/// Any of these, but of links each kind of peer as often as any other.
fn pick_target(dice: &mut Dice, free: &[Target]) -> Option<Target> {
    let peer = |target: &Target| match target {
        Target::Link(link) => Some(link.peer),
        _ => None,
    };
    let mut peers: Vec<Option<Peer>> = free.iter().map(peer).collect();
    peers.sort_unstable();
    peers.dedup();
    let chosen = dice.pick(&peers)?;
    let same: Vec<Target> = free.iter().filter(|target| peer(target) == chosen).cloned().collect();
    dice.pick(&same)
}

/// The plan for people.
pub fn table(faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let (at, lasts) = (fault.at.as_secs_f64(), fault.lasts.as_secs_f64());
        format!("  {at:>7.1} s  for {lasts:>4.1} s  {:<20} {}\n", fault.kind.word(), fault.target)
    };
    faults.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn cast() -> Cast {
        Cast::of(&["authorize", "record", "capture", "receipt", "resolve"])
    }

    fn end(fault: &Fault) -> Duration {
        fault.at + fault.lasts + Duration::from_millis(fault.kind.traits().mended_ms)
    }

    proptest! {
        #[test]
        fn a_seed_is_a_plan(seed: u64, seconds in 1_u64..400) {
            let length = Duration::from_secs(seconds);
            prop_assert_eq!(plan(seed, length, &cast()), plan(seed, length, &cast()));
        }

        #[test]
        fn five_minutes_have_a_hundred_faults_of_every_kind(seed: u64) {
            let faults = plan(seed, Duration::from_secs(300), &cast());
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
            prop_assert!(faults.len() >= 100, "{} faults", faults.len());
            prop_assert_eq!(kinds.len(), Kind::ALL.len());
        }

        #[test]
        fn no_lane_has_two_faults_at_once_and_all_are_over_in_time(seed: u64, seconds in 1_u64..400) {
            let length = Duration::from_secs(seconds);
            let faults = plan(seed, length, &cast());
            for (number, fault) in faults.iter().enumerate() {
                prop_assert!(end(fault) <= length);
                for later in &faults[number + 1..] {
                    prop_assert!(later.at >= fault.at);
                    prop_assert!(later.target.lane() != fault.target.lane() || later.at >= end(fault));
                }
                let at_once = faults[..number].iter().filter(|earlier| end(earlier) > fault.at).count();
                prop_assert!(at_once < AT_ONCE);
            }
        }
    }

    #[test]
    fn the_dice_are_splitmix64() {
        // The reference implementation's first numbers for seed 0.
        let mut dice = Dice::new(0);
        assert_eq!([dice.next(), dice.next()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn every_role_and_every_pair_can_be_hit() {
        let faults = plan(1, Duration::from_secs(3_600), &cast());
        let hit: BTreeSet<String> = faults.iter().map(|fault| fault.target.to_string()).collect();
        for actor in cast().actors {
            assert!(hit.contains(&actor.to_string()), "{actor}");
        }
        for link in cast().links {
            assert!(hit.contains(&link.to_string()), "{link}");
        }
    }
}
