//! The errors of the crates below, as failures of a command: which exit code, and what to do.

use alcedo_local_region::instances::MachineError;
use alcedo_pipeline::{
    journal::JournalError,
    lock::{Lease, LockError},
};
use alcedo_stages::{
    cloud_error::{self, CloudError},
    execute::RunError,
    facts::FactsError,
    overview::OverviewError,
    rehearsal::RehearsalError,
};

use crate::{exit_code::ExitCode, failure::Failure, words::moment};

/// Where the bucket may be at fault.
const LOOK_AT_THE_BUCKET: &str = "alcedo doctor checks the bucket and who may use it";

/// Why a request did not become a run, or a run did not come to its end.
pub fn of_run(error: &RunError) -> Failure {
    match error {
        RunError::Lock(error) => of_lock(error),
        RunError::Facts(error) => of_facts(error),
        RunError::Plan(plan) => with(ExitCode::USAGE, error, plan.hints.clone()),
        RunError::Journal(error) => of_journal(error),
        RunError::Illegal(_) => Failure::of(ExitCode::STUCK, error),
        RunError::Store(_) => with(ExitCode::FAILED, error, store_hints(error)),
        RunError::Workshop(step) => with(ExitCode::FAILED, error, step.hints.clone()),
    }
}

/// Why an environment could not be described.
pub fn of_overview(error: &OverviewError) -> Failure {
    match error {
        OverviewError::Facts(error) => of_facts(error),
        OverviewError::Lock(error) => of_lock(error),
        OverviewError::Journal(error) => of_journal(error),
        OverviewError::Releases(_) | OverviewError::Store(_) => with(ExitCode::FAILED, error, store_hints(error)),
    }
}

/// Why the local region could not be given what the file names.
pub fn of_rehearsal(error: &RehearsalError) -> Failure {
    match error {
        RehearsalError::Cloud(error) => of_cloud(error),
        RehearsalError::NotLocal | RehearsalError::NoVpc => {
            Failure::of(ExitCode::FAILED, error).hint("alcedo region reset starts it from nothing")
        }
    }
}

/// Why the engine did not do what the local region needs.
pub fn of_machines(what: &str, error: &MachineError) -> Failure {
    let mut failure = Failure::failed(what).because(error);
    failure.hints.extend(error.hint.clone());
    failure
}

fn of_facts(error: &FactsError) -> Failure {
    match error {
        FactsError::Cloud(error) => of_cloud(error),
        _ => with(ExitCode::FAILED, error, error.hints()),
    }
}

fn of_cloud(error: &CloudError) -> Failure {
    let failure = Failure::failed(format!("could not {}", error.doing)).because(error);
    match cloud_error::hint(error) {
        Some(hint) => failure.hint(hint),
        None => failure.hint("alcedo doctor checks credentials, region and everything the file names"),
    }
}

fn of_lock(error: &LockError) -> Failure {
    match error {
        LockError::Held(lease) => held(lease),
        LockError::Store(_) | LockError::Unreadable(_) => with(ExitCode::of_lock(error), error, store_hints(error)),
    }
}

fn held(lease: &Lease) -> Failure {
    let Lease { holder, run, reason, since, expires, .. } = lease;
    Failure::new(ExitCode::LOCKED, format!("{holder} is at work here since {}: {reason}, run {run}", moment(*since)))
        .hint(format!(
            "try again when it has ended; if its process died, the lock ends by itself at {}",
            moment(*expires)
        ))
}

fn of_journal(error: &JournalError) -> Failure {
    let failure = Failure::of(ExitCode::of_journal(error), error);
    match error {
        JournalError::Fenced { run } => failure.hint(format!("alcedo runs show {run} shows how far it is")),
        JournalError::NoRun { .. } => failure.hint("alcedo runs lists the runs that are kept"),
        JournalError::Store { .. } | JournalError::Unreadable { .. } => failure.hint(LOOK_AT_THE_BUCKET),
    }
}

/// What AWS's own answer suggests, where it was AWS that refused; the bucket otherwise.
fn store_hints(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let answer = causes.find_map(|error| error.downcast_ref::<CloudError>());
    vec![answer.and_then(cloud_error::hint).unwrap_or(LOOK_AT_THE_BUCKET).to_owned()]
}

fn with(code: ExitCode, error: &(dyn std::error::Error + 'static), hints: Vec<String>) -> Failure {
    Failure { hints, ..Failure::of(code, error) }
}

#[cfg(test)]
mod tests {
    use alcedo_pipeline::ids::RunId;

    use super::*;

    #[test]
    fn a_held_lock_says_who_what_and_until_when() {
        let since = "2026-11-20T19:05:12Z".parse().unwrap();
        let lease = Lease {
            format: 1,
            run: RunId::new(since, 0x7f3a),
            holder: "ana@build-7".to_owned(),
            reason: "deploy".to_owned(),
            since,
            expires: "2026-11-20T19:07:12Z".parse().unwrap(),
        };
        let failure = of_run(&RunError::Lock(LockError::Held(Box::new(lease))));
        assert_eq!(failure.code, ExitCode::LOCKED);
        for part in ["ana@build-7", "deploy", "20261120-190512-7f3a", "19:05:12"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        assert!(failure.hints[0].contains("19:07:12"), "{:?}", failure.hints);
    }
}
