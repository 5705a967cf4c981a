//! The `alcedo` that was built here, run in an app's folder.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    engine::Engine,
    process, project,
    terminal::{say, seconds},
};

/// Steps that take longer get a second line that says how long.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// Builds `alcedo` with everything it needs.
///
/// # Errors
/// When it does not compile.
pub fn build() -> Result<()> {
    build_as(Profile::Dev)
}

/// The same in a Cargo profile.
///
/// # Errors
/// When it does not compile.
pub fn build_as(profile: Profile) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(project::folder()).args(["build", "--quiet", "--package", "alcedo", "--profile", profile.name()]);
    process::run(&mut cargo)
}

/// The Cargo profiles that `alcedo` is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As everything else is tested.
    Dev,
    /// As users install it.
    Release,
}

impl Profile {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// The folder below `target` that Cargo puts it in.
    const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// `alcedo` in one app's folder, with one engine.
#[derive(Debug)]
pub struct Alcedo {
    folder: PathBuf,
    docker_host: String,
    region_folder: Option<PathBuf>,
    pub profile: Profile,
}

/// What `deploy` and `rollback` end with, as far as the chores read it.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    pub version: String,
    #[serde(default)]
    pub stages: Vec<Stage>,
    #[serde(default)]
    pub journal_seconds: f64,
    #[serde(skip)]
    pub measured: Measured,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Stage {
    pub stage: String,
    pub seconds: f64,
}

/// What this program saw of a run from outside.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    pub began: Option<Instant>,
    pub wall: Duration,
    /// The steps that succeeded, in order.
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub id: String,
    pub seconds: f64,
    /// What it answered to later steps.
    pub output: Value,
}

impl Alcedo {
    pub fn new(folder: &Path, engine: &Engine) -> Self {
        Self { folder: folder.to_owned(), docker_host: engine.host(), region_folder: None, profile: Profile::Dev }
    }

    /// With a local region that is kept in this folder instead of the user's.
    #[must_use]
    pub fn with_region_folder(self, folder: &Path) -> Self {
        Self { region_folder: Some(folder.to_owned()), ..self }
    }

    #[must_use]
    pub fn built_as(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// The program that runs.
    pub fn program(&self) -> PathBuf {
        project::target().join(self.profile.folder()).join("alcedo")
    }

    /// A program in the app's folder, with the engine and the region of this `alcedo`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("DOCKER_HOST", &self.docker_host);
        if let Some(folder) = &self.region_folder {
            command.env("ALCEDO_REGION_DIR", folder);
        }
        command
    }

    /// Runs a command with its own output shown.
    ///
    /// # Errors
    /// When it fails.
    pub fn show(&self, arguments: &[&str]) -> Result<()> {
        say(&format!("alcedo {}", arguments.join(" ")));
        process::run(self.command(self.program()).args(arguments))
    }

    /// Runs `deploy` or `rollback`, telling each step as it begins.
    ///
    /// # Errors
    /// When it fails; what it said about that is shown.
    pub fn run(&self, arguments: &[&str]) -> Result<Report> {
        say(&format!("alcedo {}", arguments.join(" ")));
        let report = self.follow(self.command(self.program()).args(arguments), &mut |line| say(line))?;
        if report.measured.steps.is_empty() {
            say(&format!("  nothing to do: {} is in service", report.version));
        }
        Ok(report)
    }

    /// The same without a word, with the peak memory of `alcedo` in KiB.
    ///
    /// # Errors
    /// As [`Alcedo::run`].
    pub fn measure(&self, arguments: &[&str]) -> Result<(Report, u64)> {
        let memory = project::target().join(format!("bench-memory-{}", std::process::id()));
        let mut command = self.command(std::env::current_exe()?);
        command.arg("measure").arg("--memory").arg(&memory).arg("--").arg(self.program()).args(arguments);
        let report = self.follow(&mut command, &mut |_| {});
        let peak_kib = std::fs::read_to_string(&memory).unwrap_or_default();
        // It may not be there, where the program did not even start; then the report says so.
        let _ = std::fs::remove_file(&memory);
        Ok((report?, peak_kib.trim().parse().context("the peak memory was not measured")?))
    }

