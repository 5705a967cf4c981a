//! What a person wants to know when a run has ended: what is in service, where, how long it took, how to go back.

use std::fmt::Write as _;

use alcedo_pipeline::{
    error::ErrorKind,
    event::Outcome,
    plan::{Purpose, Stage},
    report::Report,
    version::Version,
};
use jiff::Timestamp;

use super::{
    leftovers,
    timeline::{State, Step, Timeline},
};
use crate::{
    output::Paint,
    words::{clean, moment, seconds},
};

/// What the run itself does not know: asked for when it has ended.
#[derive(Debug, Clone, Default)]
pub struct Aftermath {
    /// Where the app answers.
    pub url: Option<String>,
    /// Where artifacts and journals are kept.
    pub bucket: Option<String>,
    /// What visitors saw of the flip, a line each.
    pub traffic: Option<String>,
}

/// What a row's value may take of 80 columns.
const VALUE_COLUMNS: usize = 66;

/// Whether somebody else's change of the listener stopped the run, and stands.
fn is_anothers_now(report: &Report) -> bool {
    report.failure.as_ref().is_some_and(|failure| {
        let of_listener = ["flip/", "hold/"].iter().any(|stage| failure.step.starts_with(stage));
        of_listener && failure.error.kind == ErrorKind::Changed
    })
}

/// The closing words.
pub fn summary(report: &Report, timeline: &Timeline, aftermath: &Aftermath, paint: Paint) -> String {
    let mut text = String::new();
    let Report { app, environment, version, .. } = report;
    let took = seconds(report.seconds);
    let run = report.purpose.run(app, *version, environment);
    let of_environment = format!("--env {environment}");
    match report.outcome {
        Some(Outcome::Done) => {
            let verb = match report.purpose {
                Purpose::Deploy => "is in service",
                Purpose::Rollback => "is in service again",
                Purpose::Retire => "stays in service, and nothing is held any more",
            };
            let _ =
                writeln!(text, "{} {} in {environment}, after {took}", paint.green(&format!("{app} {version}")), verb);
            if let Some(url) = &aftermath.url {
                row(&mut text, "url", url);
            }
            stages(&mut text, report);
            let mut name = "traffic";
            for line in aftermath.traffic.iter().flat_map(|traffic| traffic.lines()) {
                row(&mut text, std::mem::take(&mut name), line);
            }
            if let Some((held, until)) = held(timeline) {
                row(&mut text, "held", &format!("{held} until {}", moment(until)));
                let undo = if report.purpose == Purpose::Rollback { "go forward" } else { "go back" };
                row(&mut text, undo, &format!("alcedo rollback {of_environment}"));
            }
        }
        Some(Outcome::Unwound | Outcome::Interrupted) => {
            let verb = if report.outcome == Some(Outcome::Unwound) { "failed" } else { "was interrupted" };
            let headline = format!("{run} {verb}");
            let _ = writeln!(text, "{} after {took}", paint.yellow(&headline));
            row(&mut text, "undone", "everything it made");
            match report.replaces {
                _ if is_anothers_now(report) => {
                    row(
                        &mut text,
                        "in service",
                        &format!("what somebody else made of it: alcedo status {of_environment}"),
                    );
                }
                Some(replaced) => row(&mut text, "in service", &format!("{replaced}, as before")),
                None => row(&mut text, "in service", "nothing, as before"),
            }
            stages(&mut text, report);
            row(&mut text, "details", &format!("alcedo runs show {} {of_environment}", report.run));
        }
        Some(Outcome::Superseded) => {
            let headline = format!("{run} was settled by a later run");
            let _ = writeln!(text, "{} after {took}", paint.yellow(&headline));
            stages(&mut text, report);
        }
        Some(Outcome::Stuck) | None => {
            let headline = format!("{run} is stuck");
            let _ = writeln!(text, "{} after {took}", paint.red(&headline));
            leftovers::of_a_stuck_run(&mut text, timeline, aftermath.bucket.as_deref());
            row(&mut text, "details", &format!("alcedo runs show {} {of_environment}", report.run));
            row(&mut text, "go on", &format!("mend what it says, then: alcedo resume {} {of_environment}", report.run));
        }
    }
    text
}

/// The version that stays ready behind this one, and until when: the answer of the hold's first step, unless a later step
/// has ended the fleet.
fn held(timeline: &Timeline) -> Option<(Version, Timestamp)> {
    let replaced = timeline.plan.replaces?;
    let until = |step: &Step| step.output.as_ref()?.get("until")?.as_str()?.parse().ok();
    let marked = timeline.steps.iter().filter(|step| step.stage == Stage::Hold && step.state == State::Done);
    let until = marked.filter_map(until).next()?;
    let retires = format!("retire/{replaced}/");
    let retired = timeline.steps.iter().any(|step| step.id.as_str().starts_with(&retires));
    (!retired).then_some((replaced, until))
}

/// Seconds per stage, on as many rows as 80 columns need.
fn stages(text: &mut String, report: &Report) {
    let mut name = "stages";
    let mut line = String::new();
    let last = report.stages.len().saturating_sub(1);
    for (at, stage) in report.stages.iter().enumerate() {
        let comma = if at == last { "" } else { "," };
        let word = format!("{} {}{comma}", stage.stage, seconds(stage.seconds));
        if !line.is_empty() && line.len() + 1 + word.len() > VALUE_COLUMNS {
            row(text, std::mem::take(&mut name), &std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        row(text, name, &line);
    }
}

/// One named value.
pub fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<11}{}", clean(value));
}
