//! What only the tests need and Debian has no package for: Python packages, cargo-deny and cargo-fuzz, in the target folder.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    process::{run, succeeds},
    project,
    terminal::say,
};

/// The release whose configuration `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";
/// The release that `fuzz` knows the options and the files of.
const CARGO_FUZZ: &str = "0.13.2";

/// The Python environment of `xtask/requirements.txt`; tests find its programs in `bin`.
pub fn python() -> PathBuf {
    project::target().join("python")
}

/// The program cargo-deny, for the tests and for fuzzing.
///
/// # Errors
/// When crates.io cannot be reached, or the download does not install.
pub fn cargo_deny() -> Result<PathBuf> {
    ensure_tool("cargo-deny", CARGO_DENY)?;
    Ok(tools().join("bin/cargo-deny"))
}

/// The program cargo-fuzz; only `cargo xtask fuzz` and a soak need it, so [`ensure`] leaves it out.
///
/// # Errors
/// When crates.io cannot be reached, or the download does not install.
pub fn cargo_fuzz() -> Result<PathBuf> {
    ensure_tool("cargo-fuzz", CARGO_FUZZ)?;
    Ok(tools().join("bin/cargo-fuzz"))
}

fn tools() -> PathBuf {
    project::target().join("tools")
}

/// Makes sure of all of it. What is there in the wanted version is left alone.
///
/// # Errors
/// When PyPI or crates.io cannot be reached, or a download does not install.
pub fn ensure() -> Result<()> {
    ensure_rust_components()?;
    ensure_python()?;
    ensure_tool("cargo-deny", CARGO_DENY)
}

fn ensure_rust_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(Command::new("cargo").args([subcommand, "--version"])) {
            run(Command::new("rustup").args(["component", "add", component]))
                .with_context(|| format!("cargo {subcommand} is missing; install your toolchain's {component}"))?;
        }
    }
    Ok(())
}

fn ensure_python() -> Result<()> {
    let wanted_file = project::folder().join("xtask/requirements.txt");
    let wanted = fs::read_to_string(&wanted_file)?;
    // Written last, so that a broken installation is made again.
    let installed_file = python().join("requirements.txt");
    if fs::read_to_string(&installed_file).is_ok_and(|installed| installed == wanted) {
        say("present: boto3, AWS CLI, moto, check-jsonschema, CycloneDX and Terraform");
        return Ok(());
    }
    say("installing boto3, AWS CLI, moto, check-jsonschema, CycloneDX and Terraform");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(python()))?;
    run(Command::new(python().join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(wanted_file))?;
    fs::write(installed_file, wanted)?;
    Ok(())
}

/// A program of crates.io, in this version and no other.
fn ensure_tool(name: &str, version: &str) -> Result<()> {
    let installed = Command::new(tools().join("bin").join(name)).arg("--version").output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("{name} {version}")) {
        say(&format!("present: {name}"));
        return Ok(());
    }
    say(&format!("building {name}, about a minute on two cores"));
    let build = tools().join("build");
    // Unoptimised: it runs for a second, and would compile for many minutes otherwise.
    run(Command::new("cargo")
        .args(["install", "--quiet", "--locked", "--debug", "--force"])
        .arg(format!("{name}@{version}"))
        .arg("--root")
        .arg(tools())
        .arg("--target-dir")
        .arg(&build))?;
    fs::remove_dir_all(build)?;
    Ok(())
}
