//! What a run's events add up to, for whoever shows it: where each step stands, what it waits for, what it has printed.

use std::collections::VecDeque;

use alcedo_pipeline::{
    error::{ErrorKind, ErrorRecord},
    event::{Event, Outcome, Unit, What},
    ids::StepId,
    plan::{Plan, Stage},
    resource::Resource,
};
use alcedo_stages::times::Expected;
use jiff::Timestamp;

use crate::words::clean;

/// How many lines of one step's output are kept for the case that it fails. Enough for a compiler's complaints; a build
/// that prints without end must not take the memory of the machine.
const KEPT_LINES: usize = 2_000;

/// A server that boots or is to become healthy.
pub struct Server {
    pub id: String,
    pub state: String,
    pub detail: Option<String>,
    /// When the run first told of it.
    pub first: Timestamp,
    /// Since when it is in this state.
    pub since: Timestamp,
}

impl Server {
    /// Whether it is as it is waited for: a server that boots runs, and one that is registered is healthy.
    pub fn is_well(&self) -> bool {
        ["running", "healthy"].contains(&self.state.as_str())
    }
}

/// A run as far as it has come.
pub struct Timeline {
    pub plan: Plan,
    pub steps: Vec<Step>,
    pub began: Timestamp,
    /// When the last event came.
    pub now: Timestamp,
    /// The step that runs or is being undone.
    pub current: Option<usize>,
    pub outcome: Option<Outcome>,
    /// Every check that was made, in order.
    pub checks: Vec<Checked>,
    /// How long earlier runs let one expect the steps to take.
    pub expected: Expected,
}

/// One check of one server, of the preview or of an image.
pub struct Checked {
    pub target: String,
    pub name: String,
    pub passed: bool,
    pub detail: String,
    pub seconds: f64,
}

/// One step.
pub struct Step {
    pub id: StepId,
    pub stage: Stage,
    pub does: String,
    pub state: State,
    /// When it began, or when its undo did.
    pub since: Option<Timestamp>,
    pub seconds: f64,
    pub resources: Vec<Resource>,
    pub transfer: Option<Transfer>,
    pub waits_for: Option<String>,
    /// The servers that it looks at, in the order in which it has told of them.
    pub servers: Vec<Server>,
    /// What it has printed, safe for a terminal.
    pub lines: VecDeque<String>,
    /// Lines that came before those kept.
    pub dropped: usize,
    pub error: Option<ErrorRecord>,
    pub output: Option<serde_json::Value>,
}

impl Step {
    /// Whether it failed by itself, rather than because the run was told to stop.
    pub fn has_failed(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind != ErrorKind::Interrupted)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Pending,
    Running,
    Done,
    Failed,
    Undoing,
    Undone,
    UndoFailed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    pub done: u64,
    pub total: u64,
    pub unit: Unit,
}

impl Timeline {
    pub fn new(plan: &Plan) -> Self {
        let steps = plan
            .steps
            .iter()
            .map(|planned| Step {
                id: planned.id.clone(),
                stage: planned.stage,
                does: clean(&planned.does),
                state: State::Pending,
                since: None,
                seconds: 0.0,
                resources: Vec::new(),
                transfer: None,
                waits_for: None,
                servers: Vec::new(),
                lines: VecDeque::new(),
                dropped: 0,
                error: None,
                output: None,
            })
            .collect();
        let (began, now) = (plan.made_at, plan.made_at);
        let (checks, expected) = (Vec::new(), Expected::default());
        Self { plan: plan.clone(), steps, began, now, current: None, outcome: None, checks, expected }
    }

