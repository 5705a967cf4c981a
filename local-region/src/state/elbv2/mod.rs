//! ELBv2's records: load balancers, listeners, rules, target groups and targets, and how calls and time change them.
//! Nothing here does I/O, asks a clock or makes up an id.
//!
//! Sources: the ELBv2 API reference (error codes, ranges, quotas) and the user guide of application load balancers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod attributes;
mod change_groups;
mod change_listeners;
pub mod condition;
pub mod health;
pub mod listener;
pub mod load_balancer;
pub mod names;
mod refusal;
pub mod servers;
mod settle;
pub mod target;
pub mod target_group;

pub use change_groups::TargetKey;
pub use change_listeners::RuleChange;
pub use listener::{Action, ActionKind, Forward, Listener, Rule, WeightedGroup};
pub use load_balancer::{LoadBalancer, Scheme, Zone};
pub use refusal::Refusal;
pub use servers::{Server, ServerState, Servers};
pub use settle::Settling;
pub use target::Target;
pub use target_group::{HealthCheck, Matcher, TargetGroup, TargetType};

/// Default quotas of an account (*Quotas for your Application Load Balancers*).
pub mod quota {
    pub const LOAD_BALANCERS: usize = 50;
    pub const LISTENERS_PER_LOAD_BALANCER: usize = 50;
    /// Not counting default rules.
    pub const RULES_PER_LOAD_BALANCER: usize = 100;
    pub const TARGET_GROUPS: usize = 3000;
    pub const TARGET_GROUPS_PER_LOAD_BALANCER: usize = 100;
    pub const TARGETS_PER_GROUP: usize = 1000;
    pub const TAGS: usize = 50;
}

/// All of ELBv2's records, each by its ARN.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Elbv2 {
    load_balancers: BTreeMap<String, LoadBalancer>,
    listeners: BTreeMap<String, Listener>,
    rules: BTreeMap<String, Rule>,
    target_groups: BTreeMap<String, TargetGroup>,
}

