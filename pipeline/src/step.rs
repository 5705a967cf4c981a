//! The unit of journaling and undo.

use async_trait::async_trait;

use crate::{context::StepContext, error::StepError, plan::PlannedStep};

/// Something that can be done and undone.
///
/// **Assumptions the runner makes.** Both calls are idempotent: a second call adopts or finds done what the first did.
/// An undo looks at the world, not only at what it remembers, because the answer of the call that made something may
/// have been lost. Both touch only what carries this run's tag, and what the plan names.
#[async_trait]
pub trait Step: Send + Sync {
    /// Does it. The answer is journaled, and later steps read it.
    async fn run(&self, context: &StepContext) -> Result<serde_json::Value, StepError>;

    /// Puts things back as they were before [`Step::run`], however far that came.
    async fn undo(&self, context: &StepContext) -> Result<(), StepError>;
}

/// Makes a step that can run from a step that is planned.
#[async_trait]
pub trait Steps: Send + Sync {
    /// # Errors
    /// The action was planned by another version of the tool.
    fn step(&self, planned: &PlannedStep) -> Result<Box<dyn Step>, StepError>;

    /// Looks at what a failed step leaves, and keeps what it finds, before the unwind takes it away. It changes nothing
    /// that was there, and what goes wrong in it is no news beside the failure itself.
    async fn examine(&self, _failed: &PlannedStep, _context: &StepContext) {}
}
