//! Forward through the plan, and back where a step fails before the point of no return.
//!
//! For each step: journal the intent, do it, journal what it made, journal success. A failure, a panic or a request to
//! stop unwinds in reverse order, journaled in the same way. After the point of no return nothing is undone: the run
//! ends [`Outcome::Stuck`] and says what is left to do.
//!
//! A process that loses the environment's lease, or its journal, stops where it is: it neither goes on nor unwinds, because
//! somebody else may be doing so.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    context::{Outlet, StepContext},
    error::{ErrorKind, ErrorRecord, StepError},
    event::{Event, Outcome, What},
    ids::StepId,
    journal::{Journal, JournalError},
    lock::{Fence, LeaseLost},
    plan::{Plan, PlannedStep},
    recovery,
    resource::Resource,
    secret::Redactor,
    status::{Progress, Status},
    step::{Step, Steps},
};

/// How long a step may go on after it was told to stop. Longer than any single AWS call takes with its retries.
const GRACE: Duration = Duration::from_secs(150);

/// Waits between the attempts of an undo that fails.
pub const UNDO_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];

/// Longest time that a failed step's servers are looked at before they go.
const EXAMINATION: Duration = Duration::from_secs(90);

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

/// Why a process stopped in the middle of a run, leaving it to whoever goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
}

/// What a run stands on.
pub struct Ground {
    pub clock: Arc<dyn Clock>,
    /// Of the environment's lease; `None` where nobody else can be at work.
    pub fence: Option<Fence>,
    /// See [`UNDO_PAUSES`].
    pub undo_pauses: [Duration; 3],
    /// What events and journal are cleaned of.
    pub redactor: Redactor,
}

/// Executes one plan.
pub struct Runner<'a> {
    plan: Arc<Plan>,
    steps: &'a dyn Steps,
    outlet: Arc<Outlet>,
    fence: Option<Fence>,
    undo_pauses: [Duration; 3],
    cancel: CancellationToken,
}

impl<'a> Runner<'a> {
    /// `events` is read by whoever shows the run; `cancel` tells it to stop and unwind.
    pub fn new(
        plan: Plan,
        steps: &'a dyn Steps,
        journal: Journal,
        progress: Progress,
        ground: Ground,
        events: mpsc::UnboundedSender<Event>,
        cancel: CancellationToken,
    ) -> Self {
        let outlet = Outlet {
            run: plan.run.clone(),
            journal: Mutex::new(journal),
            progress: std::sync::Mutex::new(progress),
            events,
            clock: ground.clock.clone(),
            redactor: ground.redactor.clone(),
        };
        let Ground { fence, undo_pauses, .. } = ground;
        Self { plan: Arc::new(plan), steps, outlet: Arc::new(outlet), fence, undo_pauses, cancel }
    }

    /// Runs to an end. The first event says whether it begins or goes on.
    ///
    /// # Errors
    /// The journal could not be kept, or another process took the run: this process stops where it is.
    pub async fn run(&self, opening: What, direction: Direction) -> Result<Ending, Halt> {
        self.go(opening, direction, &[]).await
    }

