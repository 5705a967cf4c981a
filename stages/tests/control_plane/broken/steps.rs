//! Every step × {fails, its undo fails}; that everything is done and undone twice is in `undo.rs`.

use alcedo_pipeline::{event::Outcome, plan::Stage, recovery::Wish};

use super::Bench;

#[tokio::test(start_paused = true)]
async fn whatever_step_fails_nothing_is_left() {
    let bench = Bench::new().await;
    let steps = bench.plan().await.steps;
    let mut combinations = 0;
    for step in steps.iter().filter(|step| step.stage != Stage::Retire) {
        let plan = bench.plan().await;
        let ending = bench.walk(&plan, &bench.steps().failing_at(step.id.as_str())).await.unwrap();
        assert_eq!(ending.outcome, Outcome::Unwound, "{}: {:?}", step.id, ending.left);
        assert_eq!(ending.failure.as_ref().map(|(step, _)| step), Some(&step.id), "{:?}", ending.failure);
        bench.assert_as_before(&format!("{} failed", step.id)).await;
        combinations += 1;
    }
    eprintln!("{combinations} steps failed, each after it had done its work; nothing was left of any");
}

#[tokio::test(start_paused = true)]
async fn whatever_undo_fails_the_run_is_stuck_and_undone_on_request() {
    let bench = Bench::new().await;
    let plan = bench.plan().await;
    let undoable: Vec<&str> =
        plan.steps.iter().filter(|step| step.undo.is_some()).map(|step| step.id.as_str()).collect();
    let last = undoable.last().unwrap();
    let mut combinations = 0;
    for step in &undoable {
        // Tried again often enough, it succeeds.
        let plan = bench.plan().await;
        let ending = bench.walk(&plan, &bench.steps().failing_at(last).failing_to_undo(step, 3)).await.unwrap();
        assert_eq!(ending.outcome, Outcome::Unwound, "{step}: {:?}", ending.left);
        assert!(ending.failure.as_ref().is_some_and(|(it, _)| it.as_str() == *last), "{:?}", ending.failure);
        bench.assert_as_before(&format!("the undo of {step} failed three times")).await;

        let plan = bench.plan().await;
        let ending = bench.walk(&plan, &bench.steps().failing_at(last).failing_to_undo(step, 4)).await.unwrap();
        assert_eq!(ending.outcome, Outcome::Stuck, "{step}");
        assert_eq!(ending.left[0].0.as_str(), *step);
        let ending = bench.recover(&plan.run, Wish::GoOn).await.unwrap();
        assert!(super::is_undone(&ending), "{step}: {:?} {:?}", ending.outcome, ending.left);
        bench.assert_as_before(&format!("the undo of {step} failed for good, and was asked for again")).await;
        combinations += 2;
    }
    eprintln!("{combinations} undos failed, each once for a while and once for good; nothing was left of any");
}

/// After the point of no return a failure is finished, not undone.
#[tokio::test(start_paused = true)]
async fn whatever_part_of_retire_fails_it_is_finished() {
    let (_, wanted) = Bench::undisturbed().await;
    let steps = Bench::new().await.plan().await.steps;
    let retire: Vec<_> = steps.iter().filter(|step| step.stage == Stage::Retire).collect();
    assert!(!retire.is_empty());
    for step in retire {
        let bench = Bench::new().await;
        let plan = bench.plan().await;
        let id = plan.steps.iter().find(|it| it.id == step.id).unwrap().id.as_str();
        let ending = bench.walk(&plan, &bench.steps().failing_at(id)).await.unwrap();
        assert_eq!(ending.outcome, Outcome::Stuck, "{id}");
        let ending = bench.recover(&plan.run, Wish::GoOn).await.unwrap();
        assert_eq!(ending.outcome, Outcome::Done, "{id}: {:?}", ending.failure);
        assert_eq!(bench.kinds().await, wanted, "{id}");
    }
}
