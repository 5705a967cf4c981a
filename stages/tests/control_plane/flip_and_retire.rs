//! Flip and retire: no traffic goes to servers that are not healthy, and no server ends that has any.

use std::sync::{Arc, Mutex};

use alcedo_pipeline::{error::ErrorKind, event::Outcome, plan::Plan, recovery::Wish};
use alcedo_stages::{clients::Clients, listener::Routing};

use crate::{broken::Bench, life::fleet};

/// The fleet that the bench's next deploy retires.
const HELD: &str = "2026.1101.100000";

fn step(plan: &Plan, name: &str) -> String {
    let id = format!("retire/{HELD}/{name}");
    assert!(plan.step(&id.as_str().into()).is_some(), "{plan}");
    id
}

async fn targets(clients: &Clients, group: &str) -> Vec<String> {
    let answer = clients.elb.describe_target_health().target_group_arn(group).send().await.unwrap();
    let targets = answer.target_health_descriptions().iter();
    targets.map(|it| it.target().unwrap().id().unwrap().to_owned()).collect()
}

/// It was healthy, and has passed its smoke tests; then one of its servers stops.
#[tokio::test(start_paused = true)]
async fn green_that_is_no_longer_healthy_gets_no_traffic() {
    let bench = Bench::new().await;
    let plan = bench.plan().await;
    let (site, version) = (bench.site.clone(), plan.version);
    let steps = bench.steps().before("flip/switch", move || {
        let site = site.clone();
        Box::pin(async move {
            let green = fleet(&site, version).await.unwrap();
            assert_eq!(green.instances.len(), 2);
            let stop = site.clients.ec2.stop_instances().instance_ids(&green.instances[0]);
            stop.send().await.unwrap();
        })
    });
    bench.faults().forget_calls();

    let ending = bench.walk(&plan, &steps).await.unwrap();

    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("flip/switch", ErrorKind::Failed), "{error:?}");
    assert!(error.message.contains("no traffic was moved"), "{error:?}");
    assert!(bench.faults().calls().iter().all(|call| call.operation != "ModifyListener"), "it was moved all the same");
    bench.assert_as_before("green was not healthy").await;
}

/// Somebody has gone back to the held fleet by hand, after the plan was made.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_in_service_again_is_not_retired() {
    let bench = Bench::new().await;
    let plan = bench.plan().await;
    let drain = step(&plan, "drain");
    let held = fleet(&bench.site, HELD.parse().unwrap()).await.unwrap();
    let (account, back) = (bench.account.clone(), Routing::to(&held.target_group));
    let steps = bench.steps().before(&drain, move || {
        let (account, back) = (account.clone(), back.clone());
        Box::pin(async move { account.reroute(&back).await })
    });

    let ending = bench.walk(&plan, &steps).await.unwrap();

    assert_eq!(ending.outcome, Outcome::Stuck, "{:?}", ending.left);
    let (failed, error) = ending.failure.unwrap();
    assert_eq!((failed.to_string(), error.kind), (drain, ErrorKind::Changed), "{error:?}");
    assert!(error.message.contains("in service again"), "{error:?}");
    assert_eq!(targets(&bench.site.clients, &held.target_group).await.len(), 2, "its servers are still registered");
    assert_eq!(bench.account.routing().await, Routing::to(&held.target_group), "and nothing was overwritten");

    // Traffic is where the run has brought it, and the rest of the run can be done.
    let green = fleet(&bench.site, plan.version).await.unwrap();
    bench.account.reroute(&Routing::to(&green.target_group)).await;
    let ending = bench.recover(&plan.run, Wish::GoOn).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(fleet(&bench.site, HELD.parse().unwrap()).await, None);
}

#[tokio::test(start_paused = true)]
async fn no_server_ends_before_its_requests_are_done() {
    let bench = Bench::new().await;
    let plan = bench.plan().await;
    let held = fleet(&bench.site, HELD.parse().unwrap()).await.unwrap();
    let (clients, group) = (bench.site.clients.clone(), held.target_group.clone());
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let sees = seen.clone();
    let steps = bench.steps().before(&step(&plan, "terminate"), move || {
        let (clients, group, seen) = (clients.clone(), group.clone(), sees.clone());
        Box::pin(async move {
            let draining = targets(&clients, &group).await;
            seen.lock().unwrap().push(draining);
        })
    });
    let ending = bench.walk(&plan, &steps).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(*seen.lock().unwrap(), [Vec::<String>::new()], "they were draining still");
}
