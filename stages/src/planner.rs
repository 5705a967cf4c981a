//! Facts and file become a plan. Pure: the same input gives the same plan, and nothing is left to decide.

use alcedo_pipeline::{
    file::{Approval, Pipeline},
    ids::{RunId, StepId},
    plan::{Plan, PlannedStep, Purpose, Reason, Sign, Stage},
    units::Span,
    version::Version,
};
use jiff::Timestamp;

use crate::{
    action::Action,
    facts::{self, Facts, Fleet, Request, version_before},
    flip::Group,
    gate,
    probes::FrontDoor,
};

mod image;
mod launch;
mod retire;
mod traffic;
mod why;

pub use launch::group_name;

/// What is planned for.
pub struct Scope<'a> {
    pub pipeline: &'a Pipeline,
    pub environment: &'a str,
    /// Where everything of the app is kept in the bucket.
    pub root: &'a str,
    pub run: RunId,
    pub now: Timestamp,
    /// The name of a new version, where the request builds one.
    pub new_version: Version,
}

/// Why there is no plan. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct PlanError {
    pub what: String,
    pub hints: Vec<String>,
}

impl PlanError {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hints: vec![hint.into()] }
    }
}

/// Decides what to do.
///
/// # Errors
/// What was asked for cannot be done in this environment.
pub fn plan(scope: &Scope<'_>, request: &Request, facts: &Facts) -> Result<Plan, PlanError> {
    let target = target(scope, request, facts)?;
    let blue = facts.fleets.iter().find(|fleet| fleet.is_in_service());
    let held = facts.fleets.iter().find(|fleet| fleet.version == target.version && fleet.is_held());
    let rolls_back = matches!(request, Request::Rollback { .. });
    let pinned = !matches!(request, Request::Deploy { version: None });
    let ends_hold = *request == Request::EndHold;
    let case = Case { scope, facts, target, blue, held, rolls_back, ends_hold, pinned };
    let gates = if rolls_back || ends_hold { Vec::new() } else { scope.pipeline.approvals.clone() };
    let mut draft = Draft { gates, ..Draft::default() };
    if ends_hold {
        retire::what_is_held(&case, &mut draft)?;
    } else if let Some(blue) = blue.filter(|blue| blue.version == case.target.version) {
        draft.note(in_service_already(blue, facts)?);
        why::in_service_but(&case).into_iter().for_each(|note| draft.note(note));
        retire::what_is_over(&case, &mut draft);
    } else {
        stages(&case, &mut draft)?;
    }
    Ok(Plan {
        format: Plan::FORMAT,
        run: scope.run.clone(),
        app: scope.pipeline.app.clone(),
        environment: scope.environment.to_owned(),
        purpose: match request {
            Request::Deploy { .. } => Purpose::Deploy,
            Request::Rollback { .. } => Purpose::Rollback,
            Request::EndHold => Purpose::Retire,
        },
        version: case.target.version,
        commit: case.target.commit.clone(),
        freeze: false,
        replaces: blue.map(|blue| blue.version),
        made_at: scope.now,
        notes: draft.notes,
        reasons: draft.reasons,
        steps: draft.steps,
    })
}

/// The version's fleet serves already. Where none of its servers is healthy, to do nothing would be to report a success
/// that nobody has seen.
fn in_service_already(blue: &Fleet, facts: &Facts) -> Result<String, PlanError> {
    let (version, servers) = (blue.version, blue.instances.len());
    match facts.healthy_in_service {
        Some(0) => Err(PlanError::new(
            format!("{version} is in service already, but none of its {servers} servers is healthy"),
            match blue.replaces {
                Some(before) => format!(
                    "`alcedo rollback` goes back to {before}; any change to the source makes a version with new servers"
                ),
                None => "any change to the source makes a version with new servers".to_owned(),
            },
        )),
        Some(healthy) if healthy < servers => {
            Ok(format!("launch: {version} is already in service; only {healthy} of its {servers} servers are healthy"))
        }
        _ => Ok(format!("launch: {version} is already in service")),
    }
}

/// Where the release comes from.
struct Target {
    version: Version,
    commit: Option<String>,
    builds: bool,
}

fn target(scope: &Scope<'_>, request: &Request, facts: &Facts) -> Result<Target, PlanError> {
    let fleet = |version: Version| facts.fleets.iter().find(|fleet| fleet.version == version);
    let published = |version: Version| {
        let manifest = facts.release.as_ref().filter(|manifest| manifest.version == version);
        let image = facts.images.iter().any(|image| image.version == version && image.available);
        if manifest.is_none() && !image && fleet(version).is_none() {
            return Err(unknown_version(version, facts));
        }
        let commit = manifest.and_then(|manifest| manifest.commit.clone());
        Ok(Target { version, commit: commit.or_else(|| fleet(version)?.commit.clone()), builds: false })
    };
    match *request {
        Request::Deploy { version: Some(version) } | Request::Rollback { to: Some(version) } => published(version),
        Request::EndHold => match facts.fleets.iter().find(|fleet| fleet.is_in_service()) {
            Some(fleet) => Ok(Target { version: fleet.version, commit: fleet.commit.clone(), builds: false }),
            None => Err(PlanError::new(
                "no fleet of ours is in service, so none of what is held may go",
                "`alcedo status` shows what the listener does; `alcedo rollback --to` takes a held version into service",
            )),
        },
        Request::Rollback { to: None } => match version_before(&facts.fleets) {
            Some(version) => published(version),
            None => Err(PlanError::new(
                "nobody can say which version was in service before",
                "name one with --to; `alcedo releases` lists what is published",
            )),
        },
        Request::Deploy { version: None } => match &facts.release {
            Some(manifest) => Ok(Target { version: manifest.version, commit: manifest.commit.clone(), builds: false }),
            None => {
                let commit = facts.source.as_ref().and_then(|source| source.commit.clone());
                Ok(Target { version: scope.new_version, commit, builds: true })
            }
        },
    }
}

