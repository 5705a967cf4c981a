//! Ways to run a plan: as the command line does, or step by step with steps of one's choice.

use std::{net::Ipv4Addr, time::Duration};

use alcedo_pipeline::{
    event::{Event, What},
    ids::RunId,
    journal::{self, Journal, JournalError},
    plan::{Plan, PlannedStep, Purpose, Sign, Stage},
    recovery::{self, Next, Wish},
    runner::{Direction, Ending, Ground, Halt, Runner},
    status::Progress,
    step::Steps,
    version::Version,
};
use alcedo_stages::{
    action::{Action, SiteSteps},
    execute::{self, Order, Prepared, RunError, TakenUp},
    facts::{self, Facts, Request},
    planner::{self, Scope},
    renewal,
    site::Site,
    workshop::Workshop,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// This machine's address, as the file would learn it; one of those kept for documentation (RFC 5737).
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Pauses between the attempts of an undo: nothing here gets better by waiting.
const QUICK: [Duration; 3] = [Duration::from_millis(1); 3];

/// Prepares and runs as `alcedo deploy` and `alcedo rollback` do.
pub async fn run(site: &Site, request: Request) -> (Plan, Ending) {
    let prepared = prepare(site, request).await.unwrap_or_else(|error| panic!("{error:?}"));
    let plan = prepared.plan.clone();
    let (ending, _) = finish(prepared).await;
    (plan, ending.unwrap_or_else(|error| panic!("{error:?}")))
}

/// Prepares as the command line does, without waiting for anybody.
pub async fn prepare(site: &Site, request: Request) -> Result<Prepared, RunError> {
    prepare_within(site, request, Duration::ZERO).await
}

/// The same, waiting for whoever holds the environment.
pub async fn prepare_within(site: &Site, request: Request, patience: Duration) -> Result<Prepared, RunError> {
    let stop = CancellationToken::new();
    let order = Order { reason: "a test", patience, stop: &stop, tell: &|_| {} };
    execute::prepare(site, &request, &order).await
}

/// Takes a run up as `alcedo resume` and `alcedo rollback --run` do, and brings it to an end.
pub async fn take_up(site: &Site, run: &RunId, wish: Wish) -> Ending {
    let stop = CancellationToken::new();
    let order = Order { reason: "a test", patience: Duration::ZERO, stop: &stop, tell: &|_| {} };
    match execute::take_up(site, Some(run), wish, &order).await.unwrap_or_else(|error| panic!("{error:?}")) {
        TakenUp::Ready(prepared) => finish(*prepared).await.0.unwrap_or_else(|error| panic!("{error:?}")),
        TakenUp::NeverBegan(run) => panic!("{run} never began"),
        TakenUp::Ended(_, outcome) => panic!("it had ended: {outcome:?}"),
    }
}

/// Runs what was prepared. Answers how it ended and everything it told.
pub async fn finish(prepared: Prepared) -> (Result<Ending, RunError>, Vec<Event>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let ending = prepared.run(sender, CancellationToken::new()).await;
    let mut events = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        events.push(event);
    }
    (ending, events)
}

/// Plans as the command line does, with this machine's address known.
pub async fn plan(site: &Site, request: Request) -> (Plan, Facts) {
    let mut facts = facts::observe(site, &request).await.unwrap_or_else(|error| panic!("{error:?}"));
    facts.own_address = Some(OWN_ADDRESS);
    let now = site.now();
    let run = RunId::new(now, site.random() as u16);
    let mut version = Version::at(now);
    while facts.versions.contains(&version) {
        version = version.next();
    }
    let scope = Scope {
        pipeline: &site.pipeline,
        environment: &site.environment,
        root: &site.root,
        run,
        now,
        new_version: version,
    };
    let plan = planner::plan(&scope, &request, &facts).unwrap_or_else(|error| panic!("{error:?}"));
    (plan, facts)
}

