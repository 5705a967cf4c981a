//! How calls change target groups and their targets.

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Elbv2, Refusal, Server, ServerState, Servers, Target, TargetGroup, TargetType, health::TargetHealth, names, quota,
};

/// Which target of which group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetKey {
    pub group_arn: String,
    pub id: String,
    pub port: u16,
}

impl Elbv2 {
    /// Adds a target group, or answers with the one that a call with the same settings made before.
    ///
    /// # Errors
    /// `DuplicateTargetGroupName`, `TooManyTargetGroups`, `InvalidConfigurationRequest`, `ValidationError`.
    pub fn create_target_group(&mut self, new: TargetGroup) -> Result<&TargetGroup, Refusal> {
        names::check_name("target group", &new.name)?;
        new.health_check.check()?;
        if let Some(known) = self.target_groups.values().find(|known| known.name == new.name) {
            if !known.has_settings_of(&new) {
                return Err(Refusal::new(
                    "DuplicateTargetGroupName",
                    format!("A target group with the same name '{}' exists, but with different settings", new.name),
                ));
            }
            let arn = known.arn.clone();
            return self.target_group(&arn);
        }
        if self.target_groups.len() >= quota::TARGET_GROUPS {
            return Err(Refusal::new("TooManyTargetGroups", "The limit on the number of target groups was reached"));
        }
        let arn = new.arn.clone();
        Ok(self.target_groups.entry(arn).or_insert(new))
    }

    /// Removes a group and its targets. One that is not there is removed already.
    ///
    /// # Errors
    /// `ResourceInUse` while an action of any listener or rule refers to it.
    pub fn delete_target_group(&mut self, arn: &str) -> Result<(), Refusal> {
        if !self.balancers_of(arn).is_empty() {
            return Err(Refusal::new(
                "ResourceInUse",
                format!("Target group '{arn}' is currently in use by a listener or a rule"),
            ));
        }
        self.target_groups.remove(arn);
        Ok(())
    }

    /// Registers targets; each is an id and perhaps a port and a zone. One that is registered stays as it is; one that
    /// drains is registered anew.
    ///
    /// # Errors
    /// `TargetGroupNotFound`, `InvalidTarget`, `TooManyTargets`, `ValidationError`; nothing is registered then.
    pub fn register(
        &mut self,
        group_arn: &str,
        targets: &[(String, Option<u16>, Option<String>)],
        servers: &impl Servers,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let group = self.target_group(group_arn)?;
        if targets.is_empty() {
            return Err(Refusal::validation("At least one target must be specified"));
        }
        for (id, ..) in targets {
            check_target(group, id, servers)?;
        }
        let wanted: Vec<_> =
            targets.iter().map(|(id, port, zone)| (id.clone(), port.unwrap_or(group.port), zone.clone())).collect();
        let new = wanted
            .iter()
            .filter(|(id, port, _)| !group.targets.iter().any(|known| known.id == *id && known.port == *port))
            .count();
        if group.targets.len() + new > quota::TARGETS_PER_GROUP {
            return Err(Refusal::new(
                "TooManyTargets",
                format!("A target group can have at most {} targets", quota::TARGETS_PER_GROUP),
            ));
        }
        let group = self.target_group_mut(group_arn)?;
        for (id, port, zone) in wanted {
            match group.targets.iter_mut().find(|known| known.id == id && known.port == port) {
                Some(known) if known.drains_until.is_some() => known.stop_draining(now),
                Some(_) => {}
                None => group.targets.push(Target::new(id, port, zone, now)),
            }
        }
        Ok(())
    }

    /// Lets targets drain for the group's deregistration delay. A target that gets no requests anyway, because its
    /// group is in no use or its instance is gone, leaves at once. Without a port, the target leaves on the group's own
    /// port.
    ///
    /// # Errors
    /// `TargetGroupNotFound`; `InvalidTarget` where one is not registered, and nothing changes then.
    pub fn deregister(
        &mut self,
        group_arn: &str,
        targets: &[(String, Option<u16>)],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let group = self.target_group(group_arn)?;
        let delay: Duration = group.deregistration_delay();
        let wanted: Vec<_> = targets.iter().map(|(id, port)| (id, port.unwrap_or(group.port))).collect();
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(id, port)| !group.targets.iter().any(|known| known.id == **id && known.port == *port))
            .map(|(id, _)| id.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(Refusal::new(
                "InvalidTarget",
                format!("The following targets are not registered to the target group: '{}'", missing.join("', '")),
            ));
        }
        let group = self.target_group_mut(group_arn)?;
        group.targets.retain_mut(|target| {
            let leaves = wanted.iter().any(|(id, port)| **id == target.id && *port == target.port);
            if !leaves || target.drains_until.is_some() {
                return true;
            }
            let idle = matches!(target.health(), TargetHealth::Unused(_));
            if idle || delay.is_zero() {
                return false;
            }
            target.drain(delay, now);
            true
        });
        Ok(())
    }

    pub fn target(&self, key: &TargetKey) -> Option<&Target> {
        let group = self.target_groups.get(&key.group_arn)?;
        group.targets.iter().find(|target| target.id == key.id && target.port == key.port)
    }

    /// Records what the health checks found. Ignored where the target is not being checked any more.
    pub fn set_health(&mut self, key: &TargetKey, health: TargetHealth, now: Timestamp) {
        let group = self.target_groups.get_mut(&key.group_arn);
        let target =
            group.and_then(|group| group.targets.iter_mut().find(|known| known.id == key.id && known.port == key.port));
        if let Some(target) = target.filter(|target| target.health().is_checked()) {
            target.become_now(health, now);
        }
    }
}

/// Whether something can be a target of a group.
fn check_target(group: &TargetGroup, id: &str, servers: &impl Servers) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new("InvalidTarget", why));
    match group.target_type {
        TargetType::Instance => match servers.server(id) {
            Some(Server { state: ServerState::Running, vpc_id, .. }) if vpc_id == group.vpc_id => Ok(()),
            Some(Server { state: ServerState::Running, .. }) => {
                refuse(format!("The following targets are not in the target group VPC '{}': '{id}'", group.vpc_id))
            }
            Some(_) => {
                refuse(format!("The following targets are not in a running state and cannot be registered: '{id}'"))
            }
            None => refuse(format!("The following targets are not valid: '{id}'")),
        },
        TargetType::Ip => match id.parse::<Ipv4Addr>() {
            Ok(address) if address.is_private() || address.is_loopback() || is_shared(address) => Ok(()),
            Ok(_) => refuse(format!("The IP address '{id}' is not a valid target: it is not a private address")),
            Err(_) => Err(Refusal::validation(format!("The IP address '{id}' is not a valid IPv4 address"))),
        },
    }
}

/// 100.64.0.0/10 (RFC 6598), which AWS takes beside the private blocks of RFC 1918. Loopback addresses are the local
/// region's own addition: they make a process on this machine a target.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}
