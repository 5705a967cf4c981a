//! The site's own steps, with changes: answers where there is no engine and no shell, failures, and what others do meanwhile.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use alcedo_images::packages::{Installed, Manager, Package};
use alcedo_pipeline::{
    context::StepContext,
    error::StepError,
    plan::PlannedStep,
    step::{Step, Steps},
};
use alcedo_stages::{
    action::SiteSteps,
    build::{self, Built},
    secrets,
    site::Site,
    workshop::Workshop,
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::account::{build_base, platform};

/// Something that happens while a run is at a step.
type Incident = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Steps of a site. Without further words they are what production runs.
pub struct Staged {
    inner: SiteSteps,
    answers: BTreeMap<String, Value>,
    before: BTreeMap<String, Incident>,
    fails_at: Option<String>,
    /// A step whose undo fails, and how often still.
    undo_fails: Option<(String, Arc<AtomicU32>)>,
    repeats: Option<Repeats>,
}

/// Does and undoes every step twice.
#[derive(Clone)]
struct Repeats {
    /// What must not change when an undo is done again.
    look: Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
    /// Steps whose second undo changed it.
    changed: Arc<Mutex<Vec<String>>>,
}

impl Staged {
    pub fn new(site: &Site) -> Self {
        let inner = SiteSteps { site: site.clone(), workshop: Workshop::open().unwrap() };
        Self {
            inner,
            answers: BTreeMap::new(),
            before: BTreeMap::new(),
            fails_at: None,
            undo_fails: None,
            repeats: None,
        }
    }

    /// The build has left this archive.
    pub fn built(self, archive: &Path) -> Self {
        let bytes = std::fs::read(archive).unwrap();
        let built = Built {
            archive: archive.to_owned(),
            sha256: hex::encode(Sha256::digest(&bytes)),
            size_bytes: bytes.len() as u64,
            base: build_base(),
            platform: platform(),
            commands_seconds: 0.0,
        };
        self.inner.workshop.keep_built(&built.sha256);
        self.answered(build::RUN, serde_json::to_value(built).unwrap())
    }

    /// The build has read the source that is there now.
    pub async fn having_read(self, site: &Site) -> Self {
        self.inner.workshop.keep_inputs(build::source(site).await.unwrap().parts);
        self
    }

    /// The servers' shells have done what they were told: the builder's checks passed, it has told its packages, secrets were
    /// taken.
    pub fn provisioned(self) -> Self {
        self.with_packages(&[("libc6", "2.36-9+deb12u9"), ("openssl", "3.0.15-1~deb12u1")])
    }

    /// The same with these packages.
    pub fn with_packages(self, packages: &[(&str, &str)]) -> Self {
        let package = |(name, version): &(&str, &str)| Package {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            epoch: 0,
            architecture: "amd64".to_owned(),
            source: None,
        };
        let packages = packages.iter().map(package).collect();
        self.inner.workshop.keep_installed(Installed { platform: platform(), manager: Some(Manager::Dpkg), packages });
        self.answered("bake/provision", json!({ "checks": 0 })).answered(secrets::HAND_OVER, json!({}))
    }

    /// The step does nothing but answer this.
    pub fn answered(mut self, step: &str, answer: Value) -> Self {
        self.answers.insert(step.into(), answer);
        self
    }

    /// This happens right before the step.
    pub fn before(mut self, step: &str, incident: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.before.insert(step.into(), Arc::new(incident));
        self
    }

    /// The step does its work, and then fails.
    pub fn failing_at(mut self, step: &str) -> Self {
        self.fails_at = Some(step.into());
        self
    }

    /// The step's undo does its work, and then says that it failed, this many times.
    pub fn failing_to_undo(mut self, step: &str, times: u32) -> Self {
        self.undo_fails = Some((step.into(), Arc::new(AtomicU32::new(times))));
        self
    }

    /// Every step is done twice, and undone twice; `look` tells what the second undo must leave as it is.
    pub fn repeating(mut self, look: impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static) -> Self {
        self.repeats = Some(Repeats { look: Arc::new(look), changed: Arc::default() });
        self
    }

    /// The steps whose second undo changed something.
    pub fn changed_by_a_second_undo(&self) -> Vec<String> {
        self.repeats.as_ref().map(|it| it.changed.lock().unwrap().clone()).unwrap_or_default()
    }
}

impl Steps for Staged {
    fn step(&self, planned: &PlannedStep) -> Result<Box<dyn Step>, StepError> {
        let id = planned.id.as_str();
        let inner: Box<dyn Step> = match self.answers.get(id) {
            Some(answer) => Box::new(Answered(answer.clone())),
            None => self.inner.step(planned)?,
        };
        Ok(Box::new(StagedStep {
            inner,
            before: self.before.get(id).cloned(),
            fails: self.fails_at.as_deref() == Some(id),
            undo_fails: self.undo_fails.as_ref().filter(|(step, _)| step == id).map(|(_, times)| times.clone()),
            repeats: self.repeats.clone(),
        }))
    }
}

struct StagedStep {
    inner: Box<dyn Step>,
    before: Option<Incident>,
    fails: bool,
    undo_fails: Option<Arc<AtomicU32>>,
    repeats: Option<Repeats>,
}

#[async_trait]
impl Step for StagedStep {
    async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        if let Some(incident) = &self.before {
            incident().await;
        }
        let mut answer = self.inner.run(context).await?;
        if self.repeats.is_some() {
            answer = self.inner.run(context).await?;
        }
        if self.fails { Err(StepError::failed("made to fail")) } else { Ok(answer) }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        self.inner.undo(context).await?;
        let still = |times: &AtomicU32| times.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if self.undo_fails.as_deref().is_some_and(still) {
            return Err(StepError::failed("made to fail to undo"));
        }
        let Some(repeats) = &self.repeats else { return Ok(()) };
        let once = (repeats.look)().await;
        self.inner.undo(context).await?;
        if (repeats.look)().await != once {
            repeats.changed.lock().unwrap().push(context.step().to_string());
        }
        Ok(())
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
