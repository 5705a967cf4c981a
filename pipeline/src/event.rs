//! The one vocabulary in which a run says what happens. The journal keeps the durable subset; progress bars, CI lines,
//! JSON lines and reports all read the same stream.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorRecord,
    ids::{RunId, StepId},
    plan::{Purpose, Stage},
    resource::Resource,
    version::Version,
};

/// Something that happened in a run. As JSON: `{"v":1,"at":"…","run":"…","event":"step-started","step":"…",…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Version of this format; see [`Event::FORMAT`].
    pub v: u32,
    pub at: Timestamp,
    pub run: RunId,
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    pub const FORMAT: u32 = 1;

    pub fn new(run: &RunId, at: Timestamp, what: What) -> Self {
        Self { v: Self::FORMAT, at, run: run.clone(), what }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    // Durable: written to the journal before anything acts on them.
    RunStarted {
        app: String,
        environment: String,
        purpose: Purpose,
        version: Version,
        host: String,
        tool: String,
    },
    /// Another process went on with the run.
    RunResumed {
        host: String,
        tool: String,
    },
    /// The intent; `token` names what the step is about to make.
    StepStarted {
        step: StepId,
        stage: Stage,
        does: String,
        token: String,
    },
    StepOwned {
        step: StepId,
        resource: Resource,
        /// What the same call has made besides: a fleet's servers come in one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<Resource>,
    },
    StepSucceeded {
        step: StepId,
        output: serde_json::Value,
        seconds: f64,
    },
    StepFailed {
        step: StepId,
        error: ErrorRecord,
        seconds: f64,
    },
    UndoStarted {
        step: StepId,
        undo: String,
    },
    UndoSucceeded {
        step: StepId,
    },
    UndoFailed {
        step: StepId,
        error: ErrorRecord,
        resources: Vec<Resource>,
    },
    /// What the step made is of no use to the process that goes on with the run; it is undone, to be done anew.
    StepRenewing {
        step: StepId,
        why: String,
    },
    StepRenewed {
        step: StepId,
    },
    RunFinished {
        outcome: Outcome,
        seconds: f64,
        /// How long this process waited for its journal to be written, of `seconds`.
        #[serde(default)]
        journal_seconds: f64,
    },

    // Passing: shown, not kept.
    /// A line that something the step runs has printed.
    Output {
        step: StepId,
        line: String,
    },
    /// How far a transfer is.
    Progress {
        step: StepId,
        done: u64,
        total: u64,
        unit: Unit,
    },
    /// What a wait sees now.
    Waiting {
        step: StepId,
        status: String,
    },
    /// What one server is at while it boots and becomes healthy; told again when that changes.
    Server {
        step: StepId,
        server: String,
        /// EC2's word or the balancer's: `pending`, `running`, `initial`, `unhealthy`, `healthy`.
        state: String,
        /// Why, where the balancer says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The result of one smoke test or image check.
    Checked {
        step: StepId,
        /// Against what: a server or the preview route.
        target: String,
        check: String,
        passed: bool,
        detail: String,
        seconds: f64,
    },
    Warning {
        message: String,
        hint: Option<String>,
    },
}

impl What {
    /// Whether the journal keeps it.
    pub fn is_durable(&self) -> bool {
        !matches!(
            self,
            Self::Output { .. }
                | Self::Progress { .. }
                | Self::Waiting { .. }
                | Self::Server { .. }
                | Self::Checked { .. }
                | Self::Warning { .. }
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Bytes,
    Servers,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step succeeded.
    Done,
    /// A step failed; everything before it was undone.
    Unwound,
    /// Told to stop; everything was undone.
    Interrupted,
    /// Its process died once all traffic was proven to be where the run was to bring it; a later run went on from there.
    Superseded,
    /// Something could be neither finished nor undone.
    Stuck,
}
