//! Flip and hold: traffic moves to green, is proven there, and blue stays ready for a while.

use alcedo_pipeline::{
    file::Pipeline,
    plan::{Sign, Stage},
};

use super::{Case, Draft};
use crate::{
    action::Action,
    flip, hold,
    judge::{self, Judge},
    listener::Routing,
    preview::ReleasePreview,
    proof::Proof,
};

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
        flip::SWITCH,
        Sign::Change,
        format!(
            "move {} on {}:{} from {from} to {}",
            amount(case),
            facts.balancer.name,
            facts.balancer.port,
            target.version
        ),
        Some(format!("move it back to {from}")),
        Action::Switch(flip::Switch {
            place: facts.balancer.place.clone(),
            before: facts.balancer.routing.clone(),
            green: case.green(),
            judge: judge(case),
            shift: shift(case),
            slowest_request: pipeline.launch.slowest_request,
            healthy_minimum: if held.is_some() { 1 } else { pipeline.launch.count },
            version: target.version.to_string(),
            proof: proof.clone(),
        }),
    );
    draft.add(
        stage,
        flip::PROVE,
        Sign::Check,
        format!("prove that only {} answers, at every balancer node", target.version),
        None::<&str>,
        Action::Prove(flip::Prove { proof, version: target.version.to_string(), judge: judge(case) }),
    );
    release_preview(case, draft);
}

/// Whether traffic moves by shares: from one version to another that has just been launched. On the way back it moves at once.
fn shift(case: &Case<'_>) -> Option<flip::Shift> {
    let settings = &case.pipeline().flip;
    let shares = settings.shares();
    let alone = case.blue.is_some_and(|blue| case.facts.balancer.routing.serving() == [blue.target_group.as_str()]);
    (!shares.is_empty() && alone && !case.rolls_back).then(|| flip::Shift {
        shares,
        pause: settings.pause(),
        sticky_seconds: settings.sticky.and_then(|span| i32::try_from(span.as_secs()).ok()),
    })
}

fn amount(case: &Case<'_>) -> String {
    match shift(case) {
        None => "all traffic".to_owned(),
        Some(shift) => {
            let shares: Vec<String> = shift.shares.iter().map(|share| format!("{share} %")).collect();
            format!("{} of the traffic, watching each for {}, then all of it,", shares.join(", "), shift.pause)
        }
    }
}

/// Looks at the numbers that the whole run takes: at each share, and in the hold that it watches.
fn looks(case: &Case<'_>) -> u32 {
    let Pipeline { flip, hold, .. } = case.pipeline();
    let of_shares =
        u32::try_from(flip.shares().len()).unwrap_or(u32::MAX).saturating_mul(judge::looks_in(flip.pause()));
    let of_hold = if hold.attended { judge::looks_in(hold.span) } else { 0 };
    of_shares.saturating_add(of_hold)
}

pub(super) fn judge(case: &Case<'_>) -> Box<Judge> {
    let Case { target, held, .. } = case;
    let pipeline = case.pipeline();
    let preview = &pipeline.flip.preview;
    // Every fleet's rule answers to its version, for as long as it is there.
    let headers = preview.header.iter().map(|header| (header.name.clone(), target.version.to_string()));
    Box::new(Judge {
        front_door: case.front_door(),
        version: target.version.to_string(),
        green: case.green(),
        blue: case.blue.map(|blue| blue.target_group.clone()),
        balancer: case.facts.balancer.arn.clone(),
        preview_door: case.front_door().on_port(preview.port),
        preview_headers: headers.collect(),
        healthy_minimum: if held.is_some() { 1 } else { pipeline.launch.count },
        looks: looks(case),
        settings: pipeline.watch.clone(),
        checks: pipeline.smoke_tests.clone(),
    })
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
                Some(hold::HeldBefore { since: held.held_since, until, replaces: held.replaces, replaces_now })
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
                judge: judge(case),
                place: case.facts.balancer.place.clone(),
                span: settings.span,
            }),
        );
    }
}