impl Elbv2 {
    pub fn load_balancers(&self) -> impl Iterator<Item = &LoadBalancer> {
        self.load_balancers.values()
    }

    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.values()
    }

    pub fn target_groups(&self) -> impl Iterator<Item = &TargetGroup> {
        self.target_groups.values()
    }

    /// # Errors
    /// `LoadBalancerNotFound`.
    pub fn load_balancer(&self, arn: &str) -> Result<&LoadBalancer, Refusal> {
        self.load_balancers.get(arn).ok_or_else(|| Refusal::load_balancer_not_found(arn))
    }

    /// # Errors
    /// `LoadBalancerNotFound`.
    pub fn load_balancer_mut(&mut self, arn: &str) -> Result<&mut LoadBalancer, Refusal> {
        self.load_balancers.get_mut(arn).ok_or_else(|| Refusal::load_balancer_not_found(arn))
    }

    /// # Errors
    /// `ListenerNotFound`.
    pub fn listener(&self, arn: &str) -> Result<&Listener, Refusal> {
        self.listeners.get(arn).ok_or_else(|| Refusal::listener_not_found(arn))
    }

    /// # Errors
    /// `RuleNotFound`; a default rule is not found here, but by [`Elbv2::default_rule_of`].
    pub fn rule(&self, arn: &str) -> Result<&Rule, Refusal> {
        self.rules.get(arn).ok_or_else(|| Refusal::rule_not_found(arn))
    }

    /// # Errors
    /// `TargetGroupNotFound`.
    pub fn target_group(&self, arn: &str) -> Result<&TargetGroup, Refusal> {
        self.target_groups.get(arn).ok_or_else(|| Refusal::target_group_not_found(arn))
    }

    /// # Errors
    /// `TargetGroupNotFound`.
    pub fn target_group_mut(&mut self, arn: &str) -> Result<&mut TargetGroup, Refusal> {
        self.target_groups.get_mut(arn).ok_or_else(|| Refusal::target_group_not_found(arn))
    }

    /// The listener whose default rule has this ARN.
    pub fn default_rule_of(&self, rule_arn: &str) -> Option<&Listener> {
        self.listeners.values().find(|listener| listener.default_rule_arn == rule_arn)
    }

    /// A load balancer's listeners, by port.
    pub fn listeners_of(&self, load_balancer_arn: &str) -> Vec<&Listener> {
        let mut listeners: Vec<_> =
            self.listeners.values().filter(|listener| listener.load_balancer_arn == load_balancer_arn).collect();
        listeners.sort_by_key(|listener| listener.port);
        listeners
    }

    /// A listener's rules in the order in which they are looked at, without the default.
    pub fn rules_of(&self, listener_arn: &str) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.values().filter(|rule| rule.listener_arn == listener_arn).collect();
        rules.sort_by_key(|rule| rule.priority);
        rules
    }

    /// Every action of a listener, its default last.
    pub fn actions_of(&self, listener: &Listener) -> Vec<&Action> {
        let rules = self.rules.values().filter(|rule| rule.listener_arn == listener.arn).map(|rule| &rule.action);
        rules.chain(self.listeners.get(&listener.arn).map(|listener| &listener.default_action)).collect()
    }

    /// The load balancers that forward to a group, by whatever weight. At AWS it is at most one.
    pub fn balancers_of(&self, target_group_arn: &str) -> Vec<&LoadBalancer> {
        self.load_balancers
            .values()
            .filter(|balancer| {
                self.listeners.values().filter(|listener| listener.load_balancer_arn == balancer.arn).any(|listener| {
                    self.actions_of(listener)
                        .iter()
                        .any(|action| action.group_arns().any(|arn| arn == target_group_arn))
                })
            })
            .collect()
    }

    /// Adds a load balancer, or answers with the one that a call with the same settings made before.
    ///
    /// # Errors
    /// `DuplicateLoadBalancerName` where the name is taken by one with other settings; `TooManyLoadBalancers`.
    pub fn create_load_balancer(&mut self, new: LoadBalancer) -> Result<&LoadBalancer, Refusal> {
        names::check_name("load balancer", &new.name)?;
        let same_name = self.load_balancers.values().find(|known| known.name == new.name);
        if let Some(known) = same_name {
            let same = known.scheme == new.scheme
                && known.vpc_id == new.vpc_id
                && known.zones == new.zones
                && known.security_groups == new.security_groups;
            if !same {
                return Err(Refusal::new(
                    "DuplicateLoadBalancerName",
                    "A load balancer with the same name exists, but with different settings",
                ));
            }
            let arn = known.arn.clone();
            return self.load_balancer(&arn);
        }
        if self.load_balancers.len() >= quota::LOAD_BALANCERS {
            return Err(Refusal::new("TooManyLoadBalancers", "The limit on the number of load balancers was reached"));
        }
        let arn = new.arn.clone();
        Ok(self.load_balancers.entry(arn).or_insert(new))
    }

    /// Removes a load balancer with its listeners and rules. Its target groups stay. One that is not there is removed
    /// already.
    ///
    /// # Errors
    /// `OperationNotPermitted` where deletion protection is on.
    pub fn delete_load_balancer(&mut self, arn: &str) -> Result<(), Refusal> {
        let Some(balancer) = self.load_balancers.get(arn) else { return Ok(()) };
        if balancer.is_protected() {
            return Err(Refusal::new(
                "OperationNotPermitted",
                format!("Load balancer '{arn}' cannot be deleted because deletion protection is enabled"),
            ));
        }
        self.load_balancers.remove(arn);
        let gone: Vec<String> = self
            .listeners
            .values()
            .filter(|listener| listener.load_balancer_arn == arn)
            .map(|listener| listener.arn.clone())
            .collect();
        for listener in &gone {
            self.listeners.remove(listener);
        }
        self.rules.retain(|_, rule| !gone.contains(&rule.listener_arn));
        Ok(())
    }

    /// The tags of whatever has this ARN.
    ///
    /// # Errors
    /// The `…NotFound` of the kind of resource that the ARN names.
    pub fn tags(&self, arn: &str) -> Result<&BTreeMap<String, String>, Refusal> {
        if let Some(listener) = self.default_rule_of(arn) {
            return Ok(&listener.tags);
        }
        match arn.split(':').nth(5).and_then(|resource| resource.split('/').next()) {
            Some("loadbalancer") => self.load_balancer(arn).map(|balancer| &balancer.tags),
            Some("targetgroup") => self.target_group(arn).map(|group| &group.tags),
            Some("listener") => self.listener(arn).map(|listener| &listener.tags),
            Some("listener-rule") => self.rule(arn).map(|rule| &rule.tags),
            _ => Err(Refusal::validation(format!("'{arn}' is not a valid resource ARN"))),
        }
    }

    /// Changes the tags of whatever has this ARN, if the result is within the quota.
    ///
    /// # Errors
    /// As [`Elbv2::tags`]; `TooManyTags`.
    pub fn change_tags(
        &mut self,
        arn: &str,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<(), Refusal> {
        let mut tags = self.tags(arn)?.clone();
        change(&mut tags);
        if tags.len() > quota::TAGS {
            return Err(Refusal::new("TooManyTags", format!("A resource can have at most {} tags", quota::TAGS)));
        }
        if let Some(balancer) = self.load_balancers.get_mut(arn) {
            balancer.tags = tags;
        } else if let Some(group) = self.target_groups.get_mut(arn) {
            group.tags = tags;
        } else if let Some(rule) = self.rules.get_mut(arn) {
            rule.tags = tags;
        } else if let Some(listener) =
            self.listeners.values_mut().find(|listener| listener.arn == arn || listener.default_rule_arn == arn)
        {
            listener.tags = tags;
        }
        Ok(())
    }
}
