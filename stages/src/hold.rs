//! Hold: blue stays registered and healthy for a while, so that going back is one call.

use alcedo_pipeline::{context::StepContext, error::StepError, units::Span, version::Version};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
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
    pub until: Timestamp,
    pub replaces: Option<Version>,
    /// The version that it replaces now: where `rollback` without a version goes next.
    pub replaces_now: Option<Version>,
}

impl MarkHeld {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let span = SignedDuration::try_from(self.span.duration()).unwrap_or(SignedDuration::MAX);
        let until = context.now().saturating_add(span).unwrap_or(Timestamp::MAX);
        if let Some(blue) = &self.blue {
            tag(clients, blue, tags::HELD_UNTIL, Some(until.to_string())).await?;
        }
        if let Some(before) = &self.green_before {
            let green = self.green.arn(context)?;
            tag(clients, &green, tags::HELD_UNTIL, None).await?;
            tag(clients, &green, tags::REPLACES, before.replaces_now.map(|version| version.to_string())).await?;
        }
        Ok(json!({ "until": until }))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        if let Some(blue) = &self.blue {
            tag(clients, blue, tags::HELD_UNTIL, None).await?;
        }
        if let Some(before) = &self.green_before {
            let green = self.green.arn(context)?;
            tag(clients, &green, tags::HELD_UNTIL, Some(before.until.to_string())).await?;
            tag(clients, &green, tags::REPLACES, before.replaces.map(|version| version.to_string())).await?;
        }
        Ok(())
    }
}

async fn tag(clients: &Clients, group: &str, name: &str, value: Option<String>) -> Result<(), CloudError> {
    let done = match value {
        Some(value) => {
            let tag = Tag::builder().key(name).value(value).build();
            clients
                .elb
                .add_tags()
                .resource_arns(group)
                .tags(tag)
                .send()
                .await
                .map(drop)
                .map_err(|error| CloudError::of("mark the fleet", error))
        }
        None => {
            let call = clients.elb.remove_tags().resource_arns(group).tag_keys(name);
            call.send().await.map(drop).map_err(|error| CloudError::of("take a mark off the fleet", error))
        }
    };
    match done {
        // A fleet that is gone needs no mark.
        Err(error) if error.is("TargetGroupNotFound") => Ok(()),
        done => done,
    }
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
        tag(&site.clients, &fleet.target_group, tags::HELD_UNTIL, Some(until.to_string())).await?;
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
            change = flip::until_changed(&site.clients, &self.place, &routing) => Err(change),
        }
    }
}
