//! Rules of security groups: authorize, revoke, describe.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    Answer,
    filter::{Filters, one},
    groups,
    page::page,
    refuse_dry_run,
    tags::{specified, tag_set},
};
use crate::{
    firewall,
    region::Region,
    servers,
    state::ec2::{
        Ec2, Moment,
        image::ACCOUNT,
        security_group::{Direction, NewRule, Peer, Permission, Rule},
    },
    wire::{ApiError, Params, Xml},
};

pub async fn authorize_ingress(params: &Params, region: &Arc<Region>) -> Answer {
    authorize(params, region, Direction::Ingress).await
}

pub async fn authorize_egress(params: &Params, region: &Arc<Region>) -> Answer {
    authorize(params, region, Direction::Egress).await
}

pub async fn revoke_ingress(params: &Params, region: &Arc<Region>) -> Answer {
    revoke(params, region, Direction::Ingress).await
}

pub async fn revoke_egress(params: &Params, region: &Arc<Region>) -> Answer {
    revoke(params, region, Direction::Egress).await
}

/// Answers once the servers' networks let the new traffic in.
async fn authorize(params: &Params, region: &Arc<Region>, direction: Direction) -> Answer {
    let tags = specified(params, "security-group-rule", &["security-group-rule"])?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let (group_id, rules) = region.change(|world| {
        let group_id = groups::named(params, &world.ec2, moment)?;
        let new = read_rules(params, &world.ec2, moment)?;
        let rules = world.ec2.authorize(&group_id, direction, new, &tags, moment)?;
        Ok::<_, ApiError>((group_id, rules))
    })?;
    firewall::apply(region).await.map_err(|error| servers::engine_error(&error))?;
    let items = rules.iter().map(|rule| describe(&group_id, direction, rule));
    Ok(vec![Xml::text("return", true), Xml::list("securityGroupRuleSet", "item", items)])
}

/// Answers once the servers' networks refuse new connections; those that are there stay, as at AWS.
async fn revoke(params: &Params, region: &Arc<Region>, direction: Direction) -> Answer {
    refuse_dry_run(params)?;
    let moment = region.moment();
    let ids = params.list("SecurityGroupRuleId");
    let (group_id, rules) = region.change(|world| {
        let group_id = groups::named(params, &world.ec2, moment)?;
        let rules = if ids.is_empty() {
            let permissions: Vec<Permission> =
                read_rules(params, &world.ec2, moment)?.into_iter().map(|rule| rule.permission).collect();
            world.ec2.revoke_permissions(&group_id, direction, &permissions, moment)?
        } else {
            world.ec2.revoke_by_id(&group_id, direction, &ids, moment)?
        };
        Ok::<_, ApiError>((group_id, rules))
    })?;
    firewall::apply(region).await.map_err(|error| servers::engine_error(&error))?;
    let items = rules.iter().map(|rule| describe(&group_id, direction, rule));
    Ok(vec![Xml::text("return", true), Xml::list("revokedSecurityGroupRuleSet", "item", items)])
}

/// The rules of a call: `IpPermissions.N`, or the older flat parameters.
fn read_rules(params: &Params, ec2: &Ec2, moment: Moment) -> Result<Vec<NewRule>, ApiError> {
    let mut rules = Vec::new();
    for prefix in params.groups("IpPermissions") {
        let before = rules.len();
        let ports = read_ports(params, &format!("{prefix}."))?;
        for range in params.groups(&format!("{prefix}.IpRanges")) {
            let peer = Peer::Ipv4(read_ipv4(params.require(&format!("{range}.CidrIp"))?)?);
            rules.push(rule(&ports, peer, params.get(&format!("{range}.Description"))));
        }
        for range in params.groups(&format!("{prefix}.Ipv6Ranges")) {
            let peer = Peer::Ipv6(read_ipv6(params.require(&format!("{range}.CidrIpv6"))?)?);
            rules.push(rule(&ports, peer, params.get(&format!("{range}.Description"))));
        }
        for pair in params.groups(&format!("{prefix}.Groups")) {
            let peer = match params.get(&format!("{pair}.GroupId")) {
                Some(id) => id.to_owned(),
                None => group_of_name(ec2, params.require(&format!("{pair}.GroupName"))?, moment)?,
            };
            rules.push(rule(&ports, Peer::Group(peer), params.get(&format!("{pair}.Description"))));
        }
        for list in params.groups(&format!("{prefix}.PrefixListIds")) {
            let peer = Peer::PrefixList(params.require(&format!("{list}.PrefixListId"))?.to_owned());
            rules.push(rule(&ports, peer, params.get(&format!("{list}.Description"))));
        }
        if rules.len() == before {
            return Err(ApiError::missing(&format!("{prefix}.IpRanges")));
        }
    }
    if let Some(cidr) = params.get("CidrIp") {
        rules.push(rule(&read_ports(params, "")?, Peer::Ipv4(read_ipv4(cidr)?), None));
    }
    if let Some(name) = params.get("SourceSecurityGroupName") {
        rules.push(rule(&read_ports(params, "")?, Peer::Group(group_of_name(ec2, name, moment)?), None));
    }
    if rules.is_empty() {
        return Err(ApiError::missing("IpPermissions"));
    }
    Ok(rules)
}

