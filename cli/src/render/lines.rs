//! A run as plain lines, one an event, for CI logs: elapsed time, stage, what happened.

use std::io::Write;

use alcedo_pipeline::{
    error::ErrorKind,
    event::{Event, Outcome, Unit, What},
    ids::StepId,
};
use jiff::{SignedDuration, Timestamp};

use super::timeline::Timeline;
use crate::words::{bytes, clean, seconds};

/// After this long without a line, one says what is being waited for. CI systems end jobs that are silent for minutes,
/// and people think so after half of one.
const HEARTBEAT: SignedDuration = SignedDuration::from_secs(20);

/// A transfer gets a line this often.
const TRANSFER_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// A wait that keeps changing its words, such as a countdown, gets a line this often.
const WAIT_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Writes plain lines.
pub struct Lines<W> {
    out: W,
    last_line: Timestamp,
    /// How far a transfer was when it last got a line, and when.
    last_transfer: Option<((u64, u64), Timestamp)>,
    /// What a wait said last, and when: it is not said twice, and not more often than people read.
    last_wait: Option<(String, Timestamp)>,
}

impl<W: Write> Lines<W> {
    pub fn new(out: W, now: Timestamp) -> Self {
        Self { out, last_line: now, last_transfer: None, last_wait: None }
    }

    pub fn into_inner(self) -> W {
        self.out
    }

    /// Shows an event that `timeline` has taken in.
    pub fn event(&mut self, event: &Event, timeline: &Timeline) {
        match &event.what {
            What::StepStarted { .. } | What::UndoStarted { .. } => {
                self.last_transfer = None;
                self.last_wait = None;
            }
            What::Waiting { status, .. } => {
                let said = self.last_wait.as_ref();
                if said.is_some_and(|(last, at)| last == status || event.at.duration_since(*at) < WAIT_PAUSE) {
                    return;
                }
                self.last_wait = Some((status.clone(), event.at));
            }
            What::Progress { done, total, .. } => {
                let said = self.last_transfer.as_ref();
                let again = said.is_some_and(|(amount, _)| *amount == (*done, *total));
                let soon = said.is_some_and(|(_, at)| event.at.duration_since(*at) < TRANSFER_PAUSE);
                if again || (done < total && soon) {
                    return;
                }
                self.last_transfer = Some(((*done, *total), event.at));
            }
            _ => {}
        }
        self.show(event, timeline);
    }

    /// Says that a wait goes on, where nothing has been said for long.
    pub fn tick(&mut self, now: Timestamp, timeline: &Timeline) {
        if now.duration_since(self.last_line) < HEARTBEAT || timeline.outcome.is_some() {
            return;
        }
        let (place, text) = match timeline.current() {
            None => ("run".to_owned(), "still running".to_owned()),
            Some(step) => {
                let doing = step.waits_for.clone().or_else(|| step.lines.back().cloned()).unwrap_or(step.does.clone());
                let since = step.since.unwrap_or(now);
                let busy = seconds(now.duration_since(since).as_secs_f64());
                let takes = timeline.expected.step(&step.id).map(|takes| format!(" of about {}", seconds(takes)));
                (step.stage.to_string(), format!("still at it, {busy}{}: {doing}", takes.unwrap_or_default()))
            }
        };
        self.line(timeline, now, &place, &text);
    }

    /// Says something about the whole run.
    pub fn notice(&mut self, now: Timestamp, timeline: &Timeline, text: &str) {
        self.line(timeline, now, "run", text);
    }

