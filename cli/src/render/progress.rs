//! A run as a small picture that redraws itself: one row a stage, what the current step does beneath its stage. What
//! must stay readable afterwards (failures with the output that led to them, warnings) is written above the picture.
//!
//! While the picture stands, the cursor waits at the beginning of its *first* row. A terminal that is made narrower breaks
//! the picture's rows into more of them, or does not, and may do so at any moment; where the picture begins, the cursor
//! knows in each of these cases, and a count of rows would not.

use std::{collections::BTreeMap, io::Write};

use alcedo_pipeline::{
    error::ErrorKind,
    event::{Event, Unit, What},
    plan::Stage,
};
use jiff::Timestamp;

use super::{
    lines::amount,
    timeline::{Server, State, Step, Timeline},
};
use crate::{
    output::Paint,
    words::{clean, count, seconds},
};

const SPINNER: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠟"];

/// Cells of a transfer's bar.
const BAR: usize = 24;

/// Servers that get a row of their own.
const SERVERS: usize = 6;

/// The terminal's size in cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    Server,
}

/// Draws the picture.
pub struct Progress<W> {
    out: W,
    paint: Paint,
    /// Rows that the picture takes now.
    drawn: usize,
    /// The terminal's size when it was drawn.
    size: Size,
    turn: usize,
    notice: Option<String>,
}

