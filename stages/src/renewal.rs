//! What a process that goes on with another's run has to make anew: whatever exists only on the machine that died, and
//! whatever was made for that machine alone. Pure: plan and journal in, steps out.

use std::{collections::BTreeMap, net::Ipv4Addr};

use alcedo_pipeline::{
    ids::StepId,
    plan::{Plan, PlannedStep},
    status::{Progress, Status},
    suite::Check,
};

use crate::{action::Action, bake, build, launch, publish, quiet, secrets};

/// The steps, each with the reason.
pub fn of(plan: &Plan, progress: &Progress) -> Vec<(StepId, String)> {
    let look = Look { plan, progress };
    let mut renew = BTreeMap::new();
    let mut add = |id: &StepId, why: &str| {
        if look.is_begun(id) {
            renew.entry(id.clone()).or_insert_with(|| why.to_owned());
        }
    };
    if look.is_pending(|action| matches!(action, Action::UploadArtifact(_))) {
        add(&build::RUN.into(), "the archive was on the machine that built it");
    }
    // The private half of the run's key was in the memory of the process that made it, and the watchdog of a process that
    // dies ends its builder.
    const KEY_LOST: &str = "the ephemeral key was lost with the process that made it";
    if look.is_pending(|action| matches!(action, Action::CreateImage(_))) {
        add(&bake::KEY.into(), KEY_LOST);
        for id in [bake::BUILDER, bake::PROVISION, bake::IMAGE] {
            add(&id.into(), "the builder admits the key that was lost");
        }
    }
    let logs_in = |action: &Action| match action {
        Action::SmokeTest(test) => test.checks.iter().any(Check::needs_ssh),
        Action::HandOverSecrets(_) => true,
        _ => false,
    };
    if look.is_pending(logs_in) {
        add(&bake::KEY.into(), KEY_LOST);
        for id in [launch::INSTANCES, secrets::HAND_OVER, launch::REGISTER, launch::HEALTHY] {
            add(&id.into(), "the servers admit the key that was lost");
        }
    }
    // Up to here all of it can be undone, and the world has gone on since.
    let drains = |action: &Action| matches!(action, Action::Drain(_));
    if !look.steps().any(|(step, action)| drains(&action) && look.is_begun(&step.id)) {
        add(&quiet::STEP.into(), "what was seen of the old servers may not be so any more");
    }
    if look.is_pending(|action| matches!(action, Action::WriteManifest(it) if it.signed_by.is_some())) {
        for id in [build::RUN, publish::ARTIFACT] {
            add(&id.into(), "what is signed is built by the process that signs it");
        }
    }
    for id in look.ingress_in_use(&renew) {
        renew
            .entry(id.clone())
            .or_insert_with(|| "it was for the process that died, and its watchdog closes it".into());
        for close in look.closers_of(&id) {
            renew.entry(close).or_insert_with(|| "it closes what is opened anew".into());
        }
    }
    renew.into_iter().collect()
}

/// The same plan for a process at this address.
pub fn adapt(plan: &mut Plan, address: Option<Ipv4Addr>) {
    let Some(here) = address else { return };
    for step in &mut plan.steps {
        let Ok(mut action) = serde_json::from_value::<Action>(step.action.clone()) else { continue };
        match &mut action {
            Action::OpenIngress(open) => {
                step.does = step.does.replace(&open.address.to_string(), &here.to_string());
                open.address = here;
            }
            Action::Provision(provision) => provision.own_address = here,
            _ => continue,
        }
        step.action = serde_json::to_value(action).expect("an action is JSON");
    }
}

struct Look<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
}

impl Look<'_> {
    /// What this version of the tool can read of the plan.
    fn steps(&self) -> impl Iterator<Item = (&PlannedStep, Action)> {
        self.plan.steps.iter().filter_map(|step| Some((step, serde_json::from_value(step.action.clone()).ok()?)))
    }

    fn is_begun(&self, id: &StepId) -> bool {
        self.plan.step(id).is_some() && self.progress.status(id).needs_undo()
    }

    /// Whether there is such a step, still to be done.
    fn is_pending(&self, such: impl Fn(&Action) -> bool) -> bool {
        self.steps().any(|(step, action)| such(&action) && self.progress.status(&step.id) != Status::Succeeded)
    }

    /// The steps that close what this one opens, where they were begun.
    fn closers_of(&self, open: &StepId) -> Vec<StepId> {
        let closes = |action: &Action| matches!(action, Action::CloseIngress(close) if close.opened_by == *open);
        let closers = self.steps().filter(|(_, action)| closes(action)).map(|(step, _)| step.id.clone());
        closers.filter(|id| self.is_begun(id)).collect()
    }

    /// The steps that open a port which a step still to be done needs, or one that is done anew.
    fn ingress_in_use(&self, renew: &BTreeMap<StepId, String>) -> Vec<StepId> {
        let opened = self.steps().filter(|(_, action)| matches!(action, Action::OpenIngress(_)));
        let in_use = |id: &StepId| {
            let closes = |action: &Action| matches!(action, Action::CloseIngress(close) if close.opened_by == *id);
            let until_closed =
                self.steps().skip_while(|(step, _)| step.id != *id).take_while(|(_, action)| !closes(action));
            until_closed.skip(1).any(|(step, action)| {
                matches!(
                    action,
                    Action::Provision(_) | Action::SmokeTest(_) | Action::CreateImage(_) | Action::HandOverSecrets(_)
                ) && (self.progress.status(&step.id) != Status::Succeeded || renew.contains_key(&step.id))
            })
        };
        opened.map(|(step, _)| step.id.clone()).filter(|id| self.is_begun(id)).filter(in_use).collect()
    }
}
