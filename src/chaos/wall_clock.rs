//! The wall clock of one process, wrong for a while; by libfaketime, where that is installed.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Debian's package has it in a folder for each architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// What a process believes of the time of day. What it waits for goes by a clock that no one can move.
#[derive(Debug)]
pub(super) struct WallClock {
    library: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// A clock that is right; none where there is no libfaketime. Its offset stands in `file`.
    pub(super) fn set_up(file: &Path) -> io::Result<Option<Self>> {
        let folders = fs::read_dir(LIBRARIES)?.filter_map(Result::ok).map(|folder| folder.path().join(LIBRARY));
        let Some(library) = folders.into_iter().find(|library| library.is_file()) else { return Ok(None) };
        let clock = Self { library, offset: file.to_owned() };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// What makes a process go by it.
    pub(super) fn environment(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.clone().into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // A process that is killed would leave some behind.
            ("FAKETIME_DISABLE_SHM", "1".into()),
        ]
    }

    /// Makes it wrong by so many seconds. The process sees it within a second.
    pub(super) fn set(&self, offset_s: i64) -> io::Result<()> {
        // Never read half written.
        let next = self.offset.with_extension("next");
        fs::write(&next, format!("{offset_s:+}\n"))?;
        fs::rename(next, &self.offset)
    }
}
