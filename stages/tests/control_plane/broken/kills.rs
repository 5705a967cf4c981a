//! A process that dies at a call, before its effect or after it, and another that goes on or goes back. Processes are tasks
//! here, and dying is being dropped in the middle of the call; real processes die in the command line's tests.

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{event::Outcome, recovery::Wish};

use super::{Bench, every, is_undone};

/// Lets a deploy run to the n-th call, and dies there. Answers the run; `None` where it had ended before.
pub async fn killed_at(bench: &Bench, nth: u64, when: When) -> Option<alcedo_pipeline::ids::RunId> {
    killed_on(bench, Calls { skip: nth, times: Some(1), ..Calls::default() }, when).await
}

/// The same at the first call of these.
pub async fn killed_on(bench: &Bench, on: Calls, when: When) -> Option<alcedo_pipeline::ids::RunId> {
    let plan = bench.plan().await;
    let run = plan.run.clone();
    let id = bench.faults().add(Fault { on, when, effect: Effect::Hold });
    let (site, steps) = (bench.site.clone(), bench.steps());
    let mut process = tokio::spawn(async move { crate::support::journey::try_walk(&site, plan, &steps).await });
    let ended = tokio::select! {
        () = bench.faults().struck(id, 1) => false,
        _ = &mut process => true,
    };
    if !ended {
        process.abort();
        let _ = process.await;
    }
    bench.faults().remove(id);
    (!ended).then_some(run)
}

async fn undone(bench: &Bench, nth: u64, when: When) -> bool {
    let what = format!("killed at call {nth} {when:?} its effect, and undone");
    let Some(run) = killed_at(bench, nth, when).await else { return false };
    if let Some(ending) = bench.recover(&run, Wish::GoBack).await {
        assert!(is_undone(&ending), "{what}: {:?} {:?}", ending.outcome, ending.left);
    }
    bench.assert_as_before(&what).await;
    true
}

/// How many calls of a deploy come before its point of no return.
async fn calls_before_retire() -> u64 {
    let (calls, _) = Bench::undisturbed().await;
    let drains = calls.iter().position(|call| call.operation == "DeregisterTargets").expect("it retires a fleet");
    // The journal's word that it begins comes right before.
    drains as u64 - 2
}

async fn every_kill_is_undone(bench: Bench, step: usize, from: usize) {
    let calls = calls_before_retire().await;
    let mut kills = 0;
    for nth in (0..calls).skip(from).step_by(step) {
        for when in [When::Before, When::After] {
            kills += u32::from(undone(&bench, nth, when).await);
        }
    }
    eprintln!("{kills} kills at {calls} calls, each undone by another process: none left anything");
    assert!(kills > 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_call_a_process_dies_at_another_undoes_it() {
    every_kill_is_undone(Bench::new().await, every(4), 0).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_a_process_dies_at_another_undoes_it_although_readers_differ() {
    every_kill_is_undone(Bench::with_lags().await, every(12), 1).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_a_process_dies_at_another_finishes_it() {
    let (calls, wanted) = Bench::undisturbed().await;
    let mut kills = 0;
    for nth in (0..calls.len() as u64).step_by(every(10)) {
        for when in [When::Before, When::After] {
            let bench = Bench::new().await;
            let what = format!("killed at call {nth} {when:?} its effect, and finished");
            let Some(run) = killed_at(&bench, nth, when).await else { continue };
            let Some(ending) = bench.recover(&run, Wish::GoOn).await else {
                // It had not begun, or had ended.
                continue;
            };
            assert_eq!(ending.outcome, Outcome::Done, "{what}: {:?} {:?}", ending.failure, ending.left);
            assert_eq!(bench.kinds().await, wanted, "{what}");
            kills += 1;
        }
    }
    eprintln!("{kills} kills, each finished by another process: all as if nothing had been");
    assert!(kills > 0);
}
