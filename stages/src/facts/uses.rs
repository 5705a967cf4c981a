//! Who sends requests to which target group: default actions and rules of the balancer's listeners, whoever made them.

use aws_sdk_elasticloadbalancingv2::types::{Action, Listener, Rule};
use serde::Serialize;

use super::balancer::{listeners, rules};
use crate::{clients::Clients, cloud_error::CloudError, listener::named_by};

/// A default action or a rule that sends requests to target groups, or would with another weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// Of the listener, where it is its default action; else of the rule.
    pub arn: String,
    /// In words: `rule 50 of the listener on port 80`.
    pub what: String,
    pub target_groups: Vec<String>,
}

/// Everything at the balancer, as it is now.
///
/// # Errors
/// The cloud could not be asked.
pub async fn all(clients: &Clients, balancer: &str) -> Result<Vec<Use>, CloudError> {
    let listeners = listeners(clients, balancer).await?;
    let mut uses: Vec<Use> = listeners.iter().filter_map(of_default).collect();
    uses.extend(of_rules(clients, listeners.iter()).await?);
    Ok(uses)
}

/// The first of these by which somebody else sends requests to a target group: `own` is what production and the fleet's
/// preview are, by ARN.
pub fn foreign<'a>(uses: &'a [Use], target_group: &str, own: &[&str]) -> Option<&'a Use> {
    let mut foreign = uses.iter().filter(|it| !own.contains(&it.arn.as_str()));
    foreign.find(|it| it.target_groups.iter().any(|group| group == target_group))
}

pub(super) fn of_default(listener: &Listener) -> Option<Use> {
    let what = format!("the default action of the listener on port {}", listener.port().unwrap_or_default());
    of(listener.listener_arn()?, what, listener.default_actions())
}

/// A listener's default action counts among its rules at AWS, and here as the listener's own.
pub(super) fn of_rule(rule: &Rule, port: u16) -> Option<Use> {
    let priority = rule.priority().filter(|priority| *priority != "default")?;
    of(rule.rule_arn()?, format!("rule {priority} of the listener on port {port}"), rule.actions())
}

pub(super) async fn of_rules(
    clients: &Clients,
    listeners: impl Iterator<Item = &Listener>,
) -> Result<Vec<Use>, CloudError> {
    let of_one = |listener: &Listener| {
        let port = listener.port().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let arn = listener.listener_arn().unwrap_or_default().to_owned();
        async move {
            let rules = rules(clients, &arn).await?;
            Ok::<_, CloudError>(rules.iter().filter_map(|rule| of_rule(rule, port)).collect::<Vec<Use>>())
        }
    };
    Ok(futures::future::try_join_all(listeners.map(of_one)).await?.concat())
}

fn of(arn: &str, what: String, actions: &[Action]) -> Option<Use> {
    let target_groups = named_by(actions);
    (!target_groups.is_empty()).then(|| Use { arn: arn.to_owned(), what, target_groups })
}
