//! The actions on load balancers.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    Answer, ApiError, Params, Xml, change,
    input::{attributes, attributes_xml, invalid, members, page, required, tags, texts},
    new_id,
};
use crate::{
    balancer::node_addresses,
    region::Region,
    state::{
        World,
        elbv2::{LoadBalancer, Refusal, Scheme, Zone, attributes::Attribute, load_balancer::ATTRIBUTES, names, quota},
    },
};

/// Fewest zones of an application load balancer.
const FEWEST_ZONES: usize = 2;

/// The Route 53 zone of a load balancer's DNS name. The local region has no DNS; the field is required to be there.
const HOSTED_ZONE: &str = "ZLOCALREGION";

pub fn create(params: &Params, region: &Arc<Region>) -> Answer {
    let name = required(params, "Name")?.to_owned();
    if let Some(kind) = params.get("Type").filter(|kind| *kind != "application") {
        return Err(ApiError::unsupported(&format!("load balancers of type {kind}")));
    }
    if let Some(kind) = params.get("IpAddressType").filter(|kind| *kind != "ipv4") {
        return Err(ApiError::unsupported(&format!("load balancers with IpAddressType {kind}")));
    }
    let scheme = Scheme::parse(params.get("Scheme").unwrap_or("internet-facing"))?;
    let subnets = subnets(params)?;
    let security_groups = texts(params, "SecurityGroups");
    let tags = tags(params)?;
    let arn = names::load_balancer_arn(&region.config.region, &name, &new_id(region));
    let arn = change(region, |world, now| {
        let (vpc_id, zones) = zones(world, &subnets)?;
        let security_groups = check_security_groups(world, &security_groups, &vpc_id)?;
        let new = LoadBalancer {
            arn,
            name,
            scheme,
            vpc_id,
            zones,
            security_groups,
            created: now,
            attributes: BTreeMap::new(),
            tags,
        };
        world.elbv2.create_load_balancer(new).map(|balancer| balancer.arn.clone())
    })?;
    let described =
        region.read(|world| world.elbv2.load_balancer(&arn).map(|balancer| load_balancer(balancer, region)));
    Ok(vec![Xml::list("LoadBalancers", "member", [described?])])
}

/// `Subnets`, or `SubnetMappings` that name nothing but a subnet.
fn subnets(params: &Params) -> Result<Vec<String>, ApiError> {
    let mut subnets = texts(params, "Subnets");
    for prefix in params.groups("SubnetMappings") {
        if params.get(&format!("{prefix}.AllocationId")).is_some() {
            return Err(ApiError::unsupported("SubnetMappings with an AllocationId"));
        }
        subnets.push(required(params, &format!("{prefix}.SubnetId"))?.to_owned());
    }
    Ok(subnets)
}

/// The VPC and the zones of the subnets.
fn zones(world: &World, subnets: &[String]) -> Result<(String, Vec<Zone>), Refusal> {
    let mut zones: Vec<Zone> = Vec::new();
    let mut vpc_id = None;
    for subnet_id in subnets {
        let subnet = world
            .ec2
            .subnet(subnet_id)
            .ok_or_else(|| Refusal::new("SubnetNotFound", format!("The subnet ID '{subnet_id}' does not exist")))?;
        if vpc_id.get_or_insert_with(|| subnet.vpc_id.clone()) != &subnet.vpc_id {
            return Err(Refusal::new("InvalidSubnet", "All subnets must belong to the same VPC"));
        }
        if zones.iter().any(|zone| zone.name == subnet.availability_zone) {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
            ));
        }
        zones.push(Zone { name: subnet.availability_zone.clone(), subnet_id: subnet_id.clone() });
    }
    zones.sort_by(|one, other| one.name.cmp(&other.name));
    match vpc_id {
        Some(vpc_id) if zones.len() >= FEWEST_ZONES => Ok((vpc_id, zones)),
        _ => Err(Refusal::validation("At least two subnets in two different Availability Zones must be specified")),
    }
}

/// The groups, or the VPC's default one where none is given.
fn check_security_groups(world: &World, groups: &[String], vpc_id: &str) -> Result<Vec<String>, Refusal> {
    for group_id in groups {
        match world.ec2.security_group(group_id) {
            Some(group) if group.vpc_id == vpc_id => {}
            Some(_) => {
                return Err(Refusal::new(
                    "InvalidConfigurationRequest",
                    format!("The security group '{group_id}' is not in the load balancer's VPC"),
                ));
            }
            None => {
                return Err(Refusal::new(
                    "InvalidSecurityGroup",
                    format!("The security group '{group_id}' does not exist"),
                ));
            }
        }
    }
    if groups.is_empty() {
        let default = world.ec2.security_groups().find(|group| group.vpc_id == vpc_id && group.name == "default");
        return Ok(default.map(|group| group.group_id.clone()).into_iter().collect());
    }
    Ok(groups.to_vec())
}

