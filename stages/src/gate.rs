//! Manual gates: a run waits before a stage until somebody, on any machine with the credentials, approves or rejects it.
//!
//! The decision is one object beside the run's journal, written once: whoever decides first has decided.

use std::time::Duration;

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    event::Outcome,
    ids::{RunId, StepId},
    journal,
    plan::Stage,
    report::Report,
    store::StoreError,
    units::Span,
    wait::{Look, Wait},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::site::Site;

/// Time between two looks at whether somebody has decided.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who has decided where nobody did in time.
const DEADLINE: &str = "the deadline";

/// What the ids of these steps begin with.
const STEPS: &str = "approve/";

/// The step that waits before a stage.
pub fn step_id(before: Stage) -> String {
    format!("{STEPS}{before}")
}

/// Whether a step waits for somebody's word.
pub fn is_gate(step: &StepId) -> bool {
    step.as_str().starts_with(STEPS)
}

/// What somebody has decided. As JSON: `{"v":1,"approved":true,"by":"ada@desk","at":"…","reason":null}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Version of this format: 1.
    pub v: u32,
    pub approved: bool,
    pub by: String,
    pub at: Timestamp,
    pub reason: Option<String>,
}

/// Why a decision was not kept.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("run {run} has no gate before {stage}")]
    NoGate { run: RunId, stage: Stage },
    #[error("run {run} waits for nobody: it has no gate that is not decided")]
    NothingToDecide { run: RunId },
    #[error("run {run} has ended, and waits for nobody")]
    Ended { run: RunId },
    #[error("{} has {} the gate before {stage} already", .decision.by, if .decision.approved { "approved" } else { "rejected" })]
    Decided { stage: Stage, decision: Decision },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
}

/// Waits for somebody's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitApproval {
    pub before: Stage,
    pub within: Span,
}

impl AwaitApproval {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let (run, stage) = (context.run(), self.before);
        // A process that goes on with the run does not give people more time.
        let within = SignedDuration::try_from(self.within.duration()).unwrap_or(SignedDuration::MAX);
        let deadline = context.began().saturating_add(within).unwrap_or(Timestamp::MAX);
        context.output_line(format!("waits for `alcedo approve {run}` or `alcedo reject {run}`, until {deadline:.0}"));
        let left = Duration::try_from(deadline.duration_since(context.now())).unwrap_or_default();
        let wait = Wait::new(LOOK_EVERY, left);
        let what = format!("somebody to approve {stage}");
        let decided = wait.until(context, &what, || async {
            match read(site, run, stage).await {
                Ok(Some(decision)) => Ok(Look::Ready(decision)),
                Ok(None) => Ok(Look::NotYet(format!("nobody has decided; `alcedo approve {run}`"))),
                // A bucket that does not answer for a moment is asked again.
                Err(error) => Ok(Look::NotYet(error.to_string())),
            }
        });
        let decision = match decided.await {
            Err(error) if error.kind == ErrorKind::TimedOut => self.close(site, context).await?,
            decided => decided?,
        };
        // Somebody who came too late has decided nothing, unless the run stands where it is until somebody comes.
        let late = decision.approved && decision.at > deadline && !context.plan().freeze;
        if decision.by == DEADLINE || late {
            return Err(StepError::new(ErrorKind::TimedOut, format!("nobody approved {stage} within {}", self.within))
                .hint("deploy again, or give people more time: approvals[].within"));
        }
        if decision.approved {
            return Ok(serde_json::to_value(&decision).unwrap_or_default());
        }
        let reason = decision.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        Err(StepError::failed(format!("{} rejected {stage}{reason}", decision.by)))
    }

    /// Nobody has decided in time, and from now on nobody can. Answers what stands: somebody may have been faster.
    async fn close(&self, site: &Site, context: &StepContext) -> Result<Decision, StepError> {
        let reason = Some(format!("nobody decided within {}", self.within));
        let decision = Decision { v: 1, approved: false, by: DEADLINE.to_owned(), at: context.now(), reason };
        // Where a failure leaves everything as it is, a later word still lets the run be resumed.
        if context.plan().freeze {
            return Ok(decision);
        }
        let stands = match keep(site, context.run(), self.before, &decision).await {
            Ok(()) => return Ok(decision),
            Err(StoreError::Conflict { .. }) => read(site, context.run(), self.before).await,
            Err(error) => Err(error),
        };
        let unreadable =
            |error| StepError::new(ErrorKind::Service, "what was decided at the gate cannot be told").because(error);
        stands.map_err(unreadable).map(|stands| stands.unwrap_or(decision))
    }
}

/// Decides the gate before a stage of a run; the first that is not decided, where no stage is named. Answers which it was.
///
/// # Errors
/// There is no such gate, or somebody has decided before.
pub async fn decide(
    site: &Site,
    run: &RunId,
    stage: Option<Stage>,
    approved: bool,
    by: String,
    reason: Option<String>,
) -> Result<Stage, GateError> {
    let record = journal::read(site.store.as_ref(), &site.root, run).await?;
    if Report::of(&record).outcome.is_some_and(|outcome| outcome != Outcome::Stuck) {
        return Err(GateError::Ended { run: run.clone() });
    }
    let plan = record.plan;
    let gates: Vec<Stage> = plan
        .steps
        .iter()
        .filter_map(|step| match serde_json::from_value(step.action.clone()) {
            Ok(crate::action::Action::AwaitApproval(gate)) => Some(gate.before),
            _ => None,
        })
        .collect();
    let stage = match stage {
        Some(stage) if gates.contains(&stage) => stage,
        Some(stage) => return Err(GateError::NoGate { run: run.clone(), stage }),
        None => first_undecided(site, run, &gates).await?,
    };
    let decision = Decision { v: 1, approved, by, at: site.now(), reason };
    match keep(site, run, stage, &decision).await {
        Ok(()) => Ok(stage),
        Err(StoreError::Conflict { .. }) => match read(site, run, stage).await? {
            Some(decision) => Err(GateError::Decided { stage, decision }),
            None => Err(GateError::NothingToDecide { run: run.clone() }),
        },
        Err(error) => Err(error.into()),
    }
}

async fn first_undecided(site: &Site, run: &RunId, gates: &[Stage]) -> Result<Stage, GateError> {
    for stage in gates {
        if read(site, run, *stage).await?.is_none() {
            return Ok(*stage);
        }
    }
    Err(GateError::NothingToDecide { run: run.clone() })
}

/// Writes a decision down, where there is none.
async fn keep(site: &Site, run: &RunId, stage: Stage, decision: &Decision) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(decision).expect("a decision is plain data");
    site.store.create(&journal::decision_key(&site.root, run, stage), bytes).await.map(drop)
}

/// What was decided; what cannot be read as a decision is none.
async fn read(site: &Site, run: &RunId, stage: Stage) -> Result<Option<Decision>, StoreError> {
    let object = site.store.read(&journal::decision_key(&site.root, run, stage)).await?;
    Ok(object.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
}
