//! Traffic by shares: what is counted decides. Visitors are counted into the region's metrics as its balancer would count
//! them, since no server is there to answer them.

use std::{sync::Arc, time::Duration};

use alcedo_local_region::{
    faults::{Calls, Effect, Fault, When},
    metrics::Ending as Answer,
    state::elbv2::names::{balancer_of_listener, full_name},
};
use alcedo_pipeline::{
    error::ErrorKind,
    event::{Event, Outcome, What},
    ids::RunId,
    plan::Stage,
    recovery::{Refusal, Wish},
    runner::Ending,
    version::Version,
};
use alcedo_stages::{
    execute::RunError,
    facts::Request,
    gate::{self, GateError},
    hold,
    listener::{Routing, group_name},
    site::Site,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    broken::Bench,
    life::{deploy, fleet},
    support::{account::nothing_yet, journey},
};

/// The bench's version in service; the one that is about to replace it.
pub const BLUE: &str = "2026.1102.100000";
const GREEN: &str = "2026.1103.100000";

/// A bench whose next deploy is of [`GREEN`], as this part of the file has it.
pub async fn bench_with(changes: Value) -> (Bench, Site, Version) {
    let mut bench = Bench::new().await;
    let mut site = bench.account.site_with("production", changes).await;
    site.clients.visible = bench.site.clients.visible;
    let green = bench.account.release(&site, GREEN).await;
    bench.before = bench.inventory().await;
    (bench, site, green)
}

fn canary() -> Value {
    json!({ "flip": { "canary": { "shares": [5, 25], "pause": "2m" } }, "watch": { "requests": 300, "patience": "5m" } })
}

/// So many requests a second, by the weights that the listener has; of those that are not blue's so many percent fail.
async fn visitors(bench: &Bench, per_second: u32, failing_percent: f64) -> AbortOnDropHandle<()> {
    let blue = fleet(&bench.site, BLUE.parse().unwrap()).await.unwrap().target_group;
    let (account, region) = (Arc::clone(&bench.account), Arc::clone(&bench.simulation.region.region));
    let balancer = balancer_of_listener(&account.listener).to_owned();
    let mut dice = StdRng::seed_from_u64(7);
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Routing::Forward { groups, .. } = account.routing().await else { continue };
            let total: i32 = groups.iter().map(|group| group.weight).sum();
            for _ in 0..per_second {
                let mut at = dice.random_range(0..total);
                let group = groups.iter().find(|group| {
                    at -= group.weight;
                    at < 0
                });
                let group = &group.unwrap().target_group;
                let fails = *group != blue && dice.random_bool(failing_percent / 100.0);
                let answer = Answer::Target { status: if fails { 500 } else { 200 }, took: Duration::from_millis(20) };
                region.metrics.count(region.clock.now(), &balancer, Some(full_name(group)), answer);
            }
        }
    }))
}

pub async fn deployed(site: &Site, version: Version) -> (Ending, Vec<Event>) {
    let prepared = journey::prepare(site, deploy(version)).await.unwrap();
    let (ending, events) = journey::finish(prepared).await;
    (ending.unwrap(), events)
}

fn lines(events: &[Event]) -> Vec<&str> {
    let lines = events.iter().filter_map(|event| match &event.what {
        What::Output { line, .. } => Some(line.as_str()),
        _ => None,
    });
    lines.collect()
}

/// How often the listener was changed.
fn changes(bench: &Bench) -> usize {
    bench.faults().calls().iter().filter(|call| call.operation == "ModifyListener").count()
}

#[tokio::test(start_paused = true)]
async fn without_a_difference_every_share_is_passed() {
    let (bench, site, green) = bench_with(canary()).await;
    let _visitors = visitors(&bench, 100, 0.0).await;
    bench.faults().forget_calls();
    let (ending, events) = deployed(&site, green).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(changes(&bench), 3, "two shares, then all");
    let said = lines(&events);
    assert!(said.iter().any(|line| line.starts_with("with 5 % of the traffic: 0 of ")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("with 25 % of the traffic: 0 of ")), "{said:?}");
    let service = fleet(&site, green).await.unwrap();
    assert_eq!(bench.account.routing().await, Routing::to(service.target_group));
}

