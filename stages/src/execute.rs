//! One run from lock to release.

use std::os::unix::fs::MetadataExt;

use alcedo_pipeline::{
    event::{Event, What},
    ids::RunId,
    journal::{Journal, JournalError},
    lock::{Lock, LockError},
    plan::Plan,
    runner::{Direction, Ending, Runner},
    status::{IllegalChange, Progress},
    store::StoreError,
    version::Version,
};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    action::SiteSteps,
    facts::{self, Facts, FactsError, Request},
    planner::{self, PlanError, Scope},
    publish,
    site::Site,
    sweep,
    workshop::Workshop,
};

/// Why a run did not come to an [`Ending`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the journal of the run contradicts itself")]
    Illegal(#[from] IllegalChange),
    #[error("the bucket could not be used")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Workshop(#[from] alcedo_pipeline::error::StepError),
}

/// Observes and plans; changes nothing.
pub async fn plan(site: &Site, request: &Request) -> Result<(Plan, Facts), RunError> {
    let now = Timestamp::now();
    let facts = facts::observe(site, request).await?;
    let plan =
        planner::plan(&scope(site, RunId::new(now, rand::random()), now, free_version(&facts, now)), request, &facts)?;
    Ok((plan, facts))
}

/// A run that holds the environment's lock and has its plan.
pub struct Prepared {
    pub plan: Plan,
    pub facts: Facts,
    site: Site,
    workshop: Workshop,
    lock: Lock,
}

/// Takes the lock, then observes and plans under it, so that nothing planned can be made stale by another run.
pub async fn prepare(site: &Site, request: &Request, reason: &str) -> Result<Prepared, RunError> {
    // Before anything is taken that would have to be given back.
    let workshop = Workshop::open()?;
    let now = Timestamp::now();
    let run = RunId::new(now, rand::random());
    let lock = Lock::acquire(site.store.clone(), &site.lock_key(), &run, &holder(), reason).await?;
    match prepare_locked(site, request, run, now).await {
        Ok((plan, facts)) => Ok(Prepared { plan, facts, site: site.clone(), workshop, lock }),
        Err(error) => {
            lock.release().await?;
            Err(error)
        }
    }
}

async fn prepare_locked(site: &Site, request: &Request, run: RunId, now: Timestamp) -> Result<(Plan, Facts), RunError> {
    let swept = sweep::leases(site).await?;
    let facts = facts::observe(site, request).await?;
    let mut version = free_version(&facts, now);
    loop {
        let mut plan = planner::plan(&scope(site, run.clone(), now, version), request, &facts)?;
        plan.notes.splice(0..0, swept.iter().map(|what| format!("sweep: {what}")));
        let builds = plan.steps.iter().any(|step| step.id.as_str() == crate::build::RUN);
        if !builds {
            return Ok((plan, facts));
        }
        // Another environment's run may build in the same second: whoever reserves the name first has it.
        match publish::reserve(site, version, run.as_str()).await {
            Ok(()) => return Ok((plan, facts)),
            Err(StoreError::Conflict { .. }) => version = version.next(),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Prepared {
    /// Goes through the plan. A lock that is lost on the way stops the run before its next change.
    pub async fn run(
        self,
        events: mpsc::UnboundedSender<Event>,
        cancel: CancellationToken,
    ) -> Result<Ending, RunError> {
        let Self { plan, site, workshop, lock, .. } = self;
        let result = run_locked(&site, plan, workshop, &lock, events, cancel).await;
        // A lease that cannot be given back ends by itself; the run's own ending is the news.
        let _ = lock.release().await;
        result
    }

    /// Gives the lock and a reserved version back without doing anything.
    pub async fn abandon(self) -> Result<(), RunError> {
        publish::give_back(&self.site, self.plan.version, self.plan.run.as_str()).await?;
        Ok(self.lock.release().await?)
    }
}

async fn run_locked(
    site: &Site,
    plan: Plan,
    workshop: Workshop,
    lock: &Lock,
    events: mpsc::UnboundedSender<Event>,
    cancel: CancellationToken,
) -> Result<Ending, RunError> {
    let steps = SiteSteps { site: site.clone(), workshop };
    let journal = Journal::begin(site.store.clone(), &site.root, &plan).await?;
    let opening = What::RunStarted {
        app: plan.app.clone(),
        environment: plan.environment.clone(),
        purpose: plan.purpose,
        version: plan.version,
        host: holder(),
        tool: crate::TOOL.to_owned(),
    };
    let stop = cancel.child_token();
    let runner = Runner::new(plan, &steps, journal, Progress::default(), events, stop.clone());
    let watch = async {
        lock.lost().cancelled().await;
        stop.cancel();
        std::future::pending::<()>().await
    };
    tokio::select! {
        ending = runner.run(opening, Direction::Forward) => Ok(ending?),
        () = watch => unreachable!("the watch never ends"),
    }
}

fn scope(site: &Site, run: RunId, now: Timestamp, new_version: Version) -> Scope<'_> {
    Scope { pipeline: &site.pipeline, environment: &site.environment, root: &site.root, run, now, new_version }
}

/// The version of this second, or the first after it that is free.
fn free_version(facts: &Facts, now: Timestamp) -> Version {
    let mut version = Version::at(now);
    while facts.versions.contains(&version) {
        version = version.next();
    }
    version
}

/// `user@host`, as far as the machine tells.
pub fn holder() -> String {
    let read = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let user = read(&["USER", "LOGNAME"]).or_else(user_of_process).unwrap_or_else(|| "unknown".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").map(|text| text.trim().to_owned());
    format!("{user}@{}", host.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into()))
}

/// The name that the machine's own list has for whoever runs this process; the number where it has none.
fn user_of_process() -> Option<String> {
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = list.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    Some(named.unwrap_or(id))
}