/// A plan of a few actions of one's own, as if they were a deploy's; each can be undone.
pub fn plan_of(site: &Site, actions: impl IntoIterator<Item = (&'static str, Action)>) -> Plan {
    let now = site.now();
    let step = |(id, action): (&str, Action)| PlannedStep {
        id: id.into(),
        stage: Stage::Bake,
        sign: Sign::Change,
        does: id.into(),
        undo: Some(format!("undo {id}")),
        point_of_no_return: false,
        barrier: false,
        action: serde_json::to_value(action).unwrap(),
    };
    Plan {
        format: Plan::FORMAT,
        run: RunId::new(now, site.random() as u16),
        app: site.pipeline.app.clone(),
        environment: site.environment.clone(),
        purpose: Purpose::Deploy,
        version: Version::at(now),
        commit: None,
        freeze: false,
        replaces: None,
        made_at: now,
        notes: Vec::new(),
        reasons: Vec::new(),
        steps: actions.into_iter().map(step).collect(),
    }
}

/// How the journal of a plan begins that somebody runs elsewhere.
pub fn started(plan: &Plan) -> What {
    What::RunStarted {
        app: plan.app.clone(),
        environment: plan.environment.clone(),
        purpose: plan.purpose,
        version: plan.version,
        host: "ada@desk".into(),
        tool: "a test".into(),
    }
}

/// Only these stages of a plan.
pub fn only(mut plan: Plan, stages: &[Stage]) -> Plan {
    plan.steps.retain(|step| stages.contains(&step.stage));
    plan
}

/// Runs a plan step by step without the environment's lock.
pub async fn walk(site: &Site, plan: Plan, steps: &dyn Steps) -> Ending {
    try_walk(site, plan, steps).await.unwrap()
}

/// The same, where the journal may be taken by another process.
pub async fn try_walk(site: &Site, plan: Plan, steps: &dyn Steps) -> Result<Ending, Halt> {
    told(site, plan, steps).await.map(|(ending, _)| ending)
}

/// The same, with everything it told.
pub async fn told(site: &Site, plan: Plan, steps: &dyn Steps) -> Result<(Ending, Vec<Event>), Halt> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let journal = Journal::begin(site.store.clone(), &site.root, &plan, "a test").await?;
    let opening = What::RunStarted {
        app: plan.app.clone(),
        environment: plan.environment.clone(),
        purpose: plan.purpose,
        version: plan.version,
        host: execute::holder(),
        tool: alcedo_stages::TOOL.to_owned(),
    };
    let ground = Ground { clock: site.clock(), fence: None, undo_pauses: QUICK, redactor: site.redactor.clone() };
    let runner = Runner::new(plan, steps, journal, Progress::default(), ground, sender, CancellationToken::new());
    let ending = runner.run(opening, Direction::Forward).await?;
    drop(runner);
    Ok((ending, std::iter::from_fn(|| receiver.try_recv().ok()).collect()))
}

/// Brings a run to an end from what its journal says, as another process would, with steps of one's choice. `None` where
/// there is nothing to do.
pub async fn recover(site: &Site, run: &RunId, wish: Wish, steps: &dyn Steps) -> Option<Ending> {
    let record = match journal::read(site.store.as_ref(), &site.root, run).await {
        Err(JournalError::NoRun { .. }) => return None,
        record => record.unwrap(),
    };
    let progress = Progress::replay(&record.events).unwrap();
    let next = recovery::next(&record.plan, &progress, wish).unwrap_or_else(|error| panic!("{error}"));
    let (journal, _) = Journal::resume(site.store.clone(), &site.root, run, "the next").await.unwrap();
    let renewals = renewal::of(&record.plan, &progress);
    let (sender, _) = mpsc::unbounded_channel();
    let ground = Ground { clock: site.clock(), fence: None, undo_pauses: QUICK, redactor: site.redactor.clone() };
    let opening = What::RunResumed { host: execute::holder(), tool: alcedo_stages::TOOL.to_owned() };
    let runner = Runner::new(record.plan, steps, journal, progress, ground, sender, CancellationToken::new());
    let ending = match next {
        Next::Nothing(_) => return None,
        Next::Go(Direction::Forward) => runner.resume(opening, &renewals).await,
        Next::Go(Direction::Back) => runner.run(opening, Direction::Back).await,
        Next::WriteOff => runner.write_off(opening).await,
    };
    Some(ending.unwrap())
}

/// Undoes a run that has come to its end, whatever its journal says of it, as if it had died before the end.
pub async fn undo(site: &Site, run: &RunId) -> Ending {
    let (journal, record) = Journal::resume(site.store.clone(), &site.root, run, "undoing").await.unwrap();
    let progress = Progress::replay(&record.events).unwrap();
    let (sender, _) = mpsc::unbounded_channel();
    let steps = SiteSteps { site: site.clone(), workshop: Workshop::open().unwrap() };
    let ground = Ground { clock: site.clock(), fence: None, undo_pauses: QUICK, redactor: site.redactor.clone() };
    let opening = What::RunResumed { host: execute::holder(), tool: alcedo_stages::TOOL.to_owned() };
    let runner = Runner::new(record.plan, &steps, journal, progress, ground, sender, CancellationToken::new());
    runner.run(opening, Direction::Back).await.unwrap()
}