fn group_of_name(ec2: &Ec2, name: &str, moment: Moment) -> Result<String, ApiError> {
    let found = ec2.security_groups().find(|group| group.name == name && moment.sees(group.created_at));
    found
        .map(|group| group.group_id.clone())
        .ok_or_else(|| ApiError::bad("InvalidGroup.NotFound", format!("The security group '{name}' does not exist")))
}

struct Ports {
    protocol: String,
    from: Option<i32>,
    to: Option<i32>,
}

fn rule(ports: &Ports, peer: Peer, description: Option<&str>) -> NewRule {
    let permission = Permission { protocol: ports.protocol.clone(), from_port: ports.from, to_port: ports.to, peer };
    NewRule { permission, description: description.map(str::to_owned) }
}

fn read_ports(params: &Params, prefix: &str) -> Result<Ports, ApiError> {
    let protocol = match params.require(&format!("{prefix}IpProtocol"))?.to_lowercase().as_str() {
        "6" => "tcp".to_owned(),
        "17" => "udp".to_owned(),
        "1" => "icmp".to_owned(),
        "58" => "icmpv6".to_owned(),
        "all" => "-1".to_owned(),
        other => other.to_owned(),
    };
    if !matches!(protocol.as_str(), "-1" | "tcp" | "udp" | "icmp" | "icmpv6") && protocol.parse::<u8>().is_err() {
        return Err(ApiError::invalid("IpProtocol", &protocol, "It is no protocol's name or number."));
    }
    let (from, to) = (params.parse(&format!("{prefix}FromPort"))?, params.parse(&format!("{prefix}ToPort"))?);
    match protocol.as_str() {
        "tcp" | "udp" => match (from, to) {
            (Some(from), Some(to)) if 0 <= from && from <= to && to <= 65_535 => {
                Ok(Ports { protocol, from: Some(from), to: Some(to) })
            }
            (Some(from), Some(to)) => {
                Err(ApiError::bad("InvalidParameterValue", format!("Invalid {protocol} port range ({from}-{to})")))
            }
            _ => Err(ApiError::missing(&format!("{prefix}FromPort"))),
        },
        "icmp" | "icmpv6" => Ok(Ports { protocol, from: from.or(Some(-1)), to: to.or(Some(-1)) }),
        _ => Ok(Ports { protocol, from: None, to: None }),
    }
}

/// Host bits are cleared, as EC2 does.
fn read_ipv4(text: &str) -> Result<Ipv4Net, ApiError> {
    text.parse::<Ipv4Net>()
        .map(|net| net.trunc())
        .map_err(|_| ApiError::bad("InvalidParameterValue", format!("CIDR block {text} is malformed")))
}

fn read_ipv6(text: &str) -> Result<Ipv6Net, ApiError> {
    text.parse::<Ipv6Net>()
        .map(|net| net.trunc())
        .map_err(|_| ApiError::bad("InvalidParameterValue", format!("CIDR block {text} is malformed")))
}

/// What a rule has under `ip-permission.<field>`; `None` for a field that there is not.
pub fn permission_field(rule: &Rule, field: &str) -> Option<Option<String>> {
    let permission = &rule.permission;
    Some(match (field, &permission.peer) {
        ("cidr", Peer::Ipv4(net)) => Some(net.to_string()),
        ("ipv6-cidr", Peer::Ipv6(net)) => Some(net.to_string()),
        ("group-id", Peer::Group(id)) | ("prefix-list-id", Peer::PrefixList(id)) => Some(id.clone()),
        ("cidr" | "ipv6-cidr" | "group-id" | "prefix-list-id", _) => None,
        ("from-port", _) => permission.from_port.map(|port| port.to_string()),
        ("to-port", _) => permission.to_port.map(|port| port.to_string()),
        ("protocol", _) => Some(permission.protocol.clone()),
        _ => return None,
    })
}

