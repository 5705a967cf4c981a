//! Flip: the one change of the listener that moves traffic, and the proof that it did.

use std::time::Duration;

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    wait::{Look, Wait},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clients::Clients,
    cloud_error::CloudError,
    judge::Judge,
    launch::{self, DEREGISTRATION_DELAY},
    listener::{self, Place, Routing, Weighted},
    probes::Known,
    proof::Proof,
    site::Site,
    who,
};

/// Health lags, and a server may answer now and not a moment later: so many good readings in a row count.
const READINGS: u32 = 3;
/// Time between two readings of the listener while nothing is changed.
const LISTENER_EVERY: Duration = Duration::from_secs(5);
/// How long green may take to be found healthy at the moment of the change.
const GREEN_WITHIN: Duration = Duration::from_secs(30);

/// The step that moves the traffic; another reads what it made of the listener.
pub const SWITCH: &str = "flip/switch";

/// What it answers.
#[derive(Debug, Deserialize)]
struct Moved {
    after: Routing,
}

/// Which target group is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// One that exists.
    Known(String),
    /// The one this run makes.
    Made,
}

impl Group {
    pub fn arn(&self, context: &StepContext) -> Result<String, StepError> {
        match self {
            Self::Known(arn) => Ok(arn.clone()),
            Self::Made => launch::group_made(context),
        }
    }
}

/// How traffic moves where it does not move all at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Green's shares in percent, rising; all traffic comes after the last.
    pub shares: Vec<u8>,
    /// How long each is watched.
    pub pause: Span,
    /// How long the balancer's cookie keeps a visitor at one version meanwhile.
    pub sticky_seconds: Option<i32>,
}

/// Moves all traffic to green, at once or by shares.
///
/// The whole shift is one step: wherever it fails or is interrupted, its undo puts the before-image back in one change. A
/// process that goes on with it finds by the listener how far it came, and watches that share anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    pub place: Place,
    /// What the plan saw: the before-image.
    pub before: Routing,
    pub green: Group,
    /// What green is judged by: before the change, and while it shares the traffic.
    pub judge: Box<Judge>,
    /// `None`: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// The longest that a request may take, where the file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_request: Option<Span>,
    /// Green must have this many healthy servers at the moment of the change.
    pub healthy_minimum: u32,
    /// Green's version, and how it is known to answer no more once the change is taken back.
    pub version: String,
    pub proof: Proof,
}

impl Switch {
    fn after(&self, context: &StepContext) -> Result<Routing, StepError> {
        let sticky_seconds = match &self.before {
            Routing::Forward { sticky_seconds, .. } => *sticky_seconds,
            _ => None,
        };
        let mut after = Routing::to(self.green.arn(context)?);
        if let Routing::Forward { sticky_seconds: kept, .. } = &mut after {
            *kept = sticky_seconds;
        }
        Ok(after)
    }

