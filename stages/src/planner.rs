//! Facts and file become a plan. Pure: the same input gives the same plan, and nothing is left to decide.

use alcedo_images::{base::BuildBase, base_match};
use alcedo_pipeline::{
    file::Pipeline,
    ids::{RunId, StepId},
    plan::{Plan, PlannedStep, Purpose, Sign, Stage},
    units::Span,
    version::Version,
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    action::Action,
    bake, build,
    facts::{self, Facts, Fleet, Image, Request, version_before},
    flip::{self, Group},
    hold, ingress, launch,
    probes::FrontDoor,
    publish, retire, smoke,
};

/// What is planned for.
pub struct Scope<'a> {
    pub pipeline: &'a Pipeline,
    pub environment: &'a str,
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
    let mut draft = Draft::default();
    if let Some(blue) = blue
        && blue.version == target.version
    {
        draft.note(format!("launch: {} is already in service", target.version));
    } else {
        stages(scope, request, facts, &target, blue, &mut draft)?;
    }
    Ok(Plan {
        format: Plan::FORMAT,
        run: scope.run.clone(),
        app: scope.pipeline.app.clone(),
        environment: scope.environment.to_owned(),
        purpose: match request {
            Request::Deploy { .. } => Purpose::Deploy,
            Request::Rollback { .. } => Purpose::Rollback,
        },
        version: target.version,
        commit: target.commit.clone(),
        replaces: blue.map(|blue| blue.version),
        made_at: scope.now,
        notes: draft.notes,
        steps: draft.steps,
    })
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
    let known: Vec<String> = facts.versions.iter().take(10).map(ToString::to_string).collect();
    let hint = match known.is_empty() {
        true => "nothing is published yet; `alcedo deploy` builds and publishes".to_owned(),
        false => format!("published are: {}", known.join(", ")),
    };
    PlanError::new(format!("there is no version {version}: neither artifact, image nor fleet"), hint)
}

fn stages(
    scope: &Scope<'_>,
    request: &Request,
    facts: &Facts,
    target: &Target,
    blue: Option<&Fleet>,
    draft: &mut Draft,
) -> Result<(), PlanError> {
    let held = facts.fleets.iter().find(|fleet| fleet.version == target.version && fleet.is_held());
    let green = match held {
        Some(fleet) => {
            draft.note(format!(
                "launch: the fleet of {} is held and ready ({} servers)",
                target.version,
                fleet.instances.len()
            ));
            Group::Known(fleet.target_group.clone())
        }
        None => {
            let image = image(scope, facts, target, draft)?;
            launch(scope, facts, target, image, draft)?;
            smoke(scope, facts, target, draft);
            Group::Made
        }
    };
    flip(scope, facts, target, blue, held, &green, draft);
    let rolls_back = matches!(request, Request::Rollback { .. });
    hold(scope, facts, target, blue, held, &green, rolls_back, draft);
    retire(scope, facts, target, blue, rolls_back, draft);
    Ok(())
}

