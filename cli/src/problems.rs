//! The errors of the crates below, as failures of a command: which exit code, and what to do.

use alcedo_local_region::instances::MachineError;
use alcedo_pipeline::{
    journal::JournalError,
    lock::{Lease, LockError},
    recovery::Refusal,
};
use alcedo_stages::{
    cloud_error::{self, CloudError},
    execute::RunError,
    facts::FactsError,
    overview::OverviewError,
    rehearsal::RehearsalError,
    releases::ReleasesError,
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
        // In the middle of a run: whatever it has made stands.
        RunError::Journal(JournalError::Store { run, .. }) => with(ExitCode::STUCK, error, store_hints(error))
            .hint(format!("what run {run} has made stands; `alcedo resume {run}` finishes it, `alcedo rollback --run {run}` undoes it")),
        RunError::Journal(error) => of_journal(error),
        RunError::LeaseLost { run, .. } => Failure::of(ExitCode::STUCK, error)
            .hint(format!("what it has made stands; `alcedo resume {run}` finishes it, `alcedo rollback --run {run}` undoes it")),
        RunError::Illegal { run, .. } => Failure::of(ExitCode::STUCK, error).hint(format!(
            "`alcedo runs show {run}` shows it; `alcedo sweep` removes what it has left, `alcedo runs forget {run}` ends it"
        )),
        RunError::Refused { run, source: Refusal::Frozen } => Failure::of(ExitCode::STUCK, error)
            .hint(format!("`alcedo resume {run}` goes on with it, `alcedo rollback --run {run}` puts the traffic back")),
        RunError::Refused { run, .. } => {
            Failure::of(ExitCode::USAGE, error).hint(format!("`alcedo runs show {run}` shows how far it came"))
        }
        RunError::OtherEnvironment { theirs, .. } => {
            Failure::of(ExitCode::USAGE, error).hint(format!("name its environment: --env {theirs}"))
        }
        RunError::NothingOpen { .. } => Failure::of(ExitCode::USAGE, error).hint("`alcedo runs` lists all that are kept"),
        RunError::StuckBefore { run } => Failure::of(ExitCode::STUCK, error)
            .hint(format!("`alcedo runs show {run}` says what is left and why; mend it, then `alcedo resume {run}`"))
            .hint(format!("where it cannot be mended: `alcedo runs forget {run}`, and `alcedo sweep` for what it left")),
        RunError::Stopped => Failure::of(ExitCode::FAILED, error),
        RunError::Store(_) => with(ExitCode::FAILED, error, store_hints(error)),
        RunError::Step(step) => with(ExitCode::FAILED, error, step.hints.clone()),
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
        FactsError::Releases(ReleasesError::Distrust { .. } | ReleasesError::Misplaced { .. }) => {
            Failure { id: "untrusted".to_owned(), ..with(ExitCode::FAILED, error, error.hints()) }
        }
        // A file or a variable is wrong.
        FactsError::Releases(ReleasesError::Key(_)) => with(ExitCode::USAGE, error, error.hints()),
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

/// Why the lock could not be looked at, taken or broken.
pub fn of_lock(error: &LockError) -> Failure {
    match error {
        LockError::Held(lease) => held(lease),
        LockError::Store(_) | LockError::Unreadable(_) => with(ExitCode::of_lock(error), error, store_hints(error)),
    }
}

fn held(lease: &Lease) -> Failure {
    let Lease { holder, run, reason, since, expires, .. } = lease;
    Failure::new(ExitCode::LOCKED, format!("{holder} is at work here since {}: {reason}, run {run}", moment(*since)))
        .hint("try again when it has ended, or wait for it with --wait 10m")
        .hint(format!(
            "if its process died, the lock ends by itself at {}; `alcedo lock show` says whether it lives",
            moment(*expires)
        ))
}

pub fn of_journal(error: &JournalError) -> Failure {
    let failure = Failure::of(ExitCode::of_journal(error), error);
    match error {
        JournalError::Fenced { run } => failure.hint(format!("alcedo runs show {run} shows how far it is")),
        JournalError::NoRun { .. } => failure.hint("alcedo runs lists the runs that are kept"),
        JournalError::Store { .. } | JournalError::Unreadable { .. } => failure.hint(LOOK_AT_THE_BUCKET),
        JournalError::Foreign { .. } | JournalError::Torn { .. } => failure
            .hint("nothing was concluded from it and nothing changed; find out who else writes to the bucket, and put it right"),
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
            format: Lease::FORMAT,
            nonce: "1".to_owned(),
            process: None,
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
        assert!(failure.hints[1].contains("19:07:12"), "{:?}", failure.hints);
    }
}
