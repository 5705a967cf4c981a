//! The last look at a fleet that is to go: right before its servers leave the balancer, everything that speaks against it is
//! read again, because the world has gone on since somebody saw that it may go.

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    version::Version,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    clients::Clients,
    facts::{Balancer, Fleet, Use, uses},
    flip::Group,
    launch,
    listener::{self, Place, Routing},
    quiet::{self, Leaving},
};

/// What was seen of a fleet counts for this long: a few calls take less, and to drain another fleet takes more.
pub const FRESH: SignedDuration = SignedDuration::from_secs(30);

/// What has to be so for a fleet to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Where production traffic comes from: a fleet that has some of it does not go.
    pub place: Place,
    /// The listener that the file names to preview by port.
    pub preview_listener: Option<String>,
    /// The balancer, by ARN.
    pub balancer: String,
    /// Whether its metrics may be read.
    pub metrics: bool,
    /// What has the traffic in its place; `None`: the fleet is nobody's way back.
    pub successor: Option<Successor>,
}

/// The fleet that has the traffic in place of one that goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Successor {
    pub version: Version,
    pub group: Group,
    /// So many of its servers must be healthy.
    pub servers: usize,
}

impl Successor {
    /// A fleet that was held is the way back from it, as long as not all of it is well.
    pub fn in_service(fleet: &Fleet) -> Self {
        Self {
            version: fleet.version,
            group: Group::Known(fleet.target_group.clone()),
            servers: fleet.instances.len().max(1),
        }
    }

    /// # Errors
    /// Fewer are healthy than there should be.
    pub fn check(&self, healthy: usize) -> Result<(), StepError> {
        let Self { version, servers, .. } = self;
        if healthy >= *servers {
            return Ok(());
        }
        let message = format!(
            "{healthy} of the {servers} servers of {version}, which is in service, are healthy; what is held stays"
        );
        Err(StepError::failed(message)
            .hint("`alcedo rollback` goes back to it; `alcedo status` shows each fleet's health"))
    }
}

impl Terms {
    pub fn of(balancer: &Balancer, metrics: bool, successor: Option<Successor>) -> Self {
        Self {
            place: balancer.place.clone(),
            preview_listener: balancer.preview_listener.as_ref().map(|(arn, _)| arn.clone()),
            balancer: balancer.arn.clone(),
            metrics,
            successor,
        }
    }

    /// Reads everything beside the fleets' requests, once for all of them. `successor` is the target group of what has the
    /// traffic.
    ///
    /// # Errors
    /// The cloud cannot be asked.
    pub async fn look(&self, clients: &Clients, successor: Option<&str>) -> Result<Look<'_>, StepError> {
        let production = listener::read(clients, &self.place).await?;
        let uses = uses::all(clients, &self.balancer).await?;
        let healthy = match successor {
            Some(group) => Some(launch::count_healthy(&launch::target_health(clients, group).await?)),
            None => None,
        };
        Ok(Look { terms: self, production, uses, healthy })
    }

    /// Reads everything, with the requests that a fleet has had since `proven`, as far as the metrics can be read. Answers
    /// what speaks against ending it.
    ///
    /// # Errors
    /// The fleet has traffic again, or the cloud cannot be asked.
    pub async fn objection(
        &self,
        clients: &Clients,
        leaving: &Leaving,
        successor: Option<&str>,
        (proven, now): (Option<Timestamp>, Timestamp),
    ) -> Result<Option<StepError>, StepError> {
        if let Some(objection) = self.look(clients, successor).await?.objection(leaving)? {
            return Ok(Some(objection));
        }
        if !self.metrics {
            return Ok(None);
        }
        let asked = quiet::asked(clients, &self.balancer, std::slice::from_ref(leaving), proven, now).await;
        // What cannot be read says nothing; the balancer's own word comes next.
        Ok(asked.unwrap_or_default().values().next().map(|what| quiet::still_asked(leaving.version, what)))
    }

    /// The target group of what has the traffic now.
    pub fn successor(&self, context: &StepContext) -> Result<Option<String>, StepError> {
        self.successor.as_ref().map(|successor| successor.group.arn(context)).transpose()
    }
}

/// What was read.
pub struct Look<'a> {
    terms: &'a Terms,
    production: Routing,
    uses: Vec<Use>,
    /// Servers of the successor.
    healthy: Option<usize>,
}

impl Look<'_> {
    /// What speaks against ending the fleet: somebody else's use of it, or a successor that is not well.
    ///
    /// # Errors
    /// The fleet has traffic by the production listener.
    pub fn objection(&self, leaving: &Leaving) -> Result<Option<StepError>, StepError> {
        let terms = self.terms;
        if self.production.serving().contains(&leaving.target_group.as_str()) {
            let message = format!("{} is in service again; it is not retired", leaving.version);
            return Err(StepError::new(ErrorKind::Changed, message)
                .hint("somebody changed the listener; `alcedo status` shows what is in service"));
        }
        let own = [Some(terms.place.arn()), terms.preview_listener.as_deref(), leaving.preview_rule.as_deref()];
        let own: Vec<&str> = own.into_iter().flatten().collect();
        if let Some(foreign) = uses::foreign(&self.uses, &leaving.target_group, &own) {
            return Ok(Some(is_used(leaving.version, foreign)));
        }
        let successor = terms.successor.as_ref().zip(self.healthy);
        Ok(successor.and_then(|(successor, healthy)| successor.check(healthy).err()))
    }
}

/// Why a fleet stays that somebody else sends requests to.
pub fn used_by(version: Version, foreign: &Use) -> String {
    format!("{version} stays, because {} sends requests to it ({})", foreign.what, foreign.arn)
}

fn is_used(version: Version, foreign: &Use) -> StepError {
    StepError::new(ErrorKind::Changed, used_by(version, foreign)).hint(
        "find out who made it so (CloudTrail: ModifyListener, CreateRule, ModifyRule), and have it send elsewhere",
    )
}
