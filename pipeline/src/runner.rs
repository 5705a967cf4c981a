//! Forward through the plan, and back where a step fails before the point of no return.
//!
//! For each step: journal the intent, do it, journal what it made, journal success. A failure, a panic or a request to
//! stop unwinds in reverse order, journaled in the same way. After the point of no return nothing is undone: the run
//! ends [`Outcome::Stuck`] and says what is left to do.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Outlet, StepContext},
    error::{ErrorKind, ErrorRecord, StepError},
    event::{Event, Outcome, What},
    ids::StepId,
    journal::{Journal, JournalError},
    plan::{Plan, PlannedStep},
    resource::Resource,
    status::{Progress, Status},
    step::{Step, Steps},
};

/// How long a step may go on after it was told to stop. Longer than any single AWS call takes with its retries.
const GRACE: Duration = Duration::from_secs(150);

/// Waits between the attempts of an undo that fails.
const UNDO_BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];

/// Which way a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Do what is not done yet.
    Forward,
    /// Undo what is done.
    Back,
}

/// How a run ended, and why.
#[derive(Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// The step that failed, and how.
    pub failure: Option<(StepId, ErrorRecord)>,
    /// Undos that failed: what is left.
    pub left: Vec<(StepId, ErrorRecord, Vec<Resource>)>,
    pub seconds: f64,
}

/// Executes one plan.
pub struct Runner<'a> {
    plan: Arc<Plan>,
    steps: &'a dyn Steps,
    outlet: Arc<Outlet>,
    cancel: CancellationToken,
}

impl<'a> Runner<'a> {
    /// `events` is read by whoever shows the run; `cancel` tells it to stop and unwind.
    pub fn new(
        plan: Plan,
        steps: &'a dyn Steps,
        journal: Journal,
        progress: Progress,
        events: mpsc::UnboundedSender<Event>,
        cancel: CancellationToken,
    ) -> Self {
        let outlet = Outlet {
            run: plan.run.clone(),
            journal: Mutex::new(journal),
            progress: std::sync::Mutex::new(progress),
            events,
        };
        Self { plan: Arc::new(plan), steps, outlet: Arc::new(outlet), cancel }
    }

