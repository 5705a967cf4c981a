//! `cargo xtask setup`: what the project needs is there, or it is said what is missing.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::{
    engine::{self, Engine},
    extras,
    needs::{self, Need},
    process::run,
    terminal::{heading, say},
};

/// The chore by itself.
pub fn run_chore(tests: bool) -> Result<()> {
    ensure(tests)?;
    heading("Everything is there.");
    Ok(())
}

/// Checks every need, installs what is missing where that is possible, and answers with an engine that is up.
///
/// # Errors
/// When something is missing that this user or this system cannot install; the message says what to type.
pub fn ensure(tests: bool) -> Result<Engine> {
    heading("Setup");
    let found = engine::find()?;
    let mut wanted: Vec<&Need> = needs::ALWAYS.iter().collect();
    if found.is_none() {
        wanted.push(&needs::ENGINE);
    }
    if tests {
        wanted.extend(needs::FOR_TESTS);
    }
    ensure_needs(&wanted)?;
    let engine = match found.map_or_else(engine::find, |engine| Ok(Some(engine)))? {
        Some(engine) => engine,
        None => start_engine()?,
    };
    say(&engine.describe());
    if tests {
        extras::ensure()?;
    }
    Ok(engine)
}

/// Checks these needs alone, and installs what is missing where that is possible.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_needs(wanted: &[&Need]) -> Result<()> {
    let missing = needs::missing(wanted.iter().copied());
    for need in wanted {
        let is_missing = missing.iter().any(|other| other.what == need.what);
        say(&format!("{} {}", if is_missing { "missing:" } else { "present:" }, need.what));
    }
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(missing: &[&Need]) -> Result<()> {
    let is_root = geteuid().is_root();
    if !is_root || !is_debian() {
        let reasons: Vec<String> = missing.iter().map(|need| format!("  - {}: {}", need.what, need.why)).collect();
        bail!(
            "these are missing:\n{}\n{}:\n  {}{}",
            reasons.join("\n"),
            if is_debian() { "Install them as root" } else { "Install them; on Debian their packages are" },
            needs::install_command(missing),
            socket_hint(missing)
        );
    }
    say(&format!("installing: {}", needs::packages(missing).join(" ")));
    let apt = || {
        let mut command = Command::new("apt-get");
        // What it unpacks is of no interest; what goes wrong comes on stderr.
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet=2").stdout(Stdio::null());
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(needs::packages(missing)))?;
    let still = needs::missing(missing.iter().copied());
    if let Some(need) = still.first() {
        bail!("{} is still missing after installing {}", need.what, need.packages.join(" "));
    }
    Ok(())
}

/// An engine that is there but not for this user needs no installation.
fn socket_hint(missing: &[&Need]) -> String {
    match engine::forbidden_socket() {
        Some(socket) if missing.iter().any(|need| need.what == needs::ENGINE.what) => format!(
            "\nAn engine seems to run at {}, but this user may not use it; for Docker: usermod -aG docker <user>",
            socket.display()
        ),
        _ => String::new(),
    }
}

fn start_engine() -> Result<Engine> {
    if !geteuid().is_root() {
        bail!("no container engine answers; start Docker or Podman's socket, or set DOCKER_HOST to one that runs");
    }
    engine::start()
}

/// Debian or something that calls itself like it, such as Ubuntu.
fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Path::new("/usr/bin/apt-get").exists() && is_debian_release(&release)
}

fn is_debian_release(os_release: &str) -> bool {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim_matches('"')
    };
    value("ID") == "debian" || value("ID_LIKE").split(' ').any(|like| like == "debian")
}

#[cfg(test)]
mod tests {
    use super::is_debian_release;

    #[test]
    fn debian_and_its_descendants_are_known() {
        assert!(is_debian_release("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(is_debian_release("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian_release("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_release("ID=fedora\n"));
        assert!(!is_debian_release("ID=rhel\nID_LIKE=\"fedora\"\nNAME=\"not debian\"\n"));
    }
}
