//! Inbound rules for this machine's address, one a port, open only while a step needs them.
//!
//! **Flow.** Look for each rule; authorize it with run, step and expiry in its tags, or put this run's name on the one that
//! another run has made for the same address; later take the name off, and revoke the rule with the last name.
//! **Guarantees.** A rule has one address (/32) and one port, never 0.0.0.0/0. A rule that somebody else made is used, but
//! never changed. A rule that several runs use stays until the last of them has closed it, or their leases have ended.
//! **Caveats.** Authorizing has no client token: after a lost answer the rule is looked for, not made again. AWS has no
//! compare-and-swap for tags: a run that joins a rule in the moment in which its last user revokes it looks again, and
//! makes its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Mutex,
    time::Duration,
};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    ids::{RunId, StepId},
    resource::Resource,
    wait::{Look, Wait, Waiter},
};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, ResourceType, SecurityGroupRule};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    absent::{self, Thing},
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
    /// Whether a run of Alcedo made it; anybody else's is used, and not revoked.
    ours: bool,
}

/// How long a rule that was joined is watched: its last user may be revoking it.
const JOINED_LOOKS: u32 = 2;

impl OpenIngress {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let mut rules = Vec::new();
        for port in &self.ports {
            rules.push(self.open(clients, context, *port).await?);
        }
        Ok(json!({ "rules": rules, "address": self.address }))
    }

    async fn open(&self, clients: &Clients, context: &StepContext, port: u16) -> Result<OpenRule, StepError> {
        // A rule that vanishes while it is being joined has lost its last user; the next look finds none, or another's.
        for _ in 0..3 {
            if let Some(rule) = self.find(clients, port).await? {
                match self.adopt(clients, context, &rule).await? {
                    Some(open) => return Ok(open),
                    None => continue,
                }
            }
            match self.authorize(clients, context, port).await {
                Ok(rule) => {
                    context.own(Resource::new("security group rule", &rule)).await?;
                    return Ok(OpenRule { rule, ours: true });
                }
                // Somebody was quicker, or our own call went through and only its answer was lost.
                Err(error) if error.is("InvalidPermission.Duplicate") || error.effect_unknown => {
                    self.await_visible(clients, context, port).await.map_err(|_| error)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StepError::new(
            ErrorKind::Changed,
            format!("somebody else opens and closes port {port} of {} for {}", self.security_group, self.address),
        )
        .hint("find out who (CloudTrail: RevokeSecurityGroupIngress), then run again"))
    }

    async fn await_visible(&self, clients: &Clients, context: &StepContext, port: u16) -> Result<(), StepError> {
        let look = Wait::new(Duration::from_millis(500), Duration::from_secs(15));
        look.until(context, "the security group rule", || async {
            Ok(match self.find(clients, port).await? {
                Some(_) => Look::Ready(()),
                None => Look::NotYet("the rule is not visible yet".into()),
            })
        })
        .await
    }

    /// Uses a rule that is there; `None`, where it is there no more.
    async fn adopt(
        &self,
        clients: &Clients,
        context: &StepContext,
        rule: &SecurityGroupRule,
    ) -> Result<Option<OpenRule>, StepError> {
        let id = rule.security_group_rule_id().unwrap_or_default().to_owned();
        let users = Tags::from_ec2(rule.tags()).users();
        if users.is_empty() {
            return Ok(Some(OpenRule { rule: id, ours: false }));
        }
        context.own(Resource::new("security group rule", &id)).await?;
        if !users.iter().any(|(run, _)| run == context.run()) {
            let tag = Tags::default().used_by(context.run(), self.expiry(context));
            let call = clients.ec2.create_tags().resources(&id).set_tags(Some(tag.ec2()));
            if let Err(error) = call.send().await {
                let error = CloudError::of(format!("join the rule {id}"), error);
                let error = absent::told(clients, error, Thing::SecurityGroupRule(&id)).await;
                return if is_gone(&error) { Ok(None) } else { Err(error.into()) };
            }
            for _ in 0..JOINED_LOOKS {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let there = rules(clients, &self.security_group).await?;
                if !there.iter().any(|it| it.security_group_rule_id() == Some(&id)) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(OpenRule { rule: id, ours: true }))
    }

    fn expiry(&self, context: &StepContext) -> Timestamp {
        let lease = SignedDuration::from_secs(i64::try_from(self.lease_seconds).unwrap_or(i64::MAX));
        context.now().saturating_add(lease).unwrap_or(Timestamp::MAX)
    }

    async fn authorize(&self, clients: &Clients, context: &StepContext, port: u16) -> Result<String, CloudError> {
        let expires = self.expiry(context);
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
        let tags = launch::tags(context).expiring(expires).used_by(context.run(), expires);
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
        close(clients, context, context.run(), &self.security_group, known).await
    }
}

impl CloseIngress {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let opened: Option<Opened> = context.maybe_output(self.opened_by.as_str())?;
        let known = opened.map(|opened| opened.rules).unwrap_or_default();
        let known = known.into_iter().filter(|rule| rule.ours).map(|rule| rule.rule).collect();
        close(clients, context, context.run(), &self.security_group, known).await?;
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

/// Takes a run's name off every rule of the group that carries it, revokes those that nobody else uses, and looks that
/// nothing is left of it.
///
/// A rule that was made a moment ago can be invisible to Describe, and to Revoke. So the ids that are known are revoked
/// whatever Describe says, and "not found" counts only once it has lasted longer than new rules stay invisible; where no id
/// is known, an answer may have been lost, and Describe is believed only after the same time.
pub async fn close(
    clients: &Clients,
    waiter: &impl Waiter,
    own: &RunId,
    group: &str,
    known: Vec<String>,
) -> Result<(), StepError> {
    let begun = Instant::now();
    let open = Mutex::new(known.iter().cloned().collect::<BTreeSet<String>>());
    let look = Wait::new(Duration::from_millis(500), Duration::from_secs(60));
    look.until(waiter, "the security group rule to be gone", || async {
        let seen = rules(clients, group).await?;
        let mut ids: BTreeMap<String, bool> = BTreeMap::new();
        for rule in &seen {
            let users = Tags::from_ec2(rule.tags()).users();
            let Some(id) = rule.security_group_rule_id().map(str::to_owned) else { continue };
            if users.iter().any(|(run, _)| run == own) {
                let shared = users.iter().any(|(run, until)| run != own && *until > clients.clock.0.now());
                ids.insert(id, shared);
            } else if !users.is_empty() {
                // Others use it, and the run's name is off it already.
                open.lock().expect("no panic while it is held").remove(&id);
            }
        }
        for id in open.lock().expect("no panic while it is held").iter() {
            ids.entry(id.clone()).or_insert(false);
        }
        if ids.is_empty() {
            let certain = !known.is_empty() || begun.elapsed() >= clients.visible;
            return Ok(if certain { Look::Ready(()) } else { Look::NotYet("no rule to be seen so far".into()) });
        }
        for (id, shared) in ids {
            let gone = match shared {
                true => leave(clients, own, &id).await,
                false => revoke(clients, group, &id).await,
            };
            let gone = match gone {
                Ok(()) => true,
                Err(error) if is_gone(&error) => begun.elapsed() >= clients.visible,
                Err(error) => return Err(error.into()),
            };
            if gone {
                open.lock().expect("no panic while it is held").remove(&id);
            }
        }
        Ok(Look::NotYet("closed, looking again".into()))
    })
    .await
}

/// Takes this run's name off a rule that others still use.
async fn leave(clients: &Clients, own: &RunId, rule: &str) -> Result<(), CloudError> {
    let tag = aws_sdk_ec2::types::Tag::builder().key(tags::user(own)).build();
    let call = clients.ec2.delete_tags().resources(rule).tags(tag);
    let Err(error) = call.send().await else { return Ok(()) };
    let error = CloudError::of(format!("leave the rule {rule} to its other users"), error);
    Err(absent::told(clients, error, Thing::SecurityGroupRule(rule)).await)
}

/// Ends a dead run's use of a rule, and the rule with it where nobody else uses it. Answers what was done, in a word;
/// `None` where there was nothing left to do.
///
/// # Errors
/// AWS's, but for a rule that is gone.
pub async fn end(
    clients: &Clients,
    group: &str,
    rule: &str,
    users: &[(RunId, Timestamp)],
    dead: &RunId,
    now: Timestamp,
) -> Result<Option<&'static str>, CloudError> {
    let is_shared = users.iter().any(|(run, until)| run != dead && *until > now);
    let (done, what) = match (is_shared, users.iter().any(|(run, _)| run == dead)) {
        (true, false) => return Ok(None),
        (true, true) => (leave(clients, dead, rule).await, "left to its other users"),
        (false, _) => (revoke(clients, group, rule).await, "closed"),
    };
    match done {
        Ok(()) => Ok(Some(what)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn revoke(clients: &Clients, group: &str, rule: &str) -> Result<(), CloudError> {
    let call = clients.ec2.revoke_security_group_ingress().group_id(group).security_group_rule_ids(rule);
    call.send().await.map(drop).map_err(|error| CloudError::of(format!("close the port in {group}"), error))
}

fn is_gone(error: &CloudError) -> bool {
    error.is("InvalidPermission.NotFound") || error.is("InvalidSecurityGroupRuleId.NotFound")
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
