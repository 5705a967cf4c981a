//! Quiet: nobody may come to a fleet any more before its servers go.
//!
//! The balancer's metrics tell how many requests each fleet had in each whole minute. A fleet that somebody still asks, by
//! another listener, by another rule or by the preview's header, is not retired: it stays, with a warning that says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    version::Version,
    wait::{Look, Wait},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clients::Clients,
    cloud_error::CloudError,
    facts::Fleet,
    flip,
    listener::{self, Place},
    metrics,
};

/// The step that waits for it; those that retire read what it saw.
pub const STEP: &str = "hold/quiet";

/// Time between two looks at the balancer's metrics, which come by the minute.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A minute with requests counts for this long after its end: metrics of the next one are published by then.
const RECENT: SignedDuration = SignedDuration::from_mins(2);

/// What was seen of fleets that somebody still asks, by target group.
type Asked = BTreeMap<String, String>;

/// A fleet that is to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaving {
    pub version: Version,
    pub target_group: String,
    /// Since when it has no traffic; `None`: since this run's own flip.
    pub since: Option<Timestamp>,
}

impl From<&Fleet> for Leaving {
    fn from(fleet: &Fleet) -> Self {
        Self { version: fleet.version, target_group: fleet.target_group.clone(), since: fleet.held_since }
    }
}

/// What the step answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// The target groups of the fleets that are still asked, with what was seen of each.
    asked: Asked,
    /// Their versions, whose images and artifacts stay with them.
    versions: BTreeSet<Version>,
}

/// Waits until nobody comes to the fleets that are to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitQuiet {
    pub fleets: Vec<Leaving>,
    /// Where production traffic comes from: a fleet that has some of it does not go.
    pub place: Place,
    /// The balancer, by ARN, where its metrics may be read.
    pub balancer: Option<String>,
    pub timeout: Span,
    /// The run is there for nothing else: a fleet that is still asked fails it. In a deploy that fleet stays, and green too.
    pub alone: bool,
}

impl AwaitQuiet {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let now = listener::read(clients, &self.place).await?;
        if let Some(fleet) = self.fleets.iter().find(|fleet| now.serving().contains(&fleet.target_group.as_str())) {
            return Err(StepError::new(
                ErrorKind::Changed,
                format!("{} is in service again; it is not retired", fleet.version),
            )
            .hint("somebody changed the listener; `alcedo status` shows what is in service"));
        }
        let asked = match &self.balancer {
            Some(balancer) => self.wait(clients, context, balancer).await?,
            None => Asked::new(),
        };
        let mut seen = Seen::default();
        for (group, what) in asked {
            let Some(version) = self.fleets.iter().find(|it| it.target_group == group).map(|it| it.version) else {
                continue;
            };
            let error = still_asked(version, &what);
            if self.alone {
                return Err(error);
            }
            let hint = "find out who sends them; the next deploy, or `alcedo hold finish`, tries again";
            context.warn(error.message, Some(hint.to_owned()));
            seen.versions.insert(version);
            seen.asked.insert(group, what);
        }
        Ok(serde_json::to_value(seen).unwrap_or_default())
    }

    /// No request in any whole minute since green was proven, as far as the balancer's metrics are published. Where there is
    /// no such minute yet, the proof stands alone.
    async fn wait(&self, clients: &Clients, context: &StepContext, balancer: &str) -> Result<Asked, StepError> {
        let proven = flip::proven_at(context);
        let wait = Wait::new(LOOK_EVERY, self.timeout.duration());
        let last = std::sync::Mutex::new(Asked::new());
        let quiet = wait.until(context, "no request to go to the old servers", || async {
            let asked = match asked(clients, balancer, &self.fleets, proven, context.now()).await {
                Ok(asked) => asked,
                // What cannot be read says nothing; the balancer's own word comes next.
                Err(error) => {
                    let message = format!("whether anybody still comes to the old servers cannot be read: {error}");
                    context.warn(message, None);
                    Asked::new()
                }
            };
            let look = match asked.values().next() {
                Some(what) => Look::NotYet(what.clone()),
                None => Look::Ready(()),
            };
            *last.lock().expect("no panic while it is held") = asked;
            Ok(look)
        });
        match quiet.await {
            Ok(()) => Ok(Asked::new()),
            Err(error) if error.kind == ErrorKind::TimedOut => {
                Ok(last.into_inner().expect("no panic while it is held"))
            }
            Err(error) => Err(error),
        }
    }
}

/// The fleets among these that somebody has asked lately, by target group, with what was seen of each.
///
/// # Errors
/// The metrics cannot be read.
pub async fn asked(
    clients: &Clients,
    balancer: &str,
    fleets: &[Leaving],
    proven: Option<Timestamp>,
    now: Timestamp,
) -> Result<Asked, CloudError> {
    // A minute longer ago is followed by one that is published, and was quiet.
    let lately = now.saturating_sub(SignedDuration::from_mins(1) + RECENT).unwrap_or(Timestamp::MIN);
    let since = |fleet: &Leaving| metrics::next_minute(fleet.since.or(proven).unwrap_or(lately)).max(lately);
    let Some(from) = fleets.iter().map(since).min().filter(|from| *from < now) else { return Ok(Asked::new()) };
    let groups: Vec<&str> = fleets.iter().map(|fleet| fleet.target_group.as_str()).collect();
    let minutes = metrics::requests(clients, balancer, &groups, (from, now)).await?;
    let asked = fleets.iter().zip(minutes).filter_map(|(fleet, minutes)| {
        // The last minute that has any is the newest that is published, or nobody has come since.
        let (minute, count) = minutes.range(since(fleet)..).next_back()?;
        Some((fleet.target_group.clone(), format!("{count} requests in the minute from {minute} on")))
    });
    Ok(asked.collect())
}

/// Why a fleet that is to go stays.
pub fn still_asked(version: Version, what: &str) -> StepError {
    let message = format!("{version} still gets requests, so its servers are not retired: {what}");
    StepError::new(ErrorKind::TimedOut, message)
        .hint("find out who sends them: another listener or rule, or the preview's header with its version")
}

/// A fleet that was held is the way back from the one in service, as long as that one is not well.
///
/// # Errors
/// Not all of its servers are healthy.
pub fn check_successor(in_service: &Fleet, healthy: usize) -> Result<(), StepError> {
    let (version, servers) = (in_service.version, in_service.instances.len());
    if healthy >= servers && healthy > 0 {
        return Ok(());
    }
    let message = format!(
        "{healthy} of the {servers} servers of {version}, which is in service, are healthy; what is held stays"
    );
    Err(StepError::failed(message).hint("`alcedo rollback` goes back to it; `alcedo status` shows each fleet's health"))
}

/// Whether this run has seen that somebody still asks a fleet, so that it stays.
pub fn is_asked(context: &StepContext, target_group: &str) -> Result<bool, StepError> {
    Ok(seen(context)?.asked.contains_key(target_group))
}

/// The versions whose fleets stay for that reason.
pub fn stays(context: &StepContext) -> Result<BTreeSet<Version>, StepError> {
    Ok(seen(context)?.versions)
}

fn seen(context: &StepContext) -> Result<Seen, StepError> {
    Ok(context.maybe_output(STEP)?.unwrap_or_default())
}
