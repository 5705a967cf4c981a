//! Plans from facts that are values: what is printed is what would be done. No endpoint is asked anything.

mod environment;
mod why;

use alcedo_pipeline::{plan::Plan, units::Span};
use alcedo_stages::{
    action::Action,
    facts::Request,
    listener::{Place, Routing},
    planner::group_name,
    signature::KeyId,
};
use environment::{Environment, FIRST, SECOND, THIRD, arn, version};
use serde_json::json;

const BUILD: Request = Request::Deploy { version: None };

fn deploy(text: &str) -> Request {
    Request::Deploy { version: Some(version(text)) }
}

fn roll_back(text: &str) -> Request {
    Request::Rollback { to: Some(version(text)) }
}

/// The plan as `alcedo plan` prints it, or why there is none, with what to do about it.
fn planned(environment: &Environment, request: Request) -> String {
    match environment.plan(request) {
        Ok(plan) => plan.to_string(),
        Err(error) => {
            format!("{error}\n{}", error.hints.iter().map(|hint| format!("  hint: {hint}\n")).collect::<String>())
        }
    }
}

fn ids(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.id.as_str()).collect()
}

#[test]
fn the_first_deploy_builds_bakes_launches_and_holds_nothing() {
    insta::assert_snapshot!(planned(&Environment::new(), BUILD));
}

#[test]
fn the_same_facts_give_the_same_plan() {
    let environment = Environment::new().in_service(FIRST);
    assert_eq!(environment.plan(BUILD).unwrap(), environment.plan(BUILD).unwrap());
}

#[test]
fn a_plan_is_read_back_as_it_was_written() {
    let plan = Environment::new().in_service(FIRST).plan(BUILD).unwrap();
    let read: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(read, plan);
    for step in read.steps {
        let action: Action = serde_json::from_value(step.action.clone()).unwrap();
        assert_eq!(serde_json::to_value(action).unwrap(), step.action, "{}", step.id);
    }
}

#[test]
fn an_unchanged_app_in_service_is_left_alone() {
    insta::assert_snapshot!(planned(&Environment::new().in_service(FIRST).published(FIRST, "the source"), BUILD));
}

#[test]
fn what_is_in_service_with_sick_servers_is_no_success() {
    let serving = |healthy| {
        let environment = Environment::new().in_service(FIRST).published(FIRST, "the source");
        planned(&environment.healthy_in_service(healthy), BUILD)
    };
    insta::assert_snapshot!(serving(1));
    insta::assert_snapshot!(serving(0));
}

#[test]
fn an_unchanged_app_in_service_still_ends_a_hold_that_is_over() {
    let environment = Environment::new().held(FIRST, "2026-11-20T18:00:00Z").in_service(SECOND);
    insta::assert_snapshot!(planned(&environment.published(SECOND, "the source"), BUILD));
}

#[test]
fn a_changed_app_replaces_what_is_in_service() {
    insta::assert_snapshot!(planned(&Environment::new().in_service(FIRST).image(FIRST, "other"), BUILD));
}

#[test]
fn a_published_version_with_its_image_is_neither_built_nor_baked() {
    let environment = Environment::new().in_service(FIRST).published(SECOND, "other").image(SECOND, "fits");
    insta::assert_snapshot!(planned(&environment.fingerprint("fits"), deploy(SECOND)));
}

#[test]
fn what_is_pinned_by_name_keeps_the_image_it_was_proven_with() {
    let environment = Environment::new().in_service(SECOND).published(FIRST, "other").image(FIRST, "of last month");
    insta::assert_snapshot!(planned(&environment.fingerprint("of today"), roll_back(FIRST)));
}

#[test]
fn a_held_fleet_only_gets_the_traffic_back() {
    let environment = Environment::new().held(FIRST, "2026-11-20T20:00:00Z").in_service(SECOND).replaces(FIRST);
    insta::assert_snapshot!(planned(&environment, Request::Rollback { to: None }));
}

#[test]
fn a_held_fleet_behind_a_preview_port_hands_the_port_on() {
    let environment = Environment::new()
        .with(json!({ "flip": { "preview": { "header": null, "port": 8600 } } }))
        .held(FIRST, "2026-11-20T20:00:00Z")
        .in_service(SECOND)
        .replaces(FIRST)
        .preview_listener(&Routing::to(arn(FIRST)));
    insta::assert_snapshot!(planned(&environment, Request::Rollback { to: None }));
}

#[test]
fn a_cold_rollback_launches_from_the_image_and_retires_nothing() {
    let environment = Environment::new()
        .held(SECOND, "2026-11-20T20:00:00Z")
        .in_service(THIRD)
        .published(FIRST, "other")
        .image(FIRST, "fits")
        .fingerprint("fits");
    insta::assert_snapshot!(planned(&environment, roll_back(FIRST)));
}