fn unknown_version(version: Version, facts: &Facts) -> PlanError {
    // Its own folder may still be there, with less in it than a release needs.
    let others = facts.versions.iter().filter(|other| **other != version);
    let known: Vec<String> = others.take(10).map(ToString::to_string).collect();
    let hint = match known.is_empty() {
        true => "nothing is published yet; `alcedo deploy` builds and publishes".to_owned(),
        false => format!("published are: {}", known.join(", ")),
    };
    PlanError::new(format!("there is no version {version}: neither artifact, image nor fleet"), hint)
}

/// Everything the stages are planned from.
struct Case<'a> {
    scope: &'a Scope<'a>,
    facts: &'a Facts,
    target: Target,
    /// The fleet in service.
    blue: Option<&'a Fleet>,
    /// The target version's own fleet, where it is held: then only traffic has to move.
    held: Option<&'a Fleet>,
    rolls_back: bool,
    /// The run is there to retire what is held, and for nothing else.
    ends_hold: bool,
    /// The version was named, or is the one before: what there is of it is taken as it is.
    pinned: bool,
}

impl Case<'_> {
    fn pipeline(&self) -> &Pipeline {
        self.scope.pipeline
    }

    fn green(&self) -> Group {
        self.held.map_or(Group::Made, |fleet| Group::Known(fleet.target_group.clone()))
    }

    fn tests_over_ssh(&self) -> bool {
        self.pipeline().smoke_tests.iter().any(alcedo_pipeline::suite::Check::needs_ssh)
    }

    /// Whether the run logs in to the servers.
    fn needs_ssh(&self) -> bool {
        self.tests_over_ssh() || !self.pipeline().secrets.is_empty()
    }

    fn front_door(&self) -> FrontDoor {
        FrontDoor {
            url: facts::public_url(self.pipeline(), &self.facts.balancer),
            addresses: self.facts.balancer.addresses.clone(),
            version: self.pipeline().flip.version.clone(),
        }
    }
}

fn stages(case: &Case<'_>, draft: &mut Draft) -> Result<(), PlanError> {
    match case.held {
        Some(fleet) => {
            let (version, count) = (case.target.version, fleet.instances.len());
            draft.note(format!("launch: the fleet of {version} is held, with {count} servers"));
        }
        None => {
            let image = image::steps(case, draft)?;
            launch::steps(case, image, draft)?;
        }
    }
    traffic::steps(case, draft);
    retire::steps(case, draft);
    Ok(())
}

fn no_address() -> PlanError {
    PlanError::new(
        "this machine's own address is not known, so SSH cannot be opened for it alone",
        "allow https://checkip.amazonaws.com, or set ALCEDO_CHECK_IP_URL to a service that answers with the address",
    )
}

/// A plan being written.
#[derive(Default)]
struct Draft {
    /// Where it waits for somebody: before the first step of each of these stages.
    gates: Vec<Approval>,
    steps: Vec<PlannedStep>,
    notes: Vec<String>,
    reasons: Vec<Reason>,
}

impl Draft {
    /// Says why a stage is there.
    fn because(&mut self, stage: Stage, why: impl Into<String>) {
        self.reasons.push(Reason { stage, why: why.into() });
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn wait_for_approval(&mut self, before: Stage, within: Span) {
        // The first step of retire is the point of no return, and waiting for it is not.
        let stage = if before == Stage::Retire { Stage::Hold } else { before };
        self.add(
            stage,
            &gate::step_id(before),
            Sign::Check,
            format!("wait up to {within} for somebody to approve {before}"),
            None::<&str>,
            Action::AwaitApproval(gate::AwaitApproval { before, within }),
        );
    }

    /// Waits for somebody here, where the file says so for this stage.
    fn open_gate(&mut self, stage: Stage) {
        if let Some(gate) = self.gates.iter().position(|gate| gate.before.stage() == stage) {
            let gate = self.gates.remove(gate);
            self.wait_for_approval(stage, gate.within);
        }
    }

    fn add(
        &mut self,
        stage: Stage,
        id: &str,
        sign: Sign,
        does: impl Into<String>,
        undo: Option<impl Into<String>>,
        action: Action,
    ) {
        self.open_gate(stage);
        // The first step of retire is the first whose effect no later step can undo.
        let first_of_retire = stage == Stage::Retire && !self.steps.iter().any(|step| step.stage == Stage::Retire);
        self.steps.push(PlannedStep {
            id: StepId::from(id),
            stage,
            sign,
            does: does.into(),
            undo: undo.map(Into::into),
            point_of_no_return: first_of_retire,
            barrier: matches!(action, Action::Switch(_)),
            action: serde_json::to_value(action).expect("an action is JSON"),
        });
    }
}
