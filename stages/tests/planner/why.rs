//! Why each stage is in a plan.

use alcedo_pipeline::plan::Stage;
use serde_json::json;

use crate::{
    BUILD, deploy,
    environment::{Environment, FIRST, SECOND},
    planned,
};

const SOURCE: [&str; 5] = ["main.go=1", "go.mod=1", "build.commands=1", "build.base=1", "build.environment.A=1"];
const MADE: &str = "alcedo=0 base=1 checks=2 install_path=3 steps=aa+bb";
const LAUNCHED: &str = "count=2 instance_type=t3.small health_check=4 user_data=5";

/// One version in service, of which everything is recorded, and as it would be made today; the source's fingerprint is
/// another one.
fn recorded() -> Environment {
    let steps = json!({ "bake": { "provision": [{ "script": "deploy/provision.sh" }, { "run": "true" }] } });
    let environment = Environment::new().with(steps).versions(&[FIRST]).in_service(FIRST).image(FIRST, "fits");
    let environment =
        environment.source_of(&SOURCE).was_built_from(&SOURCE).was_made_with(MADE).was_launched_with(LAUNCHED);
    environment.image_parts(MADE).launch_parts(LAUNCHED)
}

/// Why a stage is in the plan of a deploy from source.
fn why(environment: &Environment, stage: Stage) -> String {
    let plan = environment.plan(BUILD).unwrap();
    let mut reasons = plan.reasons.iter().filter(|reason| reason.stage == stage);
    let reason = reasons.next().unwrap_or_else(|| panic!("nothing is said of {stage}: {plan}"));
    assert!(reasons.next().is_none(), "{plan}");
    reason.why.clone()
}

#[test]
fn of_a_build_each_input_that_changed_is_named_and_no_other() {
    let with = |at: usize, part: &'static str| {
        let mut parts = SOURCE.to_vec();
        parts[at] = part;
        why(&recorded().source_of(&parts), Stage::Build)
    };
    let since = |what: &str| format!("{what} (since {FIRST})");
    assert_eq!(with(0, "main.go=2"), since("1 source file changed: main.go"));
    assert_eq!(with(1, "go.work=1"), since("1 source file added: go.work; 1 source file removed: go.mod"));
    assert_eq!(with(2, "build.commands=2"), since("build.commands changed"));
    assert_eq!(with(3, "build.base=2"), since("another base, debian-bookworm"));
    assert_eq!(with(4, "build.environment.A=2"), since("build.environment.A changed"));
    let many: Vec<String> = (0..5).map(|number| format!("src/{number}.go=1")).collect();
    let many: Vec<&str> = SOURCE.into_iter().chain(many.iter().map(String::as_str)).collect();
    let added = "5 source files added: src/0.go, src/1.go, src/2.go and 2 more";
    assert_eq!(why(&recorded().source_of(&many), Stage::Build), since(added));
    assert_eq!(why(&recorded(), Stage::Build), format!("the artifact of {FIRST}, which has the same inputs, is gone"));
}

#[test]
fn the_commits_are_named_where_they_differ() {
    let mut parts = SOURCE.to_vec();
    parts[0] = "main.go=2";
    let changed = || recorded().source_of(&parts);
    let why = |environment: &Environment| why(environment, Stage::Build);
    assert!(why(&changed().commit("9f8e7d6c5b4a39281706", false)).ends_with(", commit 3f2c1ab0 → 9f8e7d6c5b)"));
    assert!(why(&changed().commit("3f2c1ab0", true)).ends_with(", uncommitted on 3f2c1ab0)"));
    assert!(why(&changed()).ends_with(&format!("main.go (since {FIRST})")));
}

#[test]
fn a_file_with_a_wicked_name_does_not_reach_the_terminal() {
    let why = why(&recorded().source_of(&["\u{1b}[2Jx=1"]), Stage::Build);
    assert!(!why.contains('\u{1b}') && why.contains("[2Jx"), "{why:?}");
}

