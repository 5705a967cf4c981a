//! Why a stage is in the plan: which of its inputs are not those of what is in service. Nothing is decided here.

use std::collections::BTreeMap;

use alcedo_images::inputs::Parts as BuildParts;
use alcedo_pipeline::{diagnostic::clean, file::Provision, version::Version};

use super::Case;
use crate::{
    facts::Image,
    parts::{self, Parts},
};

/// Files that are named; of the others their number is told.
const NAMED: usize = 3;
/// As many digits of a commit as Git shows.
const COMMIT_DIGITS: usize = 10;

/// Why it is built.
pub(super) fn build(case: &Case<'_>) -> Option<String> {
    let source = case.facts.source.as_ref()?;
    let Some(blue) = case.blue else {
        return Some(match case.facts.versions.is_empty() {
            true => "nothing is published yet".to_owned(),
            false => "no published version has these inputs".to_owned(),
        });
    };
    let version = blue.version;
    let Some(before) = &case.facts.inputs_in_service else { return Some(not_recorded("the build", version)) };
    let differing = differing(before, &source.parts, source.base.name());
    if differing.is_empty() {
        return Some(format!("the artifact of {version}, which has the same inputs, is gone"));
    }
    let short = |commit: &str| clean(commit).chars().take(COMMIT_DIGITS).collect::<String>();
    let commit = match (&blue.commit, &source.commit) {
        (Some(before), Some(now)) if before != now => format!(", commit {} → {}", short(before), short(now)),
        (Some(before), Some(_)) if source.dirty => format!(", uncommitted on {}", short(before)),
        _ => String::new(),
    };
    Some(format!("{} (since {version}{commit})", differing.join("; ")))
}

fn not_recorded(what: &str, version: Version) -> String {
    format!("an input of {what} changed; the version of alcedo that made {version} did not record which")
}

/// Which parts of two builds differ, for people.
fn differing(before: &BuildParts, now: &BuildParts, base: &str) -> Vec<String> {
    let mut all = files(&before.files, &now.files);
    let settings = parts::differing(&before.settings, &now.settings);
    all.extend(settings.into_iter().map(|name| match name {
        BuildParts::BASE => format!("another base, {}", clean(base)),
        BuildParts::TOOL => "alcedo builds in another way".to_owned(),
        key => format!("build.{} changed", clean(key)),
    }));
    all
}

/// `2 source files changed: a, b` and what was added and removed, each on its own.
fn files(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let changed = now.iter().filter(|(path, digest)| before.get(*path).is_some_and(|other| other != *digest));
    let added = now.keys().filter(|path| !before.contains_key(*path));
    let removed = before.keys().filter(|path| !now.contains_key(*path));
    let groups = [
        ("changed", changed.map(|(path, _)| path).collect::<Vec<_>>()),
        ("added", added.collect()),
        ("removed", removed.collect()),
    ];
    groups.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(what, paths)| named(what, &paths)).collect()
}

fn named(what: &str, paths: &[&String]) -> String {
    let first: Vec<String> = paths.iter().take(NAMED).map(|path| clean(path)).collect();
    let more = match paths.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let files = if paths.len() == 1 { "1 source file".to_owned() } else { format!("{} source files", paths.len()) };
    format!("{files} {what}: {}{more}", first.join(", "))
}

/// Why an image is baked.
pub(super) fn bake(case: &Case<'_>) -> String {
    let version = case.target.version;
    let of = |version: Version| case.facts.images.iter().find(move |image| image.version == version && image.available);
    if case.target.builds {
        let others = case.blue.and_then(|blue| of(blue.version)).and_then(|image| differs_from(case, image));
        let new = "the artifact is new".to_owned();
        return std::iter::once(new).chain(others.unwrap_or_default()).collect::<Vec<_>>().join("; ");
    }
    let Some(image) = of(version) else { return format!("there is no image of {version}") };
    match differs_from(case, image) {
        Some(differing) if !differing.is_empty() => {
            format!("{} was made otherwise: {}", clean(&image.name), differing.join("; "))
        }
        _ => not_recorded("the image", version),
    }
}