#[test]
fn a_rollback_without_an_image_bakes_one() {
    insta::assert_snapshot!(planned(
        &Environment::new().in_service(SECOND).published(FIRST, "other"),
        roll_back(FIRST)
    ));
}

#[test]
fn a_rollback_without_an_artifact_uses_the_image_that_is_left() {
    let environment = Environment::new().in_service(SECOND).image(FIRST, "whatever");
    insta::assert_snapshot!(planned(&environment, roll_back(FIRST)));
}

#[test]
fn a_version_of_which_nothing_is_left_is_refused() {
    let environment = Environment::new().in_service(SECOND).versions(&[SECOND, FIRST]);
    insta::assert_snapshot!("an_unknown_version", planned(&environment, deploy(THIRD)));
    insta::assert_snapshot!("nothing_is_published", planned(&Environment::new(), deploy(THIRD)));
    insta::assert_snapshot!("nothing_was_before", planned(&environment, Request::Rollback { to: None }));
}

/// The file trusts one key.
fn trusting() -> Environment {
    Environment::new().with(json!({ "publish": { "signed_by": ["keys/release.pem"] } }))
}

#[test]
fn a_new_version_is_signed_or_not_built() {
    let key: KeyId = serde_json::from_value(json!("0123456789abcdef".repeat(4))).unwrap();
    let plan = trusting().signing_key(&key).passed_over("build: the one before is not used").plan(BUILD).unwrap();
    let manifest = plan.step(&"publish/manifest".into()).unwrap();
    assert_eq!(manifest.action["signed_by"], json!(key));
    assert!(manifest.does.ends_with("/manifest.json, signed by the key 0123456789abcdef"), "{}", manifest.does);
    assert!(plan.notes.contains(&"build: the one before is not used".to_owned()), "{:?}", plan.notes);
    insta::assert_snapshot!("no_key_to_sign_with", planned(&trusting(), BUILD));
    let only_signs = Environment::new().with(json!({ "publish": { "sign": true } }));
    assert!(planned(&only_signs, BUILD).contains("ALCEDO_SIGNING_KEY is not set"), "who trusts nobody yet may sign");
    let unsigned = Environment::new().signing_key(&key).plan(BUILD).unwrap();
    assert_eq!(unsigned.step(&"publish/manifest".into()).unwrap().action.get("signed_by"), None, "nobody asked for it");
    // What is published needs no key of this machine.
    assert!(trusting().published(FIRST, "other").vouched("e3b0").plan(deploy(FIRST)).is_ok());
}

/// An image is used where AWS says that it is made of what was signed, and baked anew where it does not.
#[test]
fn an_image_is_used_only_if_it_is_made_of_what_was_signed() {
    let published = || trusting().in_service(SECOND).published(FIRST, "other").vouched("e3b0");
    let bakes = |environment: &Environment| {
        let plan = environment.plan(roll_back(FIRST)).unwrap();
        ids(&plan).contains(&"bake/image")
    };
    let old = "of last month";
    assert!(bakes(&published().image(FIRST, old).fingerprint("of today")), "nobody says what it is made of");
    assert!(bakes(&published().image(FIRST, old).made_of("another").fingerprint("of today")));
    assert!(!bakes(&published().image(FIRST, old).made_of("e3b0").fingerprint("of today")));
    assert!(!bakes(&published().image(FIRST, "fits").fingerprint("fits")), "the artifact is in the fingerprint");
    // Without the artifact there is nothing to bake from.
    let gone = || trusting().in_service(SECOND).image(FIRST, old);
    assert!(!bakes(&gone().made_of("e3b0").vouched("e3b0")), "its manifest is there, and signed");
    insta::assert_snapshot!("an_image_that_nobody_vouches_for", planned(&gone().made_of("e3b0"), roll_back(FIRST)));
    assert!(!bakes(&Environment::new().in_service(SECOND).image(FIRST, old)), "where no key is named, it is used");
}

/// The way back that needs nothing but one call stays that.
#[test]
fn a_held_fleet_gets_the_traffic_back_whatever_was_signed() {
    let held = trusting().held(FIRST, "2026-11-20T20:00:00Z").in_service(SECOND).replaces(FIRST);
    let plan = held.plan(Request::Rollback { to: None }).unwrap();
    assert_eq!(ids(&plan).first(), Some(&"flip/switch"), "{plan}");
}

#[test]
fn an_attended_hold_watches_and_then_retires_blue() {
    let environment = Environment::new().with(json!({ "hold": { "for": "15m", "attended": true } }));
    insta::assert_snapshot!(planned(&ready(environment), deploy(SECOND)));
}

