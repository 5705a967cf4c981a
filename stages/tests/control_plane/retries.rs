//! How often the SDK tries again is each client's own matter, whatever else goes on in the process.

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_stages::clients::Clients;
use jiff::SignedDuration;

use crate::support::{
    region::LocalRegion,
    simulation::{Machine, Simulation},
};

fn throttled(times: Option<u64>) -> Fault {
    let on = Calls { operation: Some("DescribeInstances".into()), times, ..Calls::default() };
    Fault { on, when: When::Before, effect: Effect::Error { code: "RequestLimitExceeded".into(), status: None } }
}

/// Which of so many looks were answered.
async fn looks(clients: &Clients, times: usize) -> Vec<bool> {
    let mut answered = Vec::new();
    for _ in 0..times {
        answered.push(clients.ec2.describe_instances().send().await.is_ok());
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn what_one_environment_has_used_up_another_still_has() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let faults = &simulation.region.region.faults;
    let another = simulation.clients_of(Machine::default(), SignedDuration::ZERO);

    faults.add(throttled(None));
    // Four retries a look: more than a quota holds.
    assert_eq!(looks(&simulation.clients, 40).await, [false; 40]);
    faults.clear();
    faults.add(throttled(Some(1)));
    assert_eq!(looks(&simulation.clients, 2).await, [false, true], "its quota is used up, so it does not try again");

    faults.clear();
    faults.add(throttled(Some(3)));
    assert_eq!(looks(&another, 2).await, [true, true]);
}
