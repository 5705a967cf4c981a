//! Where a step stands, as its durable events tell it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Outcome, What},
    ids::{RunId, StepId},
    resource::Resource,
};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    Pending,
    Started,
    Owned,
    Failed,
    Succeeded,
    Undoing,
    Undone,
    UndoFailed,
    /// It is being undone in order to be done anew.
    Renewing,
}

/// What may happen to a step; the other half of [`Status::after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Start,
    Own,
    Succeed,
    Fail,
    BeginUndo,
    Undo,
    FailUndo,
    BeginRenewal,
    Renew,
}

/// A change that a journal must not contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal says {change:?} of step {step}, which is {status:?}")]
pub struct IllegalChange {
    pub step: StepId,
    pub status: Status,
    pub change: Change,
}

impl Status {
    /// The total transition table. `None`: the change is illegal.
    pub const fn after(self, change: Change) -> Option<Self> {
        use Change as C;
        use Status as S;
        match (self, change) {
            // A step may start again after a crash; it adopts what its first try made.
            (S::Pending | S::Started | S::Owned | S::Failed, C::Start) => Some(S::Started),
            (S::Started | S::Owned, C::Own) => Some(S::Owned),
            (S::Started | S::Owned, C::Succeed) => Some(S::Succeeded),
            (S::Started | S::Owned, C::Fail) => Some(S::Failed),
            (
                S::Started | S::Owned | S::Failed | S::Succeeded | S::Undoing | S::UndoFailed | S::Renewing,
                C::BeginUndo,
            ) => Some(S::Undoing),
            // Something it made exists on the machine that died alone, or is of no use on this one.
            (S::Started | S::Owned | S::Failed | S::Succeeded | S::Renewing, C::BeginRenewal) => Some(S::Renewing),
            (S::Renewing, C::Renew) => Some(S::Pending),
            (S::Undoing, C::Undo) => Some(S::Undone),
            (S::Undoing, C::FailUndo) => Some(S::UndoFailed),
            _ => None,
        }
    }

    /// Whether an unwind has to undo the step.
    pub const fn needs_undo(self) -> bool {
        !matches!(self, Self::Pending | Self::Undone)
    }

    /// Whether the run has begun to go back.
    pub const fn is_unwinding(self) -> bool {
        matches!(self, Self::Undoing | Self::Undone | Self::UndoFailed)
    }
}

/// What a run's events add up to.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub steps: BTreeMap<StepId, StepState>,
    pub outcome: Option<Outcome>,
}

/// One step's state.
#[derive(Debug, Clone, Default)]
pub struct StepState {
    pub status: Status,
    /// When it was begun for the first time.
    pub began: Option<Timestamp>,
    pub resources: Vec<Resource>,
    pub output: Option<serde_json::Value>,
    pub seconds: f64,
    /// How often the step has been made anew: its client token is another each time.
    pub renewals: u32,
}

impl Progress {
    /// Replays events.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, IllegalChange> {
        let mut progress = Self::default();
        for event in events {
            progress.apply(event)?;
        }
        Ok(progress)
    }

    pub fn status(&self, step: &StepId) -> Status {
        self.steps.get(step).map_or(Status::Pending, |state| state.status)
    }

    /// The client token of a step's creating call: the same for every attempt until the step is made anew.
    pub fn token(&self, run: &RunId, step: &StepId) -> String {
        let renewals = self.steps.get(step).map_or(0, |state| state.renewals);
        match renewals {
            0 => run.token(step),
            again => run.token(&StepId::new(format!("{step}#{again}"))),
        }
    }

    /// Takes one event into account. Passing events change nothing.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalChange> {
        let (step, change) = match &event.what {
            What::StepStarted { step, .. } => (step, Change::Start),
            What::StepOwned { step, .. } => (step, Change::Own),
            What::StepSucceeded { step, .. } => (step, Change::Succeed),
            What::StepFailed { step, .. } => (step, Change::Fail),
            What::UndoStarted { step, .. } => (step, Change::BeginUndo),
            What::UndoSucceeded { step } => (step, Change::Undo),
            What::UndoFailed { step, .. } => (step, Change::FailUndo),
            What::StepRenewing { step, .. } => (step, Change::BeginRenewal),
            What::StepRenewed { step } => (step, Change::Renew),
            What::RunFinished { outcome, .. } => {
                self.outcome = Some(*outcome);
                return Ok(());
            }
            What::RunResumed { .. } => {
                self.outcome = None;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let state = self.steps.entry(step.clone()).or_default();
        let illegal = || IllegalChange { step: step.clone(), status: state.status, change };
        let next = state.status.after(change).ok_or_else(illegal)?;
        state.status = next;
        match &event.what {
            What::StepStarted { .. } => {
                state.began.get_or_insert(event.at);
            }
            What::StepOwned { resource, more, .. } => {
                Resource::remember(&mut state.resources, std::iter::once(resource).chain(more));
            }
            What::StepSucceeded { output, seconds, .. } => {
                state.output = Some(output.clone());
                state.seconds = *seconds;
            }
            What::StepFailed { seconds, .. } => state.seconds = *seconds,
            What::UndoSucceeded { .. } => state.resources.clear(),
            What::StepRenewed { .. } => {
                state.resources.clear();
                state.output = None;
                state.renewals += 1;
            }
            _ => {}
        }
        Ok(())
    }
}
