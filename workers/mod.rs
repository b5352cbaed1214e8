//! The workers, one file each, read top to bottom. They do not know each other: messages are all they share.

mod admission;
pub mod authorize;
pub mod capture;
pub mod notice;
mod outbound;
pub mod park;
pub mod receipt;
pub mod record;
pub mod resolve;
mod sms;

use futures::future::BoxFuture;

use crate::worker::Context;

/// A worker as the command line knows it.
#[derive(Clone, Copy)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Builds it and runs it until the context stops.
    pub run: fn(Context) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// The role that opens cards.
pub const CARDS_ROLE: &str = "authorize";

/// The role that also keeps the gauges of the books.
pub const FIGURES_ROLE: &str = "resolve";

/// The registry: a worker is a file and a line here.
pub const ALL: [Role; 7] = [
    Role {
        name: CARDS_ROLE,
        about: "opens sealed cards and authorizes payments",
        run: |c| Box::pin(authorize::run(c)),
    },
    Role { name: "record", about: "records outcomes in the books", run: |c| Box::pin(record::run(c)) },
    Role { name: "capture", about: "captures what the books hold", run: |c| Box::pin(capture::run(c)) },
    Role { name: "receipt", about: "sends receipts", run: |c| Box::pin(receipt::run(c)) },
    Role {
        name: "notice",
        about: "tells payers what no receipt tells, and sends receipts by SMS",
        run: |c| Box::pin(notice::run(c)),
    },
    Role { name: "resolve", about: "finds out what came of unknown outcomes", run: |c| Box::pin(resolve::run(c)) },
    Role { name: "park", about: "takes dead letters into the database", run: |c| Box::pin(park::run(c)) },
];
