//! The journal: one object per durable event, `runs/<run>/<seq>.json`, each written only if it is not there yet.
//!
//! **Guarantees.** An event whose append has been answered is never lost and never changed. Two processes cannot both
//! append to one run: whoever loses the race for a sequence number gets [`JournalError::Fenced`] and must stop.

use std::sync::Arc;

use crate::{
    event::Event,
    ids::RunId,
    plan::Plan,
    store::{Store, StoreError},
};

/// How often an append is tried again when the store does not answer, before the run stops.
const ATTEMPTS: u32 = 4;

/// Why an event could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("another process goes on with run {run}; this one stops")]
    Fenced { run: RunId },
    #[error("the journal of run {run} could not be written or read")]
    Store {
        run: RunId,
        #[source]
        source: StoreError,
    },
    #[error("{key} is not an event or a plan that this version of alcedo reads")]
    Unreadable {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("there is no run {run}")]
    NoRun { run: RunId },
}

/// The journal of one run, open for appending.
pub struct Journal {
    store: Arc<dyn Store>,
    folder: String,
    run: RunId,
    next: u64,
}

/// A run as it is kept.
#[derive(Debug, Clone)]
pub struct Record {
    pub plan: Plan,
    pub events: Vec<Event>,
}

impl Journal {
    /// Begins a run: keeps its plan, which must be new.
    pub async fn begin(store: Arc<dyn Store>, root: &str, plan: &Plan) -> Result<Self, JournalError> {
        let folder = folder(root, &plan.run);
        let bytes = serde_json::to_vec_pretty(plan).expect("a plan is JSON");
        store.create(&format!("{folder}plan.json"), bytes).await.map_err(|error| match error {
            StoreError::Conflict { .. } => JournalError::Fenced { run: plan.run.clone() },
            source => JournalError::Store { run: plan.run.clone(), source },
        })?;
        Ok(Self { store, folder, run: plan.run.clone(), next: 1 })
    }

    /// Takes up a run where its journal ends. The first append fences off whoever else had it.
    pub async fn resume(store: Arc<dyn Store>, root: &str, run: &RunId) -> Result<(Self, Record), JournalError> {
        let record = read(store.as_ref(), root, run).await?;
        let next = record.events.len() as u64 + 1;
        Ok((Self { store, folder: folder(root, run), run: run.clone(), next }, record))
    }

    /// Keeps an event. Tried again when the store does not answer: writing the same bytes under the same number twice is
    /// writing them once.
    pub async fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        let key = format!("{}{:06}.json", self.folder, self.next);
        let bytes = serde_json::to_vec(event).expect("an event is JSON");
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.store.create(&key, bytes.clone()).await {
                Ok(_) => break,
                Err(StoreError::Conflict { .. }) => {
                    // Ours, if an earlier attempt was written and only its answer was lost.
                    let there = self.store.read(&key).await.map_err(|source| self.failed(source))?;
                    if there.is_some_and(|object| object.bytes == bytes) {
                        break;
                    }
                    return Err(JournalError::Fenced { run: self.run.clone() });
                }
                Err(source) if attempt == ATTEMPTS => return Err(self.failed(source)),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200 << attempt)).await,
            }
        }
        self.next += 1;
        Ok(())
    }

    fn failed(&self, source: StoreError) -> JournalError {
        JournalError::Store { run: self.run.clone(), source }
    }
}

fn folder(root: &str, run: &RunId) -> String {
    format!("{root}runs/{run}/")
}

/// Reads a run: its plan and its events in order, up to the first gap.
pub async fn read(store: &dyn Store, root: &str, run: &RunId) -> Result<Record, JournalError> {
    let failed = |source| JournalError::Store { run: run.clone(), source };
    let folder = folder(root, run);
    let key = format!("{folder}plan.json");
    let plan = store.read(&key).await.map_err(failed)?.ok_or_else(|| JournalError::NoRun { run: run.clone() })?;
    let plan: Plan = serde_json::from_slice(&plan.bytes).map_err(|source| JournalError::Unreadable { key, source })?;
    let mut events = Vec::new();
    for seq in 1.. {
        let key = format!("{folder}{seq:06}.json");
        let Some(object) = store.read(&key).await.map_err(failed)? else { break };
        let event = serde_json::from_slice(&object.bytes).map_err(|source| JournalError::Unreadable { key, source })?;
        events.push(event);
    }
    Ok(Record { plan, events })
}

/// The runs that are kept, newest first.
pub async fn runs(store: &dyn Store, root: &str) -> Result<Vec<RunId>, StoreError> {
    let names = store.folders(&format!("{root}runs/")).await?;
    let mut runs: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    runs.sort();
    runs.reverse();
    Ok(runs)
}
