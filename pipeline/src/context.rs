//! What a step may touch while it runs or is undone.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    error::{ErrorKind, StepError},
    event::{Event, Unit, What},
    ids::{RunId, StepId},
    journal::{Journal, JournalError},
    plan::Plan,
    resource::Resource,
    secret::Redactor,
    status::Progress,
};

/// The run's outward side: journal and event stream. Shared by the runner and the step that runs.
pub(crate) struct Outlet {
    pub(crate) run: RunId,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) progress: std::sync::Mutex<Progress>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Nothing leaves with a secret in it.
    pub(crate) redactor: Redactor,
}

impl Outlet {
    /// Journals a durable event, then shows it.
    pub(crate) async fn keep(&self, what: What) -> Result<(), JournalError> {
        let event = Event::new(&self.run, self.clock.now(), self.redactor.clean_event(what));
        self.journal.lock().await.append(&event).await?;
        let applied = self.progress.lock().expect("no panic while progress is held").apply(&event);
        debug_assert!(applied.is_ok(), "{applied:?}");
        // Nobody listening is no reason to stop: the journal has it.
        let _ = self.events.send(event);
        Ok(())
    }

    pub(crate) fn show(&self, what: What) {
        let _ = self.events.send(Event::new(&self.run, self.clock.now(), self.redactor.clean_event(what)));
    }
}

/// What a step is handed.
pub struct StepContext {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) step: StepId,
    pub(crate) cancel: CancellationToken,
}

impl StepContext {
    pub fn run(&self) -> &RunId {
        &self.plan.run
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn step(&self) -> &StepId {
        &self.step
    }

    /// The client token of this step's creating call.
    pub fn token(&self) -> String {
        self.outlet.progress.lock().expect("no panic while progress is held").token(&self.plan.run, &self.step)
    }

    /// When the step was begun for the first time, by whichever process.
    pub fn began(&self) -> Timestamp {
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        progress.steps.get(&self.step).and_then(|state| state.began).unwrap_or_else(|| self.now())
    }

    pub fn now(&self) -> Timestamp {
        self.outlet.clock.now()
    }

    /// Ends when the run is told to stop. A step ends its waits on it; a call that changes something is let finish.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// What an earlier step answered.
    ///
    /// # Errors
    /// The step has not succeeded, or answered something else: a bug in the plan.
    pub fn output<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        self.maybe_output(step)?.ok_or_else(|| {
            StepError::new(
                ErrorKind::Failed,
                format!("step {} needs what step {step} made, which has not run", self.step),
            )
        })
    }

    /// What an earlier step answered, or `None` where it has not succeeded.
    pub fn maybe_output<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, StepError> {
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        let Some(output) = progress.steps.get(&StepId::from(step)).and_then(|state| state.output.clone()) else {
            return Ok(None);
        };
        drop(progress);
        serde_json::from_value(output).map(Some).map_err(|error| {
            StepError::new(ErrorKind::Failed, format!("what step {step} made cannot be read")).because(error)
        })
    }

    /// Resources that this step is known to own, over all its attempts.
    pub fn owned(&self) -> Vec<Resource> {
        self.owned_by(self.step.as_str())
    }

    /// Resources that another step of the run is known to own.
    pub fn owned_by(&self, step: &str) -> Vec<Resource> {
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        progress.steps.get(&StepId::from(step)).map(|state| state.resources.clone()).unwrap_or_default()
    }

    /// Journals a resource the moment it exists.
    pub async fn own(&self, resource: Resource) -> Result<(), StepError> {
        self.own_all(vec![resource]).await
    }

    /// The same for all that one call has made.
    pub async fn own_all(&self, resources: Vec<Resource>) -> Result<(), StepError> {
        let mut resources = resources.into_iter();
        let Some(resource) = resources.next() else { return Ok(()) };
        let what = What::StepOwned { step: self.step.clone(), resource, more: resources.collect() };
        self.outlet
            .keep(what)
            .await
            .map_err(|error| StepError::new(ErrorKind::Service, "a new resource could not be journaled").because(error))
    }

    /// Shows a line that something has printed.
    pub fn output_line(&self, line: impl Into<String>) {
        self.outlet.show(What::Output { step: self.step.clone(), line: line.into() });
    }

    /// The same as a function, for callbacks that outlive a borrow of the context.
    pub fn line_sink(&self) -> impl Fn(String) + Send + Sync + 'static {
        let (outlet, step) = (self.outlet.clone(), self.step.clone());
        move |line| outlet.show(What::Output { step: step.clone(), line })
    }

    pub fn progress(&self, done: u64, total: u64, unit: Unit) {
        self.outlet.show(What::Progress { step: self.step.clone(), done, total, unit });
    }

    /// Says what a wait sees now.
    pub fn waiting(&self, status: impl Into<String>) {
        self.outlet.show(What::Waiting { step: self.step.clone(), status: status.into() });
    }

    /// Says what a server is at now.
    pub fn server(&self, server: &str, state: &str, detail: Option<&str>) {
        self.outlet.show(What::Server {
            step: self.step.clone(),
            server: server.to_owned(),
            state: state.to_owned(),
            detail: detail.map(str::to_owned),
        });
    }

    pub fn warn(&self, message: impl Into<String>, hint: Option<String>) {
        self.outlet.show(What::Warning { message: message.into(), hint });
    }

    /// Shows the result of one check.
    pub fn checked(&self, target: &str, check: &str, passed: bool, detail: &str, seconds: f64) {
        self.outlet.show(What::Checked {
            step: self.step.clone(),
            target: target.to_owned(),
            check: check.to_owned(),
            passed,
            detail: detail.to_owned(),
            seconds,
        });
    }

    /// Outputs of every step that has succeeded.
    pub fn outputs(&self) -> BTreeMap<StepId, serde_json::Value> {
        let progress = self.outlet.progress.lock().expect("no panic while progress is held");
        progress.steps.iter().filter_map(|(id, state)| Some((id.clone(), state.output.clone()?))).collect()
    }
}
