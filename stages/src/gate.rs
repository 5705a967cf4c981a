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
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::site::Site;

/// Time between two looks at whether somebody has decided.
const LOOK_EVERY: Duration = Duration::from_secs(2);

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
        context.output_line(format!("waits for `alcedo approve {run}` or `alcedo reject {run}`, for {}", self.within));
        let wait = Wait::new(LOOK_EVERY, self.within.duration());
        let what = format!("somebody to approve {stage}");
        let decided = wait.until(context, &what, || async {
            match read(site, run, stage).await {
                Ok(Some(decision)) => Ok(Look::Ready(decision)),
                Ok(None) => Ok(Look::NotYet(format!("nobody has decided; `alcedo approve {run}`"))),
                // A bucket that does not answer for a moment is asked again.
                Err(error) => Ok(Look::NotYet(error.to_string())),
            }
        });
        let decision = decided.await.map_err(|error| match error.kind {
            ErrorKind::TimedOut => {
                StepError::new(ErrorKind::TimedOut, format!("nobody approved {stage} within {}", self.within))
                    .hint("deploy again, or give people more time: approvals[].within")
            }
            _ => error,
        })?;
        if decision.approved {
            return Ok(serde_json::to_value(&decision).unwrap_or_default());
        }
        let reason = decision.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        Err(StepError::failed(format!("{} rejected {stage}{reason}", decision.by)))
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
    let bytes = serde_json::to_vec(&decision).expect("a decision is plain data");
    match site.store.create(&journal::decision_key(&site.root, run, stage), bytes).await {
        Ok(_) => Ok(stage),
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

/// What was decided; what cannot be read as a decision is none.
async fn read(site: &Site, run: &RunId, stage: Stage) -> Result<Option<Decision>, StoreError> {
    let object = site.store.read(&journal::decision_key(&site.root, run, stage)).await?;
    Ok(object.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
}
