//! The directory of one run: fresh for each, locked while its owner lives, swept when the owner is gone.
//!
//! A lock and not a process id says who is alive: ids are reused, and mean nothing in another container that shares
//! the directory.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use super::{
    process::{User, signal, wait_until},
    small_disk::{self, SmallDisk},
};

/// Every process of a run carries its directory in this variable, children of children too; so the ones that detached
/// themselves (epmd does) are found without any record of their ids.
///
/// It does not begin with `TOLOM_`: that would be a setting, and roles of ours may be such children.
pub(super) const MARK: &str = "RUN_OF_TOLOM_SERVICES";

/// A run's directory; dropping it removes it and ends what still carries its mark.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes a directory under `base` that all these users can reach; where they cannot (a home directory closed to
    /// others), under the system's temporary directory.
    pub(super) fn new(base: &Path, users: &[Option<User>]) -> io::Result<Self> {
        let run = Self::under(base)?;
        if users.iter().flatten().all(|user| run.is_open_to(*user)) {
            return Ok(run);
        }
        let base = std::env::temp_dir().join(format!("tolom-services-{}", rustix::process::getuid().as_raw()));
        let run = Self::under(&base)?;
        // Everyone may make a directory of this name first and wait for root's processes to use it.
        let owner = fs::symlink_metadata(&base)?;
        if !owner.is_dir() || owner.uid() != rustix::process::getuid().as_raw() {
            return Err(io::Error::other(format!("{} belongs to somebody else", base.display())));
        }
        Ok(run)
    }

    fn under(base: &Path) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        let base = base.canonicalize()?;
        // Held while runs are cleaned and made, so that nobody sees a run that is not locked yet.
        let guard = File::create(base.join("lock"))?;
        guard.lock()?;
        for entry in fs::read_dir(&base)?.flatten().filter(|entry| entry.path().is_dir()) {
            remove_if_abandoned(&entry.path());
        }
        let mut number = 0;
        let path = loop {
            let path = base.join(format!("{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        };
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let lock = File::create(path.join("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// A directory for one server, owned by the user it runs as and closed to everyone else.
    pub(super) fn for_server(&self, name: &str, user: Option<User>) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        give(&path, user)?;
        Ok(path)
    }

    /// A file for what a server writes, kept beside its directory so that we may always read it.
    pub(super) fn log(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(format!("{name}.log"));
        File::create(&path)?;
        Ok(path)
    }

    /// The environment every server of this run starts from.
    pub(super) fn env(&self, home: &Path) -> Vec<(&'static str, OsString)> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        vec![self.mark(), ("PATH", path), ("HOME", home.into()), ("LC_ALL", LOCALE.into())]
    }

    /// A small filesystem that ends with this run, its data directory owned by a server's user.
    pub(super) fn small_disk(&self, megabytes: u64, user: Option<User>) -> io::Result<SmallDisk> {
        let disk = SmallDisk::mount(&self.path, megabytes)?;
        give(disk.data(), user)?;
        Ok(disk)
    }

    /// What a process of this run carries in its environment.
    pub(super) fn mark(&self) -> (&'static str, OsString) {
        (MARK, self.path.clone().into())
    }

    /// The processes that carry this run's mark.
    pub(super) fn processes(&self) -> Vec<u32> {
        marked(&self.path)
    }

    fn is_open_to(&self, user: User) -> bool {
        let mut test = Command::new("test");
        test.arg("-x").arg(&self.path).uid(user.uid).gid(user.gid).stdin(Stdio::null());
        test.status().is_ok_and(|status| status.success())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        end_marked(&self.path);
        small_disk::unmount(&self.path);
        // What cannot be removed now, the next run removes.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Names and mail are UTF-8 everywhere; of the two systems only Linux has it under this name.
pub(super) const LOCALE: &str = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };

/// Hands a file or directory to the user that a server runs as.
pub(super) fn give(path: &Path, user: Option<User>) -> io::Result<()> {
    user.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid)))
}

fn remove_if_abandoned(path: &Path) {
    let abandoned = match File::open(path.join("lock")) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if abandoned {
        end_marked(path);
        small_disk::unmount(path);
        // A leftover that will not go only takes room.
        let _ = fs::remove_dir_all(path);
    }
}

fn end_marked(path: &Path) {
    for (how, patience) in [(Signal::TERM, Duration::from_secs(3)), (Signal::KILL, Duration::from_secs(3))] {
        for pid in marked(path) {
            signal(pid, how);
        }
        if wait_until(patience, || marked(path).is_empty()) {
            return;
        }
    }
}

/// Reads every process's environment, so it sees only what we may see: root everything, others their own. Where
/// there is no `/proc` there is nothing to see.
fn marked(path: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", path.display()).into_bytes();
    let own = std::process::id();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
        })
        .collect()
}

// Elsewhere nobody can see whose a process is.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_run_left_is_cleaned_and_a_living_run_is_left_alone() {
        let base = std::env::temp_dir().join(format!("tolom-run-dir-{}", std::process::id()));
        let living = RunDir::new(&base, &[]).unwrap();
        let base = base.canonicalize().unwrap();
        let dead = base.join("1-0");
        fs::create_dir(&dead).unwrap();
        File::create(dead.join("lock")).unwrap();
        let sleeper = |run: &Path| Command::new("sleep").arg("60").env(MARK, run).spawn().unwrap();
        let (mut left_over, mut in_use) = (sleeper(&dead), sleeper(&living.path));

        let next = RunDir::new(&base, &[]).unwrap();
        assert!(!dead.exists());
        assert!(living.path.exists());
        assert!(!left_over.wait().unwrap().success());
        assert_eq!(living.processes(), [in_use.id()]);
        in_use.kill().unwrap();
        in_use.wait().unwrap();
        drop((living, next));
        assert_eq!(fs::read_dir(&base).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0);
        fs::remove_dir_all(base).unwrap();
    }
}
