//! The journal: one object per durable event, `runs/<run>/<seq>.json`, each written only if it is not there yet.
//!
//! **Guarantees.** An event whose append has been answered is never lost and never changed. Two processes cannot both
//! append to one run: whoever loses the race for a sequence number gets [`JournalError::Fenced`] and must stop. What is not
//! the run's own, or is missing from the middle, is recognised when the run is read, and nothing is concluded from it.
//!
//! A run that has not come to its end has a marker, `environments/<environment>/open/<run>`, from before its plan is kept
//! until after its last event: whoever comes next finds what is open without reading every run.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    event::Event,
    ids::RunId,
    plan::{Plan, Stage},
    store::{Store, StoreError},
};

/// How often an append is tried again when the store does not answer, before the run stops.
const ATTEMPTS: u32 = 4;
/// Events that are read at once.
const AT_ONCE: usize = 16;

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
    #[error("{key} was not written by run {run}: {why}")]
    Foreign { key: String, run: RunId, why: String },
    #[error("the journal of run {run} has no event {missing}, although it has later ones")]
    Torn { run: RunId, missing: u64 },
    #[error("there is no run {run}")]
    NoRun { run: RunId },
}

/// One object of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Version of this format. Version 1 was the bare event, which has `v` as well, and is still read.
    v: u32,
    seq: u64,
    /// Which process wrote it: two never write the same bytes.
    writer: String,
    event: Event,
}

impl Entry {
    const FORMAT: u32 = 2;
}

/// The journal of one run, open for appending.
pub struct Journal {
    store: Arc<dyn Store>,
    folder: String,
    marker: String,
    run: RunId,
    writer: String,
    next: u64,
    spent: Duration,
}

/// A run as it is kept.
#[derive(Debug, Clone)]
pub struct Record {
    pub plan: Plan,
    pub events: Vec<Event>,
}

impl Journal {
    /// Begins a run: keeps its plan, which must be new. `writer` names this process among all that may append.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] where a run of this name exists.
    pub async fn begin(store: Arc<dyn Store>, root: &str, plan: &Plan, writer: &str) -> Result<Self, JournalError> {
        let begun = Instant::now();
        let run = plan.run.clone();
        let failed = |source| JournalError::Store { run: run.clone(), source };
        let marker = marker(root, &plan.environment, &run);
        match store.create(&marker, b"{\"v\":1}".to_vec()).await {
            // Our own, whose answer was lost; whether the run is another's, its plan tells.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let folder = folder(root, &run);
        let key = format!("{folder}plan.json");
        let bytes = serde_json::to_vec_pretty(plan).expect("a plan is JSON");
        if !create_or_find(store.as_ref(), &key, bytes).await.map_err(failed)? {
            return Err(JournalError::Fenced { run });
        }
        Ok(Self { store, folder, marker, run, writer: writer.to_owned(), next: 1, spent: begun.elapsed() })
    }

    /// Takes up a run where its journal ends. The first append fences off whoever else had it.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn resume(
        store: Arc<dyn Store>,
        root: &str,
        run: &RunId,
        writer: &str,
    ) -> Result<(Self, Record), JournalError> {
        let record = read(store.as_ref(), root, run).await?;
        let next = record.events.len() as u64 + 1;
        let marker = marker(root, &record.plan.environment, run);
        let journal = Self {
            store,
            folder: folder(root, run),
            marker,
            run: run.clone(),
            writer: writer.to_owned(),
            next,
            spent: Duration::ZERO,
        };
        Ok((journal, record))
    }

    /// Keeps an event. Tried again when the store does not answer: writing the same bytes under the same number twice is
    /// writing them once.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] where another process has written under this number.
    pub async fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        let begun = Instant::now();
        let key = key(&self.folder, self.next);
        let entry = Entry { v: Entry::FORMAT, seq: self.next, writer: self.writer.clone(), event: event.clone() };
        let bytes = serde_json::to_vec(&entry).expect("an event is JSON");
        let created = create_or_find(self.store.as_ref(), &key, bytes).await;
        self.spent += begun.elapsed();
        match created {
            Ok(true) => {}
            Ok(false) => return Err(JournalError::Fenced { run: self.run.clone() }),
            Err(source) => return Err(JournalError::Store { run: self.run.clone(), source }),
        }
        self.next += 1;
        Ok(())
    }

    /// How long this process has waited for the plan and the events to be written.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Takes the marker away: the run has come to its end, and nobody has to look after it.
    ///
    /// # Errors
    /// [`JournalError::Store`]; the run has ended all the same, and whoever finds the marker sees that.
    pub async fn close(&self) -> Result<(), JournalError> {
        remove(self.store.as_ref(), &self.marker)
            .await
            .map_err(|source| JournalError::Store { run: self.run.clone(), source })
    }
}

/// Creates an object, again and again where nobody answers. Answers whether it holds these bytes now.
async fn create_or_find(store: &dyn Store, key: &str, bytes: Vec<u8>) -> Result<bool, StoreError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match store.create(key, bytes.clone()).await {
            Ok(_) => return Ok(true),
            // Ours, if an earlier attempt was written and only its answer was lost.
            Err(StoreError::Conflict { .. }) => match store.read(key).await {
                Ok(there) => return Ok(there.is_some_and(|object| object.bytes == bytes)),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {}
            },
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
    }
}

