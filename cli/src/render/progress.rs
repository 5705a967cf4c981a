//! A run as a small picture that redraws itself: one row a stage, what the current step does beneath its stage. What
//! must stay readable afterwards (failures with the output that led to them, warnings) is written above the picture.

use std::io::Write;

use alcedo_pipeline::{
    error::ErrorKind,
    event::{Event, Unit, What},
    plan::Stage,
};
use jiff::Timestamp;

use super::{
    lines::amount,
    timeline::{State, Step, Timeline},
};
use crate::{
    output::Paint,
    words::{clean, count, seconds},
};

const SPINNER: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠟"];

/// Cells of a transfer's bar.
const BAR: usize = 24;

/// The terminal's size in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// What a row is worth where there are more rows than places, the worthiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Current,
    Detail,
    Title,
    Other,
}

/// Draws the picture.
pub struct Progress<W> {
    out: W,
    paint: Paint,
    /// Rows that the picture takes now.
    drawn: usize,
    turn: usize,
    notice: Option<String>,
}

impl<W: Write> Progress<W> {
    pub fn new(out: W, paint: Paint) -> Self {
        Self { out, paint, drawn: 0, turn: 0, notice: None }
    }

    /// Shows an event that `timeline` has taken in. The picture changes at the next [`Progress::draw`]; what must stay is written now.
    pub fn event(&mut self, event: &Event, timeline: &Timeline, size: Size) {
        let lasting = self.lasting(timeline, &event.what);
        if !lasting.is_empty() {
            self.write_above(&lasting, timeline, event.at, size);
        }
    }

    /// Says something about the whole run, until its end.
    pub fn notice(&mut self, text: &str) {
        self.notice = Some(clean(text));
    }

    /// Draws the picture as of `now`.
    pub fn draw(&mut self, timeline: &Timeline, now: Timestamp, size: Size) {
        self.turn += 1;
        self.write_above(&[], timeline, now, size);
    }

