//! Which fleets, images and artifacts go, once green is proven.

use alcedo_pipeline::{
    plan::{Sign, Stage},
    units::Span,
    version::Version,
};

use super::{Case, Draft, PlanError};
use crate::{
    action::Action,
    facts::Fleet,
    last_look::{self, Successor, Terms},
    quiet::{self, Leaving},
    retire,
};

/// Which fleets go: all that are neither green nor the reserve. A rollback retires nothing: the version that was bad is
/// kept to be looked at, and goes with the next deploy.
pub(super) fn steps(case: &Case<'_>, draft: &mut Draft) {
    let Case { facts, blue, held, .. } = case;
    if case.rolls_back {
        return;
    }
    let settings = &case.pipeline().hold;
    let keeps_blue = !settings.attended && !settings.span.is_zero();
    let goes = |fleet: &&Fleet| {
        let is_blue = blue.is_some_and(|blue| blue.target_group == fleet.target_group);
        // An earlier launch of the same version, whose run came to no good end, is not green.
        let is_green = held.is_some_and(|held| held.target_group == fleet.target_group);
        !is_green && (!is_blue || !keeps_blue)
    };
    let going = without_foreign(case, facts.fleets.iter().filter(goes), draft);
    let servers = if held.is_some() { 1 } else { case.pipeline().launch.count as usize };
    let green = Successor { version: case.target.version, group: case.green(), servers };
    retire(case, &going, Some(green), draft);
    prune(case, &going, draft);
}

/// What is planned where the target is in service already: fleets whose hold is over, which a retire that got stuck, or
/// nobody, has ended.
pub(super) fn what_is_over(case: &Case<'_>, draft: &mut Draft) {
    if case.rolls_back {
        return;
    }
    let over = |fleet: &&Fleet| fleet.is_held() && fleet.held_until.is_some_and(|until| until <= case.scope.now);
    if case.facts.fleets.iter().any(|fleet| over(&fleet))
        && let (Some(blue), Some(healthy)) = (case.blue, case.facts.healthy_in_service)
        && let Err(error) = Successor::in_service(blue).check(healthy)
    {
        return draft.note(format!("retire: {}", error.message));
    }
    let going = without_foreign(case, case.facts.fleets.iter().filter(over), draft);
    retire(case, &going, case.blue.map(Successor::in_service), draft);
}

/// What is planned where a hold is to end now.
pub(super) fn what_is_held(case: &Case<'_>, draft: &mut Draft) -> Result<(), PlanError> {
    let held: Vec<&Fleet> = case.facts.fleets.iter().filter(|fleet| fleet.is_held()).collect();
    if held.is_empty() {
        return Err(PlanError::new("nothing is held", "`alcedo status` shows every fleet"));
    }
    let going = without_foreign(case, held.iter().copied(), draft);
    if going.is_empty() {
        let why = draft.notes.join("; ");
        return Err(PlanError::new(why, "have it send elsewhere, and end the hold then"));
    }
    if let (Some(blue), Some(healthy)) = (case.blue, case.facts.healthy_in_service) {
        Successor::in_service(blue)
            .check(healthy)
            .map_err(|error| PlanError { what: error.message, hints: error.hints })?;
    }
    retire(case, &going, case.blue.map(Successor::in_service), draft);
    Ok(())
}

/// Those of these fleets that nobody else has a use for, as far as the balancer's listeners tell.
fn without_foreign<'a>(case: &Case<'a>, fleets: impl Iterator<Item = &'a Fleet>, draft: &mut Draft) -> Vec<&'a Fleet> {
    let mut going = Vec::new();
    for fleet in fleets {
        match case.facts.balancer.foreign_use_of(fleet) {
            Some(foreign) => draft.note(format!("retire: {}", last_look::used_by(fleet.version, foreign))),
            None => going.push(fleet),
        }
    }
    going
}

fn retire(case: &Case<'_>, going: &[&Fleet], successor: Option<Successor>, draft: &mut Draft) {
    let facts = case.facts;
    let timeout = Span::from(case.pipeline().retire.timeout.duration());
    let terms = Terms::of(&facts.balancer, case.pipeline().watch.metrics, successor);
    quiet(case, going, &terms, timeout, draft);
    for fleet in going {
        let version = fleet.version;
        // Two launches of one version, of which one has left its fleet, are told apart.
        let twins = going.iter().filter(|other| other.version == version).count();
        let id = if twins > 1 { format!("retire/{}", fleet.name) } else { format!("retire/{version}") };
        draft.add(
            Stage::Retire,
            &format!("{id}/drain"),
            Sign::Remove,
            format!("deregister {version} and let its requests finish"),
            None::<&str>,
            Action::Drain(retire::Drain {
                target_group: fleet.target_group.clone(),
                instances: fleet.instances.clone(),
                place: facts.balancer.place.clone(),
                timeout,
                last: Some(retire::Last { leaving: Leaving::from(*fleet), terms: terms.clone() }),
            }),
        );
        draft.add(
            Stage::Retire,
            &format!("{id}/terminate"),
            Sign::Remove,
            format!("terminate the {} servers of {version}", fleet.instances.len()),
            None::<&str>,
            Action::Terminate(retire::Terminate {
                target_group: fleet.target_group.clone(),
                instances: fleet.instances.clone(),
            }),
        );
        draft.add(
            Stage::Retire,
            &format!("{id}/target-group"),
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

/// The last look before anything goes: up to here all of it can be undone.
fn quiet(case: &Case<'_>, going: &[&Fleet], terms: &Terms, timeout: Span, draft: &mut Draft) {
    if going.is_empty() {
        return;
    }
    draft.open_gate(Stage::Retire);
    let versions: Vec<String> = going.iter().map(|fleet| fleet.version.to_string()).collect();
    // What this run has flipped to is watched until the old servers go.
    let flips = draft.steps.iter().any(|step| step.barrier);
    draft.add(
        Stage::Hold,
        quiet::STEP,
        Sign::Check,
        format!("see that nobody asks {} any more", versions.join(", ")),
        None::<&str>,
        Action::AwaitQuiet(quiet::AwaitQuiet {
            fleets: going.iter().map(|fleet| Leaving::from(*fleet)).collect(),
            terms: terms.clone(),
            timeout,
            alone: case.ends_hold,
            judge: flips.then(|| super::traffic::judge(case)),
        }),
    );
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
            version: image.version,
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