/// A hold of half an hour is judged every three minutes; what is known of it is shown by the minute.
#[tokio::test(start_paused = true)]
async fn the_numbers_are_shown_before_they_are_judged() {
    let changes = json!({ "hold": { "for": "30m", "attended": true }, "retire": { "timeout": "5m" } });
    let (bench, site, green) = bench_with(changes).await;
    let _visitors = visitors(&bench, 50, 2.0).await;
    let (ending, events) = deployed(&site, green).await;
    let waits = events.iter().filter_map(|event| match &event.what {
        What::Waiting { status, .. } => Some(status.as_str()),
        _ => None,
    });
    let before_the_first_look: Vec<&str> = waits
        .filter(|status| {
            ["in the hold, 29m", "in the hold, 28m", "in the hold, 27m"].iter().any(|at| status.starts_with(at))
        })
        .collect();
    let shown = before_the_first_look.iter().any(|status| {
        let rate = status.split("green ").nth(1).and_then(|rest| rest.split("/s, ").next()?.parse::<f64>().ok());
        rate.is_some_and(|rate| rate > 20.0) && status.contains(" failed (")
    });
    assert!(shown, "{:?}: {:?}", ending.failure, before_the_first_look.last());
    assert!(before_the_first_look[0].contains("2 healthy"), "{}", before_the_first_look[0]);
}

/// Two percent of green's requests fail, none of blue's.
#[tokio::test(start_paused = true)]
async fn two_percent_that_fail_stop_it_at_the_first_share() {
    let (bench, site, green) = bench_with(canary()).await;
    let visitors = visitors(&bench, 200, 2.0).await;
    bench.faults().forget_calls();
    let (ending, _) = deployed(&site, green).await;
    drop(visitors);
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!(step.as_str(), "flip/switch");
    assert!(error.message.contains("went bad with 5 % of the traffic"), "{error:?}");
    assert!(error.message.contains(" requests failed, where 0 of ") && error.message.contains("p = "), "{error:?}");
    assert_eq!(changes(&bench), 2, "one share, and back");
    bench.assert_as_before("green failed more often").await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_are_too_few_to_judge_by() {
    let (bench, site, green) = bench_with(canary()).await;
    // A hundred requests in all, five of them green's.
    let visitors = visitors(&bench, 1, 0.0).await;
    let begun = tokio::time::Instant::now();
    let (ending, events) = deployed(&site, green).await;
    let took = begun.elapsed();
    drop(visitors);
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (_, error) = ending.failure.unwrap();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error:?}");
    assert!(error.message.starts_with("the sample is too small: "), "{error:?}");
    let waits = events.iter().filter_map(|event| match &event.what {
        What::Waiting { status, .. } => Some(status.as_str()),
        _ => None,
    });
    assert!(waits.into_iter().any(|status| status.contains("of 300 requests, too few to judge by")));
    assert!(took >= Duration::from_secs(7 * 60), "the pause and the patience: {took:?}");
    bench.assert_as_before("too few requests").await;
}

/// Numbers that nobody can read are no pass.
#[tokio::test(start_paused = true)]
async fn a_share_whose_numbers_cannot_be_read_is_not_passed() {
    use alcedo_local_region::faults::{Calls, Effect, Fault, When};
    let (bench, site, green) = bench_with(canary()).await;
    let visitors = visitors(&bench, 100, 0.0).await;
    let on = Calls { service: Some("monitoring".into()), ..Calls::default() };
    let effect = Effect::Error { code: "AccessDenied".into(), status: Some(403) };
    bench.faults().add(Fault { on, when: When::Before, effect });
    let (ending, _) = deployed(&site, green).await;
    drop(visitors);
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!(step.as_str(), "flip/switch");
    assert!(error.hints.iter().any(|hint| hint.contains("cloudwatch:GetMetricData")), "{error:?}");
    bench.assert_as_before("the numbers could not be read").await;
}

/// Somebody sets the weights while green has its first share.
#[tokio::test(start_paused = true)]
async fn a_foreign_change_between_two_shares_stops_it_and_stands() {
    let (bench, site, green) = bench_with(canary()).await;
    let visitors = visitors(&bench, 100, 0.0).await;
    let account = Arc::clone(&bench.account);
    let theirs = nothing_yet();
    let foreign = {
        let theirs = theirs.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if account.routing().await.serving().len() == 2 {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    return account.reroute(&theirs).await;
                }
            }
        })
    };
    let (ending, _) = deployed(&site, green).await;
    foreign.await.unwrap();
    drop(visitors);
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("flip/switch", ErrorKind::Changed), "{error:?}");
    assert_eq!(bench.account.routing().await, theirs, "it was not overwritten");
    assert!(fleet(&site, BLUE.parse().unwrap()).await.is_some_and(|blue| blue.instances.len() == 2));
}

