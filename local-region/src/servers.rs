//! Makes the machines follow the records: each change of an instance's state is written first, then [`follow`] takes its
//! machine there. A region that was killed in between goes on from the records, with the same function.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use crate::{
    config::Backing,
    firewall,
    instances::{MachineError, MachineSpec},
    region::Region,
    state::{
        World,
        ec2::{ImageState, InstanceState, image::ImageRequest, instance_type, lifecycle},
    },
    wire::ApiError,
};

/// How often the region looks whether a guest has shut itself down.
const WATCH_EVERY: Duration = Duration::from_secs(3);

/// Takes the machine of an instance to where its record says, beside the requests.
pub fn follow(region: &Arc<Region>, instance_id: &str) {
    let (region, instance_id) = (region.clone(), instance_id.to_owned());
    region.tasks.clone().spawn(async move {
        let lock = region.lock_machine(&instance_id).await;
        let state = region.read(|world| world.ec2.instance(&instance_id).map(|it| it.state));
        match state {
            Some(InstanceState::Pending) => bring_up(&region, &instance_id).await,
            Some(InstanceState::ShuttingDown) => end(&region, &instance_id).await,
            Some(InstanceState::Stopping) => stop(&region, &instance_id).await,
            _ => {}
        }
        drop(lock);
    });
}

async fn bring_up(region: &Arc<Region>, instance_id: &str) {
    let Some((spec, rules, made)) = region.read(|world| plan_of(world, region, instance_id)) else { return };
    let outcome =
        if made { region.machines.start(instance_id).await } else { region.machines.launch(&spec, &rules).await };
    match outcome {
        Ok(()) => {
            record(region, |world, now| {
                world.ec2.mark_machine(instance_id, true);
                world.ec2.set_state(instance_id, InstanceState::Running, None, now);
            });
            // Groups may have changed while it started; and it may be a source in other groups' rules.
            push_firewalls(region).await;
        }
        Err(error) => {
            let why = explain(&error);
            tracing::warn!(instance_id, why, "the engine could not start an instance");
            if let Err(error) = region.machines.terminate(instance_id).await {
                tracing::warn!(instance_id, why = explain(&error), "what is left of it could not be removed");
            }
            record(region, |world, now| {
                let reason = Some(lifecycle::engine_failed(&why));
                world.ec2.set_state(instance_id, InstanceState::Terminated, reason, now);
            });
        }
    }
}

async fn end(region: &Arc<Region>, instance_id: &str) {
    if let Err(error) = region.machines.terminate(instance_id).await {
        // The record goes on: `remove_all` of a reset finds what is left by its label.
        tracing::warn!(instance_id, why = explain(&error), "an instance's machine could not be removed");
    }
    record(region, |world, now| {
        world.ec2.set_state(instance_id, InstanceState::Terminated, None, now);
    });
    region.forget_machine(instance_id);
    push_firewalls(region).await;
}

/// Restarts a guest beside the requests; its record stays `running`.
pub fn reboot(region: &Arc<Region>, instance_id: &str) {
    let (region, instance_id) = (region.clone(), instance_id.to_owned());
    region.tasks.clone().spawn(async move {
        let _lock = region.lock_machine(&instance_id).await;
        let runs =
            region.read(|world| world.ec2.instance(&instance_id).is_some_and(|it| it.state == InstanceState::Running));
        if runs && let Err(error) = region.machines.reboot(&instance_id).await {
            tracing::warn!(instance_id, why = explain(&error), "an instance could not be rebooted");
        }
    });
}

async fn stop(region: &Arc<Region>, instance_id: &str) {
    if let Err(error) = region.machines.stop(instance_id).await {
        tracing::warn!(instance_id, why = explain(&error), "an instance's machine could not be stopped");
    }
    record(region, |world, now| {
        world.ec2.set_state(instance_id, InstanceState::Stopped, None, now);
    });
}

fn plan_of(
    world: &World,
    region: &Region,
    instance_id: &str,
) -> Option<(MachineSpec, Vec<crate::instances::FirewallRule>, bool)> {
    let instance = world.ec2.instance(instance_id)?;
    let kind = instance_type::find(&instance.instance_type)?;
    let spec = MachineSpec {
        instance_id: instance_id.to_owned(),
        image: instance.root_reference.clone(),
        private_ip: instance.private_ip,
        hostname: instance.private_dns_name(),
        memory_mib: kind.memory_mib,
        vcpus: kind.vcpus,
    };
    Some((spec, firewall::rules_of(world, region, instance_id), instance.has_machine))
}

/// A change that cannot be refused.
fn record(region: &Region, change: impl FnOnce(&mut World, jiff::Timestamp)) {
    let now = region.clock.now();
    let done: Result<(), std::convert::Infallible> = region.change(|world| {
        change(world, now);
        Ok(())
    });
    let Ok(()) = done;
}

async fn push_firewalls(region: &Region) {
    if let Err(error) = firewall::apply(region).await {
        tracing::warn!(why = explain(&error), "a server's security groups could not be applied");
    }
}

/// Makes the images of recipe roots match what the engine holds now.
///
/// # Errors
/// Where the engine does not answer.
pub async fn refresh_base_images(region: &Region) -> Result<(), ApiError> {
    let held = region.machines.base_images().await.map_err(|error| engine_error(&error))?;
    let lag = SignedDuration::try_from(region.config.lags.new_record).unwrap_or_default();
    let now = region.clock.now();
    // Saved only where something changed: this runs before every launch and every description of images.
    let changed = region.read(|world| world.ec2.clone().sync_base_images(&held, lag, now));
    if changed {
        record(region, |world, now| {
            world.ec2.sync_base_images(&held, lag, now);
        });
    }
    Ok(())
}

