//! `cargo xtask test`: every check and test, ending in one line that counts them.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    alcedo::Alcedo,
    engine::{self, Engine},
    extras, fuzz, mutants, process, project, setup,
    terminal::{heading, say, seconds},
    test_counts::TestCounts,
};

/// Containers of a local region carry this label; the value is the region's name.
const REGION_LABEL: &str = "io.alcedo.region";
/// Fetching the advisory database is one shallow clone; where GitHub is out of reach it should not hold up the tests.
const ADVISORIES_DEADLINE: Duration = Duration::from_secs(60);

pub fn run(filter: Option<&str>) -> Result<()> {
    let began = Instant::now();
    let engine = setup::ensure(true)?;

    heading("Format");
    process::run(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    process::run(cargo().args(fuzz)).context("run `cargo fmt` in fuzz/")?;

    heading("Lints");
    process::run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;

    heading("Dependencies");
    check_dependencies()?;

    heading("Build");
    // With the tests: `alcedo` by itself has other features of its dependencies, and would be minutes of compiling more.
    process::run(cargo().args(["test", "--quiet", "--workspace", "--no-run"]))?;

    heading("The base image");
    Alcedo::new(&project::folder().join("examples/hello"), &engine).show(&["image", "build"])?;

    heading("Tests");
    let before = region_containers(&engine)?;
    let (counts, success) = run_tests(&engine, filter)?;
    let left: Vec<String> = region_containers(&engine)?.difference(&before).cloned().collect();

    if engine.started_here {
        heading("Left running");
        say(&format!("the container engine; to stop it: {}", engine::stop_command()));
    }
    heading(&format!("In all {}", seconds(began.elapsed())));
    for name in &counts.failures {
        say(&format!("failed: {name}"));
    }
    println!("{counts}");
    ensure!(success && counts.failed == 0, "tests failed");
    ensure!(counts.passed > 0, "no test ran");
    ensure!(left.is_empty(), "tests left containers behind: {}", left.join(", "));
    Ok(())
}

/// Flips of a soak, and the time in which the balancer's nodes take up a change in it. A flip takes up to forty seconds then,
/// nearly all of it waiting, so several regions are flipped at the same time, and no flip begins after the last moment.
const SOAKED: Flips<'_> = Flips { count: 200, propagation: Some("30s"), lanes: 4, within_s: Some(55 * 60) };

/// How long a soak fuzzes each target: what is found in the first minutes is found by `cargo xtask fuzz` already.
const SOAKED_FUZZING_SECONDS: u64 = 15 * 60;

/// How flips are measured.
#[derive(Debug, Clone, Copy)]
pub struct Flips<'a> {
    pub count: u32,
    /// By default, two seconds.
    pub propagation: Option<&'a str>,
    /// Regions, each with an app and visitors of its own.
    pub lanes: u32,
    pub within_s: Option<u64>,
}

/// What `test` tries a part of, in full; then whether the tests notice bugs at all.
pub fn soak(schedules: u64) -> Result<()> {
    setup::ensure(true)?;
    heading("Soak");
    let mut soak = cargo();
    // As `test` builds them; other features would compile the SDK again.
    soak.args([
        "test",
        "--workspace",
        "--no-fail-fast",
        "--test",
        "control_plane",
        "--test",
        "e2e",
        "--test",
        "init_builds",
    ])
    .args(["--", "broken", "kills", "an_app_of_each_kind", "--nocapture"])
    .env("ALCEDO_SOAK", schedules.to_string())
    .env("ALCEDO_TEST_PYTHON", extras::python().join("bin/python"));
    process::run(&mut soak)?;
    flips(SOAKED)?;
    fuzz::run(SOAKED_FUZZING_SECONDS)?;
    mutants::run(None)
}

/// Measures flips and rollbacks under visitors of every kind.
pub fn bench_flips(how: Flips<'_>) -> Result<()> {
    setup::ensure(true)?;
    heading("Flips");
    flips(how)
}

fn flips(how: Flips<'_>) -> Result<()> {
    let mut flips = cargo();
    flips
        .args(["test", "--workspace", "--test", "e2e", "--", "flips", "--nocapture"])
        .env("ALCEDO_FLIPS", how.count.to_string())
        .env("ALCEDO_LANES", how.lanes.to_string());
    if let Some(propagation) = how.propagation {
        flips.env("ALCEDO_PROPAGATION", propagation);
    }
    if let Some(seconds) = how.within_s {
        flips.env("ALCEDO_FLIPS_WITHIN_S", seconds.to_string());
    }
    process::run(&mut flips)?;
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(project::folder());
    cargo
}

/// `deny.toml`, without the network first; then known vulnerabilities, as far as their database can be had.
fn check_dependencies() -> Result<()> {
    let program = extras::cargo_deny()?;
    let deny = || {
        let mut deny = Command::new(&program);
        deny.current_dir(project::folder()).args(["--log-level", "error"]);
        deny
    };
    process::run(deny().args(["check", "bans", "licenses", "sources"]))?;
    let fetched = process::run_within(deny().args(["fetch", "db"]), ADVISORIES_DEADLINE);
    if fetched.is_ok_and(|status| status.success()) {
        process::run(deny().args(["check", "--disable-fetch", "advisories"]))?;
    } else {
        say("NOT CHECKED: known vulnerabilities. RustSec's advisory database, on GitHub, cannot be fetched from here.");
    }
    Ok(())
}

/// Runs the tests with their output streaming by; tests of failing programs do not keep the others from running.
fn run_tests(engine: &Engine, filter: Option<&str>) -> Result<(TestCounts, bool)> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(filter)
        .env("DOCKER_HOST", engine.host())
        .env("ALCEDO_TEST_PYTHON", extras::python().join("bin/python"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo does not start")?;
    let mut counts = TestCounts::default();
    for line in BufReader::new(child.stdout.take().expect("its standard output is piped")).lines() {
        let line = line?;
        println!("{line}");
        counts.line(&line);
    }
    Ok((counts, child.wait()?.success()))
}

/// The containers of every local region there is.
fn region_containers(engine: &Engine) -> Result<BTreeSet<String>> {
    // {"label":["…"]}, encoded for a query.
    let filter = format!("%7B%22label%22%3A%5B%22{REGION_LABEL}%22%5D%7D");
    let containers = engine.get(&format!("/containers/json?all=true&filters={filter}"))?;
    let Some(containers) = containers.as_array() else { bail!("the engine did not list its containers") };
    let name = |container: &serde_json::Value| {
        container["Names"][0].as_str().unwrap_or_default().trim_start_matches('/').to_owned()
    };
    Ok(containers.iter().map(name).collect())
}
