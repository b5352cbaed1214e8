//! Who takes part: the processes, whom each of them talks to, and what can be broken of that.

use std::fmt;

use super::kind::Kind;

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

    pub(super) fn targets(&self, kind: Kind) -> Vec<Target> {
        match kind {
            Kind::Kill | Kind::Drain | Kind::Freeze | Kind::FreezeLong | Kind::ClockWrong => {
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
