//! The preview: how a fleet is reached, and health-checked, without traffic.
//!
//! A fleet's rule stays as long as the fleet does. While it is the candidate, the rule answers to the preview header's
//! value and to its version; afterwards to its version alone, which keeps a held fleet health-checked.

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    file::PreviewHeader,
    resource::Resource,
};
use aws_sdk_elasticloadbalancingv2::types::{Certificate, HttpHeaderConditionConfig, ProtocolEnum, RuleCondition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    absent::{self, Thing},
    clients::{Clients, elb_once},
    cloud_error::CloudError,
    facts::Secured,
    launch::{MadeGroup, TARGET_GROUP, group_made, tags},
    listener::{self, Place, Routing},
    who,
};

/// The step that attaches it; another reads what it made.
pub const ATTACH: &str = "launch/preview";

/// Makes green reachable without traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachPreview {
    /// A rule on the production listener. It also answers to the version itself, so that this fleet stays reachable, and
    /// health-checked, when it is no longer the candidate.
    Header { listener: String, header: PreviewHeader, priority: u32 },
    /// A second listener of the balancer. `before` is what it did, where it exists; where it does not, it is made with the
    /// production listener's protocol and certificate, so that a preview is reached as production is.
    Port {
        balancer: String,
        port: u16,
        listener: Option<String>,
        before: Option<Routing>,
        #[serde(default)]
        secured: Option<Secured>,
    },
}

