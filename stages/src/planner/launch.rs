//! Green: its target group, preview, servers and smoke tests.

use alcedo_pipeline::{
    file::KeepAliveRule,
    ids::{RunId, StepId},
    plan::{Sign, Stage},
    version::Version,
};
use sha2::{Digest, Sha256};

use super::{Case, Draft, PlanError, no_address, why};
use crate::{
    action::Action,
    bake,
    facts::{self, Image},
    ingress,
    keep_alive::KeepAlive,
    launch, preview, secrets, smoke,
};

/// Longer than any suite should take; the rules are closed as soon as the suite has ended.
const SMOKE_LEASE_SECONDS: u64 = 1800;

/// Beyond the servers' deadline, for what the run does around it.
const LAUNCH_LEASE_MARGIN_SECONDS: u64 = 300;

const OPEN_FOR_SECRETS: &str = "launch/open-ssh";

/// The fleet's target group: the app for people, eight digits of environment, version and run for uniqueness. At most 29
/// characters of the 32 that AWS allows.
pub fn group_name(app: &str, environment: &str, version: Version, run: &RunId) -> String {
    let digest = Sha256::digest(format!("{app}/{environment}/{version}/{run}"));
    format!("{app}-{}", hex::encode(&digest[..4]))
}

pub(super) fn steps(case: &Case<'_>, image: Option<&Image>, draft: &mut Draft) -> Result<(), PlanError> {
    let Case { scope, facts, target, .. } = case;
    let pipeline = case.pipeline();
    let settings = &pipeline.launch;
    let stage = Stage::Launch;
    let run_key = case.needs_ssh();
    draft.because(stage, why::launch(case, image.is_none()));
    if run_key {
        if facts.own_address.is_none() {
            return Err(no_address());
        }
        if let Some(key) = &settings.key {
            return Err(PlanError::new(
                format!("launch.key is {key}, but the run logs in to the servers with a key of its own"),
                match case.tests_over_ssh() {
                    true => "leave out launch.key, or check over http, tcp or run instead of on the server",
                    false => "leave out launch.key: secrets are handed to the servers over SSH",
                },
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
            launched_with: Some(facts.launch_parts.clone()),
            place: Some(launch::ReachedAt {
                listener: facts::listener_tag(&facts.balancer),
                url: facts::own_url(&facts.balancer),
            }),
        }),
    );
    let (does, attach) = attach_preview(case)?;
    draft.add(
        stage,
        preview::ATTACH,
        Sign::Add,
        format!("{does} to {name}"),
        Some("detach it"),
        Action::AttachPreview(attach),
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
    hand_over_secrets(case, draft);
    draft.add(
        stage,
        launch::REGISTER,
        Sign::Add,
        format!("register them in {name}"),
        Some("deregister them"),
        Action::RegisterTargets(launch::RegisterTargets {}),
    );
    draft.add(
        stage,
        launch::HEALTHY,
        Sign::Check,
        format!("wait until all {} are healthy, {} at most", settings.count, settings.timeout),
        None::<&str>,
        Action::AwaitHealthy(launch::AwaitHealthy { count: settings.count, timeout: settings.timeout }),
    );
    smoke(case, draft);
    Ok(())
}

/// Before the balancer asks the servers anything: an app that waits for its secrets is not well yet.
fn hand_over_secrets(case: &Case<'_>, draft: &mut Draft) {
    let pipeline = case.pipeline();
    let Some(address) = case.facts.own_address.filter(|_| !pipeline.secrets.is_empty()) else { return };
    let stage = Stage::Launch;
    let group = &case.facts.network.security_groups[0];
    let port = pipeline.bake.ssh_port;
    let named = format!("port {port} of {}", pipeline.launch.security_groups[0]);
    let open = ingress::OpenIngress {
        security_group: group.clone(),
        address,
        ports: vec![port],
        lease_seconds: secrets::longest(pipeline.launch.count, pipeline.launch.timeout) + LAUNCH_LEASE_MARGIN_SECONDS,
    };
    let does = format!("open {named} for {address}/32");
    draft.add(stage, OPEN_FOR_SECRETS, Sign::Add, does, Some("close it"), Action::OpenIngress(open));
    let names: Vec<&str> = pipeline.secrets.keys().map(String::as_str).collect();
    draft.add(
        stage,
        secrets::HAND_OVER,
        Sign::Change,
        format!("hand each server its secrets, in memory: {}", names.join(", ")),
        None::<&str>,
        Action::HandOverSecrets(secrets::HandOver {
            sources: pipeline.secrets.clone(),
            ssh_user: pipeline.bake.ssh_user.clone(),
            ssh_port: port,
            private_address: pipeline.bake.private_address,
            timeout: pipeline.launch.timeout,
            last_login: !case.tests_over_ssh(),
        }),
    );
    let close = ingress::CloseIngress { security_group: group.clone(), opened_by: StepId::from(OPEN_FOR_SECRETS) };
    draft.add(
        stage,
        "launch/close-ssh",
        Sign::Remove,
        format!("close {named}"),
        None::<&str>,
        Action::CloseIngress(close),
    );
    if !case.tests_over_ssh() {
        let does = "delete the ephemeral key pair";
        draft.add(stage, "launch/delete-key", Sign::Remove, does, None::<&str>, Action::DeleteKey(bake::DeleteKey {}));
    }
}

fn attach_preview(case: &Case<'_>) -> Result<(String, preview::AttachPreview), PlanError> {
    let (pipeline, facts) = (case.pipeline(), case.facts);
    let wanted = &pipeline.flip.preview;
    if let Some(header) = &wanted.header {
        // Every fleet keeps its own rule, so the wanted priority may be taken by the fleet before: the next free one
        // serves as well, because no two of these rules match the same request for long.
        let priority = (header.priority..=50_000).find(|priority| !facts.balancer.priorities.contains(priority));
        let priority = priority.ok_or_else(|| {
            PlanError::new("the listener has no free rule priority", "choose a lower flip.preview.header.priority")
        })?;
        let action = preview::AttachPreview::Header {
            listener: facts.balancer.listener.clone(),
            header: header.clone(),
            priority,
        };
        return Ok((format!("route requests with {}: {}", header.name, header.value), action));
    }
    let port = wanted.port.unwrap_or_default();
    let there = facts.balancer.preview_listener.clone();
    let action = preview::AttachPreview::Port {
        balancer: facts.balancer.arn.clone(),
        port,
        listener: there.as_ref().map(|(arn, _)| arn.clone()),
        before: there.map(|(_, routing)| routing),
        secured: facts.balancer.secured.clone(),
    };
    Ok((format!("route port {port}"), action))
}

fn smoke(case: &Case<'_>, draft: &mut Draft) {
    let Case { facts, target, .. } = case;
    let pipeline = case.pipeline();
    if pipeline.smoke_tests.is_empty() {
        draft.note("smoke: no smoke_tests in the file");
        return;
    }
    let stage = Stage::Smoke;
    let group = &facts.network.security_groups[0];
    // Servers are tested directly: the app's port, and SSH where a test logs in, are open for that long only.
    let mut ports = vec![pipeline.launch.port];
    if case.tests_over_ssh() {
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
            front_door: case.front_door(),
            preview: pipeline.flip.preview.clone(),
            version: target.version.to_string(),
            keep_alive: Some(KeepAlive {
                balancer: facts.balancer.arn.clone(),
                path: pipeline.launch.health_check.path.clone(),
                // Going back is not held up by what the servers did before.
                required: pipeline.flip.keep_alive == KeepAliveRule::Require && !case.rolls_back,
            }),
        }),
    );
    if facts.own_address.is_some() {
        let close = ingress::CloseIngress { security_group: group.clone(), opened_by: StepId::from("smoke/open") };
        let does = format!("close {named}");
        draft.add(stage, "smoke/close", Sign::Remove, does, None::<&str>, Action::CloseIngress(close));
    }
    if case.tests_over_ssh() {
        let does = "delete the ephemeral key pair";
        draft.add(stage, "smoke/delete-key", Sign::Remove, does, None::<&str>, Action::DeleteKey(bake::DeleteKey {}));
    }
}
