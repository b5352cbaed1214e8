//! Installs what is missing, where we may: as root on Debian, Ubuntu and their kin.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{ServicesError, process::is_root};

/// Makes sure that these programs can be run by name: (program, the Debian package that has it). Installs what is missing
/// where we may, and tells `progress`; what is there already costs a look into `PATH` and no more.
///
/// # Errors
/// [`ServicesError::MissingPrograms`] where nothing may be installed, and says what to install;
/// [`ServicesError::Install`] when apt-get fails.
pub async fn ensure_packages(programs: &[(&str, &str)], progress: impl Fn(&str)) -> Result<(), ServicesError> {
    let absent = || programs.iter().copied().filter(|(program, _)| !is_there(program)).collect::<Vec<_>>();
    // One package may have several of the programs.
    let packages = || absent().into_iter().map(|(_, package)| package).collect::<BTreeSet<_>>().into_iter().collect();
    if !absent().is_empty() && possible() {
        install(packages, progress).await?;
    }
    let missing: Vec<&str> = absent().into_iter().map(|(program, _)| program).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = packages();
    Err(ServicesError::MissingPrograms { programs: missing.join(" and "), packages: packages.join(" ") })
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|place| place.join(program).is_file())
}

/// Whether this machine lets us install packages.
pub(super) fn possible() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs the Debian packages that are absent; servers in them are not started.
pub(super) async fn install<'a>(
    absent: impl Fn() -> Vec<&'a str>,
    progress: impl Fn(&str),
) -> Result<(), ServicesError> {
    let failed = |error: io::Error| ServicesError::Install(error.to_string());
    let _turn = turn().await.map_err(failed)?;
    // Whoever had the turn before may have installed them.
    let packages = absent();
    if packages.is_empty() {
        return Ok(());
    }
    progress(&format!("installing {} (apt-get)", packages.join(" and ")));
    let _policy = NoAutostart::new().map_err(failed)?;
    apt(&["update", "-q"]).await?;
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages.as_slice()].concat()).await
}

/// One installs at a time, of all our processes on this machine, until the file is dropped: apt-get waits for the lock of
/// packages, but not for that of package lists, and one's [`NoAutostart`] must not end under another.
async fn turn() -> io::Result<File> {
    // Only root, who alone comes here, can make files in there.
    let path = Path::new("/run/tolom-install.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path)?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_not_installed_again() {
        let unexpected = |step: &str| panic!("{step}");
        ensure_packages(&[("sh", "no-such-package"), ("ls", "no-such-package")], unexpected).await.unwrap();
    }

    #[test]
    fn only_programs_in_the_path_are_there() {
        assert!(is_there("sh") && !is_there("no-such-program-anywhere"));
    }
}