/// The image to launch from: one that exists, or `None` for the one that these steps bake.
fn image<'a>(
    scope: &Scope<'_>,
    facts: &'a Facts,
    target: &Target,
    draft: &mut Draft,
) -> Result<Option<&'a Image>, PlanError> {
    let pipeline = scope.pipeline;
    let known = facts.fingerprint.as_deref();
    let of_version = |image: &&Image| image.version == target.version && image.available;
    let same = facts.images.iter().filter(of_version).find(|image| Some(image.fingerprint.as_str()) == known);
    if let Some(image) = same {
        draft.note(format!("bake: {} has the same fingerprint", image.name));
        return Ok(Some(image));
    }
    if facts.release.is_none() && !target.builds {
        // Only an image is left of this version: it is what there is.
        let image = facts.images.iter().find(of_version).ok_or_else(|| unknown_version(target.version, facts))?;
        draft.note(format!("bake: the artifact of {} is gone, its image {} is there", target.version, image.name));
        return Ok(Some(image));
    }
    if target.builds {
        build(scope, facts, draft)?;
    } else {
        draft.note(format!("build: {} is published with the same inputs or asked for by name", target.version));
    }
    let address = facts.own_address.ok_or_else(no_address)?;
    check_base(facts)?;
    let bake = &pipeline.bake;
    let lease = bake.timeout.as_secs() + LEASE_MARGIN_SECONDS;
    let stage = Stage::Bake;
    draft.add(
        stage,
        bake::KEY,
        Sign::Add,
        "make an ephemeral key pair",
        Some("delete it"),
        Action::ImportKey(bake::ImportKey {}),
    );
    draft.add(
        stage,
        "bake/open-ssh",
        Sign::Add,
        format!(
            "open port {} of {} for {address}/32, for {} at most",
            bake.ssh_port,
            bake.security_group,
            Span::seconds(lease)
        ),
        Some("close it"),
        Action::OpenIngress(ingress::OpenIngress {
            security_group: facts.network.builder_security_group.clone(),
            address,
            ports: vec![bake.ssh_port],
            lease_seconds: lease,
        }),
    );
    draft.add(
        stage,
        bake::BUILDER,
        Sign::Add,
        format!("launch a builder, {} from {}", bake.instance_type, facts.base.name),
        Some("terminate it"),
        Action::LaunchBuilder(bake::LaunchBuilder {
            image: facts.base.ami.clone(),
            instance_type: bake.instance_type.clone(),
            subnet: facts.network.builder_subnet.clone(),
            security_group: facts.network.builder_security_group.clone(),
            lease_seconds: lease,
            timeout: bake.timeout,
        }),
    );
    draft.add(
        stage,
        "bake/provision",
        Sign::Change,
        format!("provision it with {}, check it, scrub it", target.version),
        None::<&str>,
        Action::Provision(bake::ProvisionBuilder {
            bake: bake.clone(),
            base: facts.base.clone(),
            own_address: address,
        }),
    );
    draft.add(
        stage,
        bake::IMAGE,
        Sign::Add,
        format!("create the image {}", bake::image_name(&pipeline.app, target.version, &scope.run)),
        Some("deregister it and delete its snapshots"),
        Action::CreateImage(bake::CreateImage {
            name: bake::image_name(&pipeline.app, target.version, &scope.run),
            base: facts.base.clone(),
            timeout: bake.timeout,
        }),
    );
    draft.add(
        stage,
        "bake/end-builder",
        Sign::Remove,
        "terminate the builder",
        None::<&str>,
        Action::EndBuilder(bake::EndBuilder {}),
    );
    draft.add(
        stage,
        "bake/close-ssh",
        Sign::Remove,
        format!("close port {} of {}", bake.ssh_port, bake.security_group),
        None::<&str>,
        Action::CloseIngress(ingress::CloseIngress {
            security_group: facts.network.builder_security_group.clone(),
            opened_by: StepId::from("bake/open-ssh"),
        }),
    );
    if !needs_ssh(pipeline) {
        draft.add(
            stage,
            "bake/delete-key",
            Sign::Remove,
            "delete the ephemeral key pair",
            None::<&str>,
            Action::DeleteKey(bake::DeleteKey {}),
        );
    }
    Ok(None)
}

/// The lease outlives the stage's own deadline by this, so that a slow bake is not cut off by its own lease.
const LEASE_MARGIN_SECONDS: u64 = 300;

fn no_address() -> PlanError {
    PlanError::new(
        "this machine's own address is not known, so SSH cannot be opened for it alone",
        "allow https://checkip.amazonaws.com, or set ALCEDO_CHECK_IP_URL to a service that answers with the address",
    )
}

/// An artifact goes only onto the base that it was built in. A vendor's image has no digest to compare: its builder is
/// looked at instead.
fn check_base(facts: &Facts) -> Result<(), PlanError> {
    let built_in = match (&facts.release, &facts.source) {
        (Some(manifest), _) => &manifest.base,
        (None, Some(source)) => &source.base,
        (None, None) => return Ok(()),
    };
    let Some(server) = &facts.base.recipe_digest else { return Ok(()) };
    base_match::same_recipe(built_in, &facts.base.name, server).map_err(|error| {
        let mut hints: Vec<String> = error.hint().map(str::to_owned).into_iter().collect();
        hints.push("deploy without --version to build again on the present base".to_owned());
        PlanError { what: error.to_string(), hints }
    })
}