impl<W: Write> Progress<W> {
    pub fn new(out: W, paint: Paint) -> Self {
        Self { out, paint, drawn: 0, size: Size::default(), turn: 0, notice: None }
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
            // The first row, then everything from its second cell on: some terminals (tmux) take an erasure from the very
            // first cell of the screen for a new screen, and keep a copy of the old one each time.
            text.push_str("\r\u{1b}[K\u{1b}[C\u{1b}[J\r");
        }
        for line in lasting {
            text.push_str(line);
            text.push('\n');
        }
        // What stands above scrolls up as far as the picture needs, once; after that nothing scrolls any more.
        let has_room = picture.len() <= self.drawn && size == self.size && lasting.is_empty();
        if !has_room && picture.len() > 1 {
            let below = picture.len() - 1;
            text.push_str(&format!("{}\u{1b}[{below}A", "\n".repeat(below)));
        }
        // The terminal may have become smaller since its size was asked for (tmux tells of it a quarter of a second later):
        // rows are cut and not broken, they do not go below the last one, and the cursor finds back to where it was.
        text.push_str(&format!("\u{1b}7\u{1b}[?7l{}\u{1b}[?7h\u{1b}8", picture.join("\r\u{1b}[B")));
        (self.drawn, self.size) = (picture.len(), size);
        self.write(&text);
    }

    /// Leaves the picture as it is: whatever is written next begins below it.
    pub fn end(&mut self) {
        let below = "\n".repeat(std::mem::take(&mut self.drawn));
        self.write(&below);
    }

    #[cfg(test)]
    pub fn written(&mut self) -> &mut W {
        &mut self.out
    }

    /// A terminal that has gone away does not stop the run.
    fn write(&mut self, text: &str) {
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
            if let Some(step) = current {
                rows.extend(self.current(step).into_iter().map(|row| (Rank::Detail, row)));
                rows.extend(self.servers(step, now).into_iter().map(|row| (Rank::Server, row)));
            }
        }
        if let Some(notice) = &self.notice {
            rows.push((Rank::Current, self.paint.yellow(notice)));
        }
        // One row of the screen is left to what stands above.
        let most = size.rows.saturating_sub(1).max(1);
        while rows.len() > most {
            let least = rows.iter().map(|(rank, _)| *rank).max().expect("there are more rows than one");
            let has_it = |(rank, _): &(Rank, String)| *rank == least;
            // Stages that are done are of less use than those to come; servers are listed by how they are.
            let at = if least == Rank::Server { rows.iter().rposition(has_it) } else { rows.iter().position(has_it) };
            rows.remove(at.expect("one of them has the rank"));
        }
        // A row as wide as the terminal would wrap in some of them.
        let width = size.columns.saturating_sub(1).max(1);
        rows.iter().map(|(_, row)| console::truncate_str(row, width, "…").into_owned()).collect()
    }

    fn title(&self, timeline: &Timeline, now: Timestamp) -> String {
        let plan = &timeline.plan;
        let what = plan.purpose.order(&plan.app, plan.version, &plan.environment);
        let end = if timeline.outcome.is_some() { timeline.now } else { now };
        let whole = timeline.whole_expected(now).map(|whole| format!(" of about {}", seconds(whole)));
        let elapsed = format!("{}{}", seconds(timeline.elapsed(end)), whole.unwrap_or_default());
        format!("{}  {}", self.paint.bold(&what), self.paint.dim(&elapsed))
    }

    fn stage(&self, timeline: &Timeline, stage: Stage, now: Timestamp) -> String {
        let paint = self.paint;
        let steps: Vec<&Step> = timeline.steps.iter().filter(|step| step.stage == stage).collect();
        let has = |state| steps.iter().any(|step| step.state == state);
        let all = |state| steps.iter().all(|step| step.state == state);
        let current = timeline.current().filter(|step| step.stage == stage);
        let expected = timeline.stage_expected(stage).map(seconds);
        let of = expected.as_ref().map(|expected| format!(" of ~{expected}")).unwrap_or_default();
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
            (paint.green("✓"), format!("{took:>10}{}  {}", paint.dim(&of), paint.dim(&count(steps.len(), "step"))))
        } else if let Some(step) = current {
            let done = steps.iter().filter(|step| step.state == State::Done).count();
            let running = step.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
            let took = seconds(timeline.stage_seconds(stage) + running);
            let at = format!("{}/{}", done + 1, steps.len());
            (paint.blue(self.spin()), format!("{took:>10}{}  {at} {}", paint.dim(&of), step.does))
        } else if has(State::Done) {
            // Between two of its steps.
            (paint.blue(self.spin()), String::new())
        } else {
            let takes = expected.map(|expected| paint.dim(&format!("{:>10}", format!("~{expected}"))));
            (" ".to_owned(), takes.filter(|_| timeline.outcome.is_none()).unwrap_or_default())
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

    /// The servers that the current step looks at, those first that are not well yet, and how long each has been so.
    fn servers(&self, step: &Step, now: Timestamp) -> Vec<String> {
        let since = |at: Timestamp| seconds(now.duration_since(at).as_secs_f64());
        let mut servers: Vec<&Server> = step.servers.iter().collect();
        servers.sort_by_key(|server| server.is_well());
        let widest = servers.iter().map(|server| server.id.len()).max().unwrap_or_default();
        // A last row that stands for one server might as well be that server's.
        let shown = if servers.len() > SERVERS { SERVERS - 1 } else { servers.len() };
        let mut rows: Vec<String> = servers[..shown]
            .iter()
            .map(|server| {
                let Server { id, state, detail, first, since: from } = server;
                let rest = match (server.is_well(), detail) {
                    (true, _) => format!("after {}", seconds(from.duration_since(*first).as_secs_f64())),
                    (false, Some(detail)) => format!("{}  {detail}", since(*from)),
                    (false, None) => since(*from),
                };
                let state = format!("{state:<9}");
                let state = if server.is_well() { self.paint.green(&state) } else { self.paint.yellow(&state) };
                format!("     {id:<widest$}  {state}  {}", self.paint.dim(&rest))
            })
            .collect();
        if shown < servers.len() {
            let mut states: BTreeMap<&str, usize> = BTreeMap::new();
            servers[shown..].iter().for_each(|server| *states.entry(&server.state).or_default() += 1);
            let states: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let more = format!("… and {} more: {}", servers.len() - shown, states.join(", "));
            rows.push(format!("     {}", self.paint.dim(&more)));
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
