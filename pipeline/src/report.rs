//! What a run comes to, for people and programs: made from its plan and its durable events alone, so that the report of
//! a run that another machine began is the same report.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::ErrorRecord,
    event::{Event, Outcome, What},
    ids::RunId,
    journal::Record,
    plan::{Plan, PlannedStep, Purpose, Stage},
    recovery,
    resource::Resource,
    status::{Progress, Status},
    version::Version,
};

/// A run in short.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub run: RunId,
    pub app: String,
    pub environment: String,
    pub purpose: Purpose,
    pub version: Version,
    pub replaces: Option<Version>,
    pub began: Timestamp,
    /// `None`: the run has not ended, or its process died.
    pub outcome: Option<Outcome>,
    pub seconds: f64,
    /// How long its processes waited for the journal to be written, of `seconds`.
    pub journal_seconds: f64,
    pub stages: Vec<StageReport>,
    /// The first failure.
    pub failure: Option<Failure>,
    /// Of a run that is stuck: the steps that are neither finished nor undone, in the plan's order.
    pub left: Vec<Leftover>,
    /// How many durable events the journal holds.
    pub events: usize,
}

/// A step that a stuck run leaves in the middle.
#[derive(Debug, Clone, Serialize)]
pub struct Leftover {
    pub step: String,
    pub does: String,
    pub status: Status,
    /// What it is known to have made.
    pub resources: Vec<Resource>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StageReport {
    pub stage: Stage,
    pub steps: usize,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub step: String,
    #[serde(flatten)]
    pub error: ErrorRecord,
}

impl Report {
    pub fn of(record: &Record) -> Self {
        Self::from_events(record, &record.events)
    }

    fn from_events(record: &Record, events: &[Event]) -> Self {
        let plan = &record.plan;
        let began = events.first().map_or(plan.made_at, |event| event.at);
        let mut report = Self {
            run: plan.run.clone(),
            app: plan.app.clone(),
            environment: plan.environment.clone(),
            purpose: plan.purpose,
            version: plan.version,
            replaces: plan.replaces,
            began,
            outcome: None,
            seconds: events.last().map_or(0.0, |event| event.at.duration_since(began).as_secs_f64()),
            journal_seconds: 0.0,
            stages: Vec::new(),
            failure: None,
            left: Vec::new(),
            events: events.len(),
        };
        for event in events {
            match &event.what {
                What::StepSucceeded { step, seconds, .. } | What::StepFailed { step, seconds, .. } => {
                    if let Some(planned) = plan.step(step) {
                        report.add(planned.stage, *seconds);
                    }
                    if let What::StepFailed { error, .. } = &event.what
                        && report.failure.is_none()
                    {
                        report.failure = Some(Failure { step: step.to_string(), error: error.clone() });
                    }
                }
                What::RunFinished { outcome, journal_seconds, .. } => {
                    report.outcome = Some(*outcome);
                    report.journal_seconds += journal_seconds;
                }
                What::RunResumed { .. } => report.outcome = None,
                _ => {}
            }
        }
        if report.outcome == Some(Outcome::Stuck) {
            report.left = left(plan, events);
        }
        report
    }

    fn add(&mut self, stage: Stage, seconds: f64) {
        match self.stages.iter_mut().find(|there| there.stage == stage) {
            Some(there) => {
                there.steps += 1;
                there.seconds += seconds;
            }
            None => self.stages.push(StageReport { stage, steps: 1, seconds }),
        }
    }
}

/// What is in the middle: after the point of no return what is not done, before it what is not undone.
fn left(plan: &Plan, events: &[Event]) -> Vec<Leftover> {
    let Ok(progress) = Progress::replay(events) else { return Vec::new() };
    let passed = recovery::has_passed_the_point_of_no_return(plan, &progress);
    let in_the_middle = |step: &&PlannedStep| match (progress.status(&step.id), passed) {
        (status, true) => status != Status::Succeeded,
        (status, false) => step.undo.is_some() && status.needs_undo(),
    };
    plan.steps
        .iter()
        .filter(in_the_middle)
        .map(|step| Leftover {
            step: step.id.to_string(),
            does: step.does.clone(),
            status: progress.status(&step.id),
            resources: progress.steps.get(&step.id).map(|state| state.resources.clone()).unwrap_or_default(),
        })
        .collect()
}
