//! Hold: blue stays registered and healthy for a while, so that going back is one call.

use alcedo_pipeline::{context::StepContext, error::StepError, units::Span, version::Version};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    absent::{self, Thing},
    clients::Clients,
    cloud_error::CloudError,
    facts::{self, FactsError, Fleet},
    flip::{self, Group, Switch},
    judge::Judge,
    listener::Place,
    site::Site,
    tags,
};

/// Says on the fleets' target groups which one is held, and until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkHeld {
    /// The fleet that was in service; `None` where there was none of ours.
    pub blue: Option<String>,
    pub green: Group,
    /// What stood on green before, where it had been held itself.
    pub green_before: Option<HeldBefore>,
    pub span: Span,
}

/// Marks of a fleet that comes back into service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldBefore {
    pub since: Option<Timestamp>,
    pub until: Timestamp,
    pub replaces: Option<Version>,
    /// The version that it replaces now: where `rollback` without a version goes next.
    pub replaces_now: Option<Version>,
}

impl MarkHeld {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let span = SignedDuration::try_from(self.span.duration()).unwrap_or(SignedDuration::MAX);
        let since = context.now();
        let until = since.saturating_add(span).unwrap_or(Timestamp::MAX);
        if let Some(blue) = &self.blue {
            mark(clients, blue, Some(since), Some(until)).await?;
        }
        if let Some(before) = &self.green_before {
            let green = self.green.arn(context)?;
            mark(clients, &green, None, None).await?;
            replaces(clients, &green, before.replaces_now).await?;
        }
        Ok(json!({ "until": until }))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        if let Some(blue) = &self.blue {
            mark(clients, blue, None, None).await?;
        }
        if let Some(before) = &self.green_before {
            let green = self.green.arn(context)?;
            mark(clients, &green, before.since, Some(before.until)).await?;
            replaces(clients, &green, before.replaces).await?;
        }
        Ok(())
    }
}

/// Says since when and until when a fleet is held; takes the marks off it, where there is no end.
async fn mark(
    clients: &Clients,
    group: &str,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<(), CloudError> {
    let Some(until) = until else {
        return untag(clients, group, &[tags::HELD_SINCE, tags::HELD_UNTIL]).await;
    };
    let since = since.map(|since| (tags::HELD_SINCE, since.to_string()));
    tag(clients, group, since.into_iter().chain([(tags::HELD_UNTIL, until.to_string())])).await
}

/// Says which version a fleet has replaced.
async fn replaces(clients: &Clients, group: &str, version: Option<Version>) -> Result<(), CloudError> {
    match version {
        Some(version) => tag(clients, group, [(tags::REPLACES, version.to_string())]).await,
        None => untag(clients, group, &[tags::REPLACES]).await,
    }
}

async fn tag(
    clients: &Clients,
    group: &str,
    pairs: impl IntoIterator<Item = (&str, String)>,
) -> Result<(), CloudError> {
    let all = pairs.into_iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect();
    let call = clients.elb.add_tags().resource_arns(group).set_tags(Some(all)).send().await;
    let Err(error) = call else { return Ok(()) };
    unless_gone(clients, group, CloudError::of("mark the fleet", error)).await
}

async fn untag(clients: &Clients, group: &str, names: &[&str]) -> Result<(), CloudError> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let call = clients.elb.remove_tags().resource_arns(group).set_tag_keys(Some(names)).send().await;
    let Err(error) = call else { return Ok(()) };
    unless_gone(clients, group, CloudError::of("take a mark off the fleet", error)).await
}

/// A fleet that is gone needs no mark.
async fn unless_gone(clients: &Clients, group: &str, error: CloudError) -> Result<(), CloudError> {
    let error = absent::told(clients, error, Thing::TargetGroup(group)).await;
    if error.is("TargetGroupNotFound") { Ok(()) } else { Err(error) }
}

/// Holds what is held for this long from now on, outside of a run. Answers what it is, and until when.
///
/// # Errors
/// Nothing is held, or the cloud cannot be asked.
pub async fn extend(site: &Site, span: Span) -> Result<(Vec<Version>, Timestamp), FactsError> {
    let balancer = facts::balancer(site).await?;
    let fleets = facts::fleets(site, Some(&balancer)).await?;
    let held: Vec<&Fleet> = fleets.iter().filter(|fleet| fleet.is_held()).collect();
    if held.is_empty() {
        return Err(FactsError::missing(
            format!("nothing is held in {}", site.environment),
            "`alcedo status` shows every fleet",
        ));
    }
    let span = SignedDuration::try_from(span.duration()).unwrap_or(SignedDuration::MAX);
    let until = site.now().saturating_add(span).unwrap_or(Timestamp::MAX);
    for fleet in &held {
        mark(&site.clients, &fleet.target_group, None, Some(until)).await?;
    }
    Ok((held.iter().map(|fleet| fleet.version).collect(), until))
}

/// Watches green for the whole hold. A breach fails the step, and the unwind puts blue back into service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub judge: Box<Judge>,
    /// Where production traffic comes from.
    pub place: Place,
    pub span: Span,
}

impl Watch {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let routing = Switch::made(context)?;
        tokio::select! {
            biased;
            held = self.judge.hold(site, context, self.span) => held,
            found = flip::until_changed(&site.clients, &self.place, &routing) => {
                Err(flip::changed(&site.clients, context, &self.place, &routing, &found).await)
            }
        }
    }
}
