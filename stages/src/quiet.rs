//! Quiet: nobody may come to a fleet any more before its servers go.
//!
//! The balancer's metrics tell how many requests each fleet had in each whole minute. A fleet that somebody still asks, by
//! another listener, by another rule or by the preview's header, is not retired: it stays, with a warning that says so. While a
//! deploy waits for that, it goes on watching green. What else speaks against the end of a fleet is read last
//! ([`crate::last_look`]), and is read again before each fleet drains, where that was more than [`FRESH`] ago.

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
    judge::Judge,
    last_look::{FRESH, Look as LastLook, Terms},
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
    /// The rule that previews it, by ARN: its own.
    pub preview_rule: Option<String>,
    /// Since when it has no traffic; `None`: since this run's own flip.
    pub since: Option<Timestamp>,
}

impl From<&Fleet> for Leaving {
    fn from(fleet: &Fleet) -> Self {
        Self {
            version: fleet.version,
            target_group: fleet.target_group.clone(),
            preview_rule: fleet.preview_rule.clone(),
            since: fleet.held_since,
        }
    }
}

/// What the step answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// When it was seen.
    #[serde(default)]
    at: Option<Timestamp>,
    /// The target groups of the fleets that stay, with what was seen of each.
    asked: Asked,
    /// Their versions, whose images and artifacts stay with them.
    versions: BTreeSet<Version>,
}

/// What a step of retire answers that leaves a fleet as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stays {
    pub stays: bool,
    pub target_group: String,
    pub version: Option<Version>,
}

/// Waits until nobody comes to the fleets that are to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitQuiet {
    pub fleets: Vec<Leaving>,
    pub terms: Terms,
    pub timeout: Span,
    /// The run is there for nothing else: a fleet that cannot go fails it. In a deploy that fleet stays, and green too.
    pub alone: bool,
    /// What watches green meanwhile, where this run has brought it into service.
    pub judge: Option<Box<Judge>>,
}

impl AwaitQuiet {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let successor = self.terms.successor(context)?;
        let begun = context.now();
        // Nobody waits for the last visitors of what is in service again.
        let look = self.look(clients, successor.as_deref()).await?;
        if let Ok(look) = &look {
            self.fleets.iter().try_for_each(|fleet| look.objection(fleet).map(drop))?;
        }
        let quiet = async {
            match self.terms.metrics {
                true => self.wait(clients, context, &self.terms.balancer).await,
                false => Ok(Asked::new()),
            }
        };
        let asked = match &self.judge {
            None => quiet.await?,
            Some(judge) => tokio::select! {
                biased;
                asked = quiet => asked?,
                bad = judge.until_bad_to_visitors(clients, context, "before the old servers go") => return Err(bad),
            },
        };
        // While somebody waited, the world has gone on.
        let now = context.now();
        let (at, look) = match now.duration_since(begun) > FRESH {
            true => (now, self.look(clients, successor.as_deref()).await?),
            false => (begun, look),
        };
        let mut seen = Seen { at: Some(at), ..Seen::default() };
        for fleet in &self.fleets {
            let objection = match asked.get(&fleet.target_group) {
                Some(what) => Some(still_asked(fleet.version, what)),
                None => match &look {
                    Ok(look) => look.objection(fleet)?,
                    Err(error) => Some(unreadable(fleet.version, error)),
                },
            };
            let Some(objection) = objection else { continue };
            if self.alone {
                return Err(objection);
            }
            seen.asked.insert(fleet.target_group.clone(), objection.message.clone());
            seen.versions.insert(fleet.version);
            warn_of(context, objection);
        }
        Ok(serde_json::to_value(seen).unwrap_or_default())
    }

    /// What speaks against the end of the fleets. Where it cannot be read, nothing ends, and a deploy that has come so far is not
    /// undone for that; a run that is there for nothing else fails.
    async fn look(
        &self,
        clients: &Clients,
        successor: Option<&str>,
    ) -> Result<Result<LastLook<'_>, StepError>, StepError> {
        match self.terms.look(clients, successor).await {
            Err(error) if self.alone || error.kind != ErrorKind::Service => Err(error),
            looked => Ok(looked),
        }
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

/// Why a fleet stays of which nobody could say whether it may go.
fn unreadable(version: Version, error: &StepError) -> StepError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let message =
        format!("whether {version} is still used could not be read, so its servers are not retired: {error}{cause}");
    StepError::new(ErrorKind::Service, message)
}

/// Says that a fleet stays.
pub fn warn_of(context: &StepContext, objection: StepError) {
    let hints = objection.hints.first().map(|hint| format!("{hint}; ")).unwrap_or_default();
    context.warn(objection.message, Some(format!("{hints}the next deploy, or `alcedo hold finish`, tries again")));
}

/// Whether what this run has seen of its fleets is recent enough to act on.
pub fn is_fresh(context: &StepContext) -> Result<bool, StepError> {
    let at = seen(context)?.at;
    Ok(at.is_some_and(|at| context.now().duration_since(at) <= FRESH))
}

/// Whether this run has seen something that speaks against ending a fleet, so that it stays.
pub fn is_asked(context: &StepContext, target_group: &str) -> Result<bool, StepError> {
    Ok(seen(context)?.asked.contains_key(target_group) || left(context).any(|stays| stays.target_group == target_group))
}

/// The versions whose fleets stay for that reason.
pub fn stays(context: &StepContext) -> Result<BTreeSet<Version>, StepError> {
    let mut versions = seen(context)?.versions;
    versions.extend(left(context).filter_map(|stays| stays.version));
    Ok(versions)
}

/// The fleets that steps of this run have left as they are.
fn left(context: &StepContext) -> impl Iterator<Item = Stays> {
    let outputs = context.outputs().into_values();
    outputs.filter_map(|output| serde_json::from_value(output).ok()).filter(|it: &Stays| it.stays)
}

fn seen(context: &StepContext) -> Result<Seen, StepError> {
    Ok(context.maybe_output(STEP)?.unwrap_or_default())
}
