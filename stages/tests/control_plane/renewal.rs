//! What a process makes anew that goes on with another's run.

use std::collections::BTreeSet;

use alcedo_pipeline::{
    event::{Event, What},
    plan::Plan,
    status::Progress,
};
use alcedo_stages::{facts::Request, renewal};
use serde_json::{Value, json};

use crate::support::{account::Account, journey, region::LocalRegion, simulation::Simulation};

/// A journal in which every step before this one has succeeded.
fn until(plan: &Plan, step: &str) -> Progress {
    let event = |what| Event::new(&plan.run, plan.made_at, what);
    let mut events = vec![event(journey::started(plan))];
    for done in plan.steps.iter().take_while(|planned| planned.id.as_str() != step) {
        let (step, stage, does) = (done.id.clone(), done.stage, done.does.clone());
        events.push(event(What::StepStarted { step: step.clone(), stage, does, token: "token".into() }));
        events.push(event(What::StepSucceeded { step, output: Value::Null, seconds: 1.0 }));
    }
    Progress::replay(&events).unwrap()
}

#[tokio::test(start_paused = true)]
async fn secrets_are_handed_over_anew_through_a_port_that_is_opened_and_closed_anew() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account
        .site_with(
            "production",
            json!({
                "secrets": { "TOKEN": { "environment": "TOKEN" } },
                "smoke_tests": [{ "ssh": { "line": "true" } }],
                "launch": { "key": null },
            }),
        )
        .await;
    let version = account.release(&site, "2026.1101.100000").await;
    let (plan, _) = journey::plan(&site, Request::Deploy { version: Some(version) }).await;
    let renewed = |step: &str| -> BTreeSet<String> {
        renewal::of(&plan, &until(&plan, step)).into_iter().map(|(id, _)| id.to_string()).collect()
    };
    // The suite logs in, so servers that admit its key are needed, and with them all that new servers are given.
    let at_the_suite = renewed("smoke/suite");
    let logged_in = ["launch/instances", "launch/open-ssh", "launch/secrets", "launch/close-ssh", "launch/healthy"];
    for step in logged_in.into_iter().chain(["smoke/open"]) {
        assert!(at_the_suite.contains(step), "{step} is not done anew: {at_the_suite:?}");
    }
    // Nothing has been opened yet that would have to be closed.
    let before = renewed("launch/open-ssh");
    assert!(!before.contains("launch/close-ssh") && before.contains("launch/instances"), "{before:?}");
    // Once nobody logs in any more, nothing of it is touched.
    assert_eq!(renewed("flip/switch"), BTreeSet::new());
}
