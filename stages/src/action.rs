//! Every kind of step, as one list: what a plan holds and how each is run and undone.

use alcedo_pipeline::{
    context::StepContext,
    error::StepError,
    plan::PlannedStep,
    step::{Step, Steps},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    bake, build, examine, flip, gate, hold, ingress, launch, preview, publish, quiet, retire, secrets, site::Site,
    smoke, workshop::Workshop,
};

/// What one step does, with everything it needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Action {
    Reserve(publish::Reserve),
    Build(build::RunBuild),
    UploadArtifact(publish::UploadArtifact),
    WriteManifest(publish::WriteManifest),
    MovePointer(publish::MovePointer),
    ImportKey(bake::ImportKey),
    DeleteKey(bake::DeleteKey),
    OpenIngress(ingress::OpenIngress),
    CloseIngress(ingress::CloseIngress),
    LaunchBuilder(bake::LaunchBuilder),
    Provision(bake::ProvisionBuilder),
    CreateImage(bake::CreateImage),
    EndBuilder(bake::EndBuilder),
    CreateTargetGroup(launch::CreateTargetGroup),
    AttachPreview(preview::AttachPreview),
    LaunchInstances(launch::LaunchInstances),
    HandOverSecrets(secrets::HandOver),
    RegisterTargets(launch::RegisterTargets),
    AwaitHealthy(launch::AwaitHealthy),
    SmokeTest(smoke::SmokeTest),
    AwaitApproval(gate::AwaitApproval),
    Switch(flip::Switch),
    Prove(flip::Prove),
    ReleasePreview(preview::ReleasePreview),
    MarkHeld(hold::MarkHeld),
    Watch(hold::Watch),
    AwaitQuiet(quiet::AwaitQuiet),
    Drain(retire::Drain),
    Terminate(retire::Terminate),
    DeleteGroup(retire::DeleteGroup),
    Prune(retire::Prune),
}

/// Makes steps that run against a site.
pub struct SiteSteps {
    pub site: Site,
    /// What exists on this machine alone while a run lasts: the ephemeral key, the built archive.
    pub workshop: Workshop,
}

#[async_trait]
impl Steps for SiteSteps {
    async fn examine(&self, failed: &PlannedStep, context: &StepContext) {
        if examine::is_about_servers(failed) {
            examine::examine(&self.site, &self.workshop, failed, context).await;
        }
    }

    fn step(&self, planned: &PlannedStep) -> Result<Box<dyn Step>, StepError> {
        let action = serde_json::from_value(planned.action.clone()).map_err(|error| {
            StepError::failed(format!("step {} was planned by another version of alcedo", planned.id))
                .hint("finish the run with the version that began it; `alcedo runs show` says which")
                .because(error)
        })?;
        Ok(Box::new(SiteStep { site: self.site.clone(), workshop: self.workshop.clone(), action }))
    }
}

struct SiteStep {
    site: Site,
    workshop: Workshop,
    action: Action,
}

#[async_trait]
impl Step for SiteStep {
    async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        let (site, clients, shop) = (&self.site, &self.site.clients, &self.workshop);
        match &self.action {
            Action::Reserve(it) => it.run(site, context).await,
            Action::Build(it) => it.run(site, shop, context).await,
            Action::UploadArtifact(it) => it.run(site, context).await,
            Action::WriteManifest(it) => it.run(site, shop, context).await,
            Action::MovePointer(it) => it.run(site, context).await,
            Action::ImportKey(it) => it.run(clients, shop, context).await,
            Action::DeleteKey(it) => it.run(clients, context).await,
            Action::OpenIngress(it) => it.run(clients, context).await,
            Action::CloseIngress(it) => it.run(clients, context).await,
            Action::LaunchBuilder(it) => it.run(clients, context).await,
            Action::Provision(it) => it.run(site, shop, context).await,
            Action::CreateImage(it) => it.run(site, shop, context).await,
            Action::EndBuilder(it) => it.run(clients, context).await,
            Action::CreateTargetGroup(it) => it.run(clients, context).await,
            Action::AttachPreview(it) => it.run(clients, context).await,
            Action::LaunchInstances(it) => it.run(clients, &site.folder, context).await,
            Action::HandOverSecrets(it) => it.run(site, shop, context).await,
            Action::RegisterTargets(it) => it.run(clients, context).await,
            Action::AwaitHealthy(it) => it.run(clients, context).await,
            Action::SmokeTest(it) => it.run(site, shop, context).await,
            Action::AwaitApproval(it) => it.run(site, context).await,
            Action::Switch(it) => it.run(site, context).await,
            Action::Prove(it) => it.run(clients, context).await,
            Action::ReleasePreview(it) => it.run(clients, context).await,
            Action::MarkHeld(it) => it.run(clients, context).await,
            Action::Watch(it) => it.run(site, context).await,
            Action::AwaitQuiet(it) => it.run(clients, context).await,
            Action::Drain(it) => it.run(clients, context).await,
            Action::Terminate(it) => it.run(clients, context).await,
            Action::DeleteGroup(it) => it.run(clients, context).await,
            Action::Prune(it) => it.run(site, context).await,
        }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let (site, clients) = (&self.site, &self.site.clients);
        match &self.action {
            Action::Reserve(it) => it.undo(site, context).await,
            Action::MovePointer(it) => it.undo(site, context).await,
            Action::ImportKey(it) => it.undo(clients, context).await,
            Action::OpenIngress(it) => it.undo(clients, context).await,
            Action::LaunchBuilder(it) => it.undo(clients, context).await,
            Action::CreateImage(it) => it.undo(site, context).await,
            Action::CreateTargetGroup(it) => it.undo(clients, context).await,
            Action::AttachPreview(it) => it.undo(clients, context).await,
            Action::LaunchInstances(it) => it.undo(clients, context).await,
            Action::RegisterTargets(it) => it.undo(clients, context).await,
            Action::Switch(it) => it.undo(clients, context).await,
            Action::ReleasePreview(it) => it.undo(clients, context).await,
            Action::MarkHeld(it) => it.undo(clients, context).await,
            // Objects of the version go with its reservation; what looks, tests, waits or removes leaves nothing; what
            // retire has ended cannot be brought back, and the runner does not ask for it.
            Action::Build(_)
            | Action::UploadArtifact(_)
            | Action::WriteManifest(_)
            | Action::DeleteKey(_)
            | Action::CloseIngress(_)
            | Action::Provision(_)
            | Action::EndBuilder(_)
            | Action::HandOverSecrets(_)
            | Action::AwaitHealthy(_)
            | Action::SmokeTest(_)
            | Action::AwaitApproval(_)
            | Action::Prove(_)
            | Action::Watch(_)
            | Action::AwaitQuiet(_)
            | Action::Drain(_)
            | Action::Terminate(_)
            | Action::DeleteGroup(_)
            | Action::Prune(_) => Ok(()),
        }
    }
}
