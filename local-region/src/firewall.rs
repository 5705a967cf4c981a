//! From security groups to what each server's network lets in.

use std::collections::{BTreeSet, HashMap};

use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::{
    instances::{FirewallRule, MachineError, Protocol},
    region::Region,
    state::{
        World,
        ec2::{InstanceState, security_group::Peer, security_group::Permission},
    },
};

/// What each server's network was last told, so that only changes are pushed.
#[derive(Debug, Default)]
pub(crate) struct Firewalls {
    pushed: Mutex<HashMap<String, Vec<FirewallRule>>>,
}

/// What the instance's security groups let in, resolved to addresses. A group as source stands for its members'
/// addresses; for a load balancer that is a member, for this machine's address, where the balancer's data plane runs.
pub fn rules_of(world: &World, region: &Region, instance_id: &str) -> Vec<FirewallRule> {
    let Some(instance) = world.ec2.instance(instance_id) else { return Vec::new() };
    let mut rules: Vec<FirewallRule> = instance
        .security_groups
        .iter()
        .filter_map(|id| world.ec2.security_group(id))
        .flat_map(|group| group.ingress.current())
        .flat_map(|rule| {
            let sources = sources_of(world, region, &rule.permission.peer);
            sources.into_iter().filter_map(|source| resolve(&rule.permission, source))
        })
        .collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn sources_of(world: &World, region: &Region, peer: &Peer) -> BTreeSet<Ipv4Net> {
    match peer {
        Peer::Ipv4(net) => BTreeSet::from([*net]),
        // The region's network is IPv4 only, and it has no prefix lists: such a rule lets nobody in.
        Peer::Ipv6(_) | Peer::PrefixList(_) => BTreeSet::new(),
        Peer::Group(group) => {
            let members = world.ec2.instances().filter(|it| {
                it.state != InstanceState::Terminated && it.security_groups.iter().any(|member| member == group)
            });
            let mut sources: BTreeSet<_> = members.map(|it| Ipv4Net::from(it.private_ip)).collect();
            if world.elbv2.load_balancers().any(|balancer| balancer.security_groups.contains(group)) {
                sources.insert(Ipv4Net::from(region.network.gateway));
            }
            sources
        }
    }
}

/// One permission from one source, or `None` where it is for a protocol that the network does not filter by.
fn resolve(permission: &Permission, source: Ipv4Net) -> Option<FirewallRule> {
    let protocol = match permission.protocol.as_str() {
        "-1" => Protocol::All,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        _ => return None,
    };
    let port =
        |value: Option<i32>, otherwise: u16| value.and_then(|port| u16::try_from(port).ok()).unwrap_or(otherwise);
    let (from_port, to_port) = match protocol {
        Protocol::Tcp | Protocol::Udp => (port(permission.from_port, 0), port(permission.to_port, u16::MAX)),
        Protocol::All | Protocol::Icmp => (0, 0),
    };
    Some(FirewallRule { protocol, from_port, to_port, source })
}

/// Makes every server's network let in what the security groups say now, and returns when it does.
///
/// # Errors
/// The first server whose network could not be changed; the others were.
pub async fn apply(region: &Region) -> Result<(), MachineError> {
    // Held throughout, so that of two changes at once the later one is what stays.
    let mut pushed = region.firewalls.pushed.lock().await;
    let wanted: HashMap<String, Vec<FirewallRule>> = region.read(|world| {
        world
            .ec2
            .instances()
            .filter(|it| it.has_machine && it.state == InstanceState::Running)
            .map(|it| (it.instance_id.clone(), rules_of(world, region, &it.instance_id)))
            .collect()
    });
    pushed.retain(|id, _| wanted.contains_key(id));
    let changed: Vec<_> = wanted.into_iter().filter(|(id, rules)| pushed.get(id) != Some(rules)).collect();
    let pushes = changed.into_iter().map(|(id, rules)| async move {
        let outcome = region.machines.set_firewall(&id, &rules).await;
        (id, rules, outcome)
    });
    let mut first_failure = Ok(());
    for (id, rules, outcome) in futures::future::join_all(pushes).await {
        match outcome {
            Ok(()) => {
                pushed.insert(id, rules);
            }
            // A server that ended meanwhile has no network to change.
            Err(_) if region.read(|world| world.ec2.instance(&id).is_none_or(|it| it.state.is_ended())) => {}
            Err(error) => {
                pushed.remove(&id);
                first_failure = first_failure.and(Err(error));
            }
        }
    }
    first_failure
}