pub fn describe(params: &Params, region: &Arc<Region>) -> Answer {
    let arns = texts(params, "LoadBalancerArns");
    let wanted_names = texts(params, "Names");
    if !arns.is_empty() && !wanted_names.is_empty() {
        return Err(invalid("Load balancer names and load balancer ARNs cannot be specified at the same time"));
    }
    let found = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        let all = &world.elbv2;
        for arn in &arns {
            all.load_balancer(arn)?;
        }
        if let Some(name) = wanted_names.iter().find(|name| all.load_balancers().all(|known| known.name != **name)) {
            return Err(Refusal::new("LoadBalancerNotFound", format!("Load balancers '[{name}]' not found")));
        }
        let chosen = all.load_balancers().filter(|balancer| {
            (arns.is_empty() || arns.contains(&balancer.arn))
                && (wanted_names.is_empty() || wanted_names.contains(&balancer.name))
        });
        Ok(chosen.map(|balancer| load_balancer(balancer, region)).collect())
    })?;
    let (page, marker) = page(params, found)?;
    Ok([Xml::list("LoadBalancers", "member", page)].into_iter().chain(marker).collect())
}

pub fn delete(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "LoadBalancerArn")?;
    let listeners: Vec<String> = change(region, |world, _| {
        let listeners = world.elbv2.listeners_of(arn).iter().map(|listener| listener.arn.clone()).collect();
        world.elbv2.delete_load_balancer(arn).map(|()| listeners)
    })?;
    listeners.iter().for_each(|listener| region.ports.leave(listener));
    Ok(Vec::new())
}

pub fn describe_attributes(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "LoadBalancerArn")?;
    let all = region.read(|world| {
        world.elbv2.load_balancer(arn).map(|balancer| Attribute::all(ATTRIBUTES, &balancer.attributes))
    })?;
    Ok(vec![attributes_xml(all)])
}

pub fn modify_attributes(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "LoadBalancerArn")?;
    let changes = attributes(params)?;
    let all = change(region, |world, _| {
        let balancer = world.elbv2.load_balancer_mut(arn)?;
        Attribute::set(ATTRIBUTES, &mut balancer.attributes, &changes)?;
        Ok(Attribute::all(ATTRIBUTES, &balancer.attributes))
    })?;
    Ok(vec![attributes_xml(all)])
}

pub fn set_security_groups(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "LoadBalancerArn")?;
    let groups = texts(params, "SecurityGroups");
    if groups.is_empty() {
        return Err(invalid("'SecurityGroups' must be specified"));
    }
    let ids = change(region, |world, _| {
        let vpc_id = world.elbv2.load_balancer(arn)?.vpc_id.clone();
        let groups = check_security_groups(world, &groups, &vpc_id)?;
        world.elbv2.load_balancer_mut(arn)?.security_groups.clone_from(&groups);
        Ok(groups)
    })?;
    Ok(vec![members("SecurityGroupIds", ids)])
}

pub fn describe_account_limits(params: &Params) -> Answer {
    let limits = [
        ("application-load-balancers", quota::LOAD_BALANCERS),
        ("listeners-per-application-load-balancer", quota::LISTENERS_PER_LOAD_BALANCER),
        ("rules-per-application-load-balancer", quota::RULES_PER_LOAD_BALANCER),
        ("target-groups", quota::TARGET_GROUPS),
        ("target-groups-per-application-load-balancer", quota::TARGET_GROUPS_PER_LOAD_BALANCER),
        ("targets-per-application-load-balancer", quota::TARGETS_PER_GROUP),
    ];
    let (page, marker) = page(params, limits.to_vec())?;
    let limits = page.into_iter().map(|(name, most)| vec![Xml::text("Name", name), Xml::text("Max", most)]);
    Ok([Xml::list("Limits", "member", limits)].into_iter().chain(marker).collect())
}

fn load_balancer(balancer: &LoadBalancer, region: &Region) -> Vec<Xml> {
    let nodes = node_addresses(&region.config.lags);
    let zones = balancer.zones.iter().enumerate().map(|(place, zone)| {
        let here = nodes.iter().enumerate().filter(|(node, _)| node % balancer.zones.len() == place);
        let addresses = here.map(|(_, address)| vec![Xml::text("IpAddress", address)]);
        vec![
            Xml::text("ZoneName", &zone.name),
            Xml::text("SubnetId", &zone.subnet_id),
            Xml::list("LoadBalancerAddresses", "member", addresses),
        ]
    });
    vec![
        Xml::text("LoadBalancerArn", &balancer.arn),
        Xml::text("LoadBalancerName", &balancer.name),
        Xml::text("DNSName", "localhost"),
        Xml::text("CanonicalHostedZoneId", HOSTED_ZONE),
        Xml::text("CreatedTime", balancer.created.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")),
        Xml::text("Scheme", balancer.scheme.name()),
        Xml::text("VpcId", &balancer.vpc_id),
        Xml::node("State", [Xml::text("Code", state(balancer, region, region.clock.now()))]),
        Xml::text("Type", "application"),
        Xml::list("AvailabilityZones", "member", zones),
        members("SecurityGroups", &balancer.security_groups),
        Xml::text("IpAddressType", "ipv4"),
    ]
}

/// `provisioning` for as long as the nodes take to follow any other change.
fn state(balancer: &LoadBalancer, region: &Region, now: Timestamp) -> &'static str {
    let propagation = SignedDuration::try_from(region.config.lags.propagation).unwrap_or(SignedDuration::MAX);
    if now.duration_since(balancer.created) < propagation { "provisioning" } else { "active" }
}
