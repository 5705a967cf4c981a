//! `--junit FILE` and `--summary FILE`: a run as files that CI systems show.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use alcedo_pipeline::{event::Outcome, report::Report};
use clap::Args;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{
    summary::{Aftermath, summary},
    timeline::{State, Step, Timeline},
};
use crate::{
    failure::{Failure, Result},
    output::Paint,
    words::seconds,
};

/// Where to write them.
#[derive(Debug, Clone, Default, Args)]
pub struct Files {
    /// Write stages, steps and smoke tests as JUnit XML, for a CI system's test view
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

/// Files that can be written: opened before the run begins, so that a wrong path costs nothing.
pub struct Opened {
    junit: Option<(PathBuf, File)>,
    summary: Option<(PathBuf, File)>,
}

impl Files {
    #[cfg(test)]
    pub fn at(junit: &std::path::Path, summary: &std::path::Path) -> Self {
        Self { junit: Some(junit.to_owned()), summary: Some(summary.to_owned()) }
    }

    /// # Errors
    /// One of them cannot be written.
    pub fn open(&self) -> Result<Opened> {
        let open = |path: &Option<PathBuf>| match path {
            None => Ok(None),
            // Its folder is made: a CI job begins with none.
            Some(path) => match path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(path)) {
                Ok(file) => Ok(Some((path.clone(), file))),
                Err(error) => Err(Failure::usage(format!("{} cannot be written", path.display())).because(&error)),
            },
        };
        Ok(Opened { junit: open(&self.junit)?, summary: open(&self.summary)? })
    }
}

impl Opened {
    /// Writes them. What goes wrong is told, and changes nothing: the run has ended.
    pub fn write(self, report: &Report, timeline: &Timeline, aftermath: &Aftermath) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut put = |target: Option<(PathBuf, File)>, text: Option<String>| {
            let Some((path, mut file)) = target else { return };
            let written = text.ok_or_else(|| "it cannot be made".to_owned());
            if let Err(error) =
                written.and_then(|text| file.write_all(text.as_bytes()).map_err(|error| error.to_string()))
            {
                wrong.push(format!("{} was not written: {error}", path.display()));
            }
        };
        put(self.junit, junit(timeline));
        put(self.summary, Some(markdown(report, timeline, aftermath)));
        wrong
    }
}

/// One suite a stage with its steps, and one for each place that the checks were made at.
fn junit(timeline: &Timeline) -> Option<String> {
    let mut all = quick_junit::Report::new("alcedo");
    let mut stages: Vec<(&str, TestSuite)> = Vec::new();
    for step in &timeline.steps {
        let name = step.stage.name();
        if stages.last().is_none_or(|(last, _)| *last != name) {
            stages.push((name, TestSuite::new(format!("stage {name}"))));
        }
        if let Some((_, suite)) = stages.last_mut() {
            suite.add_test_case(case_of(step));
        }
    }
    all.add_test_suites(stages.into_iter().map(|(_, suite)| suite));
    let targets: BTreeSet<&str> = timeline.checks.iter().map(|check| check.target.as_str()).collect();
    for target in targets {
        let mut suite = TestSuite::new(format!("checks on {target}"));
        for check in timeline.checks.iter().filter(|check| check.target == target) {
            let status = match check.passed {
                true => TestCaseStatus::success(),
                false => failed(&check.detail),
            };
            let mut case = TestCase::new(check.name.clone(), status);
            case.set_time(Duration::from_secs_f64(check.seconds.max(0.0)));
            suite.add_test_case(case);
        }
        all.add_test_suite(suite);
    }
    all.to_string().ok()
}

fn case_of(step: &Step) -> TestCase {
    let status = match (&step.error, step.state) {
        (Some(error), _) => {
            let mut status = failed(&error.message);
            let mut text = String::new();
            for cause in &error.causes {
                let _ = writeln!(text, "because: {cause}");
            }
            for hint in &error.hints {
                let _ = writeln!(text, "help: {hint}");
            }
            for line in &step.lines {
                let _ = writeln!(text, "{line}");
            }
            status.set_description(text);
            status
        }
        (None, State::Done | State::Undone) => TestCaseStatus::success(),
        (None, _) => TestCaseStatus::skipped(),
    };
    let mut case = TestCase::new(step.does.clone(), status);
    case.set_classname(step.id.to_string());
    case.set_time(Duration::from_secs_f64(step.seconds.max(0.0)));
    case
}

fn failed(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message);
    status
}

/// The closing words, a table of the stages, and what has failed.
fn markdown(report: &Report, timeline: &Timeline, aftermath: &Aftermath) -> String {
    let mark = match report.outcome {
        Some(Outcome::Done) => "✅",
        Some(Outcome::Stuck) | None => "⛔",
        Some(_) => "↩️",
    };
    let run = report.purpose.run(&report.app, report.version, &report.environment);
    let mut text = format!("## {mark} {run}\n\n");
    if let Some(failure) = &report.failure {
        let _ = writeln!(text, "**{}** failed: {}\n", failure.step, escaped(&failure.error.message));
        for hint in &failure.error.hints {
            let _ = writeln!(text, "- {}", escaped(hint));
        }
        text.push('\n');
    }
    text.push_str("| stage | took |\n|---|---|\n");
    for stage in &report.stages {
        let _ = writeln!(text, "| {} | {} |", stage.stage, seconds(stage.seconds));
    }
    let words = summary(report, timeline, aftermath, Paint::PLAIN);
    // A fence that the words themselves cannot end.
    let _ = write!(text, "\n~~~~text\n{}~~~~\n", words.replace("~~~~", "~ ~ ~ ~"));
    text
}

/// What came from elsewhere stays text: no markup, no line of its own.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\r' => safe.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => {
                safe.push('\\');
                safe.push(character);
            }
            other => safe.push(other),
        }
    }
    safe
}