    /// Goes on with a run that another process began, forward; first these steps are undone, to be done anew. Each says why.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub async fn resume(&self, opening: What, renewals: &[(StepId, String)]) -> Result<Ending, Halt> {
        self.go(opening, Direction::Forward, renewals).await
    }

    /// Ends a run that nothing is to be done about any more.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub async fn write_off(&self, opening: What) -> Result<Ending, Halt> {
        let begun = Instant::now();
        self.outlet.keep(opening).await?;
        self.end(Outcome::Superseded, None, Vec::new(), begun).await
    }

    async fn go(&self, opening: What, direction: Direction, renewals: &[(StepId, String)]) -> Result<Ending, Halt> {
        let begun = Instant::now();
        self.outlet.keep(opening).await?;
        let failure = match direction {
            Direction::Forward => match self.renew(renewals).await? {
                None => self.forward().await?,
                failure => failure,
            },
            Direction::Back => Some((None, ErrorRecord::from(&StepError::interrupted()))),
        };
        let (outcome, failure, left) = match failure {
            None => (Outcome::Done, None, Vec::new()),
            Some((step, error)) if self.has_passed_the_point_of_no_return() => {
                (Outcome::Stuck, step.map(|step| (step, error)), Vec::new())
            }
            Some((step, error)) if direction == Direction::Forward && self.is_to_stand() => {
                self.examine(step.as_ref(), &error).await?;
                (Outcome::Stuck, step.map(|step| (step, error)), Vec::new())
            }
            Some((step, error)) => {
                // Traffic first, before the marks of a hold, the preview or anything else that came with it; and what failed is
                // looked at when nobody is sent there any more.
                let barrier = self.plan.steps.iter().position(|step| step.barrier).unwrap_or(self.plan.steps.len());
                let (made, moved) = self.plan.steps.split_at(barrier);
                let (traffic, after) = moved.split_at(moved.len().min(1));
                let mut left = self.back(traffic).await?;
                let is_back = left.is_empty();
                self.examine(step.as_ref(), &error).await?;
                // Traffic that could not be moved back still needs its servers, and the hold the way back.
                if is_back {
                    left.extend(self.back(after).await?);
                    left.extend(self.back(made).await?);
                }
                let outcome = match (left.is_empty(), error.kind) {
                    (false, _) => Outcome::Stuck,
                    (true, ErrorKind::Interrupted) => Outcome::Interrupted,
                    (true, _) => Outcome::Unwound,
                };
                (outcome, step.map(|step| (step, error)), left)
            }
        };
        self.end(outcome, failure, left, begun).await
    }

    async fn end(
        &self,
        outcome: Outcome,
        failure: Option<(StepId, ErrorRecord)>,
        left: Vec<(StepId, ErrorRecord, Vec<Resource>)>,
        begun: Instant,
    ) -> Result<Ending, Halt> {
        let seconds = begun.elapsed().as_secs_f64();
        let journal_seconds = self.outlet.journal.lock().await.spent().as_secs_f64();
        self.outlet.keep(What::RunFinished { outcome, seconds, journal_seconds }).await?;
        if outcome != Outcome::Stuck
            && let Err(error) = self.outlet.journal.lock().await.close().await
        {
            // Whoever finds it reads in the journal that there is nothing to do.
            let warning = format!("the run has ended, and is still listed as open: {error}");
            self.outlet.show(What::Warning { message: warning, hint: None });
        }
        Ok(Ending { outcome, failure, left, seconds })
    }

    /// Whether this process may still change anything.
    fn check(&self) -> Result<(), LeaseLost> {
        self.fence.as_ref().map_or(Ok(()), Fence::check)
    }

    /// Ends when this process may no longer change anything, for good.
    async fn lost(&self) {
        match &self.fence {
            Some(fence) => fence.lost().cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Undoes steps in reverse, so that they can be done anew. An undo that fails fails the run.
    async fn renew(&self, renewals: &[(StepId, String)]) -> Result<Option<(Option<StepId>, ErrorRecord)>, Halt> {
        for planned in self.plan.steps.iter().rev() {
            let Some((id, why)) = renewals.iter().find(|(id, _)| *id == planned.id) else { continue };
            self.check()?;
            self.outlet.keep(What::StepRenewing { step: id.clone(), why: why.clone() }).await?;
            if planned.undo.is_some()
                && let Err(error) = self.undo_with_patience(planned).await?
            {
                return Ok(Some((Some(id.clone()), error)));
            }
            self.outlet.keep(What::StepRenewed { step: id.clone() }).await?;
        }
        Ok(None)
    }

    async fn examine(&self, step: Option<&StepId>, error: &ErrorRecord) -> Result<(), Halt> {
        let failed = step.and_then(|step| self.plan.step(step));
        let (Some(failed), false) = (failed, error.kind == ErrorKind::Interrupted) else { return Ok(()) };
        let context = self.context(&failed.id, self.cancel.clone());
        let work = AssertUnwindSafe(self.steps.examine(failed, &context)).catch_unwind();
        tokio::select! {
            biased;
            ended = tokio::time::timeout(EXAMINATION, work) => {
                if !matches!(ended, Ok(Ok(()))) {
                    context.warn("what failed could not be looked at in time, or in full", None);
                }
                Ok(())
            }
            // Told to stop: what was failing goes without a look.
            () = self.cancel.cancelled() => Ok(()),
            () = self.lost() => Err(LeaseLost.into()),
        }
    }

    /// Does every step that has not succeeded. Answers the first failure.
    async fn forward(&self) -> Result<Option<(Option<StepId>, ErrorRecord)>, Halt> {
        for planned in &self.plan.steps {
            if self.status(&planned.id) == Status::Succeeded {
                continue;
            }
            if self.cancel.is_cancelled() {
                return Ok(Some((Some(planned.id.clone()), StepError::interrupted().record())));
            }
            self.check()?;
            if let Err(error) = self.forward_one(planned).await? {
                return Ok(Some((Some(planned.id.clone()), error)));
            }
        }
        Ok(None)
    }

    async fn forward_one(&self, planned: &PlannedStep) -> Result<Result<(), ErrorRecord>, Halt> {
        let begun = Instant::now();
        let id = planned.id.clone();
        self.outlet
            .keep(What::StepStarted {
                step: id.clone(),
                stage: planned.stage,
                does: planned.does.clone(),
                token: self.context(&id, self.cancel.clone()).token(),
            })
            .await?;
        let context = self.context(&id, self.cancel.clone());
        let result = match self.steps.step(planned) {
            Ok(step) => tokio::select! {
                // What is done is known, although the lease was lost in the same moment.
                biased;
                result = self.attempt(step.as_ref(), &context) => result,
                () = self.lost() => return Err(LeaseLost.into()),
            },
            Err(error) => Err(error),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(output) => {
                self.outlet.keep(What::StepSucceeded { step: id, output, seconds }).await?;
                Ok(Ok(()))
            }
            // Nothing was done that could be undone, and nothing may be.
            Err(error) if error.kind == ErrorKind::LeaseLost => Err(LeaseLost.into()),
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
            biased;
            ended = &mut work => Some(ended),
            () = self.cancel.cancelled() => tokio::time::timeout(GRACE, &mut work).await.ok(),
        };
        match ended {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(panicked(panic.as_ref())),
            None => Err(StepError::interrupted()),
        }
    }

    /// Whether a failure leaves the traffic where it is, as the plan says: once the change that moves it was begun.
    fn is_to_stand(&self) -> bool {
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        self.plan.freeze
            && recovery::has_begun_to_move(&self.plan, &progress)
            && !recovery::is_unwinding(&self.plan, &progress)
    }

    /// Undoes, in reverse, those of these steps that were begun. Answers what could not be undone; it does not keep the others
    /// from being tried.
    async fn back(&self, steps: &[PlannedStep]) -> Result<Vec<(StepId, ErrorRecord, Vec<Resource>)>, Halt> {
        let mut left = Vec::new();
        for planned in steps.iter().rev() {
            // A step that only looks, waits or removes has planned no undo: there is nothing to journal either.
            let Some(undo) = &planned.undo else { continue };
            if !self.status(&planned.id).needs_undo() {
                continue;
            }
            if let Err((error, resources)) = self.back_one(planned, undo).await? {
                left.push((planned.id.clone(), error, resources));
            }
        }
        Ok(left)
    }

    async fn back_one(
        &self,
        planned: &PlannedStep,
        undo: &str,
    ) -> Result<Result<(), (ErrorRecord, Vec<Resource>)>, Halt> {
        let id = planned.id.clone();
        self.check()?;
        self.outlet.keep(What::UndoStarted { step: id.clone(), undo: undo.to_owned() }).await?;
        match self.undo_with_patience(planned).await? {
            Ok(()) => {
                self.outlet.keep(What::UndoSucceeded { step: id }).await?;
                Ok(Ok(()))
            }
            Err(error) => {
                let resources = self.context(&id, CancellationToken::new()).owned();
                let what = What::UndoFailed { step: id, error: error.clone(), resources: resources.clone() };
                self.outlet.keep(what).await?;
                Ok(Err((error, resources)))
            }
        }
    }

    /// Undoes a step, again after a pause where that fails.
    async fn undo_with_patience(&self, planned: &PlannedStep) -> Result<Result<(), ErrorRecord>, Halt> {
        // An unwind is not interrupted by the request that caused it.
        let context = self.context(&planned.id, CancellationToken::new());
        let mut backoff = self.undo_pauses.into_iter();
        loop {
            self.check()?;
            let result = match self.steps.step(planned) {
                Ok(step) => tokio::select! {
                    biased;
                    undone = AssertUnwindSafe(step.undo(&context)).catch_unwind() => {
                        undone.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
                    }
                    () = self.lost() => return Err(LeaseLost.into()),
                },
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => return Ok(Ok(())),
                Err(error) if error.kind == ErrorKind::LeaseLost => return Err(LeaseLost.into()),
                Err(error) => error.record(),
            };
            let Some(pause) = backoff.next() else { return Ok(Err(error)) };
            context.warn(format!("undoing {} failed: {}; trying again", planned.id, error.message), None);
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
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        recovery::has_passed_the_point_of_no_return(&self.plan, &progress)
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
