//! Inbound rules for this machine's address, one a port, open only while a step needs them.
//!
//! **Flow.** Look for each rule; authorize it with run, step and expiry in its tags; later revoke what carries this run's
//! tag. **Guarantees.** A rule has one address (/32) and one port, never 0.0.0.0/0. A rule that somebody else made is used, but never
//! revoked. **Caveats.** Authorizing has no client token: after a lost answer the rule is looked for, not made again.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Mutex, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::StepError,
    ids::StepId,
    resource::Resource,
    wait::{Look, Wait},
};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, ResourceType, SecurityGroupRule};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    action::Action,
    clients::{Clients, ec2_once},
    cloud_error::CloudError,
    launch,
    tags::{self, Tags},
};

/// Opens ports of a security group for this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenIngress {
    pub security_group: String,
    pub address: Ipv4Addr,
    pub ports: Vec<u16>,
    /// How long the lease runs; whatever finds the rule later may revoke it.
    pub lease_seconds: u64,
}

/// Revokes what the step `opened_by` has opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloseIngress {
    pub security_group: String,
    pub opened_by: StepId,
}

/// What [`OpenIngress`] answers.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    rules: Vec<OpenRule>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenRule {
    rule: String,
    /// Whether this run made it; another's is used, and not revoked.
    ours: bool,
}

