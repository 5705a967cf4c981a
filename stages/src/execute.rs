//! One run from lock to release.

use std::{path::PathBuf, time::Duration};

use alcedo_pipeline::{
    error::StepError,
    event::{Event, Outcome, What},
    ids::RunId,
    journal::{Journal, JournalError},
    lock::{Claim, Ended, Lease, LeaseLost, Lock, LockError},
    plan::Plan,
    process::Process,
    recovery::Refusal,
    runner::{Direction, Ending, Ground, Halt, Runner, UNDO_PAUSES},
    status::{IllegalChange, Progress, Status},
    store::StoreError,
    version::Version,
};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    action::{Action, SiteSteps},
    facts::{self, Facts, FactsError, Request},
    planner::{self, PlanError, Scope},
    publish,
    recover::{self, Taken},
    secrets,
    site::Site,
    sweep,
    workshop::Workshop,
};

/// How long a run that is taken up waits for the parameters that what it shows is cleaned of.
const SHADING: Duration = Duration::from_secs(5);

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
    #[error("run {run} was stopped in the middle")]
    LeaseLost {
        run: RunId,
        #[source]
        source: LeaseLost,
    },
    #[error("the journal of run {run} contradicts itself")]
    Illegal {
        run: RunId,
        #[source]
        source: IllegalChange,
    },
    #[error("the bucket could not be used")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("run {run} cannot be taken up")]
    Refused {
        run: RunId,
        #[source]
        source: Refusal,
    },
    #[error("run {run} of environment {theirs} is not of {ours}")]
    OtherEnvironment { run: RunId, theirs: String, ours: String },
    #[error("there is no run of {environment} to go on with: every one has come to its end")]
    NothingOpen { environment: String },
    #[error("run {run} is stuck, and has to be finished or undone before another can begin")]
    StuckBefore { run: RunId },
    #[error("stopped before anything was changed")]
    Stopped,
}

impl RunError {
    pub(crate) fn of_halt(halt: Halt, run: &RunId) -> Self {
        match halt {
            Halt::Journal(error) => Self::Journal(error),
            Halt::LeaseLost(source) => Self::LeaseLost { run: run.clone(), source },
        }
    }
}

/// What is to be known while a run is being prepared.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Somebody else holds the environment, and is waited for.
    Waiting(Box<Lease>),
    /// The lock of a process that died was taken over.
    TookOver(Box<Lease>, Ended),
    /// A run that had not come to its end is being brought to one.
    Settling {
        run: RunId,
        direction: Direction,
    },
    Settled {
        run: RunId,
        outcome: Outcome,
    },
    /// Something that a run that died had left is gone.
    Swept(String),
}

/// How a run is wanted.
pub struct Order<'a> {
    /// For whoever finds the environment held: `deploy`.
    pub reason: &'a str,
    /// How long to wait for whoever holds it.
    pub patience: Duration,
    /// Ends when somebody wants it no longer.
    pub stop: &'a CancellationToken,
    pub tell: &'a (dyn Fn(Notice) + Send + Sync),
}

/// Observes and plans; changes nothing.
pub async fn plan(site: &Site, request: &Request) -> Result<(Plan, Facts), RunError> {
    let now = site.now();
    let facts = facts::observe(site, request).await?;
    let scope = scope(site, new_run(site, now), now, free_version(&facts, now));
    let plan = planner::plan(&scope, request, &facts)?;
    Ok((plan, facts))
}

/// A run that holds the environment's lock and has its plan.
pub struct Prepared {
    pub plan: Plan,
    work: Work,
    hands: Hands,
    lock: Lock,
}

/// What is to be done with the plan.
pub(crate) enum Work {
    Begin,
    Go(Box<Taken>),
}

/// What a run works with.
pub(crate) struct Hands {
    /// Where the journal is kept: as long as the store answers, whoever holds the run.
    pub plain: Site,
    /// Nothing is changed through it without the lease.
    pub guarded: Site,
    pub workshop: Workshop,
}

/// Takes the lock, settles what is open, then observes and plans under it, so that nothing planned can be made stale by
/// another run.
///
/// # Errors
/// Nothing of the run was begun; the lock was given back.
pub async fn prepare(site: &Site, request: &Request, order: &Order<'_>) -> Result<Prepared, RunError> {
    // Before anything is taken that would have to be given back.
    let workshop = Workshop::open()?;
    let now = site.now();
    let run = new_run(site, now);
    let lock = acquire(site, &run, order).await?;
    let hands = Hands { plain: site.clone(), guarded: site.guarded_by(lock.fence()), workshop };
    let prepared = match prepare_locked(&hands, &lock, request, run, now, order).await {
        Ok(plan) => Prepared { plan, work: Work::Begin, hands, lock },
        Err(error) => {
            lock.release().await?;
            return Err(error);
        }
    };
    // A rollback does not wait for what it only hides.
    match find_secrets(&prepared.hands, &prepared.plan, &Progress::default(), Duration::ZERO).await {
        Ok(()) => Ok(prepared),
        Err(error) => {
            prepared.abandon().await?;
            Err(error)
        }
    }
}