    /// Takes an event into account.
    pub fn apply(&mut self, event: &Event) {
        self.now = event.at;
        match &event.what {
            What::RunStarted { .. } => self.began = event.at,
            What::RunResumed { .. } => self.outcome = None,
            What::RunFinished { outcome, .. } => {
                self.outcome = Some(*outcome);
                self.current = None;
            }
            What::StepStarted { step, .. } => self.begin(step, State::Running, event.at),
            What::UndoStarted { step, .. } => self.begin(step, State::Undoing, event.at),
            What::StepOwned { step, resource, more } => self.change(step, |step| {
                Resource::remember(&mut step.resources, std::iter::once(resource).chain(more));
            }),
            What::StepSucceeded { step, output, seconds } => self.change(step, |step| {
                step.state = State::Done;
                step.seconds = *seconds;
                step.output = Some(output.clone());
                step.waits_for = None;
            }),
            What::StepFailed { step, error, seconds } => self.change(step, |step| {
                step.state = State::Failed;
                step.seconds = *seconds;
                step.error = Some(error.clone());
            }),
            What::UndoSucceeded { step } => self.change(step, |step| {
                step.state = State::Undone;
                step.resources.clear();
                step.waits_for = None;
            }),
            What::UndoFailed { step, error, resources } => self.change(step, |step| {
                step.state = State::UndoFailed;
                step.error = Some(error.clone());
                step.resources.clone_from(resources);
            }),
            What::StepRenewing { step, why } => {
                self.begin(step, State::Undoing, event.at);
                self.change(step, |step| step.waits_for = Some(format!("anew: {}", clean(why))));
            }
            What::StepRenewed { step } => self.change(step, |step| {
                step.state = State::Pending;
                step.resources.clear();
                step.waits_for = None;
            }),
            What::Output { step, line } => self.change(step, |step| {
                if step.lines.len() == KEPT_LINES {
                    step.lines.pop_front();
                    step.dropped += 1;
                }
                step.lines.push_back(clean(line));
            }),
            What::Progress { step, done, total, unit } => self.change(step, |step| {
                step.transfer = Some(Transfer { done: *done, total: *total, unit: *unit });
            }),
            What::Server { step, server, state, detail } => {
                self.server(step, server, state, detail.as_deref(), event.at)
            }
            What::Waiting { step, status } => self.change(step, |step| step.waits_for = Some(clean(status))),
            What::Checked { target, check, passed, detail, seconds, .. } => self.checks.push(Checked {
                target: clean(target),
                name: clean(check),
                passed: *passed,
                detail: clean(detail),
                seconds: *seconds,
            }),
            What::Warning { .. } => {}
        }
    }

    fn begin(&mut self, step: &StepId, state: State, at: Timestamp) {
        self.current = self.steps.iter().position(|there| &there.id == step);
        self.change(step, |step| {
            step.state = state;
            step.since = Some(at);
            step.transfer = None;
            step.waits_for = None;
            step.servers.clear();
        });
    }

    fn server(&mut self, step: &StepId, id: &str, state: &str, detail: Option<&str>, at: Timestamp) {
        let known = self.steps.iter().flat_map(|step| &step.servers).filter(|server| server.id == id);
        let first = known.map(|server| server.first).min().unwrap_or(at);
        let (id, state, detail) = (clean(id), clean(state), detail.map(clean));
        self.change(step, |step| match step.servers.iter_mut().find(|server| server.id == id) {
            Some(server) if server.state == state => server.detail = detail,
            Some(server) => *server = Server { id, state, detail, first, since: at },
            None => step.servers.push(Server { id, state, detail, first, since: at }),
        });
    }

    fn change(&mut self, step: &StepId, change: impl FnOnce(&mut Step)) {
        // A journal of another version may know a step that this plan does not; it is shown without it.
        if let Some(step) = self.steps.iter_mut().find(|there| &there.id == step) {
            change(step);
        }
    }

    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| &step.id == id)
    }

    pub fn current(&self) -> Option<&Step> {
        self.current.map(|at| &self.steps[at])
    }

    /// Seconds from the first event to `at`.
    pub fn elapsed(&self, at: Timestamp) -> f64 {
        at.duration_since(self.began).as_secs_f64().max(0.0)
    }

    /// What the run has made and not undone, with the step that made it.
    pub fn standing(&self) -> impl Iterator<Item = (&Step, &Resource)> {
        self.steps.iter().flat_map(|step| step.resources.iter().map(move |resource| (step, resource)))
    }

    /// The seconds that a stage's finished steps took together.
    pub fn stage_seconds(&self, stage: Stage) -> f64 {
        self.steps.iter().filter(|step| step.stage == stage).map(|step| step.seconds).sum()
    }

    /// How long a stage takes by earlier runs; `None` where they do not tell for all of its steps.
    pub fn stage_expected(&self, stage: Stage) -> Option<f64> {
        self.expected.stage(&self.plan, stage)
    }

    /// How long the run takes from its beginning to its end: what has passed, and what earlier runs let one expect of the
    /// rest. `None` where they do not tell for all of that, and where the run goes back.
    pub fn whole_expected(&self, at: Timestamp) -> Option<f64> {
        let mut left = 0.0;
        for step in &self.steps {
            let takes = || self.expected.step(&step.id);
            left += match step.state {
                State::Done => 0.0,
                State::Pending => takes()?,
                State::Running => {
                    let busy = step.since.map_or(0.0, |since| at.duration_since(since).as_secs_f64());
                    (takes()? - busy).max(0.0)
                }
                State::Failed | State::Undoing | State::Undone | State::UndoFailed => return None,
            };
        }
        Some(self.elapsed(at) + left).filter(|_| left > 0.0)
    }
}
