//! What a run leaves that is neither finished nor undone, and what to do about each part.

use std::fmt::Write as _;

use alcedo_pipeline::{plan::Stage, resource::Resource};
use alcedo_stages::costs;
use jiff::{SignedDuration, Timestamp};

use super::{
    summary::row,
    timeline::{State, Step, Timeline},
};
use crate::words::{clean, count, moment};

/// A run that is stuck: after the point of no return what is not done yet, before it what could not be undone.
pub fn of_a_stuck_run(text: &mut String, timeline: &Timeline, bucket: Option<&str>) {
    if has_passed_the_point_of_no_return(timeline) {
        row(text, "in service", &format!("{}; its servers are not touched", timeline.plan.version));
        let undone: Vec<&str> =
            timeline.steps.iter().filter(|step| step.state != State::Done).map(|step| step.does.as_str()).collect();
        row(text, "not done", &count(undone.len(), "step"));
        for does in undone {
            let _ = writeln!(text, "    {does}");
        }
        return;
    }
    of_an_unwind(text, timeline, bucket);
}

fn of_an_unwind(text: &mut String, timeline: &Timeline, bucket: Option<&str>) {
    // Later steps first: what uses something goes before what is used.
    let failed = timeline.steps.iter().rev().filter(|step| step.state == State::UndoFailed);
    for step in failed {
        row(text, "not undone", &step.does);
        for resource in step.resources.iter().rev() {
            let _ = writeln!(text, "    left: {}", clean(&with_cost(timeline, step, resource)));
            if let Some(command) = removal(timeline, step, resource, bucket) {
                let _ = writeln!(text, "          {}", clean(&command));
            }
        }
    }
    let planned = timeline.plan.steps.iter().zip(&timeline.steps);
    let stopped_at = planned.rev().position(|(plan, step)| plan.barrier && step.state == State::UndoFailed);
    let Some(from_the_end) = stopped_at else { return };
    // Not undone on purpose: as long as the traffic is where it is, these may serve it.
    let kept = timeline.steps.iter().rev().skip(from_the_end + 1).filter(|step| step.state == State::Done);
    // What earlier stages lease is closed by steps of their own; the fleet is what stands.
    for step in kept.filter(|step| step.stage == Stage::Launch && !step.resources.is_empty()) {
        row(text, "kept", &step.does);
        for resource in step.resources.iter().rev() {
            let _ = writeln!(text, "    {}", clean(&with_cost(timeline, step, resource)));
        }
    }
}

/// A resource with what it costs as long as it stands, where it is something that costs.
fn with_cost(timeline: &Timeline, step: &Step, resource: &Resource) -> String {
    let monthly = match resource.kind.as_str() {
        "instance" => costs::in_words(costs::of_instance(action(timeline, step, "instance_type").unwrap_or_default())),
        // How much of it is billed is known to AWS alone.
        "image" => format!("at most {} a GiB of its snapshots", costs::in_words(Some(costs::of_snapshot(1.0)))),
        _ => return resource.to_string(),
    };
    format!("{resource}, a month: {monthly}")
}

/// A setting of a step's action.
fn action<'a>(timeline: &'a Timeline, step: &Step, key: &str) -> Option<&'a str> {
    timeline.plan.step(&step.id)?.action.get(key)?.as_str()
}

/// A run whose process leaves in the middle. No commands: some of this may have traffic.
pub fn of_a_run_left_alone(text: &mut String, timeline: &Timeline) {
    let standing: Vec<String> = timeline
        .standing()
        .map(|(step, resource)| match expiry(timeline, step) {
            Some(at) => format!("{resource} (made by {}), until {} at most", step.id, moment(at)),
            None => format!("{resource} (made by {})", step.id),
        })
        .collect();
    if standing.is_empty() {
        row(text, "left", "nothing that the run is known to have made");
        return;
    }
    row(text, "left", &count(standing.len(), "resource"));
    for one in standing {
        let _ = writeln!(text, "    {}", clean(&one));
    }
}

/// When what a step has leased ends, whoever ends it: from its plan, counted from when it began.
fn expiry(timeline: &Timeline, step: &Step) -> Option<Timestamp> {
    let seconds = timeline.plan.step(&step.id)?.action.get("lease_seconds")?.as_i64()?;
    step.since?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn has_passed_the_point_of_no_return(timeline: &Timeline) -> bool {
    let first = timeline.plan.steps.iter().position(|step| step.point_of_no_return);
    first.is_some_and(|first| timeline.steps[first..].iter().any(|step| step.state != State::Pending))
}

/// The command that removes a resource, where one does.
fn removal(timeline: &Timeline, step: &Step, resource: &Resource, bucket: Option<&str>) -> Option<String> {
    let id = &resource.id;
    Some(match resource.kind.as_str() {
        "instance" => format!("aws ec2 terminate-instances --instance-ids {id}"),
        "image" => format!("aws ec2 deregister-image --image-id {id}    # and its snapshots"),
        "key pair" => format!("aws ec2 delete-key-pair --key-name {id}"),
        "target group" => format!("aws elbv2 delete-target-group --target-group-arn {id}"),
        "listener" => format!("aws elbv2 delete-listener --listener-arn {id}"),
        "listener rule" => format!("aws elbv2 delete-rule --rule-arn {id}"),
        "security group rule" => {
            let group = action(timeline, step, "security_group")?;
            format!("aws ec2 revoke-security-group-ingress --group-id {group} --security-group-rule-ids {id}")
        }
        "object" => format!("aws s3 rm s3://{}/{id}", bucket?),
        _ => return None,
    })
}
