//! What is to be done about a run that has not come to its end: a pure function of its plan and its journal.
//!
//! | last durable event of a step | go on | go back |
//! |---|---|---|
//! | none | run | skip |
//! | started | look for its token or tag, adopt or run again | undo |
//! | owned, failed | run again | undo |
//! | succeeded | skip | undo |
//! | being renewed | undo, then run | undo |
//! | undo started, undone | only back | undo again; skip |
//! | undo failed | only back | undo again |

use crate::{
    event::Outcome,
    plan::{Plan, Sign, Stage},
    runner::Direction,
    status::{Progress, Status},
};

/// What somebody wants of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Finish it: `resume`.
    GoOn,
    /// Undo it: `rollback --run`.
    GoBack,
    /// Have it out of the way, as the next run does: what is in service stays in service, and the rest is undone.
    Settle,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has come to its end.
    Nothing(Outcome),
    Go(Direction),
    /// All traffic is where the run was to bring it, proven. What it had not done yet a later run does in its own way, so the
    /// run is written off as [`Outcome::Superseded`].
    WriteOff,
}

/// Why a wish cannot be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the run has passed the point of no return: what it has retired cannot be brought back")]
    PointOfNoReturn,
    #[error("the run is done: going back is a run of its own")]
    Done,
    #[error("the run has stopped with the traffic where it was, as it was told to, and waits for a decision")]
    Frozen,
}

/// Decides.
///
/// # Errors
/// The wish cannot be granted; nothing else is decided in its place.
pub fn next(plan: &Plan, progress: &Progress, wish: Wish) -> Result<Next, Refusal> {
    match progress.outcome {
        Some(Outcome::Done | Outcome::Superseded) if wish == Wish::GoBack => return Err(Refusal::Done),
        Some(outcome @ (Outcome::Done | Outcome::Unwound | Outcome::Interrupted | Outcome::Superseded)) => {
            return Ok(Next::Nothing(outcome));
        }
        Some(Outcome::Stuck) | None => {}
    }
    if has_passed_the_point_of_no_return(plan, progress) {
        return match wish {
            Wish::GoBack => Err(Refusal::PointOfNoReturn),
            Wish::GoOn | Wish::Settle => Ok(Next::Go(Direction::Forward)),
        };
    }
    if is_unwinding(plan, progress) {
        return Ok(Next::Go(Direction::Back));
    }
    if wish == Wish::Settle && is_frozen(plan, progress) {
        return Err(Refusal::Frozen);
    }
    Ok(match wish {
        Wish::GoOn => Next::Go(Direction::Forward),
        Wish::Settle if has_proven_its_flip(plan, progress) => Next::WriteOff,
        Wish::GoBack | Wish::Settle => Next::Go(Direction::Back),
    })
}

/// Whether somebody has begun to undo it.
pub fn is_unwinding(plan: &Plan, progress: &Progress) -> bool {
    plan.steps.iter().any(|step| progress.status(&step.id).is_unwinding())
}

/// Whether a step was begun whose effect no later step can undo.
pub fn has_passed_the_point_of_no_return(plan: &Plan, progress: &Progress) -> bool {
    let first = plan.steps.iter().position(|step| step.point_of_no_return);
    first.is_some_and(|first| plan.steps[first..].iter().any(|step| progress.status(&step.id).needs_undo()))
}

/// Whether a run that was told to leave the traffic where it is has moved it, at least in part, and not proven it.
fn is_frozen(plan: &Plan, progress: &Progress) -> bool {
    plan.freeze && has_begun_to_move(plan, progress) && !has_proven_its_flip(plan, progress)
}

/// Whether the change that moves traffic was begun, and not undone.
pub fn has_begun_to_move(plan: &Plan, progress: &Progress) -> bool {
    plan.steps.iter().any(|step| step.barrier && progress.status(&step.id).needs_undo())
}

