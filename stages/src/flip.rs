//! Flip: the one change of the listener that moves traffic, and the proof that it did.

use std::time::Duration;

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    wait::{Look, Wait},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clients::Clients,
    launch,
    listener::{self, Place, Routing},
    proof::Proof,
};

/// How long green may take to be found healthy at the moment of the change.
const GREEN_WITHIN: Duration = Duration::from_secs(30);

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
        // That may have taken a while.
        let now = listener::read(clients, &self.place).await?;
        if now != self.before {
            return Err(changed(&self.place, &self.before, &now));
        }
        self.change(clients, &after).await?;
        Ok(json!({ "before": self.before, "after": after }))
    }

    /// A held fleet may have changed what refers to it a moment ago, and then its health is found out anew.
    async fn check_green(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let group = self.green.arn(context)?;
        let name = listener::group_name(&group);
        let wait = Wait::new(Duration::from_millis(500), GREEN_WITHIN);
        let what = format!("{} healthy servers in {name}", self.healthy_minimum);
        let healthy = wait.until(context, &what, || async {
            let health = launch::target_health(clients, &group).await?;
            let healthy = launch::count_healthy(&health);
            Ok(match healthy >= self.healthy_minimum as usize {
                true => Look::Ready(()),
                false => Look::NotYet(format!("{healthy} healthy servers where {} are needed", self.healthy_minimum)),
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
        if now == self.after(context)? {
            self.change(clients, &self.before).await?;
        } else if now != self.before {
            let green = self.green.arn(context)?;
            if now.named().contains(&green.as_str()) {
                return Err(changed(&self.place, &self.before, &now));
            }
            // Somebody else's change stands, before ours or over it. Green has no part in it, so it can go.
            context.warn(
                format!("the listener was left at `{now}`, which somebody else made of it"),
                Some("find out who changed it (CloudTrail: ModifyListener, ModifyRule)".into()),
            );
        }
        // What follows takes green away. A node that lags would go on sending visitors there; and that the listener is as
        // it was says nothing of when it became so.
        self.proof.no_more(context, &self.version).await.map(drop)
    }
}

fn changed(place: &Place, expected: &Routing, found: &Routing) -> StepError {
    StepError::new(
        ErrorKind::Changed,
        format!("somebody else changed the listener {}: expected `{expected}`, found `{found}`", place.arn()),
    )
    .hint("nothing was overwritten; find out who changed it (CloudTrail: ModifyListener, ModifyRule), then run again")
}

/// Proves that green alone answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prove {
    pub proof: Proof,
    pub version: String,
}

impl Prove {
    pub async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        self.proof.only(context, &self.version).await
    }
}
