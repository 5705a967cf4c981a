//! What the records say about requests: which listener sends what where. Plain values, so that a change that matters to
//! requests can be told from one that does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::state::{
    World,
    elbv2::{
        Action, LoadBalancer, ServerState, Servers, Target, TargetGroup, TargetKey, TargetType,
        attributes::Attribute,
        condition::Condition,
        load_balancer::{ATTRIBUTES, FORWARDED_FOR},
    },
};

/// Everything a node needs to know, as of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routes {
    /// By listener ARN.
    pub listeners: BTreeMap<String, ListenerRoutes>,
    /// Targets that take no new requests and may finish those they have.
    pub draining: BTreeSet<TargetKey>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerRoutes {
    pub port: u16,
    pub idle_timeout: Duration,
    pub forwarded_for: ForwardedFor,
    /// In the order in which they are looked at.
    pub rules: Vec<(Vec<Condition>, Action)>,
    pub default: Action,
    /// Every group that an action refers to, by ARN.
    pub groups: BTreeMap<String, GroupRoutes>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GroupRoutes {
    /// Registered and not draining, whatever their health.
    pub targets: Vec<(TargetKey, SocketAddr)>,
    pub sticky_seconds: Option<u32>,
    pub least_outstanding: bool,
}

/// What becomes of `X-Forwarded-For` (`routing.http.xff_header_processing.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFor {
    Append,
    Preserve,
    Remove,
}

impl Routes {
    pub fn of(world: &World) -> Self {
        let all = &world.elbv2;
        let draining = all.target_groups().flat_map(|group| {
            let leaving = group.targets.iter().filter(|target| target.drains_until.is_some());
            leaving.map(|target| key(group, target))
        });
        let listeners = all.listeners().filter_map(|listener| {
            let balancer = all.load_balancer(&listener.load_balancer_arn).ok()?;
            let arns = all.actions_of(listener).into_iter().flat_map(Action::group_arns);
            let groups =
                arns.filter_map(|arn| Some((arn.to_owned(), group_routes(world, all.target_group(arn).ok()?))));
            let rules = all.rules_of(&listener.arn).into_iter();
            let routes = ListenerRoutes {
                port: listener.port,
                idle_timeout: Duration::from_secs(balancer.idle_timeout_seconds().into()),
                forwarded_for: forwarded_for(balancer),
                rules: rules.map(|rule| (rule.conditions.clone(), rule.action.clone())).collect(),
                default: listener.default_action.clone(),
                groups: groups.collect(),
            };
            Some((listener.arn.clone(), routes))
        });
        Self { listeners: listeners.collect(), draining: draining.collect() }
    }
}

fn forwarded_for(balancer: &LoadBalancer) -> ForwardedFor {
    match Attribute::value_of(ATTRIBUTES, &balancer.attributes, FORWARDED_FOR) {
        "preserve" => ForwardedFor::Preserve,
        "remove" => ForwardedFor::Remove,
        _ => ForwardedFor::Append,
    }
}

fn group_routes(world: &World, group: &TargetGroup) -> GroupRoutes {
    let serving = group.targets.iter().filter(|target| target.drains_until.is_none());
    let targets =
        serving.filter_map(|target| Some((key(group, target), address(world, group, &target.id, target.port)?)));
    GroupRoutes {
        targets: targets.collect(),
        sticky_seconds: group.sticky_seconds(),
        least_outstanding: group.prefers_least_outstanding(),
    }
}

pub fn key(group: &TargetGroup, target: &Target) -> TargetKey {
    TargetKey { group_arn: group.arn.clone(), id: target.id.clone(), port: target.port }
}

/// Where a target takes requests; `None` for an instance that is forgotten.
pub fn address(world: &World, group: &TargetGroup, id: &str, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = match group.target_type {
        TargetType::Instance => world.ec2.server(id)?.address.into(),
        TargetType::Ip => id.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether a target's server is gone for good or stopped, so that connections to it lead nowhere.
pub fn is_dead(world: &World, group: &TargetGroup, id: &str) -> bool {
    group.target_type == TargetType::Instance
        && world.ec2.server(id).is_none_or(|server| matches!(server.state, ServerState::Stopped | ServerState::Ended))
}
