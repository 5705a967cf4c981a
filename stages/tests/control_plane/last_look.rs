//! What speaks against ending a fleet is seen wherever it is, and however late it comes: somebody else's use of it, and a
//! successor that is not well.

use std::{sync::Arc, time::Duration};

use alcedo_local_region::faults::{Calls, When};
use alcedo_pipeline::{
    event::{Event, Outcome, What},
    recovery::Wish,
    version::Version,
};
use alcedo_stages::{execute::RunError, facts::Request, listener::Routing, preview::header_condition, sweep};
use aws_sdk_elasticloadbalancingv2::types::ProtocolEnum;
use serde_json::json;

use crate::{
    broken::{Bench, kills::killed_on},
    life::{assert_done, deploy, fleet},
    shift::{BLUE, bench_with, deployed},
    support::{
        account::{Account, nothing_yet, state},
        journey,
        staged::Staged,
    },
};

/// The bench's version behind the one in service.
const HELD: &str = "2026.1101.100000";

async fn group_of(bench: &Bench, version: &str) -> String {
    fleet(&bench.site, version.parse().unwrap()).await.unwrap().target_group
}

async fn servers(bench: &Bench, version: &str) -> usize {
    fleet(&bench.site, version.parse().unwrap()).await.map_or(0, |fleet| fleet.instances.len())
}

/// Somebody's rule of the listener that is given, to a target group. Answers its ARN.
async fn rule_to(account: &Account, listener: &str, group: &str) -> String {
    let condition = header_condition("X-Somebody", ["yes".to_owned()]);
    let call = account.clients.elb.create_rule().listener_arn(listener).priority(500).conditions(condition);
    let made = call.actions(Routing::to(group).action()).send().await.unwrap();
    made.rules()[0].rule_arn().unwrap().to_owned()
}

async fn another_listener(account: &Account, port: i32, routing: &Routing) -> String {
    let call = account.clients.elb.create_listener().load_balancer_arn(&account.balancer).protocol(ProtocolEnum::Http);
    let made = call.port(port).default_actions(routing.action()).send().await.unwrap();
    made.listeners()[0].listener_arn().unwrap().to_owned()
}

fn warnings(events: &[Event]) -> Vec<&str> {
    let warnings = events.iter().filter_map(|event| match &event.what {
        What::Warning { message, .. } => Some(message.as_str()),
        _ => None,
    });
    warnings.collect()
}

/// Where a rule is production, the listener's default action is somebody else's to set.
#[tokio::test(start_paused = true)]
async fn a_default_action_beside_the_rule_that_is_production_keeps_its_fleet() {
    let simulation =
        crate::support::simulation::Simulation::start(0, crate::support::region::LocalRegion::no_lags()).await;
    let account = Arc::new(Account::within(simulation.clients.clone(), 0).await);
    let condition = header_condition("X-App", ["hello".to_owned()]);
    let call = account.clients.elb.create_rule().listener_arn(&account.listener).priority(20).conditions(condition);
    call.actions(nothing_yet().action()).send().await.unwrap();
    let in_rule = json!({ "flip": { "listener": { "rule": 20 } } });
    let site = account.site_with("production", in_rule.clone()).await;
    let mut versions: Vec<Version> = Vec::new();
    for version in [HELD, BLUE, "2026.1103.100000"] {
        versions.push(account.release(&site, version).await);
    }
    for version in &versions[..2] {
        let (plan, ending) = journey::run(&site, deploy(*version)).await;
        assert_done(&plan, &ending);
    }
    let held = fleet(&site, versions[0]).await.unwrap();
    account.reroute(&Routing::to(&held.target_group)).await;

    let refused = journey::prepare(&site, Request::EndHold).await;
    let Err(RunError::Plan(refused)) = refused else { panic!("{:?}", refused.err()) };
    assert!(refused.to_string().contains("because the default action of the listener on port 80"), "{refused}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(sweep::find(&site).await.unwrap().iter().filter(|found| found.kind == "fleet").count(), 0);
    // The next deploy retires what it replaces, and leaves the other.
    let mut at_once = in_rule;
    alcedo_pipeline::overlay::overlay(&mut at_once, &json!({ "hold": { "for": "0s" } }));
    let site = account.site_with("production", at_once).await;
    let (plan, ending) = journey::run(&site, deploy(versions[2])).await;
    assert_done(&plan, &ending);
    assert!(plan.notes.iter().any(|note| note.contains("the default action of the listener")), "{plan}");
    assert_eq!(fleet(&site, versions[0]).await.unwrap().instances, held.instances);
    for server in &held.instances {
        assert_eq!(state(&account.clients, server).await.as_deref(), Some("running"));
    }
    assert_eq!(fleet(&site, versions[1]).await, None, "{plan}");
}

/// On another port, whether by its default action or by a rule.
#[tokio::test(start_paused = true)]
async fn another_listener_keeps_its_fleet() {
    let bench = Bench::new().await;
    let group = group_of(&bench, HELD).await;
    let other = another_listener(&bench.account, 8080, &Routing::to(&group)).await;
    let plan = bench.plan().await;
    let says = |plan: &alcedo_pipeline::plan::Plan, what: &str| plan.notes.iter().any(|note| note.contains(what));
    assert!(says(&plan, "the default action of the listener on port 8080"), "{plan}");

    let call = bench.account.clients.elb.modify_listener().listener_arn(&other).default_actions(nothing_yet().action());
    call.send().await.unwrap();
    rule_to(&bench.account, &other, &group).await;
    let plan = bench.plan().await;
    assert!(says(&plan, "rule 500 of the listener on port 8080"), "{plan}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(sweep::find(&bench.site).await.unwrap(), []);
    let ending = bench.walk(&plan, &bench.steps()).await.unwrap();
    assert_done(&plan, &ending);
    assert_eq!(servers(&bench, HELD).await, 2);
}

/// Made while the deploy was at work, before it has come to what goes.
#[tokio::test(start_paused = true)]
async fn a_use_that_comes_after_the_plan_keeps_its_fleet() {
    let (bench, site, green) = bench_with(json!({ "hold": { "for": "2m", "attended": true } })).await;
    let group = group_of(&bench, BLUE).await;
    let account = Arc::clone(&bench.account);
    let somebody = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        rule_to(&account, &account.listener, &group).await
    });
    let (ending, events) = deployed(&site, green).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert!(somebody.is_finished());
    let warned = warnings(&events);
    assert!(warned.iter().any(|it| it.starts_with(BLUE) && it.contains("rule 500 of the listener")), "{warned:?}");
    assert_eq!((servers(&bench, BLUE).await, servers(&bench, HELD).await), (2, 0));
    assert!(fleet(&site, green).await.unwrap().is_in_service());
}

