//! A fleet of one server and one of five hundred: calls and time of a deploy that replaces one by another.

use std::time::Duration;

use alcedo_local_region::config::{Capacity, Lags};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, journey, region::LocalRegion, simulation::Simulation},
};

const SIZES: [u32; 4] = [1, 10, 100, 500];

/// With AWS's token buckets: whoever calls more often than they allow is refused, and has to wait.
#[tokio::test(start_paused = true)]
async fn calls_grow_far_slower_than_the_fleet() {
    let mut calls_per_server = Vec::new();
    for size in SIZES {
        // Hundreds of servers are checked no more often than the quick profile does it.
        let lags = Lags { throttle: true, initial_check: Lags::quick().initial_check, ..LocalRegion::no_lags() };
        let capacity = Capacity { vcpus: 4 * SIZES[3], ..Capacity::default() };
        let simulation = Simulation::with_capacity(0, lags, capacity).await;
        let account = Account::within(simulation.clients.clone(), 0).await;
        let changes = json!({ "launch": { "count": size }, "hold": { "for": "0s" } });
        let site = account.site_with("production", changes).await;
        let (first, second) =
            (account.release(&site, "2026.1101.100000").await, account.release(&site, "2026.1102.100000").await);
        let (plan, ending) = journey::run(&site, deploy(first)).await;
        assert_done(&plan, &ending);
        // Most of what setting up has taken from the buckets is there again. RunInstances counts servers, a thousand at most at once.
        tokio::time::sleep(Duration::from_secs(10)).await;

        simulation.region.region.faults.forget_calls();
        let begun = Instant::now();
        let (plan, ending) = journey::run(&site, deploy(second)).await;
        assert_done(&plan, &ending);
        let took = begun.elapsed();
        let calls = simulation.region.region.faults.calls();
        let refused = calls.iter().filter(|call| call.status == Some(503)).count();
        let per_server = calls.len() as f64 / f64::from(size);
        eprintln!(
            "{size} servers: {} calls, {per_server:.2} a server, {refused} refused; {:.1} s",
            calls.len(),
            took.as_secs_f64()
        );
        assert_eq!(refused, 0, "more often than AWS allows");
        calls_per_server.push(per_server);
    }
    assert!(calls_per_server.is_sorted_by(|smaller, larger| larger < smaller), "{calls_per_server:?}");
    assert!(calls_per_server[3] < 1.0, "{calls_per_server:?}");
}