    fn write_above(&mut self, lasting: &[String], timeline: &Timeline, now: Timestamp, size: Size) {
        let picture = self.picture(timeline, now, size);
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the picture's first row, then erase from there to the end of the screen.
            text.push_str(&format!("\u{1b}[{}A\r\u{1b}[J", self.drawn));
        }
        for line in lasting.iter().chain(&picture) {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = picture.len();
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// What an event leaves above the picture for good.
    fn lasting(&self, timeline: &Timeline, what: &What) -> Vec<String> {
        let paint = self.paint;
        match what {
            What::RunStarted { .. } => {
                timeline.plan.notes.iter().map(|note| paint.dim(&format!("= {}", clean(note)))).collect()
            }
            // Nobody wants to read what a build said before it was stopped.
            What::StepFailed { error, .. } if error.kind == ErrorKind::Interrupted => Vec::new(),
            What::StepFailed { step, error, .. } => {
                let Some(step) = timeline.step(step) else { return Vec::new() };
                let mut lines = Vec::new();
                if step.dropped > 0 {
                    lines.push(paint.dim(&format!("… {} before this", count(step.dropped, "line"))));
                }
                lines.extend(step.lines.iter().map(|line| format!("{} {line}", paint.dim("│"))));
                lines.push(format!("{} {}: {}", paint.red("✗"), step.does, clean(&error.message)));
                lines
            }
            What::UndoFailed { step, error, resources } => {
                let mut lines = vec![format!("{} undo of {step}: {}", paint.red("✗"), clean(&error.message))];
                lines.extend(resources.iter().map(|resource| format!("  left: {resource}")));
                lines
            }
            What::Checked { target, check, passed: false, detail, .. } => {
                let mut lines = vec![format!("{} {} on {}", paint.red("✗"), clean(check), clean(target))];
                lines.extend(detail.lines().map(|line| format!("  {}", clean(line))));
                lines
            }
            What::Warning { message, hint } => {
                let mut lines = vec![format!("{} {}", paint.yellow("warning:"), clean(message))];
                lines.extend(hint.iter().map(|hint| format!("  help: {}", clean(hint))));
                lines
            }
            _ => Vec::new(),
        }
    }

    /// The picture's rows, each no wider than the terminal, and no more of them than it has.
    fn picture(&self, timeline: &Timeline, now: Timestamp, size: Size) -> Vec<String> {
        let mut rows = vec![(Rank::Title, self.title(timeline, now))];
        for stage in timeline.plan.stages() {
            let current = timeline.current().filter(|step| step.stage == stage);
            let rank = if current.is_some() { Rank::Current } else { Rank::Other };
            rows.push((rank, self.stage(timeline, stage, now)));
            rows.extend(current.into_iter().flat_map(|step| self.current(step)).map(|row| (Rank::Detail, row)));
        }
        if let Some(notice) = &self.notice {
            rows.push((Rank::Current, self.paint.yellow(notice)));
        }
        // The cursor's own row needs a place too. And where the first row is erased, some terminals (tmux) take the whole
        // screen for cleared, and keep a copy of it each time.
        let most = size.rows.saturating_sub(2).max(1);
        while rows.len() > most {
            let least = rows.iter().map(|(rank, _)| *rank).max().expect("there are more rows than one");
            let at = rows.iter().position(|(rank, _)| *rank == least).expect("one of them has the rank");
            rows.remove(at);
        }
        // A row as wide as the terminal would wrap in some of them.
        let width = size.columns.saturating_sub(1).max(1);
        rows.iter().map(|(_, row)| console::truncate_str(row, width, "…").into_owned()).collect()
    }

    fn title(&self, timeline: &Timeline, now: Timestamp) -> String {
        let plan = &timeline.plan;
        let what = plan.purpose.order(&plan.app, plan.version, &plan.environment);
        let end = if timeline.outcome.is_some() { timeline.now } else { now };
        format!("{}  {}", self.paint.bold(&what), self.paint.dim(&seconds(timeline.elapsed(end))))
    }

    fn stage(&self, timeline: &Timeline, stage: Stage, now: Timestamp) -> String {
        let paint = self.paint;
        let steps: Vec<&Step> = timeline.steps.iter().filter(|step| step.stage == stage).collect();
        let has = |state| steps.iter().any(|step| step.state == state);
        let all = |state| steps.iter().all(|step| step.state == state);
        let current = timeline.current().filter(|step| step.stage == stage);
        let (mark, text) = if has(State::UndoFailed) {
            (paint.red("✗"), "could not be undone".to_owned())
        } else if has(State::Undoing) {
            (paint.yellow(self.spin()), "undoing".to_owned())
        } else if has(State::Undone) && steps.iter().any(|step| step.has_failed()) {
            (paint.red("✗"), "failed, undone".to_owned())
        } else if has(State::Undone) {
            (paint.yellow("↺"), "undone".to_owned())
        } else if has(State::Failed) {
            (paint.red("✗"), "failed".to_owned())
        } else if all(State::Done) {
            let took = seconds(timeline.stage_seconds(stage));
            (paint.green("✓"), format!("{took:>10}  {}", paint.dim(&count(steps.len(), "step"))))
        } else if let Some(step) = current {
            let done = steps.iter().filter(|step| step.state == State::Done).count();
            let running = step.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
            let took = seconds(timeline.stage_seconds(stage) + running);
            (paint.blue(self.spin()), format!("{took:>10}  {}/{} {}", done + 1, steps.len(), step.does))
        } else if has(State::Done) {
            // Between two of its steps.
            (paint.blue(self.spin()), String::new())
        } else {
            (" ".to_owned(), String::new())
        };
        let name = format!("{:<8}", stage.name());
        let name = if all(State::Pending) { paint.dim(&name) } else { name };
        format!(" {mark} {name}{text}").trim_end().to_owned()
    }

    /// What the current step is at: its transfer, its wait, or the last line it has printed.
    fn current(&self, step: &Step) -> Vec<String> {
        let mut rows = Vec::new();
        if let Some(transfer) = step.transfer.filter(|transfer| transfer.done < transfer.total) {
            let text = amount(transfer.done, transfer.total, transfer.unit);
            let full = match transfer.unit {
                Unit::Bytes | Unit::Servers => transfer.done as f64 / transfer.total as f64,
            };
            rows.push(format!("     {} {text}", self.bar(full)));
        }
        if let Some(status) = &step.waits_for {
            rows.push(format!("     {}", self.paint.dim(status)));
        } else if let Some(line) = step.lines.back() {
            rows.push(format!("     {}", self.paint.dim(&format!("│ {line}"))));
        }
        rows
    }

    fn bar(&self, full: f64) -> String {
        let cells = (full.clamp(0.0, 1.0) * BAR as f64).round() as usize;
        format!("{}{}", self.paint.blue(&"━".repeat(cells)), self.paint.dim(&"─".repeat(BAR - cells)))
    }

    fn spin(&self) -> &'static str {
        SPINNER[self.turn % SPINNER.len()]
    }
}