impl AttachPreview {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let group = group_made(context)?;
        match self {
            Self::Header { listener, header, priority } => {
                let rule = match find_rule(clients, listener, &group, &context.plan().version.to_string()).await? {
                    Some(rule) => rule,
                    None => create_rule(clients, context, listener, header, *priority, &group).await?,
                };
                context.own(Resource::new("listener rule", &rule)).await?;
                Ok(json!({ "rule": rule }))
            }
            Self::Port { listener: Some(arn), before, .. } => {
                let place = Place::Listener { arn: arn.clone() };
                let (now, after) = (listener::read(clients, &place).await?, Routing::to(group));
                if now != after {
                    if before.as_ref().is_some_and(|before| *before != now) {
                        return Err(changed(clients, context, &place, &now).await);
                    }
                    listener::write(clients, &place, &after).await?;
                }
                Ok(json!({ "listener": arn }))
            }
            Self::Port { balancer, port, secured, .. } => {
                let arn = match find_listener(clients, balancer, *port).await? {
                    Some(arn) => arn,
                    None => create_listener(clients, context, balancer, *port, secured.as_ref(), &group).await?,
                };
                context.own(Resource::new("listener", &arn)).await?;
                Ok(json!({ "listener": arn }))
            }
        }
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        match self {
            Self::Header { listener, .. } => match context.maybe_output::<MadeGroup>(TARGET_GROUP)? {
                Some(group) => {
                    match find_rule(clients, listener, &group.arn, &context.plan().version.to_string()).await? {
                        Some(rule) => delete_rule(clients, &rule).await,
                        None => Ok(()),
                    }
                }
                None => Ok(()),
            },
            Self::Port { listener: Some(arn), before: Some(before), .. } => {
                let place = Place::Listener { arn: arn.clone() };
                let now = listener::read(clients, &place).await?;
                let group = context.maybe_output::<MadeGroup>(TARGET_GROUP)?;
                if group.is_some_and(|group| now.named().contains(&group.arn.as_str())) {
                    listener::write(clients, &place, before).await?;
                } else if now != *before {
                    // Green has no part in it, so it can go.
                    context.warn(
                        format!("the preview listener was left at `{now}`, which somebody else made of it"),
                        None,
                    );
                }
                Ok(())
            }
            Self::Port { balancer, port, .. } => match find_listener(clients, balancer, *port).await? {
                Some(arn) => {
                    let call = clients.elb.delete_listener().listener_arn(&arn);
                    call.send().await.map_err(|error| CloudError::of("delete the preview listener", error))?;
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }
}

async fn changed(clients: &Clients, context: &StepContext, place: &Place, now: &Routing) -> StepError {
    let message = format!("somebody else changed the preview listener {}: it does `{now}` now", place.arn());
    who::made(clients, place, now, context.plan().made_at).await.blamed(StepError::new(ErrorKind::Changed, message))
}

/// After the flip the candidate's header no longer means this fleet; the version itself still does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleasePreview {
    Header {
        header: PreviewHeader,
    },
    /// The preview listener goes on to the fleet that was replaced, which keeps it health-checked while it is held.
    Port {
        to: Option<Routing>,
    },
    /// The same where a held fleet comes back, so that no candidate of this run had the listener.
    PortOfHeld {
        listener: String,
        before: Routing,
        to: Routing,
    },
}

#[derive(Debug, Deserialize)]
struct MadePreview {
    rule: Option<String>,
    listener: Option<String>,
}

impl ReleasePreview {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        if let Self::PortOfHeld { listener, to, .. } = self {
            listener::write(clients, &Place::Listener { arn: listener.clone() }, to).await?;
            return Ok(Value::Null);
        }
        let made: MadePreview = context.output(ATTACH)?;
        match (self, made) {
            (Self::Header { header }, MadePreview { rule: Some(rule), .. }) => {
                let values = vec![context.plan().version.to_string()];
                set_header(clients, &rule, &header.name, values).await?;
            }
            (Self::Port { to: Some(routing) }, MadePreview { listener: Some(arn), .. }) => {
                listener::write(clients, &Place::Listener { arn }, routing).await?;
            }
            _ => {}
        }
        Ok(Value::Null)
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        if let Self::PortOfHeld { listener, before, .. } = self {
            return Ok(listener::write(clients, &Place::Listener { arn: listener.clone() }, before).await?);
        }
        let Some(made) = context.maybe_output::<MadePreview>(ATTACH)? else { return Ok(()) };
        match (self, made) {
            (Self::Header { header }, MadePreview { rule: Some(rule), .. }) => {
                let values = vec![header.value.clone(), context.plan().version.to_string()];
                match set_header(clients, &rule, &header.name, values).await {
                    // An unwind that was stuck here has gone on to delete it.
                    Err(error) if error.is("RuleNotFound") => {}
                    done => done?,
                }
            }
            (Self::Port { to: Some(_) }, MadePreview { listener: Some(arn), .. }) => {
                let group = context.output::<MadeGroup>(TARGET_GROUP)?;
                match listener::write(clients, &Place::Listener { arn }, &Routing::to(group.arn)).await {
                    // An unwind that was stuck here has gone on to delete one of them.
                    Err(error) if error.is("ListenerNotFound") || error.is("TargetGroupNotFound") => {}
                    done => done?,
                }
            }
            _ => {}
        }
        Ok(())
    }
}

async fn set_header(clients: &Clients, rule: &str, name: &str, values: Vec<String>) -> Result<(), CloudError> {
    let call = clients.elb.modify_rule().rule_arn(rule).conditions(header_condition(name, values));
    let Err(error) = call.send().await else { return Ok(()) };
    let error = CloudError::of("change the preview rule", error);
    Err(absent::told(clients, error, Thing::ListenerRule(rule)).await)
}

/// The rule that forwards to this group alone and asks for its version: whatever else somebody has made of it, that is ours.
async fn find_rule(
    clients: &Clients,
    listener: &str,
    group: &str,
    version: &str,
) -> Result<Option<String>, CloudError> {
    let mut marker = None;
    loop {
        let call = clients.elb.describe_rules().listener_arn(listener).set_marker(marker);
        let page = call.send().await.map_err(|error| CloudError::of("read the listener's rules", error))?;
        for rule in page.rules() {
            let asks = rule.conditions().iter().filter_map(|condition| condition.http_header_config());
            let ours = asks.flat_map(|header| header.values()).any(|value| value == version)
                && Routing::read(rule.actions()).is_ok_and(|routing| routing.named() == [group]);
            if let (true, Some(arn)) = (ours && rule.priority() != Some("default"), rule.rule_arn()) {
                return Ok(Some(arn.to_owned()));
            }
        }
        marker = page.next_marker().map(str::to_owned);
        if marker.is_none() {
            return Ok(None);
        }
    }
}