    fn show(&mut self, event: &Event, timeline: &Timeline) {
        let at = event.at;
        match &event.what {
            What::RunStarted { app, environment, purpose, version, .. } => {
                let instead = match timeline.plan.replaces {
                    Some(replaced) => format!("in service: {replaced}"),
                    None => "nothing in service".to_owned(),
                };
                let run = &event.run;
                let text = format!("{} ({instead}), run {run}", purpose.order(app, *version, environment));
                self.line(timeline, at, "run", &text);
                for note in &timeline.plan.notes {
                    self.line(timeline, at, "", &format!("= {note}"));
                }
            }
            What::RunResumed { host, .. } => self.line(timeline, at, "run", &format!("resumed on {host}")),
            What::RunFinished { outcome, seconds: took, .. } => {
                let text = match outcome {
                    Outcome::Done => "done",
                    Outcome::Unwound => "failed; everything it made is undone",
                    Outcome::Interrupted => "interrupted; everything it made is undone",
                    Outcome::Superseded => "settled by a later run; what was in service stays in service",
                    Outcome::Stuck => "stuck",
                };
                self.line(timeline, at, "run", &format!("{text} ({})", seconds(*took)));
            }
            What::StepStarted { step, does, .. } => self.of_step(timeline, at, step, &format!("{} ...", clean(does))),
            What::StepOwned { step, resource, more } => {
                for resource in std::iter::once(resource).chain(more) {
                    self.of_step(timeline, at, step, &format!("made {resource}"));
                }
            }
            What::StepSucceeded { step, seconds: took, .. } => {
                let does = does(timeline, step);
                self.of_step(timeline, at, step, &format!("{does}: done ({})", seconds(*took)));
            }
            What::StepFailed { step, error, seconds: took } if error.kind == ErrorKind::Interrupted => {
                let does = does(timeline, step);
                self.of_step(timeline, at, step, &format!("{does}: stopped ({})", seconds(*took)));
            }
            What::StepFailed { step, error, seconds: took } => {
                let does = does(timeline, step);
                self.of_step(timeline, at, step, &format!("{does}: FAILED ({}): {}", seconds(*took), error.message));
                for cause in &error.causes {
                    self.of_step(timeline, at, step, &format!("  because: {cause}"));
                }
            }
            What::UndoStarted { step, undo } if undoes(timeline, step) => {
                let does = does(timeline, step);
                self.of_step(timeline, at, step, &format!("undo: {} ({does}) ...", clean(undo)));
            }
            What::UndoSucceeded { step } if undoes(timeline, step) => self.of_step(timeline, at, step, "undo: done"),
            What::UndoStarted { .. } | What::UndoSucceeded { .. } => {}
            What::UndoFailed { step, error, resources } => {
                self.of_step(timeline, at, step, &format!("undo: FAILED: {}", error.message));
                for resource in resources {
                    self.of_step(timeline, at, step, &format!("  left: {resource}"));
                }
            }
            What::StepRenewing { step, why } => {
                let does = does(timeline, step);
                self.of_step(timeline, at, step, &format!("anew: {does}, because {}", clean(why)));
            }
            What::StepRenewed { .. } => {}
            What::Output { step, line } => self.of_step(timeline, at, step, &format!("| {}", clean(line))),
            What::Waiting { step, status } => self.of_step(timeline, at, step, &format!("waiting: {}", clean(status))),
            What::Server { step, server, state, detail } => {
                let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                self.of_step(timeline, at, step, &format!("{} is {state}{detail}", clean(server)));
            }
            What::Progress { step, done, total, unit } => {
                self.of_step(timeline, at, step, &amount(*done, *total, *unit))
            }
            What::Checked { step, target, check, passed, detail, seconds: took } => {
                let result = if *passed { "passed" } else { "FAILED" };
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                let took = seconds(*took);
                self.of_step(timeline, at, step, &format!("check {result}: {check} on {target} ({took}){detail}"));
            }
            What::Warning { message, hint } => {
                self.line(timeline, at, "warning", message);
                if let Some(hint) = hint {
                    self.line(timeline, at, "", &format!("help: {hint}"));
                }
            }
        }
    }

    fn of_step(&mut self, timeline: &Timeline, at: Timestamp, step: &StepId, text: &str) {
        let stage = match timeline.step(step) {
            Some(step) => step.stage.name().to_owned(),
            None => step.as_str().split('/').next().unwrap_or_default().to_owned(),
        };
        self.line(timeline, at, &stage, text);
    }

    fn line(&mut self, timeline: &Timeline, at: Timestamp, place: &str, text: &str) {
        let elapsed = format!("{:.1}s", timeline.elapsed(at));
        // What an error or a check quotes can have several lines.
        let lines: String = text
            .lines()
            .map(|line| format!("{elapsed:>8} {place:<7} {}", clean(line)).trim_end().to_owned() + "\n")
            .collect();
        let _ = self.out.write_all(lines.as_bytes()).and_then(|()| self.out.flush());
        self.last_line = at;
    }
}

fn does(timeline: &Timeline, step: &StepId) -> String {
    timeline.step(step).map_or_else(|| step.to_string(), |step| step.does.clone())
}

/// Whether there is anything to undo of a step; where there is not, its undo is not worth a line.
fn undoes(timeline: &Timeline, step: &StepId) -> bool {
    timeline.plan.step(step).is_none_or(|planned| planned.undo.is_some())
}

/// `1.2 MiB of 3.4 MiB (35%)`, `1 of 2 servers`.
pub fn amount(done: u64, total: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => {
            let percent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
            format!("{} of {} ({percent}%)", bytes(done), bytes(total))
        }
        Unit::Servers => format!("{done} of {total} servers"),
    }
}