    fn follow(&self, command: &mut Command, tell: &mut dyn FnMut(&str)) -> Result<Report> {
        let began = Instant::now();
        let mut child = command
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", self.program().display()))?;
        let lines = BufReader::new(child.stdout.take().expect("its standard output is piped")).lines();
        let mut follower = Follower::default();
        for line in lines {
            follower.line(&line?, tell);
        }
        let status = child.wait()?;
        let wall = began.elapsed();
        if !status.success() {
            bail!("{} failed ({status})", process::shown(command));
        }
        let mut report =
            follower.report.with_context(|| format!("{} ended without a report", process::shown(command)))?;
        report.measured = Measured { began: Some(began), wall, steps: follower.steps };
        Ok(report)
    }
}

/// Reads a run's JSON lines: events, and at the end the report.
#[derive(Default)]
struct Follower {
    stage: String,
    steps: Vec<Step>,
    report: Option<Report>,
}

impl Follower {
    fn line(&mut self, line: &str, tell: &mut dyn FnMut(&str)) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            tell(line);
            return;
        };
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        match value["event"].as_str() {
            Some("step-started") => {
                let stage = text("stage");
                let shown = if stage == self.stage { "" } else { stage };
                tell(&format!("  {shown:8} {}", text("does")));
                stage.clone_into(&mut self.stage);
            }
            Some("step-succeeded") => {
                let took = value["seconds"].as_f64().unwrap_or_default();
                if took > WORTH_SAYING.as_secs_f64() {
                    tell(&format!("  {:8}   took {}", "", seconds(Duration::from_secs_f64(took))));
                }
                self.steps.push(Step { id: text("step").to_owned(), seconds: took, output: value["output"].clone() });
            }
            Some("step-failed" | "undo-failed") => {
                tell(&format!("  failed: {}", value["error"]["message"].as_str().unwrap_or_default()));
                for more in ["causes", "hints"] {
                    for line in value["error"][more].as_array().into_iter().flatten().filter_map(Value::as_str) {
                        tell(&format!("    {line}"));
                    }
                }
            }
            Some("undo-started") if text("undo") != "nothing to undo" => {
                tell(&format!("  {:8} undo: {}", "", text("undo")))
            }
            Some("warning") => {
                tell(&format!("  warning: {}", text("message")));
                value["hint"].as_str().iter().for_each(|hint| tell(&format!("    {hint}")));
            }
            Some("report") => self.report = serde_json::from_value(value).ok(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_step_by_step_and_ends_with_its_report() {
        let lines = [
            r#"{"v":1,"event":"run-started","app":"hello"}"#,
            r#"{"v":1,"event":"step-started","step":"launch/group","stage":"launch","does":"create target group g"}"#,
            r#"{"v":1,"event":"step-succeeded","step":"launch/group","output":{"arn":"a"},"seconds":0.2}"#,
            r#"{"v":1,"event":"step-started","step":"launch/wait","stage":"launch","does":"wait for health"}"#,
            r#"{"v":1,"event":"waiting","step":"launch/wait","status":"1 of 2"}"#,
            r#"{"v":1,"event":"warning","message":"slow","hint":"look"}"#,
            r#"{"v":1,"event":"step-succeeded","step":"launch/wait","output":null,"seconds":6.5}"#,
            r#"{"v":1,"event":"run-finished","outcome":"done","seconds":7.0}"#,
            r#"{"v":1,"event":"report","run":"r","version":"2026.1120.1","outcome":"done","seconds":7.0,"stages":[{"stage":"launch","steps":2,"seconds":6.7}]}"#,
        ];
        let (mut told, mut follower) = (Vec::new(), Follower::default());
        for line in lines {
            follower.line(line, &mut |text| told.push(text.to_owned()));
        }
        assert_eq!(
            told,
            [
                "  launch   create target group g",
                "           wait for health",
                "  warning: slow",
                "    look",
                "             took 6.5 s"
            ]
        );
        let report = follower.report.unwrap();
        assert_eq!((report.version.as_str(), report.stages[0].seconds), ("2026.1120.1", 6.7));
        assert_eq!(follower.steps.len(), 2);
        assert_eq!(follower.steps[0].output["arn"], "a");
    }

    #[test]
    fn failures_are_told_with_their_causes_and_hints() {
        let (mut told, mut follower) = (Vec::new(), Follower::default());
        let line = r#"{"event":"step-failed","step":"s","error":{"kind":"failed","message":"no health","causes":["status 500"],"hints":["look at the log"]},"seconds":1}"#;
        follower.line(line, &mut |text| told.push(text.to_owned()));
        assert_eq!(told, ["  failed: no health", "    status 500", "    look at the log"]);
        assert!(follower.report.is_none());
    }
}