fn build(scope: &Scope<'_>, facts: &Facts, draft: &mut Draft) -> Result<(), PlanError> {
    let pipeline = scope.pipeline;
    let source = facts
        .source
        .as_ref()
        .ok_or_else(|| PlanError::new("there is no source to build from", "run in the project's folder"))?;
    let where_ = match &source.base {
        BuildBase::Recipe { name, .. } => format!("recipe {name}"),
        BuildBase::Image { reference, .. } => reference.clone(),
    };
    let version = scope.new_version;
    draft.add(
        Stage::Build,
        "build/version",
        Sign::Add,
        format!("take the version {version}"),
        Some("give it back"),
        Action::Reserve(publish::Reserve {}),
    );
    draft.add(
        Stage::Build,
        build::RUN,
        Sign::Add,
        format!(
            "run {} commands in {where_} and pack {}",
            pipeline.build.commands.len(),
            pipeline.build.pack.join(", ")
        ),
        None::<&str>,
        Action::Build(build::RunBuild { build: pipeline.build.clone(), inputs: source.inputs.clone() }),
    );
    let to = format!("s3://{}/{}{}{version}/", pipeline.publish.bucket, pipeline.publish.prefix, slash(&pipeline.app));
    draft.add(
        Stage::Publish,
        "publish/artifact",
        Sign::Add,
        format!("upload {to}artifact.tar.zst"),
        Some("remove it"),
        Action::UploadArtifact(publish::UploadArtifact {}),
    );
    draft.add(
        Stage::Publish,
        "publish/manifest",
        Sign::Add,
        format!("write {to}manifest.json"),
        Some("remove it"),
        Action::WriteManifest(publish::WriteManifest {
            commands: pipeline.build.commands.clone(),
            inputs: source.inputs.clone(),
            dirty: source.dirty,
        }),
    );
    draft.add(
        Stage::Publish,
        "publish/pointer",
        Sign::Change,
        format!("move VERSION to {version}"),
        Some("move it back"),
        Action::MovePointer(publish::MovePointer { inputs: source.inputs.clone() }),
    );
    Ok(())
}

fn slash(name: &str) -> String {
    format!("{name}/")
}

/// The fleet's target group: the app for people, eight digits of environment, version and run for uniqueness. At most 29
/// characters of the 32 that AWS allows.
pub fn group_name(app: &str, environment: &str, version: Version, run: &RunId) -> String {
    let digest = Sha256::digest(format!("{app}/{environment}/{version}/{run}"));
    format!("{app}-{}", hex::encode(&digest[..4]))
}

fn needs_ssh(pipeline: &Pipeline) -> bool {
    pipeline.smoke_tests.iter().any(alcedo_pipeline::suite::Check::needs_ssh)
}

fn launch(
    scope: &Scope<'_>,
    facts: &Facts,
    target: &Target,
    image: Option<&Image>,
    draft: &mut Draft,
) -> Result<(), PlanError> {
    let pipeline = scope.pipeline;
    let settings = &pipeline.launch;
    let stage = Stage::Launch;
    let run_key = needs_ssh(pipeline);
    if run_key {
        if facts.own_address.is_none() {
            return Err(no_address());
        }
        if let Some(key) = &settings.key {
            return Err(PlanError::new(
                format!("launch.key is {key}, but smoke tests log in to the servers with the run's own key"),
                "leave out launch.key, or check over http, tcp or run instead of on the server",
            ));
        }
        if image.is_some() {
            draft.add(
                stage,
                bake::KEY,
                Sign::Add,
                "make an ephemeral key pair",
                Some("delete it"),
                Action::ImportKey(bake::ImportKey {}),
            );
        }
    }
    let name = group_name(&pipeline.app, scope.environment, target.version, &scope.run);
    draft.add(
        stage,
        launch::TARGET_GROUP,
        Sign::Add,
        format!("create target group {name}"),
        Some("delete it"),
        Action::CreateTargetGroup(launch::CreateTargetGroup {
            name: name.clone(),
            vpc: facts.balancer.vpc.clone(),
            port: settings.port,
            health_check: settings.health_check.clone(),
            deregistration_delay: settings.deregistration_delay,
        }),
    );
    let (does, preview) = preview(pipeline, facts)?;
    draft.add(
        stage,
        launch::PREVIEW,
        Sign::Add,
        format!("{does} to {name}"),
        Some("detach it"),
        Action::AttachPreview(preview),
    );
    draft.add(
        stage,
        launch::INSTANCES,
        Sign::Add,
        format!(
            "launch {} × {} from {} in {} subnets",
            settings.count,
            settings.instance_type,
            image.map_or("the new image", |image| &image.name),
            facts.network.subnets.len()
        ),
        Some("terminate them"),
        Action::LaunchInstances(launch::LaunchInstances {
            image: image.map(|image| image.ami.clone()),
            count: settings.count,
            instance_type: settings.instance_type.clone(),
            subnets: facts.network.subnets.clone(),
            security_groups: facts.network.security_groups.clone(),
            instance_profile: settings.instance_profile.clone(),
            key: settings.key.clone(),
            run_key,
            user_data: settings.user_data.clone(),
            timeout: settings.timeout,
        }),
    );
    draft.add(
        stage,
        "launch/register",
        Sign::Add,
        format!("register them in {name}"),
        Some("deregister them"),
        Action::RegisterTargets(launch::RegisterTargets {}),
    );
    draft.add(
        stage,
        "launch/healthy",
        Sign::Check,
        format!("wait until all {} are healthy, {} at most", settings.count, settings.timeout),
        None::<&str>,
        Action::AwaitHealthy(launch::AwaitHealthy { count: settings.count, timeout: settings.timeout }),
    );
    Ok(())
}

