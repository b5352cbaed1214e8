//! Installs what is missing, where we may: as root on Debian, Ubuntu and their kin.

use std::{
    fs, io,
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
    let mut missing = absent();
    if !missing.is_empty() && possible() {
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        // One package may have several of the programs.
        packages.sort_unstable();
        packages.dedup();
        install(&packages, progress).await?;
        missing = absent();
    }
    if missing.is_empty() {
        return Ok(());
    }
    let listed = |words: Vec<&str>, by: &str| words.join(by);
    Err(ServicesError::MissingPrograms {
        programs: listed(missing.iter().map(|(program, _)| *program).collect(), " and "),
        packages: listed(missing.iter().map(|(_, package)| *package).collect(), " "),
    })
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|place| place.join(program).is_file())
}

/// Whether this machine lets us install packages.
pub(super) fn possible() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs Debian packages; servers in them are not started.
pub(super) async fn install(packages: &[&str], progress: impl Fn(&str)) -> Result<(), ServicesError> {
    progress(&format!("installing {} (apt-get)", packages.join(" and ")));
    let _policy = NoAutostart::new().map_err(|error| ServicesError::Install(error.to_string()))?;
    apt(&["update", "-q"]).await?;
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages].concat()).await
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
