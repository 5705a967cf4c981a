//! What is held goes only when nobody asks it any more, and only while what replaced it is well. Requests are counted into the
//! region's metrics as its balancer would count them.

use std::{sync::Arc, time::Duration};

use alcedo_local_region::{
    metrics::Ending as Answer,
    state::elbv2::names::{balancer_of_listener, full_name},
};
use alcedo_pipeline::{
    error::ErrorKind,
    event::{Outcome, What},
};
use alcedo_stages::{execute::RunError, facts::Request, listener::Routing, sweep};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    broken::Bench,
    life::{assert_done, fleet},
    shift::{BLUE, bench_with, deployed},
    support::journey,
};

/// The bench's version behind the one in service.
const HELD: &str = "2026.1101.100000";

/// One request a second to a version's fleet, so many times.
pub async fn asks(bench: &Bench, version: &str, times: u32) -> AbortOnDropHandle<()> {
    let group = fleet(&bench.site, version.parse().unwrap()).await.unwrap().target_group;
    let region = Arc::clone(&bench.simulation.region.region);
    let balancer = balancer_of_listener(&bench.account.listener).to_owned();
    AbortOnDropHandle::new(tokio::spawn(async move {
        for _ in 0..times {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let answer = Answer::Target { status: 200, took: Duration::from_millis(20) };
            region.metrics.count(region.clock.now(), &balancer, Some(full_name(&group)), answer);
        }
    }))
}

async fn servers(bench: &Bench, version: &str) -> usize {
    fleet(&bench.site, version.parse().unwrap()).await.map_or(0, |fleet| fleet.instances.len())
}

/// Somebody still comes to blue for six minutes after the flip: its servers wait for that, whatever the hold says.
#[tokio::test(start_paused = true)]
async fn nobody_is_drained_while_requests_still_come() {
    let changes = json!({ "hold": { "for": "2m", "attended": true }, "retire": { "timeout": "20m" } });
    let (bench, site, green) = bench_with(changes).await;
    let late = asks(&bench, BLUE, 360).await;
    let begun = tokio::time::Instant::now();
    let (ending, events) = deployed(&site, green).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert!(late.is_finished(), "it was drained while requests still came");
    assert!(begun.elapsed() >= Duration::from_secs(8 * 60), "{:?}", begun.elapsed());
    let waits = events.iter().any(
        |event| matches!(&event.what, What::Waiting { status, .. } if status.contains("requests in the minute from")),
    );
    assert!(waits, "it says what it waits for");
    assert_eq!(servers(&bench, BLUE).await, 0, "then it is retired");
}

/// A monitor asks blue for ever: green stays in service, blue stays where it is, and the run says why.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_asked_for_ever_stays() {
    let changes = json!({ "hold": { "for": "2m", "attended": true }, "retire": { "timeout": "4m" } });
    let (bench, site, green) = bench_with(changes).await;
    let monitor = asks(&bench, BLUE, 100_000).await;
    let (ending, events) = deployed(&site, green).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    let warned = events.iter().any(|event| {
        matches!(&event.what, What::Warning { message, .. } if message.starts_with(&format!("{BLUE} still gets requests")))
    });
    assert!(warned, "it says why the servers stay");
    assert_eq!((servers(&bench, BLUE).await, servers(&bench, HELD).await), (2, 0), "the other one was asked by nobody");
    assert!(fleet(&site, green).await.unwrap().is_in_service());
    drop(monitor);
    tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    let (plan, ending) = journey::run(&site, Request::EndHold).await;
    assert_eq!(ending.outcome, Outcome::Done, "{plan}");
    assert_eq!(servers(&bench, BLUE).await, 0, "{plan}");
}

/// `hold finish` is there to retire, so what keeps it from that fails it; `sweep` says the same.
#[tokio::test(start_paused = true)]
async fn a_hold_does_not_end_while_requests_still_come() {
    let bench = Bench::new().await;
    let monitor = asks(&bench, HELD, 100_000).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let (_, ending) = journey::run(&bench.site, Request::EndHold).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((ending.outcome, step.as_str(), error.kind), (Outcome::Unwound, "hold/quiet", ErrorKind::TimedOut));
    assert!(error.message.contains("still gets requests"), "{error:?}");
    assert_eq!(servers(&bench, HELD).await, 2);

    tokio::time::sleep(Duration::from_secs(3600)).await;
    let found = sweep::find(&bench.site).await.unwrap();
    let [over] = &found[..] else { panic!("{found:#?}") };
    let error = over.remove(&bench.site).await.unwrap_err();
    assert!(error.message.contains("still gets requests"), "{error:?}");
    assert_eq!(servers(&bench, HELD).await, 2);

    drop(monitor);
    tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    over.remove(&bench.site).await.unwrap();
    assert_eq!(servers(&bench, HELD).await, 0);
}

/// As long as a server in service is down, what is held is the way back.
#[tokio::test(start_paused = true)]
async fn a_hold_does_not_end_while_what_is_in_service_is_not_well() {
    let bench = Bench::new().await;
    let blue = fleet(&bench.site, BLUE.parse().unwrap()).await.unwrap();
    let stop = bench.account.clients.ec2.stop_instances().instance_ids(&blue.instances[0]);
    stop.send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let refused = journey::prepare(&bench.site, Request::EndHold).await;
    let Err(RunError::Plan(refused)) = refused else { panic!("{:?}", refused.err()) };
    assert!(refused.to_string().starts_with("1 of the 2 servers of"), "{refused}");

    let found = sweep::find(&bench.site).await.unwrap();
    let [over] = &found[..] else { panic!("{found:#?}") };
    let error = over.remove(&bench.site).await.unwrap_err();
    assert!(error.message.starts_with("1 of the 2 servers of"), "{error:?}");
    assert_eq!(servers(&bench, HELD).await, 2);
}

/// Somebody's own rule sends requests to what is held: the rule is theirs, so it stays, and the fleet with it.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_somebodys_rule_names_stays_with_the_rule() {
    let bench = Bench::new().await;
    let (clients, held) = (&bench.account.clients, fleet(&bench.site, HELD.parse().unwrap()).await.unwrap());
    // Its own rule is gone, so that theirs could be taken for it.
    let own = held.preview_rule.clone().expect("its own rule is known by its tags");
    clients.elb.delete_rule().rule_arn(&own).send().await.unwrap();
    let condition = alcedo_stages::preview::header_condition("X-Somebody", ["yes".to_owned()]);
    let call = clients.elb.create_rule().listener_arn(&bench.account.listener).priority(50).conditions(condition);
    let made = call.actions(Routing::to(&held.target_group).action()).send().await.unwrap();
    let theirs = made.rules()[0].rule_arn().unwrap().to_owned();

    let seen = fleet(&bench.site, HELD.parse().unwrap()).await.unwrap();
    assert_eq!(seen.preview_rule, None, "it is not {theirs}");
    let plan = bench.plan().await;
    assert!(plan.notes.iter().any(|note| note.contains(&theirs)), "{plan}");
    let ending = bench.walk(&plan, &bench.steps()).await.unwrap();
    assert_done(&plan, &ending);
    assert_eq!(servers(&bench, HELD).await, 2, "{plan}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let found = sweep::find(&bench.site).await.unwrap();
    assert!(found.iter().all(|found| !found.id.starts_with(&held.name)), "{found:#?}");
    clients.elb.delete_rule().rule_arn(&theirs).send().await.expect("it is still there");
}
