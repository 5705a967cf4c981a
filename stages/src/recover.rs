//! Runs whose process died, or that got stuck: taken up by name, or settled by the next run before it begins.

use alcedo_pipeline::{
    event::{Event, Outcome},
    ids::{RunId, StepId},
    journal::{self, JournalError},
    lock::Lock,
    plan::Plan,
    recovery::{self, Next, Wish},
    runner::Direction,
    status::Progress,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    execute::{self, Hands, Notice, Order, RunError, Work},
    facts, renewal,
    site::Site,
};

/// A run as another process has left it.
pub(crate) struct Taken {
    pub progress: Progress,
    pub events: Vec<Event>,
    pub course: Course,
}

/// Which way it goes from there.
pub(crate) enum Course {
    Forward { renewals: Vec<(StepId, String)> },
    Back,
    WriteOff,
}

/// What was found under a run's name.
pub(crate) enum Found {
    Ended(Plan, Outcome),
    Open(Plan, Box<Taken>),
}

/// The newest run of the environment that has not come to its end.
pub async fn newest_open(site: &Site) -> Result<RunId, RunError> {
    let open = journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await?;
    open.last().cloned().ok_or_else(|| RunError::NothingOpen { environment: site.environment.clone() })
}

/// Reads a run and decides what is to be done with it.
pub(crate) async fn take(hands: &Hands, run: &RunId, wish: Wish) -> Result<Found, RunError> {
    let site = &hands.plain;
    let record = journal::read(site.store.as_ref(), &site.root, run).await?;
    let mut plan = record.plan;
    if plan.environment != site.environment {
        let (theirs, ours) = (plan.environment, site.environment.clone());
        return Err(RunError::OtherEnvironment { run: run.clone(), theirs, ours });
    }
    let progress = Progress::replay(&record.events).map_err(|source| RunError::Illegal { run: run.clone(), source })?;
    let next =
        recovery::next(&plan, &progress, wish).map_err(|source| RunError::Refused { run: run.clone(), source })?;
    let course = match next {
        Next::Nothing(outcome) => return Ok(Found::Ended(plan, outcome)),
        Next::Go(Direction::Back) => Course::Back,
        Next::WriteOff => Course::WriteOff,
        Next::Go(Direction::Forward) => {
            let address = facts::own_address(site).await;
            let renewals = renewal::of(&plan, &progress);
            renewal::adapt(&mut plan, address);
            Course::Forward { renewals }
        }
    };
    Ok(Found::Open(plan, Box::new(Taken { progress, events: record.events, course })))
}

/// Takes a run off the list of open ones that has a marker and no plan. Answers whether it was on it.
pub(crate) async fn forget_what_never_began(site: &Site, run: &RunId) -> Result<bool, RunError> {
    let open = journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await?;
    let listed = open.contains(run);
    if listed {
        journal::forget(site.store.as_ref(), &site.root, &site.environment, run).await?;
    }
    Ok(listed)
}

/// Brings every open run of the environment to an end, oldest first, so that the next one starts from what is known.
///
/// # Errors
/// [`RunError::StuckBefore`], where one cannot be brought to an end.
pub(crate) async fn settle(hands: &Hands, lock: &Lock, order: &Order<'_>) -> Result<(), RunError> {
    let site = &hands.plain;
    for run in journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await? {
        let found = match take(hands, &run, Wish::Settle).await {
            // It had a marker and not yet a plan: it has done nothing.
            Err(RunError::Journal(JournalError::NoRun { .. })) | Ok(Found::Ended(..)) => {
                journal::forget(site.store.as_ref(), &site.root, &site.environment, &run).await?;
                continue;
            }
            found => found?,
        };
        let Found::Open(plan, taken) = found else { continue };
        let direction = if matches!(taken.course, Course::Back) { Direction::Back } else { Direction::Forward };
        (order.tell)(Notice::Settling { run: run.clone(), direction });
        // Its events are in its journal: `alcedo runs show` tells them.
        let (events, _) = mpsc::unbounded_channel();
        let stop = match direction {
            Direction::Forward => order.stop.clone(),
            Direction::Back => CancellationToken::new(),
        };
        let ending = execute::drive(hands, lock, plan, Work::Go(taken), events, stop).await?;
        if ending.outcome == Outcome::Stuck {
            return Err(RunError::StuckBefore { run });
        }
        (order.tell)(Notice::Settled { run, outcome: ending.outcome });
    }
    Ok(())
}
