//! Ways to run a plan: as the command line does, or with what needs an engine or a shell replaced by what it would answer.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use alcedo_pipeline::{
    context::StepContext,
    error::StepError,
    event::{Event, What},
    ids::RunId,
    journal::Journal,
    plan::{Plan, PlannedStep, Purpose, Stage},
    runner::{Direction, Ending, Runner},
    status::Progress,
    step::{Step, Steps},
    version::Version,
};
use alcedo_stages::{
    action::SiteSteps,
    build::{self, Built},
    execute::{self, Prepared, RunError},
    facts::{self, Facts, Request},
    planner::{self, Scope},
    site::Site,
    workshop::Workshop,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::account::{build_base, platform};

/// This machine's address, as the file would learn it; one of those kept for documentation (RFC 5737).
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Prepares and runs as `alcedo deploy` and `alcedo rollback` do.
pub async fn run(site: &Site, request: Request) -> (Plan, Ending) {
    let prepared = execute::prepare(site, &request, "a test").await.unwrap_or_else(|error| panic!("{error:?}"));
    let plan = prepared.plan.clone();
    let (ending, _) = finish(prepared).await;
    (plan, ending.unwrap_or_else(|error| panic!("{error:?}")))
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
    let now = Timestamp::now();
    let run = RunId::new(now, rand::random());
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

/// A plan of a few steps of one's own, as if they were a deploy's.
pub fn plan_of(site: &Site, steps: Vec<PlannedStep>) -> Plan {
    let now = Timestamp::now();
    Plan {
        format: Plan::FORMAT,
        run: RunId::new(now, rand::random()),
        app: site.pipeline.app.clone(),
        environment: site.environment.clone(),
        purpose: Purpose::Deploy,
        version: Version::at(now),
        commit: None,
        replaces: None,
        made_at: now,
        notes: Vec::new(),
        steps,
    }
}

/// Only these stages of a plan.
pub fn only(mut plan: Plan, stages: &[Stage]) -> Plan {
    plan.steps.retain(|step| stages.contains(&step.stage));
    plan
}

/// Runs a plan step by step without the environment's lock.
pub async fn walk(site: &Site, plan: Plan, steps: &dyn Steps) -> Ending {
    let (sender, _) = mpsc::unbounded_channel();
    let journal = Journal::begin(site.store.clone(), &site.root, &plan).await.unwrap();
    let opening = What::RunStarted {
        app: plan.app.clone(),
        environment: plan.environment.clone(),
        purpose: plan.purpose,
        version: plan.version,
        host: execute::holder(),
        tool: alcedo_stages::TOOL.to_owned(),
    };
    let runner = Runner::new(plan, steps, journal, Progress::default(), sender, CancellationToken::new());
    runner.run(opening, Direction::Forward).await.unwrap()
}

/// The site's own steps, with some of them answered for and one that may be made to fail.
pub struct Staged {
    inner: SiteSteps,
    answers: BTreeMap<String, Value>,
    fails_at: Option<String>,
}

impl Staged {
    pub fn new(site: &Site) -> Self {
        let inner = SiteSteps { site: site.clone(), workshop: Workshop::open().unwrap() };
        Self { inner, answers: BTreeMap::new(), fails_at: None }
    }

    /// The build has left this archive.
    pub fn built(mut self, archive: &Path) -> Self {
        let bytes = std::fs::read(archive).unwrap();
        let built = Built {
            archive: archive.to_owned(),
            sha256: hex::encode(Sha256::digest(&bytes)),
            size_bytes: bytes.len() as u64,
            base: build_base(),
            platform: platform(),
            commands_seconds: 0.0,
        };
        self.answers.insert(build::RUN.into(), serde_json::to_value(built).unwrap());
        self
    }

    /// The builder's shell has done what it was told, and its checks passed.
    pub fn provisioned(self) -> Self {
        self.answered("bake/provision", json!({ "checks": 0 }))
    }

    /// The step does nothing but answer this.
    pub fn answered(mut self, step: &str, answer: Value) -> Self {
        self.answers.insert(step.into(), answer);
        self
    }

    /// This step does its work, and then fails.
    pub fn failing_at(mut self, step: &str) -> Self {
        self.fails_at = Some(step.into());
        self
    }
}

impl Steps for Staged {
    fn step(&self, planned: &PlannedStep) -> Result<Box<dyn Step>, StepError> {
        let step: Box<dyn Step> = match self.answers.get(planned.id.as_str()) {
            Some(answer) => Box::new(Answered(answer.clone())),
            None => self.inner.step(planned)?,
        };
        match &self.fails_at {
            Some(id) if id == planned.id.as_str() => Ok(Box::new(Failing(step))),
            _ => Ok(step),
        }
    }
}

struct Answered(Value);

#[async_trait]
impl Step for Answered {
    async fn run(&self, _: &StepContext) -> Result<Value, StepError> {
        Ok(self.0.clone())
    }

    async fn undo(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

struct Failing(Box<dyn Step>);

#[async_trait]
impl Step for Failing {
    async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        self.0.run(context).await?;
        Err(StepError::failed("made to fail"))
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        self.0.undo(context).await
    }
}
