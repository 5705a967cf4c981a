//! The security groups: who reaches whom.

use alcedo_pipeline::file::Pipeline;
use aws_sdk_ec2::types::{IpPermission, SecurityGroup, Subnet};
use ipnet::Ipv4Net;

use super::{
    Complaints, Finding,
    network::{Around, Named, group_id},
};
use crate::site::Site;

/// Inbound rules that a group may have unless more were asked for (Amazon VPC User Guide, *Quotas*).
const RULES_OF_A_GROUP: usize = 60;

pub(super) fn of_groups(
    site: &Site,
    named: &Named<SecurityGroup>,
    subnets: Option<&Named<Subnet>>,
    around: Option<&Around>,
) -> Finding {
    let Pipeline { bake, launch, smoke_tests, .. } = site.pipeline.as_ref();
    let mut complaints = Complaints::default();
    for (group, name) in named.of_servers.iter().zip(&launch.security_groups) {
        let vpc = group.vpc_id().unwrap_or_default();
        if let Some(around) = around
            && vpc != around.vpc
        {
            complaints.bad(
                format!("{name} is in {vpc}; the balancer {} is in {}", around.name, around.vpc),
                format!("name security groups of {} under launch.security_groups", around.vpc),
            );
        }
    }
    let vpc = subnets.and_then(|subnets| subnets.of_builder.vpc_id());
    if let (Some(vpc), Some(own)) = (vpc, named.of_builder.vpc_id())
        && vpc != own
    {
        complaints.bad(
            format!("{} is in {own}; builders are launched in {vpc}", bake.security_group),
            format!("name a security group of {vpc} under bake.security_group, or a subnet of {own} under bake.subnet"),
        );
    }
    if let Some(around) = around {
        from_balancer(&named.of_servers, around, launch.port, &launch.security_groups, &mut complaints);
        from_visitors(site, around, &mut complaints);
    }
    let mut opened = vec![(&named.of_builder, &bake.security_group)];
    // Smoke tests look at servers through the first of their groups.
    if !smoke_tests.is_empty() {
        opened.extend(named.of_servers.first().zip(launch.security_groups.first()));
    }
    for (group, name) in opened {
        let rules: usize = group.ip_permissions().iter().map(count).sum();
        if rules >= RULES_OF_A_GROUP {
            complaints.warning(
                format!("{name} has {rules} rules, and AWS allows {RULES_OF_A_GROUP} unless more were asked for"),
                format!("remove those of {name} that nobody needs: a run adds one while it needs a port"),
            );
        }
    }
    let port = endpoint_port(site);
    if !named.of_builder.ip_permissions_egress().iter().any(|it| covers(it, port)) {
        let name = &bake.security_group;
        complaints.bad(
            format!("{name} lets nothing out to port {port}: builders could not fetch the artifact"),
            format!(
                "`aws ec2 authorize-security-group-egress --group-id {} --protocol tcp --port {port} --cidr 0.0.0.0/0`",
                group_id(&named.of_builder)
            ),
        );
    }
    let ids: Vec<&str> = named.of_servers.iter().chain([&named.of_builder]).map(group_id).collect();
    complaints.finding("security groups", ids.join(", "))
}

/// Whether the balancer's nodes reach the app, past their own groups and those of the servers.
fn from_balancer(servers: &[SecurityGroup], around: &Around, port: u16, names: &[String], complaints: &mut Complaints) {
    let own: Vec<&str> = around.groups.iter().map(group_id).collect();
    let lets_in = |rule: &IpPermission| covers(rule, port) && is_for(rule, &own, &around.blocks);
    if !servers.iter().flat_map(SecurityGroup::ip_permissions).any(lets_in) {
        let first = servers.first().map(group_id).unwrap_or_default();
        let from = own.first().copied().unwrap_or_default();
        complaints.bad(
            format!("{} does not let the balancer {} reach port {port}", names.join(", "), around.name),
            format!(
                "`aws ec2 authorize-security-group-ingress --group-id {first} --protocol tcp --port {port} --source-group {from}`, \
                 or set launch.port to the one that is open"
            ),
        );
    }
    let theirs: Vec<&str> = servers.iter().map(group_id).collect();
    let lets_out = |rule: &IpPermission| covers(rule, port) && is_for(rule, &theirs, &[]);
    // A rule for addresses may be for the servers' subnets: it is taken to be.
    let by_address = |rule: &IpPermission| covers(rule, port) && !rule.ip_ranges().is_empty();
    let mut out = around.groups.iter().flat_map(SecurityGroup::ip_permissions_egress);
    if !out.any(|rule| lets_out(rule) || by_address(rule)) {
        let first = own.first().copied().unwrap_or_default();
        let to = theirs.first().copied().unwrap_or_default();
        complaints.bad(
            format!("the groups of the balancer {} let nothing out to port {port}", around.name),
            format!(
                "`aws ec2 authorize-security-group-egress --group-id {first} --protocol tcp --port {port} --source-group {to}`"
            ),
        );
    }
}

/// Whether anybody reaches the balancer. The local region's listens on loopback, whatever its groups say.
fn from_visitors(site: &Site, around: &Around, complaints: &mut Complaints) {
    let mut rules = around.groups.iter().flat_map(SecurityGroup::ip_permissions);
    if site.is_local() || rules.any(|rule| covers(rule, around.port)) {
        return;
    }
    let first = around.groups.first().map(group_id).unwrap_or_default();
    complaints.bad(
        format!("the groups of the balancer {} let nobody in to port {}", around.name, around.port),
        format!(
            "`aws ec2 authorize-security-group-ingress --group-id {first} --protocol tcp --port {} --cidr 0.0.0.0/0`, or from \
             where your visitors come",
            around.port
        ),
    );
}

/// Whether a rule is for TCP on this port.
fn covers(rule: &IpPermission, port: u16) -> bool {
    let port = i32::from(port);
    match rule.ip_protocol() {
        Some("-1") => true,
        Some("tcp" | "6") => {
            rule.from_port().is_none_or(|from| from <= port) && rule.to_port().is_none_or(|to| port <= to)
        }
        _ => false,
    }
}

/// Whether a rule names one of the groups, or all of the addresses. What a prefix list holds is not looked up: it is taken
/// to be right.
fn is_for(rule: &IpPermission, groups: &[&str], blocks: &[Ipv4Net]) -> bool {
    let ranges: Vec<Ipv4Net> = rule.ip_ranges().iter().filter_map(|range| range.cidr_ip()?.parse().ok()).collect();
    let named = rule.user_id_group_pairs().iter().filter_map(|pair| pair.group_id());
    !rule.prefix_list_ids().is_empty()
        || named.into_iter().any(|id| groups.contains(&id))
        || !blocks.is_empty() && blocks.iter().all(|block| ranges.iter().any(|range| range.contains(block)))
}

/// How many rules AWS counts it as: one for each source.
fn count(rule: &IpPermission) -> usize {
    rule.ip_ranges().len() + rule.ipv6_ranges().len() + rule.user_id_group_pairs().len() + rule.prefix_list_ids().len()
}

/// The port at which servers reach S3.
fn endpoint_port(site: &Site) -> u16 {
    let endpoint = site.clients.endpoint.as_deref().and_then(|text| url::Url::parse(text).ok());
    endpoint.and_then(|url| url.port_or_known_default()).unwrap_or(443)
}
