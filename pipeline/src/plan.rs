//! The plan: an ordered list of steps with nothing left to decide.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{RunId, StepId},
    version::Version,
};

/// What a person names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Build,
    Publish,
    Bake,
    Launch,
    Smoke,
    Flip,
    Hold,
    Retire,
}

impl Stage {
    pub const ALL: [Self; 8] =
        [Self::Build, Self::Publish, Self::Bake, Self::Launch, Self::Smoke, Self::Flip, Self::Hold, Self::Retire];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Publish => "publish",
            Self::Bake => "bake",
            Self::Launch => "launch",
            Self::Smoke => "smoke",
            Self::Flip => "flip",
            Self::Hold => "hold",
            Self::Retire => "retire",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a step does to the world, in the signs of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// `+` makes something.
    Add,
    /// `-` removes something.
    Remove,
    /// `~` changes something.
    Change,
    /// `?` looks, tests or waits.
    Check,
}

impl Sign {
    pub const fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Remove => '-',
            Self::Change => '~',
            Self::Check => '?',
        }
    }
}

/// One step, decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub id: StepId,
    pub stage: Stage,
    pub sign: Sign,
    /// What it does, in the imperative: `create target group hello-3f2c1ab0`.
    pub does: String,
    /// What its undo does; `None` where there is nothing to undo.
    pub undo: Option<String>,
    /// From here on, undoing is no longer possible.
    #[serde(default)]
    pub point_of_no_return: bool,
    /// While its effect stands, what the steps before it made is in use: where its undo fails, the unwind stops here.
    #[serde(default)]
    pub barrier: bool,
    /// The action's parameters; the crate that planned it reads them back.
    pub action: serde_json::Value,
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    Deploy,
    Rollback,
    /// The end of a hold.
    Retire,
}

impl Purpose {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Retire => "end of hold",
        }
    }

    /// What is done, in the imperative.
    pub fn order(self, app: &str, version: Version, environment: &str) -> String {
        match self {
            Self::Deploy | Self::Rollback => format!("{} {app} {version} to {environment}", self.name()),
            Self::Retire => format!("end the hold of {app} in {environment}"),
        }
    }

    /// What was done, or was to be, as a noun.
    pub fn run(self, app: &str, version: Version, environment: &str) -> String {
        match self {
            Self::Deploy | Self::Rollback => format!("{} of {app} {version} to {environment}", self.name()),
            Self::Retire => format!("end of the hold of {app} in {environment}"),
        }
    }
}

/// Why a stage is in a plan, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub stage: Stage,
    pub why: String,
}

/// One execution's worth of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format; see [`Plan::FORMAT`].
    pub format: u32,
    pub run: RunId,
    pub app: String,
    pub environment: String,
    pub purpose: Purpose,
    /// The version that will be in service.
    pub version: Version,
    /// The commit it was or will be built from, where known.
    pub commit: Option<String>,
    /// A failure after traffic has begun to move leaves it where it is, until somebody resumes the run or rolls it back.
    #[serde(default)]
    pub freeze: bool,
    /// The version in service when the plan was made.
    pub replaces: Option<Version>,
    pub made_at: Timestamp,
    /// What is left out and why: `build: version … has the same inputs`.
    pub notes: Vec<String>,
    /// Why stages are there: which of their inputs are not those of what is in service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    pub const FORMAT: u32 = 1;

    pub fn step(&self, id: &StepId) -> Option<&PlannedStep> {
        self.steps.iter().find(|step| &step.id == id)
    }

    /// The stages that have steps, in order.
    pub fn stages(&self) -> Vec<Stage> {
        Stage::ALL.into_iter().filter(|stage| self.steps.iter().any(|step| step.stage == *stage)).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.purpose.order(&self.app, self.version, &self.environment))?;
        match self.replaces {
            Some(replaced) => writeln!(f, " (in service: {replaced})")?,
            None => writeln!(f, " (nothing in service)")?,
        }
        for note in &self.notes {
            writeln!(f, "  = {note}")?;
        }
        let mut stage = None;
        for step in &self.steps {
            if stage != Some(step.stage) {
                stage = Some(step.stage);
                writeln!(f, "{}", step.stage)?;
                for reason in self.reasons.iter().filter(|reason| reason.stage == step.stage) {
                    writeln!(f, "  because {}", reason.why)?;
                }
            }
            if step.point_of_no_return {
                writeln!(f, "  ! point of no return: a failure from here on is finished, not undone")?;
            }
            writeln!(f, "  {} {}", step.sign.symbol(), step.does)?;
            if let Some(undo) = &step.undo {
                writeln!(f, "      undo: {undo}")?;
            }
        }
        if self.steps.is_empty() {
            writeln!(f, "  nothing to do")?;
        }
        Ok(())
    }
}