/// What servers are still to be handed. A run that hands nothing over needs none of them, and must not fail for want of one:
/// it only learns, as far as it can without asking, what is not to be printed.
async fn find_secrets(hands: &Hands, plan: &Plan, progress: &Progress, patience: Duration) -> Result<(), RunError> {
    let steps = plan.steps.iter().filter(|step| progress.status(&step.id) != Status::Succeeded);
    let mut actions = steps.filter_map(|step| serde_json::from_value::<Action>(step.action.clone()).ok());
    let wanted = actions.find_map(|action| match action {
        Action::HandOverSecrets(step) => Some(step.sources),
        _ => None,
    });
    match wanted {
        // A plan is read from the bucket; which of this machine's variables and files leave it is the file's to say.
        Some(sources) if sources != hands.plain.pipeline.secrets => {
            return Err(StepError::failed("the run was planned with other secrets than the file names")
                .hint("resume it with the file as it was, or roll it back and deploy again")
                .into());
        }
        Some(sources) => hands.workshop.keep_secrets(secrets::find(&hands.plain, &sources).await?),
        None => secrets::shade(&hands.plain, patience).await,
    }
    Ok(())
}

/// Takes up a run that has not come to its end: the newest, where none is named.
///
/// # Errors
/// It cannot be taken up in this way; the lock was given back.
pub async fn take_up(
    site: &Site,
    run: Option<&RunId>,
    wish: alcedo_pipeline::recovery::Wish,
    order: &Order<'_>,
) -> Result<TakenUp, RunError> {
    let workshop = Workshop::open()?;
    let run = match run {
        Some(run) => run.clone(),
        None => recover::newest_open(site).await?,
    };
    let lock = acquire(site, &run, order).await?;
    let hands = Hands { plain: site.clone(), guarded: site.guarded_by(lock.fence()), workshop };
    match recover::take(&hands, &run, wish).await {
        Ok(recover::Found::Ended(plan, outcome)) => {
            lock.release().await?;
            Ok(TakenUp::Ended(Box::new(plan), outcome))
        }
        Ok(recover::Found::Open(plan, taken)) => match find_secrets_to_go_on(&hands, &plan, &taken).await {
            Ok(()) => Ok(TakenUp::Ready(Box::new(Prepared { plan, work: Work::Go(taken), hands, lock }))),
            Err(error) => {
                lock.release().await?;
                Err(error)
            }
        },
        // Its process died before it had kept its plan, and so before it did anything.
        Err(RunError::Journal(JournalError::NoRun { .. })) if recover::forget_what_never_began(site, &run).await? => {
            lock.release().await?;
            Ok(TakenUp::NeverBegan(run))
        }
        Err(error) => {
            lock.release().await?;
            Err(error)
        }
    }
}

async fn find_secrets_to_go_on(hands: &Hands, plan: &Plan, taken: &Taken) -> Result<(), RunError> {
    match &taken.course {
        recover::Course::Forward { renewals } => {
            let mut progress = taken.progress.clone();
            // A step that is done anew needs again what it was given.
            renewals.iter().for_each(|(step, _)| drop(progress.steps.remove(step)));
            find_secrets(hands, plan, &progress, SHADING).await
        }
        recover::Course::Back | recover::Course::WriteOff => {
            secrets::shade(&hands.plain, SHADING).await;
            Ok(())
        }
    }
}

/// A run that was asked for by its name.
pub enum TakenUp {
    /// There is nothing to do.
    Ended(Box<Plan>, Outcome),
    /// There was nothing to do, and the run is off the list of those that are open.
    NeverBegan(RunId),
    Ready(Box<Prepared>),
}

/// Holds the environment while something is done that is no run.
///
/// # Errors
/// Somebody else holds it, or the work's own.
pub async fn holding<T>(
    site: &Site,
    order: &Order<'_>,
    work: impl AsyncFnOnce(&Site) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let lock = acquire(site, &new_run(site, site.now()), order).await?;
    let done = work(&site.guarded_by(lock.fence())).await;
    lock.release().await?;
    done
}

async fn acquire(site: &Site, run: &RunId, order: &Order<'_>) -> Result<Lock, RunError> {
    let claim = Claim {
        run: run.clone(),
        holder: holder(),
        reason: order.reason.to_owned(),
        nonce: format!("{:016x}", site.random()),
        process: Process::current(),
    };
    let key = site.lock_key();
    let waiting = |lease: &Lease| (order.tell)(Notice::Waiting(Box::new(lease.clone())));
    let lock = tokio::select! {
        biased;
        lock = Lock::acquire_within(site.store.clone(), &key, &claim, site.clock(), order.patience, waiting) => lock?,
        // What a call under way may still write ends by itself, or is found to be a dead process's.
        () = order.stop.cancelled() => return Err(RunError::Stopped),
    };
    if let Some((lease, why)) = &lock.taken_over {
        (order.tell)(Notice::TookOver(Box::new(lease.clone()), *why));
    }
    Ok(lock)
}