/// Made while another fleet drained: what was seen before that is too old to act on.
#[tokio::test(start_paused = true)]
async fn what_was_seen_is_read_again_before_the_second_fleet() {
    let (bench, site, green) = bench_with(json!({ "hold": { "for": "0s" } })).await;
    let (plan, _) = journey::plan(&site, deploy(green)).await;
    let drain = format!("retire/{BLUE}/drain");
    assert!(plan.step(&drain.as_str().into()).is_some(), "{plan}");
    let (account, group) = (Arc::clone(&bench.account), group_of(&bench, BLUE).await);
    let steps = Staged::new(&site).before(&drain, move || {
        let (account, group) = (Arc::clone(&account), group.clone());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            rule_to(&account, &account.listener, &group).await;
        })
    });
    let ending = journey::try_walk(&site, plan.clone(), &steps).await.unwrap();
    assert_done(&plan, &ending);
    assert_eq!((servers(&bench, BLUE).await, servers(&bench, HELD).await), (2, 0));
    let blue = fleet(&site, BLUE.parse().unwrap()).await.unwrap();
    for server in &blue.instances {
        assert_eq!(state(&bench.account.clients, server).await.as_deref(), Some("running"));
    }
}

/// Green has lost a server between the look and the end of the second fleet: then that one stays, for it is the way back.
#[tokio::test(start_paused = true)]
async fn a_successor_that_falls_sick_late_keeps_what_it_replaced() {
    let (bench, site, green) = bench_with(json!({ "hold": { "for": "0s" } })).await;
    let (plan, _) = journey::plan(&site, deploy(green)).await;
    let (account, looked_from) = (Arc::clone(&bench.account), site.clone());
    let steps = Staged::new(&site).before(&format!("retire/{BLUE}/drain"), move || {
        let (account, site) = (Arc::clone(&account), looked_from.clone());
        Box::pin(async move {
            let green = fleet(&site, green).await.unwrap();
            account.clients.ec2.stop_instances().instance_ids(&green.instances[0]).send().await.unwrap();
            tokio::time::sleep(Duration::from_secs(120)).await;
        })
    });
    let ending = journey::try_walk(&site, plan.clone(), &steps).await.unwrap();
    assert_done(&plan, &ending);
    assert_eq!((servers(&bench, BLUE).await, servers(&bench, HELD).await), (2, 0));
}

