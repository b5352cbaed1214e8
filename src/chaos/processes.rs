//! The roles as processes of their own, each with a clock that may go wrong.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::{cast::Actor, wall_clock::WallClock};
use crate::child::{Child, role_arguments};

/// One role's process. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct RoleProcess {
    pub(super) actor: Actor,
    /// None where its clock cannot be moved.
    pub(super) clock: Option<WallClock>,
    pub(super) child: Child,
}

impl RoleProcess {
    /// Prepares a role with these settings, to run in `directory` and to write its log there.
    pub(super) fn new(
        actor: Actor,
        settings: &[(String, String)],
        directory: &Path,
        mark: Option<(&'static str, OsString)>,
    ) -> io::Result<Self> {
        let clock = WallClock::set_up(&directory.join(format!("{actor}.clock")))?;
        let clock_settings = clock.iter().flat_map(WallClock::environment);
        let environment = mark.into_iter().chain(clock_settings);
        let log = log_of(directory, &actor);
        let child = Child::new(role_arguments(actor.role, settings), environment, directory, log)?;
        Ok(Self { actor, clock, child })
    }
}

/// Where a process writes its log, through all its lives.
pub(super) fn log_of(directory: &Path, actor: &Actor) -> PathBuf {
    directory.join(format!("{actor}.log"))
}
