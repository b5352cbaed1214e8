//! A disk that can be filled up: a small filesystem of its own, so that nobody else runs out of room with it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const NAME: &str = "disk";

/// A small filesystem in a run's directory; it ends with that.
#[derive(Debug)]
pub struct SmallDisk {
    data: PathBuf,
    ballast: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many megabytes; only root may.
    pub(super) fn mount(run: &Path, megabytes: u64) -> io::Result<Self> {
        let path = run.join(NAME);
        fs::create_dir(&path)?;
        let options = format!("size={megabytes}m,mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tolom"]).arg(&path).stdin(Stdio::null()).stderr(Stdio::null());
        if !mount.status()?.success() {
            fs::remove_dir(&path)?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let disk = Self { data: path.join("data"), ballast: path.join("ballast") };
        fs::create_dir(&disk.data)?;
        Ok(disk)
    }

    /// Where data may be kept on it.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::create(&self.ballast)?;
        // From large pieces to the last byte.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            loop {
                match ballast.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(&self.ballast)
    }
}

/// Unmounts a run's small disk, if it has one.
pub(super) fn unmount(run: &Path) {
    let path = run.join(NAME);
    if path.exists() {
        // What is not mounted needs no unmounting; whoever still uses it keeps what it has open.
        let _ = Command::new("umount").arg("--lazy").arg(&path).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}
