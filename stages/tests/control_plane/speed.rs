//! How fast the simulation is, and what the time goes into; how many calls the commands make.

use std::time::{Duration, Instant};

use alcedo_stages::overview;

use crate::{
    life::{assert_done, deploy},
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

/// Looking at an environment in which one version is in service, and then another, while the first is held.
#[tokio::test(start_paused = true)]
async fn status_makes_few_calls() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    for (version, fleets) in [("2026.1101.100000", 1), ("2026.1102.100000", 2)] {
        let version = account.release(&site, version).await;
        let (plan, ending) = journey::run(&site, deploy(version)).await;
        assert_done(&plan, &ending);

        simulation.region.region.faults.forget_calls();
        let status = overview::status(&site).await.unwrap();
        assert_eq!(status.fleets.len(), fleets);
        let calls = simulation.region.region.faults.calls();
        let names: Vec<&str> = calls.iter().map(|call| call.operation.as_str()).collect();
        eprintln!("status of {fleets} fleets: {} calls: {names:?}", calls.len());
        assert_eq!(calls.len(), CALLS_OF_STATUS + fleets, "{names:?}");
    }
}

/// Balancer, listener and rules; the tags of the target groups that these name; the lock. Beside them the health of each
/// fleet is asked for.
const CALLS_OF_STATUS: usize = 5;
