//! The kinds of faults: what each is about, how often it comes, and for how long.

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`Kind::about` says what each one is")]
pub enum Kind {
    Kill,
    Drain,
    Freeze,
    FreezeLong,
    ClockWrong,
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
pub(super) struct Traits {
    word: &'static str,
    about: &'static str,
    /// Its share among all faults.
    pub(super) share: u32,
    /// How long it lasts, in milliseconds: from, to.
    pub(super) lasts_ms: (u64, u64),
    /// What it takes until its target can be broken anew.
    pub(super) mended_ms: u64,
}

const fn traits(word: &'static str, about: &'static str, share: u32, lasts_ms: (u64, u64), mended_ms: u64) -> Traits {
    Traits { word, about, share, lasts_ms, mended_ms }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Kill,
        Self::Drain,
        Self::Freeze,
        Self::FreezeLong,
        Self::ClockWrong,
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

    pub(super) const fn traits(self) -> Traits {
        match self {
            Self::Kill => traits("kill -9", "a process is killed, and started again", 24, (0, 2_000), 1_500),
            Self::Drain => traits("rolling deploy", "SIGTERM, a drain, and a new process", 10, (0, 500), 4_000),
            Self::Freeze => {
                traits("freeze", "SIGSTOP for longer than a claim's lease, then SIGCONT", 14, (8_000, 11_000), 500)
            }
            Self::FreezeLong => {
                traits("long freeze", "SIGSTOP until the broker has given the peer up", 2, (24_000, 30_000), 500)
            }
            Self::ClockWrong => traits(
                "clock wrong",
                "a process's clock jumps by up to 40 s, either way, and back",
                8,
                (3_000, 8_000),
                1_500,
            ),
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