fn preview(pipeline: &Pipeline, facts: &Facts) -> Result<(String, launch::AttachPreview), PlanError> {
    let preview = &pipeline.flip.preview;
    if let Some(header) = &preview.header {
        // Every fleet keeps its own rule, so the wanted priority may be taken by the fleet before: the next free one
        // serves as well, because no two of these rules match the same request for long.
        let priority = (header.priority..=50_000).find(|priority| !facts.balancer.priorities.contains(priority));
        let priority = priority.ok_or_else(|| {
            PlanError::new("the listener has no free rule priority", "choose a lower flip.preview.header.priority")
        })?;
        let action = launch::AttachPreview::Header {
            listener: facts.balancer.listener.clone(),
            header: header.clone(),
            priority,
        };
        return Ok((format!("route requests with {}: {}", header.name, header.value), action));
    }
    let port = preview.port.unwrap_or_default();
    let there = facts.balancer.preview_listener.clone();
    let action = launch::AttachPreview::Port {
        balancer: facts.balancer.arn.clone(),
        port,
        listener: there.as_ref().map(|(arn, _)| arn.clone()),
        before: there.map(|(_, routing)| routing),
    };
    Ok((format!("route port {port}"), action))
}

fn front_door(pipeline: &Pipeline, facts: &Facts) -> FrontDoor {
    let balancer = &facts.balancer;
    let url = facts::public_url(pipeline, balancer);
    FrontDoor { url, addresses: balancer.addresses.clone(), version: pipeline.flip.version.clone() }
}

fn smoke(scope: &Scope<'_>, facts: &Facts, target: &Target, draft: &mut Draft) {
    let pipeline = scope.pipeline;
    if pipeline.smoke_tests.is_empty() {
        draft.note("smoke: no smoke_tests in the file");
        return;
    }
    let stage = Stage::Smoke;
    let group = &facts.network.security_groups[0];
    // Servers are tested directly: the app's port, and SSH where a test logs in, are open for that long only.
    let mut ports = vec![pipeline.launch.port];
    if needs_ssh(pipeline) {
        ports.push(pipeline.bake.ssh_port);
    }
    let named: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let named = format!("port {} of {}", named.join(" and "), pipeline.launch.security_groups[0]);
    if let Some(address) = facts.own_address {
        let open =
            ingress::OpenIngress { security_group: group.clone(), address, ports, lease_seconds: SMOKE_LEASE_SECONDS };
        let does = format!("open {named} for {address}/32");
        draft.add(stage, "smoke/open", Sign::Add, does, Some("close it"), Action::OpenIngress(open));
    }
    draft.add(
        stage,
        "smoke/suite",
        Sign::Check,
        format!("run {} smoke tests on each server and through the preview", pipeline.smoke_tests.len()),
        None::<&str>,
        Action::SmokeTest(smoke::SmokeTest {
            checks: pipeline.smoke_tests.clone(),
            servers: facts.own_address.is_some(),
            private_address: pipeline.bake.private_address,
            app_port: pipeline.launch.port,
            ssh_user: pipeline.bake.ssh_user.clone(),
            ssh_port: pipeline.bake.ssh_port,
            front_door: front_door(pipeline, facts),
            preview: pipeline.flip.preview.clone(),
            version: target.version.to_string(),
        }),
    );
    if facts.own_address.is_some() {
        let close = ingress::CloseIngress { security_group: group.clone(), opened_by: StepId::from("smoke/open") };
        let does = format!("close {named}");
        draft.add(stage, "smoke/close", Sign::Remove, does, None::<&str>, Action::CloseIngress(close));
    }
    if needs_ssh(pipeline) {
        let does = "delete the ephemeral key pair";
        draft.add(stage, "smoke/delete-key", Sign::Remove, does, None::<&str>, Action::DeleteKey(bake::DeleteKey {}));
    }
}