#[test]
fn without_a_hold_blue_is_retired_at_once() {
    let environment = Environment::new().with(json!({ "hold": { "for": "0", "attended": false } }));
    insta::assert_snapshot!(planned(&ready(environment), deploy(SECOND)));
}

/// One in service, and a second that needs no build and no bake.
fn ready(environment: Environment) -> Environment {
    environment.in_service(FIRST).published(SECOND, "other").image(SECOND, "fits").fingerprint("fits")
}

#[test]
fn the_preview_may_have_a_port_of_its_own() {
    let by_port = || Environment::new().with(json!({ "flip": { "preview": { "header": null, "port": 8600 } } }));
    insta::assert_snapshot!("preview_by_a_new_port", planned(&ready(by_port()), deploy(SECOND)));
    let there = ready(by_port()).preview_listener(&Routing::to(arn(FIRST)));
    let plan = there.plan(deploy(SECOND)).unwrap();
    let attach = &plan.step(&"launch/preview".into()).unwrap().action;
    assert_eq!(attach["port"]["before"], serde_json::to_value(Routing::to(arn(FIRST))).unwrap(), "{attach}");
}

#[test]
fn a_preview_rule_takes_the_next_free_priority() {
    let environment = ready(Environment::new()).priorities(&[1, 2, 4]);
    let plan = environment.plan(deploy(SECOND)).unwrap();
    assert_eq!(plan.step(&"launch/preview".into()).unwrap().action["header"]["priority"], 3);
    let last = json!({ "flip": { "preview": { "header": { "priority": 49_999 } } } });
    let full = ready(Environment::new().with(last)).priorities(&[49_999, 50_000]);
    insta::assert_snapshot!("no_free_priority", planned(&full, deploy(SECOND)));
}

#[test]
fn a_rule_of_the_listener_is_flipped_in_place_of_its_default() {
    let rule = Place::Rule { arn: "arn:rule/app/public/1/2/3".into() };
    let environment = ready(Environment::new()).place(rule.clone());
    let plan = environment.plan(deploy(SECOND)).unwrap();
    let place: Place =
        serde_json::from_value(plan.step(&"flip/switch".into()).unwrap().action["place"].clone()).unwrap();
    assert_eq!(place, rule);
    insta::assert_snapshot!(plan);
}

#[test]
fn smoke_tests_open_their_ports_and_log_in_with_the_runs_own_key() {
    let tests = json!({ "smoke_tests": [
        { "http": { "path": "/health" } },
        { "ssh": { "line": "systemctl is-active hello" } },
    ] });
    insta::assert_snapshot!(planned(&ready(Environment::new().with(tests)), deploy(SECOND)));
}

#[test]
fn smoke_tests_without_this_machines_address_go_through_the_preview_alone() {
    let tests = json!({ "smoke_tests": [{ "http": { "path": "/health" } }] });
    let plan = ready(Environment::new().with(tests)).without_own_address().plan(deploy(SECOND)).unwrap();
    assert!(ids(&plan).contains(&"smoke/suite") && !ids(&plan).contains(&"smoke/open"), "{plan}");
    assert_eq!(plan.step(&"smoke/suite".into()).unwrap().action["servers"], false);
}

#[test]
fn what_cannot_be_done_safely_is_refused() {
    let ssh = json!({ "smoke_tests": [{ "ssh": { "line": "true" } }] });
    let with_key = ready(Environment::new().with(ssh.clone()).with(json!({ "launch": { "key": "somebody" } })));
    insta::assert_snapshot!("a_key_beside_ssh_checks", planned(&with_key, deploy(SECOND)));
    let nowhere = ready(Environment::new().with(ssh)).without_own_address();
    insta::assert_snapshot!("ssh_checks_from_an_unknown_address", planned(&nowhere, deploy(SECOND)));
    let nowhere = Environment::new().without_own_address();
    insta::assert_snapshot!("a_bake_from_an_unknown_address", planned(&nowhere, BUILD));
    let other_base = Environment::new().base_digest("sha256:another root");
    insta::assert_snapshot!("source_for_another_base", planned(&other_base, BUILD));
    let other_base = other_base.published(FIRST, "other");
    insta::assert_snapshot!("artifact_of_another_base", planned(&other_base, deploy(FIRST)));
}

#[test]
fn a_vendors_base_is_compared_on_the_builder() {
    let plan = Environment::new().vendors_base().plan(BUILD).unwrap();
    let provision: Action =
        serde_json::from_value(plan.step(&"bake/provision".into()).unwrap().action.clone()).unwrap();
    let Action::Provision(provision) = provision else { panic!("{provision:?}") };
    assert_eq!(provision.base.recipe_digest, None);
}