    /// Runs to an end. The first event says whether it begins or goes on.
    ///
    /// # Errors
    /// The journal could not be kept, or another process took the run: this process stops where it is.
    pub async fn run(&self, opening: What, direction: Direction) -> Result<Ending, JournalError> {
        let begun = Instant::now();
        self.outlet.keep(opening).await?;
        let failure = match direction {
            Direction::Forward => self.forward().await?,
            Direction::Back => Some((None, ErrorRecord::from(&StepError::interrupted()))),
        };
        let (outcome, failure, left) = match failure {
            None => (Outcome::Done, None, Vec::new()),
            Some((step, error)) if self.has_passed_the_point_of_no_return() => {
                (Outcome::Stuck, step.map(|step| (step, error)), Vec::new())
            }
            Some((step, error)) => {
                let left = self.back().await?;
                let outcome = match (left.is_empty(), error.kind) {
                    (false, _) => Outcome::Stuck,
                    (true, ErrorKind::Interrupted) => Outcome::Interrupted,
                    (true, _) => Outcome::Unwound,
                };
                (outcome, step.map(|step| (step, error)), left)
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.outlet.keep(What::RunFinished { outcome, seconds }).await?;
        Ok(Ending { outcome, failure, left, seconds })
    }

    /// Does every step that has not succeeded. Answers the first failure.
    async fn forward(&self) -> Result<Option<(Option<StepId>, ErrorRecord)>, JournalError> {
        for planned in &self.plan.steps {
            if self.status(&planned.id) == Status::Succeeded {
                continue;
            }
            if self.cancel.is_cancelled() {
                return Ok(Some((Some(planned.id.clone()), StepError::interrupted().record())));
            }
            if let Err(error) = self.forward_one(planned).await? {
                return Ok(Some((Some(planned.id.clone()), error)));
            }
        }
        Ok(None)
    }

    async fn forward_one(&self, planned: &PlannedStep) -> Result<Result<(), ErrorRecord>, JournalError> {
        let begun = Instant::now();
        let id = planned.id.clone();
        self.outlet
            .keep(What::StepStarted {
                step: id.clone(),
                stage: planned.stage,
                does: planned.does.clone(),
                token: self.plan.run.token(&id),
            })
            .await?;
        let context = self.context(&id, self.cancel.clone());
        let result = match self.steps.step(planned) {
            Ok(step) => self.attempt(step.as_ref(), &context).await,
            Err(error) => Err(error),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(output) => {
                self.outlet.keep(What::StepSucceeded { step: id, output, seconds }).await?;
                Ok(Ok(()))
            }
            Err(error) => {
                let error = error.record();
                self.outlet.keep(What::StepFailed { step: id, error: error.clone(), seconds }).await?;
                Ok(Err(error))
            }
        }
    }

    /// Runs a step to its end; told to stop, it gets [`GRACE`] to finish the call it is in. A panic becomes an error, so
    /// that it unwinds like any other failure.
    async fn attempt(&self, step: &dyn Step, context: &StepContext) -> Result<serde_json::Value, StepError> {
        let work = AssertUnwindSafe(step.run(context)).catch_unwind();
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => Some(ended),
            () = self.cancel.cancelled() => tokio::time::timeout(GRACE, &mut work).await.ok(),
        };
        match ended {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(panicked(panic.as_ref())),
            None => Err(StepError::interrupted()),
        }
    }

    /// Undoes, in reverse, everything that was begun. Answers what could not be undone. An undo that fails does not keep the
    /// others from being tried, unless it is a barrier's: traffic that could not be moved back still needs its servers.
    async fn back(&self) -> Result<Vec<(StepId, ErrorRecord, Vec<Resource>)>, JournalError> {
        let mut left = Vec::new();
        for planned in self.plan.steps.iter().rev() {
            // A step that only looks, waits or removes has planned no undo: there is nothing to journal either.
            let Some(undo) = &planned.undo else { continue };
            if !self.status(&planned.id).needs_undo() {
                continue;
            }
            if let Err((error, resources)) = self.back_one(planned, undo).await? {
                left.push((planned.id.clone(), error, resources));
                if planned.barrier {
                    break;
                }
            }
        }
        Ok(left)
    }

    async fn back_one(
        &self,
        planned: &PlannedStep,
        undo: &str,
    ) -> Result<Result<(), (ErrorRecord, Vec<Resource>)>, JournalError> {
        let id = planned.id.clone();
        self.outlet.keep(What::UndoStarted { step: id.clone(), undo: undo.to_owned() }).await?;
        // An unwind is not interrupted by the request that caused it.
        let context = self.context(&id, CancellationToken::new());
        let mut backoff = UNDO_BACKOFF.into_iter();
        loop {
            let result = match self.steps.step(planned) {
                Ok(step) => AssertUnwindSafe(step.undo(&context))
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => {
                    self.outlet.keep(What::UndoSucceeded { step: id }).await?;
                    return Ok(Ok(()));
                }
                Err(error) => error.record(),
            };
            let Some(pause) = backoff.next() else {
                let resources = context.owned();
                self.outlet
                    .keep(What::UndoFailed { step: id, error: error.clone(), resources: resources.clone() })
                    .await?;
                return Ok(Err((error, resources)));
            };
            context.warn(format!("undoing {id} failed: {}; trying again", error.message), None);
            tokio::time::sleep(pause).await;
        }
    }

    fn context(&self, step: &StepId, cancel: CancellationToken) -> StepContext {
        StepContext { outlet: self.outlet.clone(), plan: self.plan.clone(), step: step.clone(), cancel }
    }

    fn status(&self, step: &StepId) -> Status {
        self.outlet.progress.lock().expect("no panic while progress is held").status(step)
    }

    fn has_passed_the_point_of_no_return(&self) -> bool {
        let first = self.plan.steps.iter().position(|step| step.point_of_no_return);
        first.is_some_and(|first| self.plan.steps[first..].iter().any(|step| self.status(&step.id).needs_undo()))
    }
}

impl From<&StepError> for ErrorRecord {
    fn from(error: &StepError) -> Self {
        error.record()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> StepError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    StepError::new(ErrorKind::Panicked, format!("alcedo itself failed: {text}"))
        .hint("this is a bug in alcedo; please report it with the run's journal")
}
