//! How calls change listeners and rules.

use std::collections::BTreeSet;

use super::{
    Elbv2, Refusal,
    condition::Condition,
    listener::{Action, Listener, Rule},
    quota,
};

/// What ModifyRule replaces; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct RuleChange {
    pub conditions: Option<Vec<Condition>>,
    pub action: Option<Action>,
}

/// The lowest and highest priority of a rule.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=50_000;

impl Elbv2 {
    /// Adds a listener, or answers with the one that a call with the same settings made before.
    ///
    /// # Errors
    /// `LoadBalancerNotFound`, `DuplicateListener`, `TooManyListeners`, and those of its action.
    pub fn create_listener(&mut self, new: Listener) -> Result<&Listener, Refusal> {
        self.load_balancer(&new.load_balancer_arn)?;
        self.check_action(&new.load_balancer_arn, &new.default_action)?;
        let others = self.listeners_of(&new.load_balancer_arn);
        if let Some(known) = others.iter().find(|known| known.port == new.port) {
            if known.default_action != new.default_action {
                return Err(Refusal::new(
                    "DuplicateListener",
                    format!(
                        "A listener already exists on this port for this load balancer '{}'",
                        new.load_balancer_arn
                    ),
                ));
            }
            let arn = known.arn.clone();
            return self.listener(&arn);
        }
        if others.len() >= quota::LISTENERS_PER_LOAD_BALANCER {
            return Err(Refusal::new("TooManyListeners", "The limit on the number of listeners was reached"));
        }
        let arn = new.arn.clone();
        Ok(self.listeners.entry(arn).or_insert(new))
    }

    /// # Errors
    /// `ListenerNotFound`, and those of the action.
    pub fn modify_listener(&mut self, arn: &str, action: Option<Action>) -> Result<&Listener, Refusal> {
        let listener = self.listener(arn)?;
        if let Some(action) = action {
            self.check_action(&listener.load_balancer_arn, &action)?;
            if let Some(listener) = self.listeners.get_mut(arn) {
                listener.default_action = action;
            }
        }
        self.listener(arn)
    }

    /// Removes a listener and its rules.
    ///
    /// # Errors
    /// `ListenerNotFound`.
    pub fn delete_listener(&mut self, arn: &str) -> Result<(), Refusal> {
        self.listeners.remove(arn).ok_or_else(|| Refusal::listener_not_found(arn))?;
        self.rules.retain(|_, rule| rule.listener_arn != arn);
        Ok(())
    }

    /// # Errors
    /// `ListenerNotFound`, `PriorityInUse`, `TooManyRules`, `ValidationError`, and those of the action.
    pub fn create_rule(&mut self, new: Rule) -> Result<&Rule, Refusal> {
        let load_balancer = self.listener(&new.listener_arn)?.load_balancer_arn.clone();
        check_priority(new.priority)?;
        Condition::check_all(&new.conditions)?;
        self.check_action(&load_balancer, &new.action)?;
        if self.rules_of(&new.listener_arn).iter().any(|rule| rule.priority == new.priority) {
            return Err(priority_in_use(new.priority));
        }
        let rules: usize =
            self.listeners_of(&load_balancer).iter().map(|listener| self.rules_of(&listener.arn).len()).sum();
        if rules >= quota::RULES_PER_LOAD_BALANCER {
            return Err(Refusal::new("TooManyRules", "The limit on the number of rules per load balancer was reached"));
        }
        let arn = new.arn.clone();
        Ok(self.rules.entry(arn).or_insert(new))
    }

    /// # Errors
    /// `RuleNotFound`, `OperationNotPermitted` for a default rule, `ValidationError`, and those of the action.
    pub fn modify_rule(&mut self, arn: &str, change: RuleChange) -> Result<&Rule, Refusal> {
        self.refuse_default(arn, "modified")?;
        let load_balancer = self.listener(&self.rule(arn)?.listener_arn)?.load_balancer_arn.clone();
        if let Some(conditions) = &change.conditions {
            Condition::check_all(conditions)?;
        }
        if let Some(action) = &change.action {
            self.check_action(&load_balancer, action)?;
        }
        if let Some(rule) = self.rules.get_mut(arn) {
            rule.conditions = change.conditions.unwrap_or_else(|| std::mem::take(&mut rule.conditions));
            if let Some(action) = change.action {
                rule.action = action;
            }
        }
        self.rule(arn)
    }

    /// # Errors
    /// `RuleNotFound`; `OperationNotPermitted` for a default rule.
    pub fn delete_rule(&mut self, arn: &str) -> Result<(), Refusal> {
        self.refuse_default(arn, "deleted")?;
        self.rules.remove(arn).map(drop).ok_or_else(|| Refusal::rule_not_found(arn))
    }

    /// Sets several priorities at once, so that rules can change places.
    ///
    /// # Errors
    /// `RuleNotFound`, `OperationNotPermitted` for a default rule, `PriorityInUse`, `ValidationError`.
    pub fn set_priorities(&mut self, priorities: &[(String, u32)]) -> Result<(), Refusal> {
        for (arn, priority) in priorities {
            self.refuse_default(arn, "given a priority")?;
            self.rule(arn)?;
            check_priority(*priority)?;
        }
        let mut changed = self.rules.clone();
        for (arn, priority) in priorities {
            if let Some(rule) = changed.get_mut(arn) {
                rule.priority = *priority;
            }
        }
        let mut taken = BTreeSet::new();
        for rule in changed.values() {
            if !taken.insert((&rule.listener_arn, rule.priority)) {
                return Err(priority_in_use(rule.priority));
            }
        }
        self.rules = changed;
        Ok(())
    }

    fn refuse_default(&self, arn: &str, what: &str) -> Result<(), Refusal> {
        match self.default_rule_of(arn) {
            None => Ok(()),
            Some(_) => Err(Refusal::new("OperationNotPermitted", format!("Default rule '{arn}' cannot be {what}"))),
        }
    }

    /// Checks an action of one of a load balancer's listeners against the groups that there are.
    fn check_action(&self, load_balancer_arn: &str, action: &Action) -> Result<(), Refusal> {
        action.check()?;
        for arn in action.group_arns() {
            self.target_group(arn)?;
            if self.balancers_of(arn).iter().any(|balancer| balancer.arn != load_balancer_arn) {
                return Err(Refusal::new(
                    "TargetGroupAssociationLimit",
                    format!("The following target groups cannot be associated with more than one load balancer: {arn}"),
                ));
            }
        }
        let groups: BTreeSet<&str> = self
            .listeners_of(load_balancer_arn)
            .into_iter()
            .flat_map(|listener| self.actions_of(listener))
            .chain([action])
            .flat_map(Action::group_arns)
            .collect();
        if groups.len() > quota::TARGET_GROUPS_PER_LOAD_BALANCER {
            return Err(Refusal::new(
                "TooManyUniqueTargetGroupsPerLoadBalancer",
                "The limit on the number of target groups per load balancer was reached",
            ));
        }
        Ok(())
    }
}

fn check_priority(priority: u32) -> Result<(), Refusal> {
    if PRIORITIES.contains(&priority) {
        Ok(())
    } else {
        Err(Refusal::validation(format!(
            "The priority '{priority}' must be between {} and {}",
            PRIORITIES.start(),
            PRIORITIES.end()
        )))
    }
}

fn priority_in_use(priority: u32) -> Refusal {
    Refusal::new("PriorityInUse", format!("Priority '{priority}' is currently in use"))
}