impl OpenIngress {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let mut rules = Vec::new();
        for port in &self.ports {
            rules.push(self.open(clients, context, *port).await?);
        }
        Ok(json!({ "rules": rules }))
    }

    async fn open(&self, clients: &Clients, context: &StepContext, port: u16) -> Result<Value, StepError> {
        if let Some(rule) = self.find(clients, port).await? {
            return self.adopt(context, &rule).await;
        }
        match self.authorize(clients, context, port).await {
            Ok(rule) => {
                context.own(Resource::new("security group rule", &rule)).await?;
                Ok(json!({ "rule": rule, "ours": true }))
            }
            // Somebody was quicker, or our own call went through and only its answer was lost.
            Err(error) if error.is("InvalidPermission.Duplicate") || error.effect_unknown => {
                let look = Wait::new(Duration::from_millis(500), Duration::from_secs(15));
                let found = look
                    .until(context, "the security group rule", || async {
                        Ok(match self.find(clients, port).await? {
                            Some(rule) => Look::Ready(rule),
                            None => Look::NotYet("the rule is not visible yet".into()),
                        })
                    })
                    .await;
                match found {
                    Ok(rule) => self.adopt(context, &rule).await,
                    Err(_) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn adopt(&self, context: &StepContext, rule: &SecurityGroupRule) -> Result<Value, StepError> {
        let id = rule.security_group_rule_id().unwrap_or_default().to_owned();
        let ours = Tags::from_ec2(rule.tags()).get(tags::RUN) == Some(context.run().as_str());
        if ours {
            context.own(Resource::new("security group rule", &id)).await?;
        }
        Ok(json!({ "rule": id, "ours": ours }))
    }

    async fn authorize(&self, clients: &Clients, context: &StepContext, port: u16) -> Result<String, CloudError> {
        let lease = SignedDuration::from_secs(i64::try_from(self.lease_seconds).unwrap_or(i64::MAX));
        let expires = context.now().saturating_add(lease).unwrap_or(Timestamp::MAX);
        let range = IpRange::builder()
            .cidr_ip(format!("{}/32", self.address))
            .description(format!("alcedo run {} until {}", context.run(), expires.strftime("%Y-%m-%dT%H:%M:%SZ")))
            .build();
        let permission = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(i32::from(port))
            .to_port(i32::from(port))
            .ip_ranges(range)
            .build();
        let tags = launch::tags(context).expiring(expires);
        let answer = clients
            .ec2
            .authorize_security_group_ingress()
            .group_id(&self.security_group)
            .ip_permissions(permission)
            .tag_specifications(tags.specification(ResourceType::SecurityGroupRule))
            .customize()
            .config_override(ec2_once())
            .send()
            .await
            .map_err(|error| CloudError::of(format!("open port {port} in {}", self.security_group), error))?;
        let rule = answer.security_group_rules().first().and_then(SecurityGroupRule::security_group_rule_id);
        Ok(rule.unwrap_or_default().to_owned())
    }

    /// The rule that lets this machine in, whoever made it.
    async fn find(&self, clients: &Clients, port: u16) -> Result<Option<SecurityGroupRule>, CloudError> {
        let cidr = format!("{}/32", self.address);
        let port = Some(i32::from(port));
        let rules = rules(clients, &self.security_group).await?;
        Ok(rules.into_iter().find(|rule| {
            rule.is_egress() == Some(false)
                && rule.ip_protocol() == Some("tcp")
                && rule.cidr_ipv4() == Some(&cidr)
                && rule.from_port() == port
                && rule.to_port() == port
        }))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        if is_closed(context) {
            return Ok(());
        }
        let known = context.owned().into_iter().map(|rule| rule.id).collect();
        revoke(clients, context, &self.security_group, context.step(), known).await
    }
}

impl CloseIngress {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let opened: Option<Opened> = context.maybe_output(self.opened_by.as_str())?;
        let known = opened.map(|opened| opened.rules).unwrap_or_default();
        let known = known.into_iter().filter(|rule| rule.ours).map(|rule| rule.rule).collect();
        revoke(clients, context, &self.security_group, &self.opened_by, known).await?;
        Ok(Value::Null)
    }
}

/// Whether a step that closes what this one has opened has succeeded: it looked until everything was gone, so nobody has to
/// wait for that again.
fn is_closed(context: &StepContext) -> bool {
    let done = context.outputs();
    context.plan().steps.iter().filter(|planned| done.contains_key(&planned.id)).any(|planned| {
        let action = serde_json::from_value(planned.action.clone());
        matches!(action, Ok(Action::CloseIngress(close)) if close.opened_by == *context.step())
    })
}

/// Longest time that a new rule can be invisible; after it, a rule that nobody finds is not there.
const VISIBLE: Duration = Duration::from_secs(10);

/// Revokes every rule of the group that the step of this run has made, and looks that none is left.
///
/// A rule that was made a moment ago can be invisible to Describe, and to Revoke. So the ids that are known are revoked
/// whatever Describe says, and "not found" counts only once it has lasted longer than new rules stay invisible; where no id
/// is known, an answer may have been lost, and Describe is believed only after the same time.
async fn revoke(
    clients: &Clients,
    context: &StepContext,
    group: &str,
    step: &StepId,
    known: Vec<String>,
) -> Result<(), StepError> {
    let begun = Instant::now();
    let open = Mutex::new(known.iter().cloned().collect::<BTreeSet<String>>());
    let look = Wait::new(Duration::from_millis(500), Duration::from_secs(60));
    look.until(context, "the security group rule to be gone", || async {
        let rules = rules(clients, group).await?;
        let tagged = rules.iter().filter(|rule| {
            let tags = Tags::from_ec2(rule.tags());
            tags.get(tags::RUN) == Some(context.run().as_str()) && tags.get(tags::STEP) == Some(step.as_str())
        });
        let mut ids: BTreeSet<String> =
            tagged.filter_map(|rule| rule.security_group_rule_id().map(str::to_owned)).collect();
        ids.extend(open.lock().expect("no panic while it is held").iter().cloned());
        if ids.is_empty() {
            let certain = !known.is_empty() || begun.elapsed() >= VISIBLE;
            return Ok(if certain { Look::Ready(()) } else { Look::NotYet("no rule to be seen so far".into()) });
        }
        for id in ids {
            let call = clients.ec2.revoke_security_group_ingress().group_id(group).security_group_rule_ids(&id);
            let gone = match call.send().await {
                Ok(_) => true,
                Err(error) => {
                    let error = CloudError::of(format!("close the port in {group}"), error);
                    let unknown =
                        error.is("InvalidPermission.NotFound") || error.is("InvalidSecurityGroupRuleId.NotFound");
                    if !unknown {
                        return Err(error.into());
                    }
                    begun.elapsed() >= VISIBLE
                }
            };
            if gone {
                open.lock().expect("no panic while it is held").remove(&id);
            }
        }
        Ok(Look::NotYet("revoked, looking again".into()))
    })
    .await
}

async fn rules(clients: &Clients, group: &str) -> Result<Vec<SecurityGroupRule>, CloudError> {
    let filter = Filter::builder().name("group-id").values(group).build();
    let mut pages = clients.ec2.describe_security_group_rules().filters(filter).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of(format!("read the rules of {group}"), error))?;
        found.extend_from_slice(page.security_group_rules());
    }
    Ok(found)
}