/// Protocol, first port and last port.
type PortRange = (String, Option<i32>, Option<i32>);

/// `ipPermissions`: rules of the same protocol and ports are one item.
pub fn permissions(name: &str, rules: &[Rule]) -> Xml {
    let mut grouped: BTreeMap<PortRange, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        let permission = &rule.permission;
        let key = (permission.protocol.clone(), permission.from_port, permission.to_port);
        grouped.entry(key).or_default().push(rule);
    }
    let items = grouped.into_iter().map(|((protocol, from, to), rules)| {
        let mut children = vec![Xml::text("ipProtocol", protocol)];
        children.extend(Xml::maybe("fromPort", from));
        children.extend(Xml::maybe("toPort", to));
        let peers = |list: &str, pick: &dyn Fn(&Peer) -> Option<Vec<Xml>>| {
            let items = rules.iter().filter_map(|rule| {
                let mut peer = pick(&rule.permission.peer)?;
                peer.extend(Xml::maybe("description", rule.description.as_ref()));
                Some(peer)
            });
            Xml::list(list, "item", items)
        };
        children.push(peers("groups", &|peer| match peer {
            Peer::Group(id) => Some(vec![Xml::text("userId", ACCOUNT), Xml::text("groupId", id)]),
            _ => None,
        }));
        children.push(peers("ipRanges", &|peer| match peer {
            Peer::Ipv4(net) => Some(vec![Xml::text("cidrIp", net)]),
            _ => None,
        }));
        children.push(peers("ipv6Ranges", &|peer| match peer {
            Peer::Ipv6(net) => Some(vec![Xml::text("cidrIpv6", net)]),
            _ => None,
        }));
        children.push(peers("prefixListIds", &|peer| match peer {
            Peer::PrefixList(id) => Some(vec![Xml::text("prefixListId", id)]),
            _ => None,
        }));
        children
    });
    Xml::list(name, "item", items)
}

/// A rule as DescribeSecurityGroupRules shows it.
fn describe(group_id: &str, direction: Direction, rule: &Rule) -> Vec<Xml> {
    let permission = &rule.permission;
    let mut children = vec![
        Xml::text("securityGroupRuleId", &rule.rule_id),
        Xml::text("groupId", group_id),
        Xml::text("groupOwnerId", ACCOUNT),
        Xml::text("isEgress", direction == Direction::Egress),
        Xml::text("ipProtocol", &permission.protocol),
        Xml::text("fromPort", permission.from_port.unwrap_or(-1)),
        Xml::text("toPort", permission.to_port.unwrap_or(-1)),
        match &permission.peer {
            Peer::Ipv4(net) => Xml::text("cidrIpv4", net),
            Peer::Ipv6(net) => Xml::text("cidrIpv6", net),
            Peer::PrefixList(id) => Xml::text("prefixListId", id),
            Peer::Group(id) => {
                Xml::node("referencedGroupInfo", [Xml::text("groupId", id), Xml::text("userId", ACCOUNT)])
            }
        },
        tag_set(&rule.tags),
    ];
    children.extend(Xml::maybe("description", rule.description.as_ref()));
    children
}

pub fn describe_security_group_rules(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("SecurityGroupRuleId");
    let filters = Filters::of(params);
    region.read(|world| {
        let mut rows: Vec<(&str, Direction, &Rule)> = Vec::new();
        for group in world.ec2.security_groups().filter(|group| moment.sees(group.created_at)) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let rules = group.rules(direction).seen(moment);
                rows.extend(rules.iter().map(|rule| (group.group_id.as_str(), direction, rule)));
            }
        }
        if let Some(absent) = named.iter().find(|id| !rows.iter().any(|(_, _, rule)| rule.rule_id == **id)) {
            return Err(ApiError::bad(
                "InvalidSecurityGroupRuleId.NotFound",
                format!("The security group rule ID '{absent}' does not exist"),
            ));
        }
        rows.retain(|(_, _, rule)| named.is_empty() || named.contains(&rule.rule_id.as_str()));
        let chosen = filters.select(
            rows.iter(),
            |(_, _, rule)| &rule.tags,
            |(group_id, _, rule), name| match name {
                "group-id" => one(group_id),
                "security-group-rule-id" => one(&rule.rule_id),
                _ => None,
            },
        )?;
        let (rows, next) = page(params, chosen, |row: &&(&str, Direction, &Rule)| row.2.rule_id.as_str())?;
        let items = rows.into_iter().map(|(group_id, direction, rule)| describe(group_id, *direction, rule));
        let mut answer = vec![Xml::list("securityGroupRuleSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}