/// Somebody changes it while blue is held, and CloudTrail takes its time.
#[tokio::test(start_paused = true)]
async fn a_foreign_change_during_a_hold_stops_it_and_stands() {
    let (bench, site, green) = bench_with(json!({ "hold": { "for": "2m", "attended": true } })).await;
    let account = Arc::clone(&bench.account);
    let (before, theirs) = (account.routing().await, nothing_yet());
    let on = Calls { operation: Some("LookupEvents".into()), ..Calls::default() };
    bench.faults().add(Fault { on, when: When::Before, effect: Effect::Delay { milliseconds: 8_000 } });
    let foreign = {
        let theirs = theirs.clone();
        tokio::spawn(async move {
            while account.routing().await == before {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // It is noticed before the two minutes are over, and CloudTrail has answered after that.
            tokio::time::sleep(Duration::from_secs(111)).await;
            account.reroute(&theirs).await;
        })
    };
    let (ending, _) = deployed(&site, green).await;
    foreign.await.unwrap();
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("hold/watch", ErrorKind::Changed), "{error:?}");
    assert!(error.message.contains("called ModifyListener"), "{error:?}");
    assert_eq!(bench.account.routing().await, theirs, "it was not overwritten");
}

/// A process dies while green has a share: whoever goes on finds by the listener how far it came.
#[tokio::test(start_paused = true)]
async fn a_shift_is_gone_on_with_where_it_stood() {
    let (bench, site, green) = bench_with(canary()).await;
    let _visitors = visitors(&bench, 100, 0.0).await;
    let prepared = journey::prepare(&site, deploy(green)).await.unwrap();
    let run = prepared.plan.run.clone();
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::spawn(prepared.run(events, tokio_util::sync::CancellationToken::new()));
    while bench.account.routing().await.serving().len() < 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    running.abort();
    bench.faults().forget_calls();
    let ending = bench.recover(&run, Wish::GoOn).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(changes(&bench), 2, "the second share and all of it: the first was there");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_failure_leaves_the_traffic_and_waits_for_a_decision() {
    let (bench, site, green) = bench_with(canary()).await;
    let visitors = visitors(&bench, 200, 5.0).await;
    let mut prepared = journey::prepare(&site, deploy(green)).await.unwrap();
    prepared.plan.freeze = true;
    let run: RunId = prepared.plan.run.clone();
    let (ending, _) = journey::finish(prepared).await;
    drop(visitors);
    let ending = ending.unwrap();
    assert_eq!(ending.outcome, Outcome::Stuck);
    assert_eq!(bench.account.routing().await.serving().len(), 2, "both have traffic, as before the failure");
    // The next run does not decide it.
    let next = journey::prepare(&site, deploy(green)).await;
    assert!(matches!(next, Err(RunError::Refused { source: Refusal::Frozen, .. })), "{:?}", next.err());
    let ending = journey::take_up(&site, &run, Wish::GoBack).await;
    assert_eq!(ending.outcome, Outcome::Interrupted, "{:?}", ending.left);
    bench.assert_as_before("it was rolled back").await;
}

fn gated() -> Value {
    json!({ "approvals": [{ "before": "flip", "within": "10m" }] })
}

/// Decides once the run has come to its gate.
async fn decided(site: &Site, approved: bool) -> AbortOnDropHandle<()> {
    let site = site.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let runs =
            alcedo_pipeline::journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await.unwrap();
        let reason = Some("wait for Monday".to_owned());
        gate::decide(&site, &runs[0], None, approved, "ada@desk".into(), reason).await.unwrap();
        let again = gate::decide(&site, &runs[0], None, !approved, "bob@desk".into(), None).await;
        assert!(matches!(again, Err(GateError::NothingToDecide { .. })), "{again:?}");
    }))
}

