//! Hold: blue stays registered and healthy for a while, so that going back is one call.

use std::{collections::BTreeMap, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    version::Version,
};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{clients::Clients, cloud_error::CloudError, flip::Group, probes::FrontDoor, tags};

/// How many bad rounds of probes in a row end the hold.
const BAD_IN_A_ROW: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_secs(1);

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

/// Watches green for the whole hold. Trouble fails the step, and the unwind puts blue back into service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub front_door: FrontDoor,
    pub version: String,
    pub span: Span,
}

impl Watch {
    pub async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        let begun = Instant::now();
        let (mut rounds, mut bad) = (0u64, 0u32);
        loop {
            let left = self.span.duration().saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(json!({ "rounds": rounds }));
            }
            rounds += 1;
            let wrong = match self.front_door.ask(&BTreeMap::new()).await {
                Err(error) => Some(error.message),
                Ok(answers) => answers.into_iter().find_map(|(node, answer)| match answer {
                    Ok(version) if alcedo_smoke_tests::version::same_version(&version, &self.version) => None,
                    Ok(version) => Some(format!("{node} answers {version}")),
                    Err(why) => Some(format!("{node}: {why}")),
                }),
            };
            match wrong {
                None => bad = 0,
                Some(seen) => {
                    bad += 1;
                    if bad >= BAD_IN_A_ROW {
                        let message = format!("{} went bad in the hold, {bad} times in a row: {seen}", self.version);
                        return Err(StepError::failed(message));
                    }
                }
            }
            context.waiting(format!("{} left", Span::from(Duration::from_secs(left.as_secs()))));
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY.min(left)) => {}
                () = context.cancellation().cancelled() => return Err(StepError::new(ErrorKind::Interrupted, "interrupted in the hold")),
            }
        }
    }
}