    /// What the listener does, one after another: a state for each share, and then green alone.
    fn course(&self, context: &StepContext) -> Result<Vec<Routing>, StepError> {
        let mut course = Vec::new();
        if let (Some(shift), [blue]) = (&self.shift, self.before.serving().as_slice()) {
            let green = self.green.arn(context)?;
            let shared = |share: &u8| {
                let weighted = |group: &str, weight| Weighted { target_group: group.to_owned(), weight };
                let share = i32::from(*share);
                Routing::shared(vec![weighted(blue, 100 - share), weighted(&green, share)], shift.sticky_seconds)
            };
            course.extend(shift.shares.iter().map(shared));
        }
        course.push(self.after(context)?);
        Ok(course)
    }

    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let clients = &site.clients;
        let course = self.course(context)?;
        let mut now = listener::read(clients, &self.place).await?;
        // An earlier attempt may have got here; its answer was lost, or its process died while it watched.
        let reached = course.iter().position(|state| *state == now);
        if reached.is_none() && now != self.before {
            return Err(changed(clients, context, &self.place, &self.before, &now).await);
        }
        if reached != Some(course.len() - 1) {
            self.check_blue(clients).await?;
            self.check_green(clients, context).await?;
        }
        for (at, state) in course.iter().enumerate().skip(reached.unwrap_or_default()) {
            if reached != Some(at) {
                // What came before may have taken a while.
                let found = listener::read(clients, &self.place).await?;
                if found != now {
                    return Err(changed(clients, context, &self.place, &now, &found).await);
                }
                self.change(clients, context, state).await?;
                now = state.clone();
            }
            if let Some(shift) = &self.shift
                && let Some(share) = shift.shares.get(at)
                && at + 1 < course.len()
            {
                tokio::select! {
                    biased;
                    passed = self.judge.share(site, context, *share, shift.pause) => passed?,
                    found = until_changed(clients, &self.place, state) => {
                        return Err(changed(clients, context, &self.place, state, &found).await);
                    }
                }
            }
        }
        Ok(json!({ "before": self.before, "after": course.last() }))
    }

    /// What the step of this name has made of the listener.
    pub fn made(context: &StepContext) -> Result<Routing, StepError> {
        Ok(context.output::<Moved>(SWITCH)?.after)
    }

    /// The servers that lose the traffic must be given long enough to finish what they have. Their target group was made by
    /// the file of its own time.
    async fn check_blue(&self, clients: &Clients) -> Result<(), StepError> {
        let Some(slowest) = self.slowest_request else { return Ok(()) };
        for group in self.before.serving() {
            let name = listener::group_name(group);
            let call = clients.elb.describe_target_group_attributes().target_group_arn(group).send().await;
            let answer = call.map_err(|error| CloudError::of(format!("read the attributes of {name}"), error))?;
            let delay = answer.attributes().iter().find(|it| it.key() == Some(DEREGISTRATION_DELAY));
            let seconds = delay.and_then(|it| it.value()?.parse::<u64>().ok());
            if seconds.is_some_and(|seconds| seconds < slowest.as_secs()) {
                let message = format!(
                    "{name} gives its servers {} s to finish their requests, and the slowest takes {slowest}; no traffic was moved",
                    seconds.unwrap_or_default()
                );
                return Err(StepError::failed(message).hint(format!(
                    "aws elbv2 modify-target-group-attributes --target-group-arn {group} \
                     --attributes Key={DEREGISTRATION_DELAY},Value={}",
                    slowest.as_secs()
                )));
            }
        }
        Ok(())
    }

    /// A held fleet may have changed what refers to it a moment ago, and then its health is found out anew.
    async fn check_green(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let group = self.green.arn(context)?;
        let name = listener::group_name(&group);
        let wait = Wait::new(Duration::from_millis(500), GREEN_WITHIN).in_a_row(READINGS);
        let what = format!("{} healthy servers in {name} that answer", self.healthy_minimum);
        let known = Known::default();
        let healthy = wait.until(context, &what, || async {
            let (health, wrong) =
                futures::join!(launch::target_health(clients, &group), self.judge.asked_through_preview(&known));
            let healthy = launch::count_healthy(&health?);
            Ok(match wrong {
                _ if healthy < self.healthy_minimum as usize => {
                    Look::NotYet(format!("{healthy} healthy servers where {} are needed", self.healthy_minimum))
                }
                Some(wrong) => Look::NotYet(wrong),
                None => Look::Ready(()),
            })
        });
        healthy.await.map_err(|error| match error.kind {
            ErrorKind::TimedOut => StepError::failed(format!("{name} is not healthy; no traffic was moved"))
                .hint("`alcedo status` shows each fleet; name another version with --version or --to")
                .because(error),
            _ => error,
        })
    }

    /// Changes the listener and reads it back. An answer that was lost is settled by looking.
    async fn change(&self, clients: &Clients, context: &StepContext, to: &Routing) -> Result<(), StepError> {
        let written = listener::write(clients, &self.place, to).await;
        if let Err(error) = written
            && !error.effect_unknown
        {
            return Err(error.into());
        }
        let mut now = listener::read(clients, &self.place).await?;
        for _ in 0..10 {
            if now == *to {
                return Ok(());
            }
            // The reading may lag behind the change.
            tokio::time::sleep(Duration::from_millis(500)).await;
            now = listener::read(clients, &self.place).await?;
        }
        Err(changed(clients, context, &self.place, to, &now).await)
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let now = listener::read(clients, &self.place).await?;
        if self.course(context)?.contains(&now) {
            self.change(clients, context, &self.before).await?;
        } else if now != self.before {
            let green = self.green.arn(context)?;
            if now.named().contains(&green.as_str()) {
                return Err(changed(clients, context, &self.place, &self.before, &now).await);
            }
            // Somebody else's change stands, before ours or over it. Green has no part in it, so it can go.
            let who = who::made(clients, &self.place, &now, context.plan().made_at).await;
            let message = format!("the listener was left at `{now}`, which somebody else made of it{}", who.in_words());
            context.warn(message, who.way());
        }
        // What follows takes green away. A node that lags would go on sending visitors there; and that the listener is as
        // it was says nothing of when it became so.
        self.proof.no_more(context, &self.version).await.map(drop)
    }
}

/// Watches that the listener does what it was told, and nothing else. Answers what it does instead.
pub async fn until_changed(clients: &Clients, place: &Place, expected: &Routing) -> Routing {
    loop {
        tokio::time::sleep(LISTENER_EVERY).await;
        // What cannot be read for a moment is read again: before the next change it is read in any case.
        if let Ok(found) = listener::read(clients, place).await
            && found != *expected
        {
            return found;
        }
    }
}

/// A listener that is not as it should be, with who made it so.
pub async fn changed(
    clients: &Clients,
    context: &StepContext,
    place: &Place,
    expected: &Routing,
    found: &Routing,
) -> StepError {
    let found_in_words = who::found_in_words(found);
    let message =
        format!("somebody else changed the listener {}: expected `{expected}`, {found_in_words}", place.arn());
    who::made(clients, place, found, context.plan().made_at).await.blamed(StepError::new(ErrorKind::Changed, message))
}

/// The step that proves it; another reads since when.
pub const PROVE: &str = "flip/prove";

/// Since when green alone answers, where the step that proves it has run.
pub fn proven_at(context: &StepContext) -> Option<Timestamp> {
    context.maybe_output::<Value>(PROVE).ok().flatten()?.get("at")?.as_str()?.parse().ok()
}

/// Proves that green alone answers. A green that goes bad meanwhile fails it, however long a node still lags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prove {
    pub proof: Proof,
    pub version: String,
    pub judge: Box<Judge>,
}

impl Prove {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        tokio::select! {
            // In this order, so that a simulation goes the same way twice.
            biased;
            proven = self.proof.only(context, &self.version) => proven.map(|mut proven| {
                proven["at"] = json!(context.now());
                proven
            }),
            bad = self.judge.until_bad(clients, context, "after the flip") => Err(bad),
        }
    }
}
