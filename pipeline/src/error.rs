//! How a step says that it failed.

use serde::{Deserialize, Serialize};

use crate::resource::Resource;

/// Why a step failed, what the user can do about it, and what it may have left behind.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    pub kind: ErrorKind,
    /// What happened, for a person; never the text of `source`.
    pub message: String,
    /// What to do next, each a sentence.
    pub hints: Vec<String>,
    pub leftovers: Leftovers,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of failure it was; decides what the runner may try and which exit code results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The step's own work failed: a build command, a smoke test, a health check.
    Failed,
    /// A deadline passed.
    TimedOut,
    /// The cloud or the engine refused or could not be reached.
    Service,
    /// What was observed is not what was planned: somebody else changed it.
    Changed,
    /// The run was told to stop.
    Interrupted,
    /// A bug in Alcedo: the step panicked.
    Panicked,
    /// This process no longer holds the environment: nothing may be changed any more, not even undone.
    LeaseLost,
}

/// What a failed step may have left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftovers {
    /// Nothing, for certain.
    None,
    /// Exactly these; the undo removes them.
    Owned(Vec<Resource>),
    /// Nobody knows: an answer was lost. The undo has to look.
    #[default]
    Unknown,
}

impl StepError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), leftovers: Leftovers::Unknown, source: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn leaving(mut self, leftovers: Leftovers) -> Self {
        self.leftovers = leftovers;
        self
    }

    /// The error and its causes as they are written to the journal.
    pub fn record(&self) -> ErrorRecord {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        ErrorRecord { kind: self.kind, message: self.message.clone(), causes, hints: self.hints.clone() }
    }
}

/// A [`StepError`] as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    pub kind: ErrorKind,
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}