/// The deploy still waits for blue's last visitors when green goes bad: it goes back.
#[tokio::test(start_paused = true)]
async fn green_is_watched_until_the_old_servers_go() {
    let changes = json!({ "hold": { "for": "3m", "attended": true }, "retire": { "timeout": "30m" } });
    let (bench, site, green) = bench_with(changes).await;
    let _monitor = crate::quiet::asks(&bench, BLUE, 100_000).await;
    let (account, looked_from) = (Arc::clone(&bench.account), site.clone());
    let sick = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10 * 60)).await;
        let green = fleet(&looked_from, green).await.unwrap();
        let call = account.clients.ec2.stop_instances().set_instance_ids(Some(green.instances));
        call.send().await.unwrap();
    });
    let (ending, events) = deployed(&site, green).await;
    assert!(sick.is_finished(), "it did not wait for so long: {:?}", warnings(&events));
    sick.await.unwrap();
    let (step, error) = ending.failure.expect("it fails");
    assert_eq!((ending.outcome, step.as_str()), (Outcome::Unwound, "hold/quiet"), "{error:?}");
    assert!(error.message.contains("went bad before the old servers go"), "{error:?}");
    assert!(fleet(&site, BLUE.parse().unwrap()).await.unwrap().is_in_service());
}

/// A process dies right before the point of no return, and another goes on an hour later: what the first has seen counts no
/// more.
#[tokio::test(start_paused = true)]
async fn whoever_goes_on_looks_again() {
    let (calls, _) = Bench::undisturbed().await;
    let drains = calls.iter().position(|call| call.operation == "DeregisterTargets").expect("it retires a fleet");
    // Counted among its own kind: reads that are under way at the same time may come in another order.
    let begins = calls[..drains].iter().filter(|call| call.operation == "PutObject").count() as u64 - 1;
    for when in [When::Before, When::After] {
        let bench = Bench::new().await;
        let on = Calls { operation: Some("PutObject".into()), skip: begins, times: Some(1), ..Calls::default() };
        let run = killed_on(&bench, on, when).await.expect("it has not come so far");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        rule_to(&bench.account, &bench.account.listener, &group_of(&bench, HELD).await).await;
        let ending = bench.recover(&run, Wish::GoOn).await.expect("it has not ended");
        assert_eq!(ending.outcome, Outcome::Done, "{when:?}: {:?}", ending.failure);
        assert_eq!(servers(&bench, HELD).await, 2, "{when:?}: it was ended on an old word");
    }
}

/// The same for the end of a hold, which fails: it is there for nothing else.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_hold_that_is_gone_on_with_looks_again() {
    let bench = Bench::new().await;
    let (plan, _) = journey::plan(&bench.site, Request::EndHold).await;
    let run = plan.run.clone();
    let steps = Staged::new(&bench.site).before(&format!("retire/{HELD}/drain"), || Box::pin(std::future::pending()));
    let site = bench.site.clone();
    let process = tokio::spawn(async move { journey::try_walk(&site, plan, &steps).await });
    tokio::time::sleep(Duration::from_secs(600)).await;
    process.abort();
    let blue = fleet(&bench.site, BLUE.parse().unwrap()).await.unwrap();
    bench.account.clients.ec2.stop_instances().instance_ids(&blue.instances[0]).send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let ending = bench.recover(&run, Wish::GoOn).await.expect("it has not ended");
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(servers(&bench, HELD).await, 2, "the way back was ended while what replaced it is not well");
}

/// A version is launched a second time, because its first launch came to no good end: both have servers, and what keeps a
/// fleet keeps the first launch as well.
#[tokio::test(start_paused = true)]
async fn an_earlier_launch_of_the_same_version_is_looked_at_as_well() {
    let (bench, site, green) = bench_with(json!({ "hold": { "for": "0s" } })).await;
    let (first, _) = journey::plan(&site, deploy(green)).await;
    let launched = journey::only(first, &[alcedo_pipeline::plan::Stage::Launch]);
    let ending = journey::try_walk(&site, launched, &Staged::new(&site)).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    let earlier = fleet(&site, green).await.unwrap();

    let (plan, _) = journey::plan(&site, deploy(green)).await;
    let drain = format!("retire/{green}/drain");
    assert!(plan.step(&drain.as_str().into()).is_some(), "{plan}");
    let (account, group) = (Arc::clone(&bench.account), earlier.target_group.clone());
    let steps = Staged::new(&site).before("hold/quiet", move || {
        let (account, group) = (Arc::clone(&account), group.clone());
        Box::pin(async move { drop(rule_to(&account, &account.listener, &group).await) })
    });
    let ending = journey::try_walk(&site, plan.clone(), &steps).await.unwrap();
    assert_done(&plan, &ending);
    for server in &earlier.instances {
        assert_eq!(state(&bench.account.clients, server).await.as_deref(), Some("running"), "{plan}");
    }
    assert_eq!(servers(&bench, BLUE).await, 0, "{plan}");
}
