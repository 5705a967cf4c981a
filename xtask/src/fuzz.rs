//! `cargo xtask fuzz`: libFuzzer, by way of cargo-fuzz, on what reads an artifact and what reads `alcedo.yaml`.
//!
//! The targets and what they look for are in `fuzz/`, a workspace of its own. What they have found interesting stays in
//! `fuzz/corpus`, so that the next run begins there.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    extras,
    fuzz_stats::FuzzStats,
    needs, process, project, setup,
    terminal::{heading, say},
};

/// A target's name, which its dictionary has as well, and the longest input in bytes.
struct Target {
    name: &'static str,
    max_len: u32,
}

/// An archive of a handful of entries, and the reference without its comments, are below these.
const TARGETS: [Target; 2] = [Target { name: "archive", max_len: 8 << 10 }, Target { name: "file", max_len: 12 << 10 }];

/// One input may take no longer, on a machine that has other things to do. Bombs of a gibibyte that unpack take a second.
const TIMEOUT_SECONDS: u32 = 20;
/// Far more than either reader may take; libFuzzer's own share is less than 200 MB.
const MEMORY_MB: u32 = 1024;

/// Fuzzes each target for so many seconds. All are run, also where the first has found something.
///
/// # Errors
/// An input was found that breaks what is promised, or a target cannot be built.
pub fn run(seconds: u64) -> Result<()> {
    heading("Setup for fuzzing");
    let needs: Vec<_> = needs::ALWAYS.iter().chain(needs::FOR_FUZZING).collect();
    setup::ensure_needs(&needs)?;
    let fuzz = Fuzz { program: extras::cargo_fuzz()? };

    // Of what they depend on beside the project, nobody else asks.
    let mut deny = Command::new(extras::cargo_deny()?);
    deny.current_dir(project::folder())
        .args(["--log-level", "error", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--config", "deny.toml"])
        .args(["check", "bans", "licenses", "sources"]);
    process::run(&mut deny)?;

    heading("Build of the fuzz targets");
    process::run(&mut fuzz.command("build"))?;

    let mut found = Vec::new();
    for target in &TARGETS {
        heading(&format!("Fuzzing {} for {seconds} s", target.name));
        found.extend(fuzz.run(target, seconds)?);
    }
    ensure!(found.is_empty(), "fuzzing has found something; to see it again:\n  {}", found.join("\n  "));
    Ok(())
}

/// The program cargo-fuzz.
struct Fuzz {
    program: PathBuf,
}

impl Fuzz {
    /// Without a sanitizer: those need a nightly compiler, and guard code that is `unsafe`, of which the project has none.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(project::folder())
            .args(["fuzz", subcommand, "--sanitizer", "none", "--fuzz-dir", "fuzz", "--target-dir"])
            .arg(project::target().join("fuzz"));
        command
    }

    /// Fuzzes, shows how far it came, and answers with what reproduces a finding.
    fn run(&self, target: &Target, seconds: u64) -> Result<Option<String>> {
        let temporary = Temporary::new(target)?;
        let mut command = self.command("run");
        command
            .arg(target.name)
            // What was found before is tried first, from where it was put.
            .args(found_before(target.name)?)
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .args(limits())
            .arg(format!("-max_len={}", target.max_len))
            .arg(format!("-dict=fuzz/{}.dict", target.name))
            .arg("-print_final_stats=1")
            .env("TMPDIR", &temporary.0)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cargo-fuzz does not start")?;
        let mut stats = FuzzStats::default();
        let mut said = Vec::new();
        for line in BufReader::new(child.stderr.take().expect("its standard error is piped")).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if !stats.line(&line) {
                said.push(line);
            }
        }
        let success = child.wait()?.success();
        println!("{}: {stats}", target.name);
        if success {
            return Ok(None);
        }
        // What cargo-fuzz adds below a rule, libFuzzer has said, or it is told at the end.
        let told = said.iter().take_while(|line| !line.starts_with('─'));
        for line in
            told.filter(|line| !["INFO:", "WARNING:", "Dictionary:"].iter().any(|start| line.starts_with(start)))
        {
            say(line);
        }
        let Some(input) = stats.artifact else {
            return Ok(Some(format!("{} ended without saying what it found", target.name)));
        };
        let mut again = self.command("run");
        again.args([target.name, &input, "--"]).args(limits());
        Ok(Some(process::shown(&again)))
    }
}

/// The folders whose inputs are tried before new ones are made: the corpus, which takes the new ones, and earlier findings.
fn found_before(target: &str) -> Result<[String; 2]> {
    let folders = ["corpus", "artifacts"].map(|kind| format!("fuzz/{kind}/{target}"));
    for folder in &folders {
        let path = project::folder().join(folder);
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    }
    Ok(folders)
}

/// What one input may take.
fn limits() -> [String; 2] {
    [format!("-timeout={TIMEOUT_SECONDS}"), format!("-rss_limit_mb={MEMORY_MB}")]
}

/// A folder for what the targets unpack, in memory where that is possible: thousands of small files a second.
struct Temporary(PathBuf);

impl Temporary {
    fn new(target: &Target) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { project::target() };
        let folder = parent.join(format!("alcedo-fuzz-{}-{}", target.name, std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A target that was stopped by what it found has left its last archive there.
        let _ = fs::remove_dir_all(&self.0);
    }
}