#[test]
fn retention_keeps_what_is_in_use() {
    let little = json!({ "publish": { "keep": 1 }, "retire": { "keep_images": 1 }, "hold": { "attended": false } });
    // Newest first: nobody's yet; the target; in service; held; of another environment; nobody's any more; pinned.
    let all = ["2026.1104.100000", THIRD, SECOND, FIRST, "2026.1020.100000", "2026.1019.100000", "2026.1018.100000"];
    let mut environment = Environment::new().with(little).held(FIRST, "2026-11-20T20:00:00Z").in_service(SECOND);
    environment =
        environment.replaces(FIRST).used_elsewhere("2026.1020.100000").versions(&all).published(THIRD, "other");
    for text in all {
        environment = environment.image(text, "fits");
    }
    environment = environment.fingerprint("fits").pinned("2026.1018.100000");
    insta::assert_snapshot!("retention", planned(&environment, deploy(THIRD)));
    let plan = environment.plan(deploy(THIRD)).unwrap();
    let prune = &plan.step(&"retire/prune".into()).unwrap().action;
    assert_eq!(prune["versions"], json!(["2026.1019.100000"]));
    let [image] = &prune["images"].as_array().unwrap()[..] else { panic!("{prune}") };
    assert_eq!(
        (&image["ami"], &image["snapshots"]),
        (&json!("ami-2026.1019.100000"), &json!(["snap-2026.1019.100000"]))
    );
}

#[test]
fn traffic_is_the_barrier_and_retire_the_point_of_no_return() {
    let environment = Environment::new().with(json!({ "hold": { "for": "15m", "attended": true } }));
    let plan = ready(environment).plan(deploy(SECOND)).unwrap();
    let marked = |mark: fn(&&alcedo_pipeline::plan::PlannedStep) -> bool| -> Vec<&str> {
        plan.steps.iter().filter(mark).map(|step| step.id.as_str()).collect()
    };
    assert_eq!(marked(|step| step.barrier), ["flip/switch"]);
    assert_eq!(marked(|step| step.point_of_no_return), ["retire/2026.1101.100000/drain"]);
}

#[test]
fn names_are_made_of_what_is_known_and_fit_into_awss_limits() {
    let run = environment::run();
    let name = group_name("hello", "production", version(FIRST), &run);
    assert_eq!(name, group_name("hello", "production", version(FIRST), &run));
    for other in [
        group_name("hello", "staging", version(FIRST), &run),
        group_name("hello", "production", version(SECOND), &run),
        group_name("hello", "production", version(FIRST), &"20261120-190512-7f3b".parse().unwrap()),
    ] {
        assert_ne!(name, other);
    }
    let longest = group_name("a-name-of-20-letters", "production", version(FIRST), &run);
    assert!(
        longest.len() <= 32 && longest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        "{longest}"
    );
}

#[test]
fn the_lease_of_the_builders_port_outlives_the_bake() {
    let environment = Environment::new().with(json!({ "bake": { "timeout": "7m" } }));
    let plan = environment.plan(BUILD).unwrap();
    let action = serde_json::from_value(plan.step(&"bake/open-ssh".into()).unwrap().action.clone()).unwrap();
    let Action::OpenIngress(open) = action else { panic!("{action:?}") };
    assert!(open.lease_seconds > Span::minutes(7).as_secs());
    assert_eq!((open.ports, open.address.to_string().as_str()), (vec![22], "203.0.113.7"));
}

#[test]
fn traffic_by_shares_waits_and_says_so() {
    let canary = json!({ "flip": { "canary": { "shares": [5, 25], "pause": "10m" }, "sticky": "1h" } });
    let gates = json!({ "approvals": [{ "before": "flip", "within": "4h" }, { "before": "retire" }] });
    let environment = || Environment::new().with(canary.clone()).with(gates.clone());
    let plan = environment().in_service(FIRST).published(SECOND, "other").plan(deploy(SECOND)).unwrap();
    insta::assert_snapshot!(plan.to_string());
    let first_of_no_return = plan.steps.iter().find(|step| step.point_of_no_return);
    assert!(first_of_no_return.is_none_or(|step| !step.id.as_str().starts_with("approve/")), "waiting can be undone");
    let held = environment().held(FIRST, "2026-11-20T23:00:00Z").in_service(SECOND).replaces(FIRST);
    let back = held.plan(roll_back(FIRST)).unwrap();
    assert!(back.steps.iter().all(|step| !step.does.contains('%')), "and moves all traffic at once: {back}");
    assert!(!ids(&back).iter().any(|id| id.starts_with("approve/")), "a rollback waits for nobody");
}

#[test]
fn the_end_of_a_hold_retires_what_is_held() {
    let environment = Environment::new().held(FIRST, "2026-11-20T23:00:00Z").in_service(SECOND);
    insta::assert_snapshot!(planned(&environment, Request::EndHold));
    insta::assert_snapshot!(planned(&Environment::new().in_service(SECOND), Request::EndHold));
}
