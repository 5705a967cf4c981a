//! How long runs took is kept for whoever waits for the next one, in a few calls, and nothing comes of it where it is not.

use std::collections::BTreeSet;

use alcedo_pipeline::{ids::RunId, journal, plan::Stage};
use alcedo_stages::times::{self, Expected, Times, Took};
use jiff::SignedDuration;
use serde_json::json;

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, journey, region::LocalRegion, simulation::Simulation},
};

#[tokio::test(start_paused = true)]
async fn what_runs_took_is_told_by_few_calls_and_by_their_journals_before_that() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let staging = account.site_with("staging", json!({})).await;
    assert_eq!(times::recent(&site).await, [], "there was no run");

    let first = account.release(&site, "2026.1101.100000").await;
    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    // As the command line leaves it: the journal alone, where the version of alcedo kept no times.
    let told = times::recent(&site).await;
    let record = journal::read(site.store.as_ref(), &site.root, &plan.run).await.unwrap();
    let took = Times::of(&record).unwrap();
    assert_eq!(told, std::slice::from_ref(&took));
    let steps: BTreeSet<&str> = took.steps.iter().map(|took| took.step.as_str()).collect();
    assert_eq!(steps.len(), plan.steps.len(), "{steps:?}");
    assert!(Expected::from(&told).whole(&plan).is_some());
    assert_eq!(times::recent(&staging).await, [], "it was another environment's");

    times::keep(&site, &took).await.unwrap();
    simulation.region.region.faults.forget_calls();
    assert_eq!(times::recent(&site).await, [took]);
    let calls = simulation.region.region.faults.calls();
    let names: Vec<&str> = calls.iter().map(|call| call.operation.as_str()).collect();
    assert_eq!(names, ["ListObjectsV2", "GetObject"]);

    // The fleet that the next one replaces is drained: that takes what it took, whatever the version.
    let second = account.release(&site, "2026.1102.100000").await;
    let (plan, _) = journey::plan(&site, deploy(second)).await;
    let expected = Expected::from(&times::recent(&site).await);
    assert!(expected.stage(&plan, Stage::Launch).is_some());
    assert_eq!(expected.whole(&plan), None, "no run has held a version yet");
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_tells_nothing() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let version = account.release(&site, "2026.1101.100000").await;
    let (plan, _) = journey::plan(&site, deploy(version)).await;
    let steps = crate::support::staged::Staged::new(&site).failing_at("launch/healthy");
    journey::walk(&site, plan.clone(), &steps).await;
    let record = journal::read(site.store.as_ref(), &site.root, &plan.run).await.unwrap();
    assert_eq!(Times::of(&record), None);
    assert_eq!(times::recent(&site).await, []);
}

#[tokio::test(start_paused = true)]
async fn the_newest_are_kept_and_what_cannot_be_read_is_not_there() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let of_day = |day: i64| {
        let run = RunId::new(site.now() + SignedDuration::from_hours(24 * day), 1);
        let took = Took { step: "build/run".into(), stage: Stage::Build, seconds: day as f64 };
        Times { v: Times::FORMAT, run, steps: vec![took] }
    };
    for day in 0..25 {
        times::keep(&site, &of_day(day)).await.unwrap();
    }
    let folder = format!("{}environments/production/times/", site.root);
    let kept = site.store.list(&folder).await.unwrap();
    assert_eq!(kept.len(), 20);
    assert!(kept[0].ends_with(&format!("{}.json", of_day(5).run)), "{kept:?}");
    let newest = |times: &[Times]| times.iter().map(|it| it.steps[0].seconds).collect::<Vec<_>>();
    assert_eq!(newest(&times::recent(&site).await), [24.0, 23.0, 22.0, 21.0, 20.0]);

    let later = |what: &str| format!("{folder}{what}.json");
    site.store.create(&later("20991231-000000-0001"), b"{".to_vec()).await.unwrap();
    let other_format = serde_json::to_vec(&Times { v: 2, ..of_day(30) }).unwrap();
    site.store.create(&later("20991231-000000-0002"), other_format).await.unwrap();
    assert_eq!(newest(&times::recent(&site).await), [24.0, 23.0, 22.0]);
}
