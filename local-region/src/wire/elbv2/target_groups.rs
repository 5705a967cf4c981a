//! The actions on target groups.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Answer, ApiError, Params, Xml, change,
    input::{attributes, attributes_xml, invalid, members, page, port, read, required, tags, texts},
    new_id,
};
use crate::{
    region::Region,
    state::{
        World,
        elbv2::{
            HealthCheck, Matcher, Refusal, TargetGroup, TargetType, attributes::Attribute, names,
            target_group::ATTRIBUTES,
        },
    },
};

/// The value of `HealthCheckPort` that follows the target's own port.
const TRAFFIC_PORT: &str = "traffic-port";

pub fn create(params: &Params, region: &Arc<Region>) -> Answer {
    let name = required(params, "Name")?.to_owned();
    only(params, "Protocol", "HTTP", "target groups with the protocol")?;
    only(params, "ProtocolVersion", "HTTP1", "target groups with the protocol version")?;
    only(params, "IpAddressType", "ipv4", "target groups with the address type")?;
    let target_type = match params.get("TargetType").unwrap_or("instance") {
        "instance" => TargetType::Instance,
        "ip" => TargetType::Ip,
        other => return Err(ApiError::unsupported(&format!("target groups with the target type {other}"))),
    };
    required(params, "Protocol")?;
    let group_port = port(params, "Port")?.ok_or_else(|| invalid("'Port' must be specified"))?;
    let vpc_id = required(params, "VpcId")?.to_owned();
    let health_check = health_check(params, HealthCheck::default())?;
    let tags = tags(params)?;
    let arn = names::target_group_arn(&region.config.region, &name, &new_id(region));
    let arn = change(region, |world, _| {
        if world.ec2.vpc(&vpc_id).is_none() {
            return Err(Refusal::validation(format!("The VPC ID '{vpc_id}' is not found")));
        }
        let new = TargetGroup {
            arn,
            name,
            port: group_port,
            vpc_id,
            target_type,
            protocol_version: "HTTP1".into(),
            health_check,
            attributes: BTreeMap::new(),
            tags,
            targets: Vec::new(),
        };
        world.elbv2.create_target_group(new).map(|group| group.arn.clone())
    })?;
    described(region, &arn)
}

/// Refuses what the local region has only one kind of.
fn only(params: &Params, name: &str, known: &str, what: &str) -> Result<(), ApiError> {
    match params.get(name) {
        Some(other) if other != known => Err(ApiError::unsupported(&format!("{what} {other}"))),
        _ => Ok(()),
    }
}

/// The settings with those of the call in place.
fn health_check(params: &Params, known: HealthCheck) -> Result<HealthCheck, ApiError> {
    only(params, "HealthCheckProtocol", "HTTP", "health checks with the protocol")?;
    if params.get("Matcher.GrpcCode").is_some() {
        return Err(ApiError::unsupported("health checks with Matcher.GrpcCode"));
    }
    let check_port = match params.get("HealthCheckPort") {
        None => known.port,
        Some(TRAFFIC_PORT) => None,
        Some(_) => port(params, "HealthCheckPort")?,
    };
    Ok(HealthCheck {
        enabled: read(params, "HealthCheckEnabled")?.unwrap_or(known.enabled),
        path: params.get("HealthCheckPath").map_or(known.path, str::to_owned),
        port: check_port,
        interval_seconds: read(params, "HealthCheckIntervalSeconds")?.unwrap_or(known.interval_seconds),
        timeout_seconds: read(params, "HealthCheckTimeoutSeconds")?.unwrap_or(known.timeout_seconds),
        healthy_threshold: read(params, "HealthyThresholdCount")?.unwrap_or(known.healthy_threshold),
        unhealthy_threshold: read(params, "UnhealthyThresholdCount")?.unwrap_or(known.unhealthy_threshold),
        matcher: params.get("Matcher.HttpCode").map(Matcher::parse).transpose()?.unwrap_or(known.matcher),
    })
}

