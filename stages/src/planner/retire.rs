//! Which fleets, images and artifacts go, once green is proven.

use alcedo_pipeline::{
    plan::{Sign, Stage},
    units::Span,
    version::Version,
};

use super::{Case, Draft, PlanError};
use crate::{action::Action, facts::Fleet, retire};

/// Which fleets go: all that are neither green nor the reserve. A rollback retires nothing: the version that was bad is
/// kept to be looked at, and goes with the next deploy.
pub(super) fn steps(case: &Case<'_>, draft: &mut Draft) {
    let Case { facts, target, blue, .. } = case;
    if case.rolls_back {
        return;
    }
    let settings = &case.pipeline().hold;
    let keeps_blue = !settings.attended && !settings.span.is_zero();
    let goes = |fleet: &&Fleet| {
        let is_blue = blue.is_some_and(|blue| blue.target_group == fleet.target_group);
        fleet.version != target.version && (!is_blue || !keeps_blue)
    };
    let going: Vec<&Fleet> = facts.fleets.iter().filter(goes).collect();
    retire(case, &going, draft);
    prune(case, &going, draft);
}

/// What is planned where the target is in service already: fleets whose hold is over, which a retire that got stuck, or
/// nobody, has ended.
pub(super) fn what_is_over(case: &Case<'_>, draft: &mut Draft) {
    if case.rolls_back {
        return;
    }
    let over = |fleet: &&Fleet| fleet.is_held() && fleet.held_until.is_some_and(|until| until <= case.scope.now);
    let going: Vec<&Fleet> = case.facts.fleets.iter().filter(over).collect();
    retire(case, &going, draft);
}

/// What is planned where a hold is to end now.
pub(super) fn what_is_held(case: &Case<'_>, draft: &mut Draft) -> Result<(), PlanError> {
    let going: Vec<&Fleet> = case.facts.fleets.iter().filter(|fleet| fleet.is_held()).collect();
    if going.is_empty() {
        return Err(PlanError::new("nothing is held", "`alcedo status` shows every fleet"));
    }
    retire(case, &going, draft);
    Ok(())
}

fn retire(case: &Case<'_>, going: &[&Fleet], draft: &mut Draft) {
    let facts = case.facts;
    let drain = Span::from(case.pipeline().retire.timeout.duration());
    for fleet in going {
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
                balancer: case.pipeline().watch.metrics.then(|| facts.balancer.arn.clone()),
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
        draft.add(
            Stage::Retire,
            &format!("retire/{version}/target-group"),
            Sign::Remove,
            format!("delete target group {}", fleet.name),
            None::<&str>,
            Action::DeleteGroup(retire::DeleteGroup {
                target_group: fleet.target_group.clone(),
                preview_rule: fleet.preview_rule.clone(),
                preview_listener: facts.balancer.preview_listener.as_ref().map(|(arn, _)| arn.clone()),
                place: facts.balancer.place.clone(),
            }),
        );
    }
}

fn prune(case: &Case<'_>, going: &[&Fleet], draft: &mut Draft) {
    let Case { facts, target, .. } = case;
    let staying: Vec<Version> = facts
        .fleets
        .iter()
        .filter(|fleet| !going.iter().any(|gone| gone.target_group == fleet.target_group))
        .map(|fleet| fleet.version)
        .chain([target.version])
        .chain(facts.fleets.iter().filter_map(|fleet| fleet.replaces))
        .chain(facts.used_elsewhere.iter().copied())
        .chain(facts.pins.iter().copied())
        .collect();
    let keep_images = case.pipeline().retire.keep_images as usize;
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
    let keep = case.pipeline().publish.keep as usize;
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
