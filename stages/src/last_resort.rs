//! What is done for a run whose process died, by the watchdog that it had started: SSH is closed, the builder ended, the
//! ephemeral key deleted, and the lock given back, so that nobody waits for the dead.
//!
//! **Guarantees.** Nothing is done while another process holds the environment: that one looks after what is left.
//! **Not done here.** Traffic and fleets stay as they are; the run's own recovery decides about them.

use std::time::Duration;

use alcedo_pipeline::{
    error::{ErrorKind, StepError},
    ids::RunId,
    journal, lock,
    plan::Plan,
    wait::Alone,
};
use tokio::time::Instant;

use crate::{action::Action, bake, ingress, servers, site::Site};

/// Pause before what failed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Whether a plan leases anything that has to be ended when its process dies.
pub fn is_needed(plan: &Plan) -> bool {
    actions(plan).any(|action| matches!(action, Action::OpenIngress(_) | Action::LaunchBuilder(_)))
}

fn actions(plan: &Plan) -> impl Iterator<Item = Action> {
    plan.steps.iter().filter_map(|step| serde_json::from_value(step.action.clone()).ok())
}

/// Whose leases are to be ended.
pub struct Deceased<'a> {
    pub run: &'a RunId,
    /// Of the lease that its process held.
    pub nonce: &'a str,
}

impl Deceased<'_> {
    /// Ends them, trying again until it is done or `patience` has passed. Answers what was done, in words.
    ///
    /// # Errors
    /// The last failure: then the next command's sweep ends them.
    pub async fn bury(&self, site: &Site, patience: Duration) -> Result<&'static str, StepError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(site).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if begun.elapsed() + pause > patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, site: &Site) -> Result<&'static str, StepError> {
        if self.is_succeeded(site).await? {
            return Ok("another process holds the environment, and looks after what is left");
        }
        let record = journal::read(site.store.as_ref(), &site.root, self.run).await;
        let plan = record.map_err(|error| unreadable().because(error))?.plan;
        // At once: how long new things may be invisible is waited for at each.
        futures::future::try_join_all(actions(&plan).map(|action| self.end(site, action))).await?;
        if self.is_succeeded(site).await? {
            return Ok("another process has taken the environment over");
        }
        let key = site.lock_key();
        let released = lock::break_if(site.store.as_ref(), &key, |lease| lease.nonce == self.nonce).await;
        released.map_err(|error| unreadable().because(error))?;
        Ok("what the run had leased is ended")
    }

    async fn end(&self, site: &Site, leased_by: Action) -> Result<(), StepError> {
        let clients = &site.clients;
        match leased_by {
            Action::OpenIngress(open) => {
                ingress::close(clients, &Alone::default(), self.run, &open.security_group, Vec::new()).await
            }
            Action::LaunchBuilder(_) => {
                let builders = servers::tagged(clients, self.run, &bake::BUILDER.into()).await?;
                servers::terminate(clients, &Alone::default(), &builders).await
            }
            Action::ImportKey(_) => Ok(bake::delete_key(clients, self.run).await?),
            _ => Ok(()),
        }
    }

    /// Whether somebody else holds the environment by now. A lock that nobody holds is nobody's.
    async fn is_succeeded(&self, site: &Site) -> Result<bool, StepError> {
        let held = lock::look(site.store.as_ref(), &site.lock_key()).await;
        let held = held.map_err(|error| unreadable().because(error))?;
        Ok(held.is_some_and(|held| held.lease.nonce != self.nonce && held.ended.is_none()))
    }
}

fn unreadable() -> StepError {
    StepError::new(ErrorKind::Service, "the run cannot be looked at")
}
