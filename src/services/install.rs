//! Installs what is missing, where we may: as root on Debian, Ubuntu and their kin.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{Server, ServicesError, process::is_root};

/// Whether this machine lets us install packages.
pub(super) fn possible() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs the packages of these servers.
pub(super) async fn install(servers: &[Server], progress: impl Fn(&str)) -> Result<(), ServicesError> {
    let packages: Vec<_> = servers.iter().map(|server| server.package()).collect();
    progress(&format!("installing {} (apt-get)", packages.join(" and ")));
    let _policy = NoAutostart::new().map_err(|error| ServicesError::Install(error.to_string()))?;
    apt(&["update", "-q"]).await?;
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages.as_slice()].concat()).await
}

async fn apt(args: &[&str]) -> Result<(), ServicesError> {
    let failed = |reason: String| ServicesError::Install(format!("apt-get {}: {reason}", args.join(" ")));
    let output = Command::new("apt-get")
        // Another installation (unattended upgrades) may be under way.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().collect();
    Err(failed(lines[lines.len().saturating_sub(10)..].join("\n")))
}

/// Keeps the packages from starting servers of their own (Debian policy, section 9.3.3.1: exit status 101 of
/// `policy-rc.d` forbids it) while it lives. A policy that is already there is somebody's decision and stays.
struct NoAutostart(Option<PathBuf>);

impl NoAutostart {
    fn new() -> io::Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        fs::write(&path, "#!/bin/sh\nexit 101\n")?;
        let policy = Self(Some(path.clone()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(policy)
    }
}

impl Drop for NoAutostart {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What stays would only keep later packages from starting by themselves.
            let _ = fs::remove_file(path);
        }
    }
}
