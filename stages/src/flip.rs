//! Flip: the one change of the listener that moves traffic, and the proof that it did.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    wait::{Look, Wait},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clients::Clients,
    launch,
    listener::{self, Place, Routing},
    probes::FrontDoor,
};

/// Time between two rounds of probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

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

/// Moves all traffic to green.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    pub place: Place,
    /// What the plan saw: the before-image.
    pub before: Routing,
    pub green: Group,
    /// Green must have this many healthy servers at the moment of the change.
    pub healthy_minimum: u32,
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

    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let after = self.after(context)?;
        let now = listener::read(clients, &self.place).await?;
        if now == after {
            // An earlier attempt got here; its answer was lost.
            return Ok(json!({ "before": self.before, "after": after }));
        }
        if now != self.before {
            return Err(changed(&self.place, &self.before, &now));
        }
        self.check_green(clients, context).await?;
        self.change(clients, &after).await?;
        Ok(json!({ "before": self.before, "after": after }))
    }

    async fn check_green(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let group = self.green.arn(context)?;
        let health = launch::target_health(clients, &group).await?;
        let healthy = health
            .iter()
            .filter(|it| {
                launch::state(it) == Some(&aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum::Healthy)
            })
            .count();
        if healthy >= self.healthy_minimum as usize {
            return Ok(());
        }
        Err(StepError::failed(format!(
            "{} has {healthy} healthy servers where {} are needed; no traffic was moved",
            listener::group_name(&group),
            self.healthy_minimum
        )))
    }

    /// Changes the listener and reads it back. An answer that was lost is settled by looking.
    async fn change(&self, clients: &Clients, to: &Routing) -> Result<(), StepError> {
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
        Err(changed(&self.place, to, &now))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let now = listener::read(clients, &self.place).await?;
        if now == self.before {
            return Ok(());
        }
        if now != self.after(context)? {
            return Err(changed(&self.place, &self.before, &now));
        }
        self.change(clients, &self.before).await
    }
}

fn changed(place: &Place, expected: &Routing, found: &Routing) -> StepError {
    StepError::new(
        ErrorKind::Changed,
        format!("somebody else changed the listener {}: expected `{expected}`, found `{found}`", place.arn()),
    )
    .hint("nothing was overwritten; find out who changed it (CloudTrail: ModifyListener, ModifyRule), then run again")
}

/// Proves which version answers, at every node, for a quiet period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prove {
    pub front_door: FrontDoor,
    pub version: String,
    /// How long every answer must be green's; each other answer starts the period again.
    pub quiet: Span,
    pub timeout: Span,
}

impl Prove {
    pub async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        if self.front_door.version.is_none() {
            context.warn(
                "only the listener was read back: nothing tells which version answers",
                Some("set flip.version so that the flip can be proven".into()),
            );
            return Ok(json!({ "proven": false }));
        }
        let begun = Instant::now();
        let seen = Mutex::new(Seen { rounds: 0, quiet_since: None });
        let wait = Wait::new(PROBE_EVERY, self.timeout.duration());
        wait.until(context, "only the new version to answer", || async {
            let answers = self.front_door.ask(&BTreeMap::new()).await?;
            let wrong = answers.iter().find(|(_, answer)| match answer {
                Ok(version) => !alcedo_smoke_tests::version::same_version(version, &self.version),
                Err(_) => true,
            });
            let mut seen = seen.lock().expect("no panic while it is held");
            seen.rounds += 1;
            Ok(match wrong {
                Some((node, answer)) => {
                    seen.quiet_since = None;
                    Look::NotYet(match answer {
                        Ok(version) => format!("{node} still answers {version}"),
                        Err(why) => format!("{node}: {why}"),
                    })
                }
                None if seen.quiet_since.get_or_insert_with(Instant::now).elapsed() >= self.quiet.duration() => {
                    Look::Ready(())
                }
                None => Look::NotYet(format!("every node answers {}", self.version)),
            })
        })
        .await?;
        let rounds = seen.lock().expect("no panic while it is held").rounds;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(json!({ "proven": true, "rounds": rounds, "seconds": seconds }))
    }
}

/// What the probes have seen so far.
struct Seen {
    rounds: u64,
    /// Since when every answer was the new version's.
    quiet_since: Option<Instant>,
}