/// Begins an image and captures the server's root beside the requests. Answers the image's id.
///
/// # Errors
/// What [`crate::state::ec2::Ec2::begin_image`] refuses.
pub fn create_image(region: &Arc<Region>, request: &ImageRequest) -> Result<String, ApiError> {
    let moment = region.moment();
    let image_id = region.change(|world| world.ec2.begin_image(request, moment))?;
    let (region, image, request) = (region.clone(), image_id.clone(), request.clone());
    region.tasks.clone().spawn(async move {
        let outcome = capture(&region, &image, &request).await;
        if !region.pause(region.config.lags.image).await {
            return;
        }
        record(&region, |world, _| world.ec2.finish_image(&image, outcome));
    });
    Ok(image_id)
}

async fn capture(region: &Arc<Region>, image_id: &str, request: &ImageRequest) -> Result<(String, u64), String> {
    let instance_id = &request.instance_id;
    let _lock = region.lock_machine(instance_id).await;
    let running =
        region.read(|world| world.ec2.instance(instance_id).is_some_and(|it| it.state == InstanceState::Running));
    // AWS shuts the guest down for a consistent disk; its address and its record stay as they are.
    let pause_guest = running && !request.no_reboot;
    if pause_guest {
        region.machines.stop(instance_id).await.map_err(|error| explain(&error))?;
    }
    let captured = region.machines.capture(instance_id, image_id).await;
    if pause_guest {
        let still_wanted =
            region.read(|world| world.ec2.instance(instance_id).is_some_and(|it| it.state == InstanceState::Running));
        if still_wanted {
            region.machines.start(instance_id).await.map_err(|error| explain(&error))?;
        }
    }
    captured.map(|image| (image.reference, image.size_bytes)).map_err(|error| explain(&error))
}

/// After a restart of the region or of this machine: takes every instance to where its record says, and ends the images
/// whose capture nobody finishes any more.
pub async fn resume(region: &Arc<Region>) {
    record(region, |world, now| {
        world.ec2.forget_terminated(now);
        let unfinished: Vec<String> = world
            .ec2
            .images()
            .filter(|image| image.state == ImageState::Pending)
            .map(|image| image.image_id.clone())
            .collect();
        for image_id in unfinished {
            world.ec2.finish_image(&image_id, Err("the region was stopped while it captured the server".to_owned()));
        }
    });
    let known: Vec<(String, InstanceState)> =
        region.read(|world| world.ec2.instances().map(|it| (it.instance_id.clone(), it.state)).collect());
    for (instance_id, state) in known {
        if state == InstanceState::Running {
            revive(region, &instance_id).await;
        } else {
            follow(region, &instance_id);
        }
    }
    push_firewalls(region).await;
}

/// Instances that run, as the records say.
pub fn running(region: &Region) -> Vec<String> {
    region.read(|world| {
        let running = world.ec2.instances().filter(|it| it.state == InstanceState::Running);
        running.map(|it| it.instance_id.clone()).collect()
    })
}

/// A running instance's machine is started again where the engine still has it; else the instance is terminated.
async fn revive(region: &Arc<Region>, instance_id: &str) {
    let _lock = region.lock_machine(instance_id).await;
    let outcome = match region.machines.is_running(instance_id).await {
        Ok(true) => Ok(()),
        Ok(false) if region.config.backing == Backing::RecordsOnly => relaunch(region, instance_id).await,
        Ok(false) => region.machines.start(instance_id).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        let why = explain(&error);
        tracing::warn!(instance_id, why, "a running instance's machine is gone");
        record(region, |world, now| {
            let reason = Some(lifecycle::engine_failed(&why));
            world.ec2.set_state(instance_id, InstanceState::Terminated, reason, now);
        });
    }
}

/// Where nothing runs behind the records there is no first boot that a second launch would repeat.
async fn relaunch(region: &Region, instance_id: &str) -> Result<(), MachineError> {
    if let Some((spec, rules, _)) = region.read(|world| plan_of(world, region, instance_id)) {
        region.machines.launch(&spec, &rules).await?;
    }
    region.machines.start(instance_id).await
}

/// Notices guests that shut themselves down, until the region stops.
pub async fn watch_guests(region: Arc<Region>) {
    while region.pause(WATCH_EVERY).await {
        let running: Vec<String> = region.read(|world| {
            let instances = world.ec2.instances();
            instances.filter(|it| it.state == InstanceState::Running).map(|it| it.instance_id.clone()).collect()
        });
        for instance_id in running {
            // Whoever holds the lock may have stopped the machine on purpose, e.g. for an image.
            let _lock = region.lock_machine(&instance_id).await;
            if !matches!(region.machines.is_running(&instance_id).await, Ok(false)) {
                continue;
            }
            record(&region, |world, now| {
                let ends = world.ec2.instance(&instance_id).is_some_and(|it| it.terminate_on_shutdown);
                let next = if ends { InstanceState::ShuttingDown } else { InstanceState::Stopping };
                world.ec2.set_state(&instance_id, next, Some(lifecycle::guest_ended()), now);
            });
            follow(&region, &instance_id);
        }
    }
}

/// An engine's failure as an API error, with its whole chain and what to do about it.
pub fn engine_error(error: &MachineError) -> ApiError {
    ApiError::with_status(500, "InternalError", explain(error))
}

fn explain(error: &MachineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    match &error.hint {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}
