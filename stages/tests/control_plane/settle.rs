//! What a run begins with: whatever runs before it have left open comes to an end, or nothing new begins.

use std::{sync::Mutex, time::Duration};

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{event::Outcome, ids::RunId, journal, lock, runner::Direction, version::Version};
use alcedo_stages::{
    execute::{self, Notice, Order, Prepared, RunError},
    facts::Request,
    releases,
};
use tokio_util::sync::CancellationToken;

use crate::{
    broken::Bench,
    life::{assert_done, deploy},
    support::journey,
};

/// Prepares as the command line does, and says what is told meanwhile.
async fn prepared(bench: &Bench, request: Request) -> (Result<Prepared, RunError>, Vec<Notice>) {
    let told = Mutex::new(Vec::new());
    let tell = |notice| told.lock().unwrap().push(notice);
    let stop = CancellationToken::new();
    let order = Order { reason: "a test", patience: Duration::ZERO, stop: &stop, tell: &tell };
    let prepared = execute::prepare(&bench.site, &request, &order).await;
    (prepared, told.into_inner().unwrap())
}

async fn open(bench: &Bench) -> Vec<RunId> {
    let site = &bench.site;
    journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await.unwrap()
}

/// A run that fails after its flip, and cannot delete its target group.
async fn stuck(bench: &Bench) -> (RunId, u64) {
    let on = Calls { operation: Some("DeleteTargetGroup".into()), ..Calls::default() };
    let effect = Effect::Error { code: "AccessDenied".into(), status: None };
    let fault = bench.faults().add(Fault { on, when: When::Before, effect });
    let plan = bench.plan().await;
    let ending = bench.walk(&plan, &bench.steps().failing_at("flip/prove")).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Stuck);
    assert_eq!(open(bench).await, std::slice::from_ref(&plan.run));
    (plan.run, fault)
}

/// A next run would take the first one's leftovers for its own, or never find them.
#[tokio::test(start_paused = true)]
async fn nothing_begins_while_a_run_before_is_stuck() {
    let bench = Bench::new().await;
    let third: Version = bench.account.release(&bench.site, "2026.1103.100000").await;
    // As publishing it would have; else the undo moves it there.
    let (store, pointer) = (&bench.site.store, releases::pointer_key(&bench.site.root));
    let there = store.read(&pointer).await.unwrap().expect("a version is published");
    store.replace(&pointer, format!("{third}\n").into_bytes(), &there.tag).await.unwrap();
    let before = bench.inventory().await;
    let (run, fault) = stuck(&bench).await;

    let (refused, told) = prepared(&bench, deploy(third)).await;
    match refused.map(|prepared| prepared.plan) {
        Err(RunError::StuckBefore { run: named }) => assert_eq!(named, run),
        other => panic!("{other:?}"),
    }
    assert!(matches!(&told[..], [Notice::Settling { direction: Direction::Back, .. }]), "{told:?}");
    assert_eq!(open(&bench).await, std::slice::from_ref(&run), "somebody still has to look after it");
    let site = &bench.site;
    assert!(lock::look(site.store.as_ref(), &site.lock_key()).await.unwrap().is_none(), "nobody is at work");

    // Somebody gives the right that was missing.
    bench.faults().remove(fault);
    let (next, told) = prepared(&bench, deploy(third)).await;
    let next = next.unwrap_or_else(|error| panic!("{error:?}"));
    let [Notice::Settling { .. }, Notice::Settled { run: settled, outcome }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((settled, outcome), (&run, &Outcome::Interrupted));
    assert_eq!(open(&bench).await, []);
    let inventory = bench.inventory().await;
    let left: Vec<_> = inventory.difference(&before).filter(|line| !line.contains("lock.json")).collect();
    assert!(left.is_empty(), "{left:#?}");
    let plan = next.plan.clone();
    assert_done(&plan, &journey::finish(next).await.0.unwrap());
}
