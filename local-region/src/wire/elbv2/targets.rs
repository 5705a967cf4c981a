//! The actions on targets.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    Answer, ApiError, Params, Xml, change,
    input::{invalid, port, required},
};
use crate::{
    region::Region,
    state::elbv2::{
        Refusal, TargetGroup,
        health::{TargetHealth, Unused},
    },
};

/// One of `Targets`: id, port, zone.
type Given = (String, Option<u16>, Option<String>);

fn targets(params: &Params) -> Result<Vec<Given>, ApiError> {
    params
        .groups("Targets")
        .into_iter()
        .map(|prefix| {
            let id = required(params, &format!("{prefix}.Id"))?.to_owned();
            let zone = params.get(&format!("{prefix}.AvailabilityZone")).map(str::to_owned);
            Ok((id, port(params, &format!("{prefix}.Port"))?, zone))
        })
        .collect()
}

pub fn register(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let targets = targets(params)?;
    change(region, |world, now| world.elbv2.register(arn, &targets, &world.ec2, now))?;
    Ok(Vec::new())
}

pub fn deregister(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let targets: Vec<_> = targets(params)?.into_iter().map(|(id, port, _)| (id, port)).collect();
    if targets.is_empty() {
        return Err(invalid("At least one target must be specified"));
    }
    change(region, |world, now| world.elbv2.deregister(arn, &targets, now))?;
    Ok(Vec::new())
}

/// Answers from a view that lags by `lags.target_health`, as AWS's does.
pub fn describe_health(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let wanted = targets(params)?;
    let lag = SignedDuration::try_from(region.config.lags.target_health).unwrap_or(SignedDuration::MAX);
    let as_of = region.clock.now().saturating_sub(lag).unwrap_or(Timestamp::MIN);
    let described = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        let group = world.elbv2.target_group(arn)?;
        if wanted.is_empty() {
            return Ok(known(group, as_of));
        }
        Ok(wanted.iter().flat_map(|given| asked(group, given, as_of)).collect())
    })?;
    Ok(vec![Xml::list("TargetHealthDescriptions", "member", described)])
}

/// Every target of the group.
fn known(group: &TargetGroup, as_of: Timestamp) -> Vec<Vec<Xml>> {
    group
        .targets
        .iter()
        .map(|target| {
            let (check_port, health) = (group.check_port(target), target.health_at(as_of));
            description(&target.id, target.port, target.zone.as_deref(), check_port, health)
        })
        .collect()
}

/// A target that the caller named: on every port it is registered on, or as not registered.
fn asked(group: &TargetGroup, given: &Given, as_of: Timestamp) -> Vec<Vec<Xml>> {
    let (id, port, zone) = given;
    let found: Vec<_> = group
        .targets
        .iter()
        .filter(|target| target.id == *id && port.is_none_or(|port| port == target.port))
        .map(|target| {
            let (check_port, health) = (group.check_port(target), target.health_at(as_of));
            description(&target.id, target.port, target.zone.as_deref(), check_port, health)
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    let port = port.unwrap_or(group.port);
    let check_port = group.health_check.port.unwrap_or(port);
    vec![description(id, port, zone.as_deref(), check_port, &TargetHealth::Unused(Unused::NotRegistered))]
}

fn description(id: &str, port: u16, zone: Option<&str>, check_port: u16, health: &TargetHealth) -> Vec<Xml> {
    let target = [Xml::text("Id", id), Xml::text("Port", port)];
    let state = [Xml::text("State", health.state())];
    vec![
        Xml::node("Target", target.into_iter().chain(Xml::maybe("AvailabilityZone", zone))),
        Xml::text("HealthCheckPort", check_port),
        Xml::node(
            "TargetHealth",
            state
                .into_iter()
                .chain(Xml::maybe("Reason", health.reason()))
                .chain(Xml::maybe("Description", health.description())),
        ),
    ]
}