async fn remove(store: &dyn Store, key: &str) -> Result<(), StoreError> {
    let Some(there) = store.read(key).await? else { return Ok(()) };
    match store.remove(key, &there.tag).await {
        Err(StoreError::Conflict { .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

fn folder(root: &str, run: &RunId) -> String {
    format!("{root}runs/{run}/")
}

/// Where what belongs to a run beside its journal is kept: what was found out about servers that failed.
pub fn evidence_folder(root: &str, run: &RunId) -> String {
    format!("{}evidence/", folder(root, run))
}

/// Where somebody's word on the gate before a stage is kept.
pub fn decision_key(root: &str, run: &RunId, stage: Stage) -> String {
    format!("{}approvals/{stage}.json", folder(root, run))
}

/// Where what the processes of a run have shown is kept, one object a process.
pub fn logs_folder(root: &str, run: &RunId) -> String {
    format!("{}logs/", folder(root, run))
}

/// Where the picture of a run's traffic is kept.
pub fn picture_key(root: &str, run: &RunId) -> String {
    format!("{}pictures/traffic.svg", folder(root, run))
}

fn key(folder: &str, seq: u64) -> String {
    format!("{folder}{seq:06}.json")
}

fn markers(root: &str, environment: &str) -> String {
    format!("{root}environments/{environment}/open/")
}

fn marker(root: &str, environment: &str, run: &RunId) -> String {
    format!("{}{run}", markers(root, environment))
}

/// Reads a run: its plan and all its events in order.
///
/// # Errors
/// There is no such run, or its journal holds what the run has not written or lacks what it has.
pub async fn read(store: &dyn Store, root: &str, run: &RunId) -> Result<Record, JournalError> {
    let failed = |source| JournalError::Store { run: run.clone(), source };
    let folder = folder(root, run);
    let plan_key = format!("{folder}plan.json");
    let plan = store.read(&plan_key).await.map_err(failed)?.ok_or_else(|| JournalError::NoRun { run: run.clone() })?;
    let plan: Plan = serde_json::from_slice(&plan.bytes)
        .map_err(|source| JournalError::Unreadable { key: plan_key.clone(), source })?;
    if plan.run != *run {
        return Err(JournalError::Foreign {
            key: plan_key,
            run: run.clone(),
            why: format!("it is of run {}", plan.run),
        });
    }
    let count = count(&store.list(&folder).await.map_err(failed)?, &folder, run)?;
    let events = (1..=count).map(|seq| read_one(store, &folder, run, seq));
    let events = futures::stream::iter(events).buffered(AT_ONCE).try_collect().await?;
    Ok(Record { plan, events })
}

/// How many events there are, all in a row.
fn count(keys: &[String], folder: &str, run: &RunId) -> Result<u64, JournalError> {
    let mut count = 0;
    for name in keys.iter().filter_map(|key| key.strip_prefix(folder)) {
        if name == "plan.json" || name.contains('/') {
            continue;
        }
        let seq: Option<u64> = name.strip_suffix(".json").filter(|it| it.len() >= 6).and_then(|it| it.parse().ok());
        let Some(seq) = seq else {
            let why = "a run's folder holds its plan and numbered events".to_owned();
            return Err(JournalError::Foreign { key: format!("{folder}{name}"), run: run.clone(), why });
        };
        count += 1;
        // Keys come in order.
        if seq != count {
            return Err(JournalError::Torn { run: run.clone(), missing: count });
        }
    }
    Ok(count)
}

async fn read_one(store: &dyn Store, folder: &str, run: &RunId, seq: u64) -> Result<Event, JournalError> {
    let key = key(folder, seq);
    let object = store.read(&key).await.map_err(|source| JournalError::Store { run: run.clone(), source })?;
    let object = object.ok_or_else(|| JournalError::Torn { run: run.clone(), missing: seq })?;
    let unreadable = |source| JournalError::Unreadable { key: key.clone(), source };
    let value: serde_json::Value = serde_json::from_slice(&object.bytes).map_err(unreadable)?;
    let foreign = |why: String| JournalError::Foreign { key: key.clone(), run: run.clone(), why };
    let event: Event = match value.get("v").and_then(serde_json::Value::as_u64) {
        Some(1) => serde_json::from_value(value).map_err(unreadable)?,
        _ => {
            let entry: Entry = serde_json::from_value(value).map_err(unreadable)?;
            if entry.seq != seq {
                return Err(foreign(format!("it is event {}", entry.seq)));
            }
            entry.event
        }
    };
    match event.run == *run {
        true => Ok(event),
        false => Err(foreign(format!("it is of run {}", event.run))),
    }
}

/// The runs that are kept, newest first.
///
/// # Errors
/// The store's.
pub async fn runs(store: &dyn Store, root: &str) -> Result<Vec<RunId>, StoreError> {
    let names = store.folders(&format!("{root}runs/")).await?;
    let mut runs: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    runs.sort();
    runs.reverse();
    Ok(runs)
}

/// The runs of an environment that have not come to their end, oldest first: one that is at work, those whose process died,
/// those that are stuck.
///
/// # Errors
/// The store's.
pub async fn open_runs(store: &dyn Store, root: &str, environment: &str) -> Result<Vec<RunId>, StoreError> {
    let folder = markers(root, environment);
    let keys = store.list(&folder).await?;
    Ok(keys.iter().filter_map(|key| key.strip_prefix(&folder)?.parse().ok()).collect())
}

/// The same of all environments of an app, in no order that matters.
///
/// # Errors
/// The store's.
pub async fn open_runs_of_all(store: &dyn Store, root: &str) -> Result<Vec<RunId>, StoreError> {
    let keys = store.list(&format!("{root}environments/")).await?;
    Ok(keys.iter().filter_map(|key| key.split_once("/open/")?.1.parse().ok()).collect())
}

/// Takes a run off the list of those that have not come to their end. Its journal stays.
///
/// # Errors
/// The store's.
pub async fn forget(store: &dyn Store, root: &str, environment: &str, run: &RunId) -> Result<(), StoreError> {
    remove(store, &marker(root, environment, run)).await
}
