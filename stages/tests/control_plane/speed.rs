//! How fast the simulation is, and what the time goes into; how many calls the commands make.

use std::time::{Duration, Instant};

use alcedo_stages::{facts, listener::Routing, overview, preview::header_condition, site::Site, tags};
use serde_json::json;

use crate::{
    life::{assert_done, deploy, fleet},
    support::{account::Account, journey, region::LocalRegion, simulation::Simulation},
};

/// How long deploys are counted.
const COUNTED: Duration = Duration::from_secs(3);
/// What an optimised build is held to.
const LEAST_A_SECOND: f64 = 30.0;

/// Whole deploys of a published version, with lock and journal: launch, flip, hold and retire, each undisturbed. The share
/// of the SDK is estimated: calls of a deploy × the time of one call that is answered at once.
#[tokio::test(start_paused = true)]
async fn one_core_simulates_whole_deploys() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let mut releases = Vec::new();
    for version in ["2026.1101.100000", "2026.1102.100000", "2026.1103.100000"] {
        releases.push(account.release(&site, version).await);
    }
    for version in &releases {
        let (plan, ending) = journey::run(&site, deploy(*version)).await;
        assert_done(&plan, &ending);
    }
    simulation.region.region.faults.forget_calls();
    let (begun, mut deploys) = (Instant::now(), 0_u32);
    let in_region = simulation.region.answering();
    while begun.elapsed() < COUNTED {
        for version in &releases {
            let (plan, ending) = journey::run(&site, deploy(*version)).await;
            assert_done(&plan, &ending);
            deploys += 1;
        }
    }
    let took = begun.elapsed();
    let region = simulation.region.answering() - in_region;
    let calls = simulation.region.region.faults.calls().len();
    let one_call = time_of_one_call().await;

    let rate = f64::from(deploys) / took.as_secs_f64();
    let share = |part: Duration| 100.0 * part.as_secs_f64() / took.as_secs_f64();
    let sdk = one_call * u32::try_from(calls).unwrap();
    eprintln!(
        "{rate:.1} deploys a second of {} calls each; the region {:.0} %, the SDK about {:.0} % ({} µs a call)",
        calls / deploys as usize,
        share(region),
        share(sdk),
        one_call.as_micros(),
    );
    assert!(cfg!(debug_assertions) || rate >= LEAST_A_SECOND, "{rate:.1} deploys a second");
}

/// What the SDK takes for a call whose answer is there at once.
async fn time_of_one_call() -> Duration {
    const CALLS: u32 = 200;
    let clients = Simulation::clients_of_nothing();
    let begun = Instant::now();
    for _ in 0..CALLS {
        clients.ec2.describe_instances().instance_ids("i-0123456789abcdef0").send().await.unwrap();
    }
    begun.elapsed() / CALLS
}

/// Looking at an environment in which one version is in service; another, while the first is held; and a third, while the
/// first stays because somebody uses it.
#[tokio::test(start_paused = true)]
async fn status_makes_few_calls() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    for (version, fleets) in [("2026.1101.100000", 1), ("2026.1102.100000", 2), ("2026.1103.100000", 3)] {
        let version = account.release(&site, version).await;
        let (plan, ending) = journey::run(&site, deploy(version)).await;
        assert_done(&plan, &ending);
        if fleets == 1 {
            use_of_somebody(&account, &fleet(&site, version).await.unwrap().target_group).await;
        }

        let (status, names) = calls_of_status(&simulation, &site).await;
        assert_eq!(status.fleets.len(), fleets);
        let all: Vec<_> =
            status.fleets.iter().map(|it| (it.fleet.is_in_service(), it.healthy, it.registered)).collect();
        assert_eq!(all.last(), Some(&(true, 2, 2)), "{all:?}");
        assert!(all[..fleets - 1].iter().all(|it| *it == (false, 2, 2)), "{all:?}");
        eprintln!("status of {fleets} fleets: {} calls: {names:?}", names.len());
        assert_eq!(names.len(), CALLS_OF_STATUS + fleets, "{names:?}");
        // What a whole look at the balancer says.
        let balancer = facts::balancer(&site).await.unwrap();
        assert_eq!(status.url, facts::public_url(&site.pipeline, &balancer));
        assert_eq!(status.routing, balancer.routing.to_string());
    }
    // Another listener in the file: what the fleets say of themselves is not what is asked for.
    let site = account.site_with("production", json!({ "flip": { "listener": { "rule": 500 } } })).await;
    let status = overview::status(&site).await.unwrap();
    assert_eq!(status.fleets.iter().filter(|it| it.fleet.is_in_service()).count(), 1, "{:?}", status.fleets);
    assert_eq!(status.fleets[0].fleet.weight, 1, "the rule sends to the first");
    let site = account.site_with("production", json!({ "flip": { "listener": { "port": 81 } } })).await;
    assert!(overview::status(&site).await.is_err(), "there is no listener on that port");
}

async fn calls_of_status(simulation: &Simulation, site: &Site) -> (overview::Status, Vec<String>) {
    simulation.region.region.faults.forget_calls();
    let status = overview::status(site).await.unwrap();
    let calls = simulation.region.region.faults.calls();
    (status, calls.iter().map(|call| call.operation.clone()).collect())
}

/// A rule of somebody's, which keeps a fleet.
async fn use_of_somebody(account: &Account, group: &str) {
    let condition = header_condition("X-Somebody", ["yes".to_owned()]);
    let call = account.clients.elb.create_rule().listener_arn(&account.listener).priority(500).conditions(condition);
    call.actions(Routing::to(group).action()).send().await.unwrap();
}

/// An environment in which nothing is deployed yet, and one whose fleets do not say where they are: everything is looked for.
#[tokio::test(start_paused = true)]
async fn status_finds_the_listener_where_no_fleet_names_it() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let (status, names) = calls_of_status(&simulation, &site).await;
    assert!(status.fleets.is_empty() && names.len() <= 6, "{names:?}");

    let version = account.release(&site, "2026.1101.100000").await;
    let (plan, ending) = journey::run(&site, deploy(version)).await;
    assert_done(&plan, &ending);
    let (known, _) = calls_of_status(&simulation, &site).await;
    let group = known.fleets[0].fleet.target_group.clone();
    let call = account.clients.elb.remove_tags().resource_arns(group).tag_keys(tags::LISTENER);
    call.send().await.unwrap();
    let (status, names) = calls_of_status(&simulation, &site).await;
    assert_eq!((&status.url, &status.routing), (&known.url, &known.routing));
    assert_eq!((status.fleets.len(), status.fleets[0].healthy), (1, 2), "{names:?}");
}

/// The app's target groups, their tags, the listener's rules, and the lock. Beside them the health of each fleet is asked for.
const CALLS_OF_STATUS: usize = 4;
