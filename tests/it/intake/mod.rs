//! The intake over real sockets against a real database.

mod accepting;
pub(crate) mod app;
mod bad_input;
mod bills;
pub(crate) mod events;
mod import;
mod limits;
mod outages;
mod sealing_keys;
mod stores;

use app::App;
