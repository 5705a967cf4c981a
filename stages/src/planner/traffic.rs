//! Flip and hold: traffic moves to green, is proven there, and blue stays ready for a while.

use alcedo_pipeline::plan::{Sign, Stage};

use super::{Case, Draft};
use crate::{action::Action, flip, hold, listener::Routing, preview::ReleasePreview, proof::Proof};

pub(super) fn steps(case: &Case<'_>, draft: &mut Draft) {
    flip(case, draft);
    hold(case, draft);
}

fn flip(case: &Case<'_>, draft: &mut Draft) {
    let Case { facts, target, blue, held, .. } = case;
    let pipeline = case.pipeline();
    let proof = Proof { front_door: case.front_door(), quiet: pipeline.flip.quiet, timeout: pipeline.flip.timeout };
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
            green: case.green(),
            healthy_minimum: if held.is_some() { 1 } else { pipeline.launch.count },
            version: target.version.to_string(),
            proof: proof.clone(),
        }),
    );
    draft.add(
        stage,
        "flip/prove",
        Sign::Check,
        format!("prove that only {} answers, at every balancer node", target.version),
        None::<&str>,
        Action::Prove(flip::Prove { proof, version: target.version.to_string() }),
    );
    release_preview(case, draft);
}

/// Who is reached by the preview once green has the traffic. A held fleet has a header rule of its own already; a preview
/// port has one fleet behind it, which is the one that waits: without it, nothing would check that fleet's health.
fn release_preview(case: &Case<'_>, draft: &mut Draft) {
    let Case { facts, blue, held, .. } = case;
    let header = &case.pipeline().flip.preview.header;
    let blue_routing = blue.map(|blue| Routing::to(&blue.target_group));
    let (does, undo, release) = match (held, header) {
        (None, Some(header)) => (
            "free the preview for the next candidate".to_owned(),
            "take it again",
            ReleasePreview::Header { header: header.clone() },
        ),
        (None, None) => (
            "free the preview for the next candidate".to_owned(),
            "take it again",
            ReleasePreview::Port { to: blue_routing },
        ),
        (Some(_), Some(_)) => return,
        (Some(_), None) => {
            let (Some(blue), Some(to), Some((listener, before))) =
                (blue, blue_routing, &facts.balancer.preview_listener)
            else {
                return;
            };
            let release = ReleasePreview::PortOfHeld { listener: listener.clone(), before: before.clone(), to };
            (format!("route the preview port to {}, which keeps it checked", blue.version), "route it back", release)
        }
    };
    let action = Action::ReleasePreview(release);
    draft.add(Stage::Flip, "flip/release-preview", Sign::Change, does, Some(undo), action);
}

fn hold(case: &Case<'_>, draft: &mut Draft) {
    let Case { target, blue, held, .. } = case;
    let settings = &case.pipeline().hold;
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
            green: case.green(),
            green_before: held.and_then(|held| {
                let until = held.held_until?;
                let replaces_now = blue.map(|blue| blue.version);
                Some(hold::HeldBefore { until, replaces: held.replaces, replaces_now })
            }),
            span: settings.span,
        }),
    );
    if settings.attended && !settings.span.is_zero() && !case.rolls_back {
        draft.add(
            stage,
            "hold/watch",
            Sign::Check,
            format!("watch {} for {}; on trouble go back to {blue_version}", target.version, settings.span),
            None::<&str>,
            Action::Watch(hold::Watch {
                front_door: case.front_door(),
                version: target.version.to_string(),
                span: settings.span,
            }),
        );
    }
}