pub fn describe(params: &Params, region: &Arc<Region>) -> Answer {
    let arns = texts(params, "TargetGroupArns");
    let wanted_names = texts(params, "Names");
    let balancer = params.get("LoadBalancerArn");
    if [!arns.is_empty(), !wanted_names.is_empty(), balancer.is_some()].into_iter().filter(|given| *given).count() > 1 {
        return Err(invalid("Only one of target group names, target group ARNs and a load balancer ARN can be given"));
    }
    let found = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        let all = &world.elbv2;
        for arn in &arns {
            all.target_group(arn)?;
        }
        if let Some(name) = wanted_names.iter().find(|name| all.target_groups().all(|known| known.name != **name)) {
            return Err(Refusal::new("TargetGroupNotFound", format!("Target groups '[{name}]' not found")));
        }
        if let Some(arn) = balancer {
            all.load_balancer(arn)?;
        }
        let chosen = all.target_groups().filter(|group| {
            (arns.is_empty() || arns.contains(&group.arn))
                && (wanted_names.is_empty() || wanted_names.contains(&group.name))
                && balancer.is_none_or(|arn| all.balancers_of(&group.arn).iter().any(|known| known.arn == arn))
        });
        Ok(chosen.map(|group| target_group(group, world)).collect())
    })?;
    let (page, marker) = page(params, found)?;
    Ok([Xml::list("TargetGroups", "member", page)].into_iter().chain(marker).collect())
}

pub fn modify(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let known = region.read(|world| world.elbv2.target_group(arn).map(|group| group.health_check.clone()))?;
    let changed = health_check(params, known)?;
    change(region, |world, _| {
        changed.check()?;
        world.elbv2.target_group_mut(arn)?.health_check = changed;
        Ok(())
    })?;
    described(region, arn)
}

pub fn delete(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    change(region, |world, _| world.elbv2.delete_target_group(arn))?;
    Ok(Vec::new())
}

pub fn describe_attributes(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let all = region
        .read(|world| world.elbv2.target_group(arn).map(|group| Attribute::all(ATTRIBUTES, &group.attributes)))?;
    Ok(vec![attributes_xml(all)])
}

pub fn modify_attributes(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "TargetGroupArn")?;
    let changes = attributes(params)?;
    let all = change(region, |world, _| {
        let group = world.elbv2.target_group_mut(arn)?;
        Attribute::set(ATTRIBUTES, &mut group.attributes, &changes)?;
        Ok(Attribute::all(ATTRIBUTES, &group.attributes))
    })?;
    Ok(vec![attributes_xml(all)])
}

fn described(region: &Region, arn: &str) -> Answer {
    let described = region.read(|world| world.elbv2.target_group(arn).map(|group| target_group(group, world)))?;
    Ok(vec![Xml::list("TargetGroups", "member", [described])])
}

fn target_group(group: &TargetGroup, world: &World) -> Vec<Xml> {
    let check = &group.health_check;
    let check_port = check.port.map_or_else(|| TRAFFIC_PORT.to_owned(), |port| port.to_string());
    vec![
        Xml::text("TargetGroupArn", &group.arn),
        Xml::text("TargetGroupName", &group.name),
        Xml::text("Protocol", "HTTP"),
        Xml::text("ProtocolVersion", &group.protocol_version),
        Xml::text("Port", group.port),
        Xml::text("VpcId", &group.vpc_id),
        Xml::text("TargetType", group.target_type.name()),
        Xml::text("IpAddressType", "ipv4"),
        Xml::text("HealthCheckProtocol", "HTTP"),
        Xml::text("HealthCheckPort", check_port),
        Xml::text("HealthCheckEnabled", check.enabled),
        Xml::text("HealthCheckIntervalSeconds", check.interval_seconds),
        Xml::text("HealthCheckTimeoutSeconds", check.timeout_seconds),
        Xml::text("HealthyThresholdCount", check.healthy_threshold),
        Xml::text("UnhealthyThresholdCount", check.unhealthy_threshold),
        Xml::text("HealthCheckPath", &check.path),
        Xml::node("Matcher", [Xml::text("HttpCode", check.matcher.codes())]),
        members("LoadBalancerArns", world.elbv2.balancers_of(&group.arn).iter().map(|balancer| &balancer.arn)),
    ]
}
