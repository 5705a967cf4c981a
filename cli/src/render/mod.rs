//! Shows a run while it goes on. Three readers of one stream of events; none of them can stop or fail the run.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use alcedo_pipeline::{
    event::{Event, Outcome},
    plan::Plan,
    report::Report,
};
use alcedo_stages::times::Expected;
use jiff::Timestamp;
use tokio::sync::mpsc;

use self::{
    files::Opened,
    json::Json,
    lines::Lines,
    log::Log,
    progress::{Progress, Size},
    summary::Aftermath,
    timeline::Timeline,
};
use crate::{
    exit_code::ExitCode,
    explanations,
    failure::Failure,
    output::{Form, Output},
    signals::{Pipe, Signal, Watched},
};

pub mod files;
pub mod json;
pub mod leftovers;
pub mod lines;
pub mod log;
pub mod progress;
pub mod summary;
pub mod timeline;

#[cfg(test)]
mod tests;

/// Time between two pictures; also how late a heartbeat can be.
const FRAME: Duration = Duration::from_millis(100);

/// Whoever shows the run now.
enum Renderer {
    Progress(Progress<Watched<io::Stderr>>),
    Lines(Lines<Watched<io::Stdout>>),
    Json(Json<Watched<io::Stdout>>),
}

/// Shows a run from its first event to its summary.
pub struct Show {
    renderer: Renderer,
    timeline: Timeline,
    log: Log,
    kept: Vec<Event>,
    output: Output,
    secrets: PathBuf,
}

impl Show {
    /// `secrets` is a folder that must not outlive the process, however it ends.
    pub fn new(output: Output, plan: &Plan, pipe: Pipe, secrets: PathBuf) -> Self {
        let stdout = || Watched::new(io::stdout(), pipe.clone());
        let renderer = match output.form {
            Form::Progress => {
                Renderer::Progress(Progress::new(Watched::new(io::stderr(), pipe.clone()), output.paint_stderr))
            }
            Form::Lines => Renderer::Lines(Lines::new(stdout(), Timestamp::now())),
            Form::Json => Renderer::Json(Json::new(stdout())),
        };
        let log = Log::new(Timestamp::now());
        Self { renderer, timeline: Timeline::new(plan), log, kept: Vec::new(), output, secrets }
    }

    /// Knows how long earlier runs took.
    pub fn expect(&mut self, expected: Expected) {
        self.timeline.expected = expected;
    }

    /// Takes up what another process has shown already.
    pub fn recall(&mut self, event: &Event) {
        self.timeline.apply(event);
        self.kept.push(event.clone());
    }

    /// Shows a run's events until it has ended and all of them are shown; answers what it answers. A first signal is
    /// answered with words, a second SIGINT with the end of the process.
    pub async fn follow<T>(
        &mut self,
        run: impl Future<Output = T>,
        events: &mut mpsc::UnboundedReceiver<Event>,
        signals: &mut mpsc::UnboundedReceiver<Signal>,
    ) -> T {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut signalled = false;
        tokio::pin!(run);
        let answer = loop {
            tokio::select! {
                answer = &mut run => break answer,
                Some(event) = events.recv() => self.event(event),
                _ = frames.tick() => self.tick(Timestamp::now()),
                Some(signal) = signals.recv() => {
                    if signalled && signal == Signal::Interrupt {
                        self.leave();
                    }
                    if !signalled {
                        self.notice(&format!("{signal}: undoing what this run made; Ctrl-C again leaves it as it is"));
                    }
                    signalled = true;
                }
            }
        };
        while let Ok(event) = events.try_recv() {
            self.event(event);
        }
        self.tick(Timestamp::now());
        self.end();
        answer
    }

    /// What is written from now on stands below what was shown.
    fn end(&mut self) {
        if let Renderer::Progress(progress) = &mut self.renderer {
            progress.end();
        }
    }

    /// The durable events that were shown.
    pub fn take_kept(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.kept)
    }

    /// What was shown, as plain lines, and since when.
    pub fn take_log(&mut self) -> (Timestamp, String) {
        let log = std::mem::replace(&mut self.log, Log::new(Timestamp::now()));
        (log.began, log.text())
    }

    /// Writes the files that were asked for, and says where that did not work.
    pub fn write(&self, files: Opened, report: &Report, aftermath: &Aftermath) {
        for wrong in files.write(report, &self.timeline, aftermath) {
            self.output.note(&format!("warning: {wrong}\n"));
        }
    }

    /// The closing words, or the closing line.
    pub fn close(&mut self, report: &Report, aftermath: &Aftermath) {
        match &mut self.renderer {
            Renderer::Json(json) => json.report(report),
            Renderer::Progress(_) | Renderer::Lines(_) => {
                if let Some(failure) = &report.failure
                    && report.outcome != Some(Outcome::Interrupted)
                {
                    let mut error = Failure::of_record(ExitCode::FAILED, &failure.error);
                    error.message = format!("{}: {}", failure.step, error.message);
                    error.id = explanations::of_step(&failure.step, failure.error.kind);
                    self.output.note("\n");
                    error.show(&self.output);
                }
                let paint = self.output.paint_stdout;
                self.output.text(&format!("\n{}", summary::summary(report, &self.timeline, aftermath, paint)));
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.timeline.apply(&event);
        self.log.event(&event, &self.timeline);
        match &mut self.renderer {
            Renderer::Progress(progress) => progress.event(&event, &self.timeline, terminal_size()),
            Renderer::Lines(lines) => lines.event(&event, &self.timeline),
            Renderer::Json(json) => json.event(&event),
        }
        if event.what.is_durable() {
            self.kept.push(event);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        match &mut self.renderer {
            Renderer::Progress(progress) => progress.draw(&self.timeline, now, terminal_size()),
            Renderer::Lines(lines) => lines.tick(now, &self.timeline),
            Renderer::Json(_) => {}
        }
    }

    fn notice(&mut self, text: &str) {
        match &mut self.renderer {
            Renderer::Progress(progress) => progress.notice(text),
            Renderer::Lines(lines) => lines.notice(Timestamp::now(), &self.timeline, text),
            Renderer::Json(_) => self.output.note(&format!("{text}\n")),
        }
    }

    /// Ends the process in the middle of an unwind, saying what it leaves.
    fn leave(&mut self) -> ! {
        self.end();
        let mut text = String::from("\nleft in the middle; its watchdog closes SSH and ends the builder now\n");
        leftovers::of_a_run_left_alone(&mut text, &self.timeline);
        let Plan { run, environment, .. } = &self.timeline.plan;
        text.push_str(&format!("  undo it    alcedo rollback --run {run} --env {environment}\n"));
        text.push_str(&format!("  finish it  alcedo resume {run} --env {environment}\n"));
        // Leaving in this way runs no destructors, and the ephemeral key is in there.
        let _ = std::fs::remove_dir_all(&self.secrets);
        let _ = io::stderr().write_all(text.as_bytes());
        std::process::exit(i32::from(ExitCode::STUCK.0));
    }
}

fn terminal_size() -> Size {
    let (rows, columns) = console::Term::stderr().size();
    Size { columns: usize::from(columns), rows: usize::from(rows) }
}