#[test]
fn of_a_bake_each_input_that_changed_is_named_and_no_other() {
    let with = |from: &str, to: &str| why(&recorded().image_parts(&MADE.replace(from, to)), Stage::Bake);
    assert_eq!(with("", ""), "the artifact is new");
    let base = "the artifact is new; another base, alcedo/debian-bookworm/0123456789ab";
    assert_eq!(with("base=1", "base=9"), base);
    assert_eq!(with("checks=2", "checks=9"), "the artifact is new; bake.checks changed");
    assert_eq!(with("install_path=3", "install_path=9"), "the artifact is new; bake.install_path changed");
    assert_eq!(with("alcedo=0", "alcedo=9"), "the artifact is new; alcedo bakes in another way");
    assert_eq!(with("aa", "a9"), "the artifact is new; provisioning script deploy/provision.sh changed");
    assert_eq!(with("bb", "b9"), "the artifact is new; provisioning step 2 changed");
    assert_eq!(with("aa+bb", "bb+aa"), "the artifact is new; the order of bake.provision changed");
    assert_eq!(with("aa+bb", "aa"), "the artifact is new; 1 provisioning step less");
    assert_eq!(with("aa+bb", "@cc"), "the artifact is new; bake.provision changed");
}

#[test]
fn of_a_launch_each_setting_that_changed_is_named_and_no_other() {
    let with = |from: &str, to: &str| why(&recorded().launch_parts(&LAUNCHED.replace(from, to)), Stage::Launch);
    assert_eq!(with("", ""), "the image is new");
    assert_eq!(with("count=2", "count=3"), "the image is new; launch.count 2 → 3");
    let larger = "the image is new; launch.instance_type t3.small → t3.large";
    assert_eq!(with("t3.small", "t3.large"), larger);
    assert_eq!(with("health_check=4", "health_check=9"), "the image is new; launch.health_check changed");
    assert_eq!(with("user_data=5", "user_data=9"), "the image is new; launch.user_data changed");
}

#[test]
fn what_an_older_version_made_is_told_apart_from_what_is_the_same() {
    let environment = Environment::new().versions(&[FIRST]).in_service(FIRST).image(FIRST, "fits");
    let not_recorded = |what: &str, version: &str| {
        format!("an input of {what} changed; the version of alcedo that made {version} did not record which")
    };
    assert_eq!(why(&environment, Stage::Build), not_recorded("the build", FIRST));
    assert_eq!(why(&environment, Stage::Bake), "the artifact is new");
    let published = Environment::new().in_service(FIRST).published(SECOND, "the source").image(SECOND, "of last month");
    let published = published.fingerprint("of today");
    assert_eq!(why(&published, Stage::Bake), not_recorded("the image", SECOND));
}

#[test]
fn the_reasons_stand_with_their_stages() {
    let mut parts = SOURCE.to_vec();
    parts[0] = "main.go=2";
    let environment = recorded().source_of(&parts).launch_parts(&LAUNCHED.replace("count=2", "count=3"));
    insta::assert_snapshot!(planned(&environment, BUILD));
}

#[test]
fn what_waits_for_the_next_version_is_said() {
    let same = || recorded().published(FIRST, "the source");
    let checks = same().image_parts(&MADE.replace("checks=2", "checks=9"));
    insta::assert_snapshot!(planned(&checks.launch_parts(&LAUNCHED.replace("count=2", "count=3")), BUILD));
    assert!(!planned(&same(), BUILD).contains("next version"));
}

#[test]
fn a_published_version_is_launched_because_it_has_no_fleet() {
    let environment = recorded().published(SECOND, "other").image(SECOND, "fits").fingerprint("fits");
    let plan = environment.plan(deploy(SECOND)).unwrap();
    let reasons: Vec<&str> = plan.reasons.iter().map(|reason| reason.why.as_str()).collect();
    assert_eq!(reasons, [format!("there is no fleet of {SECOND}")]);
}