async fn prepare_locked(
    hands: &Hands,
    lock: &Lock,
    request: &Request,
    run: RunId,
    now: Timestamp,
    order: &Order<'_>,
) -> Result<Plan, RunError> {
    let site = &hands.guarded;
    recover::settle(hands, lock, order).await?;
    for what in sweep::leases(site).await? {
        (order.tell)(Notice::Swept(what));
    }
    let facts = tokio::select! {
        biased;
        facts = facts::observe(site, request) => facts?,
        () = order.stop.cancelled() => return Err(RunError::Stopped),
    };
    let mut version = free_version(&facts, now);
    loop {
        let plan = planner::plan(&scope(site, run.clone(), now, version), request, &facts)?;
        let builds = plan.steps.iter().any(|step| step.id.as_str() == crate::build::RUN);
        if !builds {
            return Ok(plan);
        }
        // Another environment's run may build in the same second: whoever reserves the name first has it.
        match publish::reserve(site, version, run.as_str()).await {
            Ok(()) => return Ok(plan),
            Err(StoreError::Conflict { .. }) => version = version.next(),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Prepared {
    /// Who may change anything, and until when.
    pub fn lease(&self) -> &Lease {
        self.lock.lease()
    }

    pub fn site(&self) -> &Site {
        &self.hands.plain
    }

    /// The folder with what only this process may know; it goes with the run.
    pub fn secrets(&self) -> PathBuf {
        self.hands.workshop.folder()
    }

    /// Whether it is another process's run.
    pub fn is_taken_up(&self) -> bool {
        matches!(self.work, Work::Go(_))
    }

    /// What the run's journal holds already.
    pub fn history(&self) -> &[Event] {
        match &self.work {
            Work::Begin => &[],
            Work::Go(taken) => &taken.events,
        }
    }

    /// Goes through the plan. A lock that is lost on the way stops the run before its next change.
    ///
    /// # Errors
    /// The run stands where it is, for whoever goes on with it.
    pub async fn run(
        self,
        events: mpsc::UnboundedSender<Event>,
        cancel: CancellationToken,
    ) -> Result<Ending, RunError> {
        let Self { plan, work, hands, lock } = self;
        let result = drive(&hands, &lock, plan, work, events, cancel).await;
        // A lease that cannot be given back ends by itself; the run's own ending is the news.
        let _ = lock.release().await;
        result
    }

    /// Gives the lock and a reserved version back without doing anything.
    ///
    /// # Errors
    /// The reservation is left to the next run.
    pub async fn abandon(self) -> Result<(), RunError> {
        if matches!(self.work, Work::Begin) {
            publish::give_back(&self.hands.guarded, self.plan.version, self.plan.run.as_str()).await?;
        }
        Ok(self.lock.release().await?)
    }
}

/// Goes through a plan under a lock that is held.
pub(crate) async fn drive(
    hands: &Hands,
    lock: &Lock,
    plan: Plan,
    work: Work,
    events: mpsc::UnboundedSender<Event>,
    cancel: CancellationToken,
) -> Result<Ending, RunError> {
    let Hands { plain, guarded, workshop } = hands;
    let steps = SiteSteps { site: guarded.clone(), workshop: workshop.clone() };
    let run = plan.run.clone();
    let ground = Ground {
        clock: plain.clock(),
        fence: Some(lock.fence().clone()),
        undo_pauses: UNDO_PAUSES,
        redactor: plain.redactor.clone(),
    };
    let (host, tool) = (holder(), crate::TOOL.to_owned());
    let ended = match work {
        Work::Begin => {
            let opening = What::RunStarted {
                app: plan.app.clone(),
                environment: plan.environment.clone(),
                purpose: plan.purpose,
                version: plan.version,
                host,
                tool,
            };
            let journal = Journal::begin(plain.store.clone(), &plain.root, &plan, &lock.lease().nonce).await?;
            let runner = Runner::new(plan, &steps, journal, Progress::default(), ground, events, cancel);
            runner.run(opening, Direction::Forward).await
        }
        Work::Go(taken) => {
            let (journal, _) = Journal::resume(plain.store.clone(), &plain.root, &run, &lock.lease().nonce).await?;
            let opening = What::RunResumed { host, tool };
            let runner = Runner::new(plan, &steps, journal, taken.progress, ground, events, cancel);
            match taken.course {
                recover::Course::Forward { renewals } => runner.resume(opening, &renewals).await,
                recover::Course::Back => runner.run(opening, Direction::Back).await,
                recover::Course::WriteOff => runner.write_off(opening).await,
            }
        }
    };
    ended.map_err(|halt| RunError::of_halt(halt, &run))
}

fn new_run(site: &Site, now: Timestamp) -> RunId {
    // Four digits of it: see RunId.
    RunId::new(now, (site.random() & 0xffff) as u16)
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
    // Not the owner of /proc/self: of a process that keeps secrets that is root, whoever runs it.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let id = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next().map(str::to_owned))?;
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = list.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    Some(named.unwrap_or(id))
}