/// Longer than any suite should take; the rules are closed as soon as the suite has ended.
const SMOKE_LEASE_SECONDS: u64 = 1800;

fn flip(
    scope: &Scope<'_>,
    facts: &Facts,
    target: &Target,
    blue: Option<&Fleet>,
    held: Option<&Fleet>,
    green: &Group,
    draft: &mut Draft,
) {
    let pipeline = scope.pipeline;
    let stage = Stage::Flip;
    let from = blue.map_or_else(|| facts.balancer.routing.to_string(), |blue| blue.version.to_string());
    draft.add(
        stage,
        "flip/switch",
        Sign::Change,
        format!(
            "move all traffic on {}:{} from {from} to {}",
            facts.balancer.name, facts.balancer.port, target.version
        ),
        Some(format!("move it back to {from}")),
        Action::Switch(flip::Switch {
            place: facts.balancer.place.clone(),
            before: facts.balancer.routing.clone(),
            green: green.clone(),
            healthy_minimum: held
                .map_or(pipeline.launch.count, |held| u32::try_from(held.instances.len()).unwrap_or(1).max(1)),
        }),
    );
    draft.add(
        stage,
        "flip/prove",
        Sign::Check,
        format!("prove that only {} answers, at every balancer node", target.version),
        None::<&str>,
        Action::Prove(flip::Prove {
            front_door: front_door(pipeline, facts),
            version: target.version.to_string(),
            timeout: pipeline.flip.timeout,
        }),
    );
    if held.is_none() {
        let release = match &pipeline.flip.preview.header {
            Some(header) => flip::ReleasePreview::Header { header: header.clone() },
            None => {
                flip::ReleasePreview::Port { to: blue.map(|blue| crate::listener::Routing::to(&blue.target_group)) }
            }
        };
        draft.add(
            stage,
            "flip/release-preview",
            Sign::Change,
            "free the preview for the next candidate",
            Some("take it again"),
            Action::ReleasePreview(release),
        );
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one fact the stage depends on; a struct would hide which")]
fn hold(
    scope: &Scope<'_>,
    facts: &Facts,
    target: &Target,
    blue: Option<&Fleet>,
    held: Option<&Fleet>,
    green: &Group,
    rolls_back: bool,
    draft: &mut Draft,
) {
    let settings = &scope.pipeline.hold;
    if blue.is_none() && held.is_none() {
        return;
    }
    let stage = Stage::Hold;
    let blue_version = blue.map_or_else(|| "nothing".to_owned(), |blue| blue.version.to_string());
    draft.add(
        stage,
        "hold/mark",
        Sign::Change,
        format!("hold {blue_version} for {}", settings.span),
        Some("take the mark off"),
        Action::MarkHeld(hold::MarkHeld {
            blue: blue.map(|blue| blue.target_group.clone()),
            green: green.clone(),
            green_before: held.and_then(|held| {
                let until = held.held_until?;
                let replaces_now = blue.map(|blue| blue.version);
                Some(hold::HeldBefore { until, replaces: held.replaces, replaces_now })
            }),
            span: settings.span,
        }),
    );
    if settings.attended && !settings.span.is_zero() && !rolls_back {
        draft.add(
            stage,
            "hold/watch",
            Sign::Check,
            format!("watch {} for {}; on trouble go back to {blue_version}", target.version, settings.span),
            None::<&str>,
            Action::Watch(hold::Watch {
                front_door: front_door(scope.pipeline, facts),
                version: target.version.to_string(),
                span: settings.span,
            }),
        );
    }
}

/// Which fleets go: all that are neither green nor the reserve. A rollback retires nothing: the version that was bad is
/// kept to be looked at, and goes with the next deploy.
fn retire(
    scope: &Scope<'_>,
    facts: &Facts,
    target: &Target,
    blue: Option<&Fleet>,
    rolls_back: bool,
    draft: &mut Draft,
) {
    if rolls_back {
        return;
    }
    let settings = &scope.pipeline.hold;
    let keeps_blue = !settings.attended && !settings.span.is_zero();
    let goes = |fleet: &&Fleet| {
        let is_blue = blue.is_some_and(|blue| blue.target_group == fleet.target_group);
        fleet.version != target.version && if is_blue { !keeps_blue } else { fleet.is_held() }
    };
    let going: Vec<&Fleet> = facts.fleets.iter().filter(goes).collect();
    let drain = Span::from(scope.pipeline.retire.timeout.duration());
    for fleet in &going {
        let version = fleet.version;
        draft.add(
            Stage::Retire,
            &format!("retire/{version}/drain"),
            Sign::Remove,
            format!("deregister {version} and let its requests finish"),
            None::<&str>,
            Action::Drain(retire::Drain {
                target_group: fleet.target_group.clone(),
                instances: fleet.instances.clone(),
                place: facts.balancer.place.clone(),
                timeout: drain,
            }),
        );
        draft.add(
            Stage::Retire,
            &format!("retire/{version}/terminate"),
            Sign::Remove,
            format!("terminate the {} servers of {version}", fleet.instances.len()),
            None::<&str>,
            Action::Terminate(retire::Terminate { instances: fleet.instances.clone() }),
        );
        let preview_listener = facts.balancer.preview_listener.as_ref();
        let points_here = preview_listener.filter(|(_, routing)| routing.named() == [fleet.target_group.as_str()]);
        draft.add(
            Stage::Retire,
            &format!("retire/{version}/target-group"),
            Sign::Remove,
            format!("delete target group {}", fleet.name),
            None::<&str>,
            Action::DeleteGroup(retire::DeleteGroup {
                target_group: fleet.target_group.clone(),
                preview_rule: fleet.preview_rule.clone(),
                preview_listener: points_here.map(|(arn, _)| arn.clone()),
            }),
        );
    }
    prune(scope, facts, target, &going, draft);
}

fn prune(scope: &Scope<'_>, facts: &Facts, target: &Target, going: &[&Fleet], draft: &mut Draft) {
    let staying: Vec<Version> = facts
        .fleets
        .iter()
        .filter(|fleet| !going.iter().any(|gone| gone.target_group == fleet.target_group))
        .map(|fleet| fleet.version)
        .chain([target.version])
        .chain(facts.fleets.iter().filter_map(|fleet| fleet.replaces))
        .collect();
    let keep_images = scope.pipeline.retire.keep_images as usize;
    // The image that this run makes counts among those that are kept.
    let new_image = usize::from(!facts.images.iter().any(|image| image.version == target.version));
    let images: Vec<retire::OldImage> = facts
        .images
        .iter()
        .skip(keep_images.saturating_sub(new_image))
        .filter(|image| image.available && !staying.contains(&image.version))
        .map(|image| retire::OldImage {
            ami: image.ami.clone(),
            name: image.name.clone(),
            snapshots: image.snapshots.clone(),
        })
        .collect();
    let keep = scope.pipeline.publish.keep as usize;
    let versions: Vec<Version> = facts
        .versions
        .iter()
        .skip(keep.saturating_sub(usize::from(target.builds)))
        .filter(|version| !staying.contains(version))
        .copied()
        .collect();
    if images.is_empty() && versions.is_empty() {
        return;
    }
    draft.add(
        Stage::Retire,
        "retire/prune",
        Sign::Remove,
        format!("remove {} images and {} artifacts beyond the retention", images.len(), versions.len()),
        None::<&str>,
        Action::Prune(retire::Prune { images, versions }),
    );
}

/// A plan being written.
#[derive(Default)]
struct Draft {
    steps: Vec<PlannedStep>,
    notes: Vec<String>,
}

impl Draft {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
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
        // The first step of retire is the first whose effect no later step can undo.
        let first_of_retire = stage == Stage::Retire && !self.steps.iter().any(|step| step.stage == Stage::Retire);
        self.steps.push(PlannedStep {
            id: StepId::from(id),
            stage,
            sign,
            does: does.into(),
            undo: undo.map(Into::into),
            point_of_no_return: first_of_retire,
            action: serde_json::to_value(action).expect("an action is JSON"),
        });
    }
}