/// Whether the change of the listener was made and everything that checks it has passed. What has failed since, in the hold,
/// speaks against it.
fn has_proven_its_flip(plan: &Plan, progress: &Progress) -> bool {
    if plan.steps.iter().any(|step| progress.status(&step.id) == Status::Failed) {
        return false;
    }
    let mut of_flip = plan.steps.iter().filter(|step| step.stage == Stage::Flip).peekable();
    of_flip.peek().is_some()
        && of_flip
            .filter(|step| step.barrier || step.sign == Sign::Check)
            .all(|step| progress.status(&step.id) == Status::Succeeded)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        event::{Event, What},
        ids::{RunId, StepId},
        plan::{PlannedStep, Purpose},
        version::Version,
    };

    fn plan() -> Plan {
        let now: Timestamp = "2026-11-20T19:05:12Z".parse().unwrap();
        let step = |id: &str, stage, sign, undo: bool| PlannedStep {
            id: id.into(),
            stage,
            sign,
            does: id.into(),
            undo: undo.then(|| "undo".into()),
            point_of_no_return: stage == Stage::Retire,
            barrier: id == "flip/switch",
            action: json!(null),
        };
        Plan {
            format: Plan::FORMAT,
            run: RunId::new(now, 7),
            app: "hello".into(),
            environment: "test".into(),
            purpose: Purpose::Deploy,
            version: Version::at(now),
            commit: None,
            freeze: false,
            replaces: None,
            made_at: now,
            notes: Vec::new(),
            reasons: Vec::new(),
            steps: vec![
                step("launch/instances", Stage::Launch, Sign::Add, true),
                step("flip/switch", Stage::Flip, Sign::Change, true),
                step("flip/prove", Stage::Flip, Sign::Check, false),
                step("hold/watch", Stage::Hold, Sign::Check, false),
                step("retire/drain", Stage::Retire, Sign::Remove, false),
            ],
        }
    }

    fn started(step: &str) -> What {
        What::StepStarted { step: step.into(), stage: Stage::Launch, does: String::new(), token: String::new() }
    }

    fn done(step: &str) -> Vec<What> {
        vec![started(step), What::StepSucceeded { step: step.into(), output: json!(null), seconds: 0.0 }]
    }

    fn after(what: &[What]) -> Progress {
        let mut progress = Progress::default();
        for what in what {
            progress
                .apply(&Event::new(&"20261120-190512-0001".parse().unwrap(), Timestamp::UNIX_EPOCH, what.clone()))
                .unwrap();
        }
        progress
    }

    const FORWARD: Result<Next, Refusal> = Ok(Next::Go(Direction::Forward));
    const BACK: Result<Next, Refusal> = Ok(Next::Go(Direction::Back));

    #[test]
    fn every_prefix_of_a_journal_has_one_answer_to_each_wish() {
        let plan = plan();
        let wishes = [Wish::GoOn, Wish::GoBack, Wish::Settle];
        let of = |what: &[What]| wishes.map(|wish| next(&plan, &after(what), wish));
        let mut events = Vec::new();
        assert_eq!(of(&events), [FORWARD, BACK, BACK]);
        events.extend(done("launch/instances"));
        assert_eq!(of(&events), [FORWARD, BACK, BACK]);
        events.extend(done("flip/switch"));
        assert_eq!(of(&events), [FORWARD, BACK, BACK], "not proven yet");
        events.extend(done("flip/prove"));
        assert_eq!(of(&events), [FORWARD, BACK, Ok(Next::WriteOff)]);
        events.push(started("hold/watch"));
        assert_eq!(of(&events), [FORWARD, BACK, Ok(Next::WriteOff)]);
        let failed = |freeze: bool| {
            let mut events = events.clone();
            let error = crate::error::StepError::failed("it went bad").record();
            events.push(What::StepFailed { step: "hold/watch".into(), error, seconds: 1.0 });
            next(&Plan { freeze, ..plan.clone() }, &after(&events), Wish::Settle)
        };
        assert_eq!(failed(false), BACK, "a breach that nobody has acted on yet");
        assert_eq!(failed(true), Err(Refusal::Frozen), "it was told to stand, and nobody decides that in passing");
        let mut unwinding = events.clone();
        unwinding.push(What::UndoStarted { step: "flip/switch".into(), undo: String::new() });
        assert_eq!(of(&unwinding), [BACK, BACK, BACK]);
        unwinding.push(What::RunFinished { outcome: Outcome::Stuck, seconds: 1.0, journal_seconds: 0.0 });
        assert_eq!(of(&unwinding), [BACK, BACK, BACK], "stuck is no end");
        events.push(What::StepSucceeded { step: StepId::from("hold/watch"), output: json!(null), seconds: 0.0 });
        events.push(started("retire/drain"));
        assert_eq!(of(&events), [FORWARD, Err(Refusal::PointOfNoReturn), FORWARD]);
        events.push(What::RunFinished { outcome: Outcome::Done, seconds: 1.0, journal_seconds: 0.0 });
        let nothing = Ok(Next::Nothing(Outcome::Done));
        assert_eq!(of(&events), [nothing, Err(Refusal::Done), nothing]);
    }
}