#[tokio::test(start_paused = true)]
async fn a_gate_opens_by_one_word_and_closes_by_another_or_by_none() {
    let (bench, site, green) = bench_with(gated()).await;
    let somebody = decided(&site, false).await;
    let (ending, _) = deployed(&site, green).await;
    somebody.await.unwrap();
    assert_eq!(ending.outcome, Outcome::Unwound);
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.message.as_str()), ("approve/flip", "ada@desk rejected flip: wait for Monday"));
    bench.assert_as_before("rejected").await;

    let (ending, _) = deployed(&site, green).await;
    let (_, error) = ending.failure.unwrap();
    assert_eq!((ending.outcome, error.kind), (Outcome::Unwound, ErrorKind::TimedOut), "{error:?}");
    bench.assert_as_before("nobody decided").await;

    let somebody = decided(&site, true).await;
    let (ending, _) = deployed(&site, green).await;
    somebody.await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
}

/// Whoever goes on with a run that died at its gate gives nobody more time; and after the deadline, no word opens it.
#[tokio::test(start_paused = true)]
async fn a_gates_deadline_outlives_the_process_that_waits_at_it() {
    let (bench, site, green) = bench_with(gated()).await;
    let prepared = journey::prepare(&site, deploy(green)).await.unwrap();
    let run: RunId = prepared.plan.run.clone();
    let begun = tokio::time::Instant::now();
    let died = tokio::time::timeout(Duration::from_secs(5 * 60), journey::finish(prepared)).await;
    assert!(died.is_err(), "it waits at its gate");
    // Its lease has to end before anybody goes on.
    tokio::time::sleep(Duration::from_secs(3 * 60)).await;
    let ending = journey::take_up(&site, &run, Wish::GoOn).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("approve/flip", ErrorKind::TimedOut), "{error:?}");
    let took = begun.elapsed().as_secs();
    assert!((595..640).contains(&took), "{took} s");
    bench.assert_as_before("nobody decided").await;
    let late = gate::decide(&site, &run, Some(Stage::Flip), true, "ada@desk".into(), None).await;
    assert!(matches!(late, Err(GateError::Ended { .. })), "{late:?}");
    let key = alcedo_pipeline::journal::decision_key(&site.root, &run, Stage::Flip);
    let kept = site.store.read(&key).await.unwrap().expect("the deadline's own word is kept");
    let kept: gate::Decision = serde_json::from_slice(&kept.bytes).unwrap();
    assert_eq!((kept.approved, kept.by.as_str()), (false, "the deadline"));
}

/// A word that comes after the deadline, while nobody is there to close the gate, opens nothing.
#[tokio::test(start_paused = true)]
async fn a_word_that_comes_too_late_opens_no_gate() {
    let (bench, site, green) = bench_with(gated()).await;
    let prepared = journey::prepare(&site, deploy(green)).await.unwrap();
    let run: RunId = prepared.plan.run.clone();
    let died = tokio::time::timeout(Duration::from_secs(5 * 60), journey::finish(prepared)).await;
    assert!(died.is_err(), "it waits at its gate");
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    gate::decide(&site, &run, None, true, "ada@desk".into(), None).await.unwrap();
    let ending = journey::take_up(&site, &run, Wish::GoOn).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("approve/flip", ErrorKind::TimedOut), "{error:?}");
    bench.assert_as_before("it was approved too late").await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_lengthened_and_ended_by_hand() {
    let bench = Bench::new().await;
    let (_, until) = hold::extend(&bench.site, "2h".parse().unwrap()).await.unwrap();
    let left = until.duration_since(bench.site.now());
    assert!((left.as_secs() - 7_200).abs() <= 1, "{left:?}");
    let (plan, ending) = journey::run(&bench.site, Request::EndHold).await;
    assert_eq!(ending.outcome, Outcome::Done, "{plan}");
    assert!(fleet(&bench.site, "2026.1101.100000".parse().unwrap()).await.is_none(), "{plan}");
    let service = fleet(&bench.site, BLUE.parse().unwrap()).await.unwrap();
    assert_eq!((service.instances.len(), service.is_in_service()), (2, true), "{}", group_name(&service.target_group));
    let nothing = journey::prepare(&bench.site, Request::EndHold).await;
    assert!(matches!(nothing, Err(RunError::Plan(_))), "{:?}", nothing.err());
}

