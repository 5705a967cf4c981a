//! What time and other records do to targets: registration ends, draining ends, references come and go, instances stop.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Elbv2, Servers, TargetGroup, TargetKey, TargetType,
    health::TargetHealth,
    target::{Next, Surroundings},
};

/// Transitions that are due; see [`Elbv2::unsettled`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settling(Vec<(TargetKey, Next)>);

impl Settling {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Elbv2 {
    /// The transitions of targets that are due at `now`. `registration` is the time from registering a target to its
    /// first health check.
    pub fn unsettled(&self, servers: &impl Servers, registration: Duration, now: Timestamp) -> Settling {
        let mut due = Vec::new();
        for group in self.target_groups.values() {
            let zones = self.zones_of(group);
            for target in &group.targets {
                let server = (group.target_type == TargetType::Instance).then(|| servers.server(&target.id));
                let next = target.next(&Surroundings { now, registration, zones: zones.as_deref(), server });
                if next != Next::Stay {
                    let key = TargetKey { group_arn: group.arn.clone(), id: target.id.clone(), port: target.port };
                    due.push((key, next));
                }
            }
        }
        Settling(due)
    }

    pub fn settle(&mut self, due: Settling, now: Timestamp) {
        for (key, next) in due.0 {
            let Some(group) = self.target_groups.get_mut(&key.group_arn) else { continue };
            match next {
                Next::Stay => {}
                Next::Leave => group.targets.retain(|target| target.id != key.id || target.port != key.port),
                Next::Become(health) => become_now(group, &key, health, now),
            }
        }
    }

    /// Settles until nothing is due any more: a target whose group was just referenced registers, and with no
    /// registration lag is checked, in one go.
    pub fn settle_all(&mut self, servers: &impl Servers, registration: Duration, now: Timestamp) {
        loop {
            let due = self.unsettled(servers, registration, now);
            if due.is_empty() {
                return;
            }
            self.settle(due, now);
        }
    }

    /// When time alone will next change a target.
    pub fn next_due(&self, registration: Duration) -> Option<Timestamp> {
        self.target_groups.values().flat_map(|group| &group.targets).filter_map(|target| target.due(registration)).min()
    }

    /// The zones of the load balancers that forward to a group; `None` where none does.
    fn zones_of(&self, group: &TargetGroup) -> Option<Vec<String>> {
        let balancers = self.balancers_of(&group.arn);
        (!balancers.is_empty())
            .then(|| balancers.into_iter().flat_map(|balancer| &balancer.zones).map(|zone| zone.name.clone()).collect())
    }
}

fn become_now(group: &mut TargetGroup, key: &TargetKey, health: TargetHealth, now: Timestamp) {
    if let Some(target) = group.targets.iter_mut().find(|target| target.id == key.id && target.port == key.port) {
        target.become_now(health, now);
    }
}