async fn create_rule(
    clients: &Clients,
    context: &StepContext,
    listener: &str,
    header: &PreviewHeader,
    priority: u32,
    group: &str,
) -> Result<String, StepError> {
    let values = [header.value.clone(), context.plan().version.to_string()];
    let call = clients
        .elb
        .create_rule()
        .listener_arn(listener)
        .priority(i32::try_from(priority).unwrap_or(i32::MAX))
        .conditions(header_condition(&header.name, values))
        .actions(Routing::to(group).action())
        .set_tags(Some(tags(context).elb()));
    match call.customize().config_override(elb_once()).send().await {
        Ok(answer) => {
            let arn = answer.rules().first().and_then(|rule| rule.rule_arn());
            Ok(arn.unwrap_or_default().to_owned())
        }
        Err(error) => {
            let error = CloudError::of(format!("create the preview rule with priority {priority}"), error);
            if error.is("PriorityInUse") {
                return Err(StepError::new(
                    ErrorKind::Changed,
                    format!("priority {priority} was taken since the plan was made"),
                )
                .hint("run again, or give the preview another priority under flip.preview.header.priority"));
            }
            if error.effect_unknown
                && let Some(rule) = find_rule(clients, listener, group, &context.plan().version.to_string()).await?
            {
                return Ok(rule);
            }
            Err(error.into())
        }
    }
}

pub fn header_condition(name: &str, values: impl IntoIterator<Item = String>) -> RuleCondition {
    let config = HttpHeaderConditionConfig::builder()
        .http_header_name(name)
        .set_values(Some(values.into_iter().collect()))
        .build();
    RuleCondition::builder().field("http-header").http_header_config(config).build()
}

/// Deletes a rule; one that is gone is deleted.
pub async fn delete_rule(clients: &Clients, arn: &str) -> Result<(), StepError> {
    match clients.elb.delete_rule().rule_arn(arn).send().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = CloudError::of("delete the preview rule", error);
            let error = absent::told(clients, error, Thing::ListenerRule(arn)).await;
            if error.is("RuleNotFound") { Ok(()) } else { Err(error.into()) }
        }
    }
}

async fn find_listener(clients: &Clients, balancer: &str, port: u16) -> Result<Option<String>, CloudError> {
    let call = clients.elb.describe_listeners().load_balancer_arn(balancer);
    let mut pages = call.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("read the balancer's listeners", error))?;
        if let Some(found) = page.listeners().iter().find(|it| it.port() == Some(i32::from(port))) {
            return Ok(found.listener_arn().map(str::to_owned));
        }
    }
    Ok(None)
}

async fn create_listener(
    clients: &Clients,
    context: &StepContext,
    balancer: &str,
    port: u16,
    secured: Option<&Secured>,
    group: &str,
) -> Result<String, StepError> {
    let protocol = if secured.is_some() { ProtocolEnum::Https } else { ProtocolEnum::Http };
    let certificate = secured.map(|it| Certificate::builder().certificate_arn(&it.certificate).build());
    let call = clients
        .elb
        .create_listener()
        .load_balancer_arn(balancer)
        .protocol(protocol)
        .set_certificates(certificate.map(|certificate| vec![certificate]))
        .set_ssl_policy(secured.and_then(|it| it.policy.clone()))
        .port(i32::from(port))
        .default_actions(Routing::to(group).action())
        .set_tags(Some(tags(context).elb()));
    match call.customize().config_override(elb_once()).send().await {
        Ok(answer) => Ok(answer.listeners().first().and_then(|it| it.listener_arn()).unwrap_or_default().to_owned()),
        Err(error) => {
            let error = CloudError::of(format!("create the preview listener on port {port}"), error);
            if error.effect_unknown
                && let Some(arn) = find_listener(clients, balancer, port).await?
            {
                return Ok(arn);
            }
            Err(error.into())
        }
    }
}