/// Somebody else changes the listener right before each call of a flip, one deploy a call: Alcedo halts, does not overwrite
/// it, and retires nothing. The one moment in which it cannot know is between its last reading and its write: AWS's listeners
/// have no compare-and-swap, so a change that comes in right before ModifyListener itself is lost to anybody.
#[tokio::test(start_paused = true)]
async fn a_foreign_change_at_any_moment_of_a_flip_stands() {
    use alcedo_local_region::faults::{Calls, Effect, Fault, When};
    let of_flip = {
        let bench = Bench::new().await;
        let plan = bench.plan().await;
        let faults = Arc::clone(&bench.simulation.region.region);
        let steps = bench.steps().before("flip/switch", move || {
            faults.faults.forget_calls();
            Box::pin(async {})
        });
        bench.walk(&plan, &steps).await.unwrap();
        let calls: Vec<String> = bench
            .faults()
            .calls()
            .into_iter()
            .filter(|it| it.service == "elasticloadbalancing")
            .map(|it| it.operation)
            .collect();
        let end = calls.iter().position(|operation| operation == "DeregisterTargets").unwrap_or(calls.len());
        calls[..end].to_vec()
    };
    assert!(of_flip.len() > 5, "{of_flip:?}");
    let theirs = nothing_yet();
    let (mut halted, mut lost) = (0, 0);
    for (at, operation) in of_flip.iter().enumerate() {
        let bench = Bench::new().await;
        let plan = bench.plan().await;
        let (region, account) = (Arc::clone(&bench.simulation.region.region), Arc::clone(&bench.account));
        let (begin, change) = (Arc::clone(&region), theirs.clone());
        let steps = bench.steps().before("flip/switch", move || {
            let on = Calls {
                service: Some("elasticloadbalancing".into()),
                skip: at as u64,
                times: Some(1),
                ..Calls::default()
            };
            let id = begin.faults.add(Fault { on, when: When::Before, effect: Effect::Hold });
            let (region, account, change) = (Arc::clone(&begin), Arc::clone(&account), change.clone());
            tokio::spawn(async move {
                region.faults.struck(id, 1).await;
                account.reroute(&change).await;
                region.faults.remove(id);
            });
            Box::pin(async {})
        });
        let ended = bench.walk(&plan, &steps).await;
        let now = bench.account.routing().await;
        let what = format!("before call {at}, {operation}: {ended:?}, the listener does `{now}`");
        for version in ["2026.1102.100000"] {
            let fleet = fleet(&bench.site, version.parse().unwrap()).await;
            assert!(fleet.is_some_and(|fleet| fleet.instances.len() == 2), "blue is there: {what}");
        }
        if operation == "ModifyListener" {
            lost += 1;
            continue;
        }
        assert_eq!(now, theirs, "{what}");
        halted += 1;
    }
    eprintln!("{halted} moments in which somebody else's change stood, {lost} in which nobody can know");
    assert_eq!(lost, 1, "{of_flip:?}");
}

/// The fleet in service was launched by a file that gave its servers one second to finish.
#[tokio::test(start_paused = true)]
async fn servers_that_could_not_finish_their_requests_keep_the_traffic() {
    let changes = json!({ "launch": { "deregistration_delay": "30s", "slowest_request": "20s" } });
    let (bench, site, green) = bench_with(changes).await;
    let (ending, _) = deployed(&site, green).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((ending.outcome, step.as_str()), (Outcome::Unwound, "flip/switch"));
    assert!(error.message.contains("gives its servers 1 s to finish their requests"), "{error:?}");
    bench.assert_as_before("blue's servers could not finish").await;
}

/// While two versions serve, the balancer's cookie keeps a visitor at one of them; afterwards there is nothing to keep.
#[tokio::test(start_paused = true)]
async fn visitors_stay_at_one_version_while_two_serve() {
    let mut changes = canary();
    changes["flip"]["sticky"] = json!("1h");
    let (bench, site, green) = bench_with(changes).await;
    let _visitors = visitors(&bench, 100, 0.0).await;
    let account = Arc::clone(&bench.account);
    let seen = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Routing::Forward { groups, sticky_seconds } = account.routing().await
                && groups.len() == 2
            {
                return sticky_seconds;
            }
        }
    }));
    let (ending, _) = deployed(&site, green).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    assert_eq!(seen.await.unwrap(), Some(3600));
    assert!(matches!(bench.account.routing().await, Routing::Forward { sticky_seconds: None, .. }));
}