/// What would be put into an image today that is not in this one. `None` where that is not recorded.
fn differs_from(case: &Case<'_>, image: &Image) -> Option<Vec<String>> {
    let (before, now) = (image.parts.as_ref()?, case.facts.image_parts.as_ref()?);
    let provision = &case.pipeline().bake.provision;
    Some(
        before
            .differing(now)
            .into_iter()
            .flat_map(|name| match name {
                "alcedo" => vec!["alcedo bakes in another way".to_owned()],
                "base" => vec![format!("another base, {}", clean(&case.facts.base.name))],
                "steps" => steps(before, now, provision),
                key => vec![format!("bake.{} changed", clean(key))],
            })
            .collect(),
    )
}

/// Which provisioning steps are not as they were. A step that only stands at another place is told of as an order.
fn steps(before: &Parts, now: &Parts, provision: &[Provision]) -> Vec<String> {
    let (Some(before), Some(now)) = (before.steps(), now.steps()) else {
        return vec!["bake.provision changed".to_owned()];
    };
    let new = now.iter().zip(provision).enumerate().filter(|(_, (digest, _))| !before.contains(digest));
    let mut all: Vec<String> = new.map(|(at, (_, step))| step_in_words(at, step)).collect();
    match before.len().saturating_sub(now.len()) {
        0 => {}
        1 => all.push("1 provisioning step less".to_owned()),
        less => all.push(format!("{less} provisioning steps less")),
    }
    if all.is_empty() {
        all.push("the order of bake.provision changed".to_owned());
    }
    all
}

fn step_in_words(at: usize, step: &Provision) -> String {
    let number = at + 1;
    match (&step.script, &step.ansible) {
        (Some(script), _) => format!("provisioning script {} changed", clean(&script.display().to_string())),
        (_, Some(ansible)) => {
            format!("provisioning playbook {} changed", clean(&ansible.playbook.display().to_string()))
        }
        _ => format!("provisioning step {number} changed"),
    }
}

/// Why servers are launched.
pub(super) fn launch(case: &Case<'_>, bakes: bool) -> String {
    let first = match bakes {
        true => "the image is new".to_owned(),
        false => format!("there is no fleet of {}", case.target.version),
    };
    std::iter::once(first).chain(launched_otherwise(case)).collect::<Vec<_>>().join("; ")
}

/// The launch settings of what is in service that are not the file's.
fn launched_otherwise(case: &Case<'_>) -> Vec<String> {
    let Some(before) = case.blue.and_then(|blue| blue.launched_with.as_ref()) else { return Vec::new() };
    let now = &case.facts.launch_parts;
    let in_words = |name: &str| match (name, before.get(name), now.get(name)) {
        // These are kept as they are; of the others only digests are.
        ("count" | "instance_type" | "port" | "deregistration_delay", Some(before), Some(now)) => {
            format!("launch.{name} {} → {}", clean(before), clean(now))
        }
        _ => format!("launch.{} changed", clean(name)),
    };
    before.differing(now).into_iter().map(in_words).collect()
}

/// What is in service already, although parts of it would be made otherwise today: that waits for the next version.
pub(super) fn in_service_but(case: &Case<'_>) -> Vec<String> {
    let version = case.target.version;
    let image = case.facts.images.iter().find(|image| image.version == version && image.available);
    let baked = image.and_then(|image| differs_from(case, image)).unwrap_or_default();
    let waits = |what: &str, differing: Vec<String>| {
        (!differing.is_empty()).then(|| {
            format!(
                "{what}: {version} was made with other inputs ({}); the next version takes these",
                differing.join("; ")
            )
        })
    };
    [waits("bake", baked), waits("launch", launched_otherwise(case))].into_iter().flatten().collect()
}
