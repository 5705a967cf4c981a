//! What a plan says of why: of everything that goes into a deploy one thing is changed at a time, and that one is named.

use alcedo_pipeline::plan::{Plan, Stage};
use alcedo_stages::{facts::Request, site::Site};
use serde_json::{Value, json};

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, journey, region::LocalRegion, staged::Staged},
};

const FROM_SOURCE: Request = Request::Deploy { version: None };

fn provisioned_by(run: &str) -> Value {
    json!({ "bake": { "provision": [{ "run": "true" }, { "run": run }] } })
}

/// What is said of the stages, without versions: those that are in the plan and why, and what is left out and why.
fn said(plan: &Plan) -> Vec<String> {
    let version = plan.replaces.unwrap().to_string();
    let reasons = plan.reasons.iter().map(|reason| format!("{}: {}", reason.stage, reason.why));
    let all = plan.notes.iter().cloned().chain(reasons);
    all.filter(|it| !it.starts_with("smoke:")).map(|it| it.replace(&version, "VERSION")).collect()
}

async fn planned(site: &Site) -> Vec<String> {
    said(&journey::plan(site, FROM_SOURCE).await.0)
}

#[tokio::test]
async fn of_everything_that_goes_into_a_deploy_what_changed_is_named() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let with = async |changes: Value| {
        let mut all = provisioned_by("false");
        alcedo_pipeline::overlay::overlay(&mut all, &changes);
        account.site_with("production", all).await
    };
    let site = with(json!({})).await;
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(archive.path(), "an archive").unwrap();
    let (plan, _) = journey::plan(&site, FROM_SOURCE).await;
    let steps = Staged::new(&site).having_read(&site).await.built(archive.path()).provisioned();
    assert_done(&plan, &journey::walk(&site, plan.clone(), &steps).await);
    assert_eq!(plan.reasons[0].why, "nothing is published yet");

    let nothing = ["launch: VERSION is already in service"];
    assert_eq!(planned(&site).await, nothing);

    // What an image or servers would be made with, and nothing that makes another version: that waits.
    let waits = async |changes: Value, what: &str, named: &str| {
        let named = named.replace(&plan.version.to_string(), "VERSION");
        let note = format!("{what}: VERSION was made with other inputs ({named}); the next version takes these");
        assert_eq!(planned(&with(changes.clone()).await).await, [nothing[0], &note], "{changes}");
    };
    waits(provisioned_by("exit"), "bake", "provisioning step 2 changed").await;
    waits(json!({ "bake": { "install_path": "/srv/hello" } }), "bake", "bake.install_path changed").await;
    waits(json!({ "bake": { "checks": [{ "user": { "name": "x" } }] } }), "bake", "bake.checks changed").await;
    let other = account.offered_image().await;
    waits(json!({ "bake": { "base": { "ami": other.0 } } }), "bake", &format!("another base, {}", other.1)).await;
    waits(json!({ "launch": { "count": 3 } }), "launch", "launch.count 2 → 3").await;
    let larger = "launch.instance_type t3.small → t3.large";
    waits(json!({ "launch": { "instance_type": "t3.large" } }), "launch", larger).await;
    waits(json!({ "launch": { "subnets": [account.subnets[0]] } }), "launch", "launch.subnets changed").await;
    let slower = json!({ "launch": { "health_check": { "interval": "30s" } } });
    waits(slower, "launch", "launch.health_check changed").await;
    waits(json!({ "launch": { "key": "x" } }), "launch", "launch.key changed").await;
    let delay = "launch.deregistration_delay 1s → 2s";
    waits(json!({ "launch": { "deregistration_delay": "2s" } }), "launch", delay).await;
    assert_eq!(planned(&with(json!({ "hold": { "for": "1m" } })).await).await, nothing, "the hold makes nothing new");

    // What makes another artifact: everything after it is new.
    let builds = async |changes: Value, named: &str| {
        let all = [
            &format!("build: {named} (since VERSION)"),
            "publish: the artifact is new",
            "bake: the artifact is new",
            "launch: the image is new",
        ];
        assert_eq!(planned(&with(changes.clone()).await).await, all, "{changes}");
    };
    builds(json!({ "build": { "commands": ["true", "true"] } }), "build.commands changed").await;
    builds(json!({ "build": { "packages": ["gcc"] } }), "build.packages changed").await;
    builds(json!({ "build": { "environment": { "A": "b" } } }), "build.environment.A changed").await;
    builds(json!({ "build": { "exclude": ["*.map"] } }), "build.exclude changed").await;
    std::fs::write(account.project.path().join("more.sh"), "true").unwrap();
    builds(json!({}), "1 source file added: more.sh").await;
    std::fs::remove_file(account.project.path().join("more.sh")).unwrap();
    account.edit("another");
    builds(json!({}), "1 source file changed: hello.sh").await;
    let (plan, _) = journey::plan(&with(json!({ "launch": { "count": 3 } })).await, FROM_SOURCE).await;
    let launch = plan.reasons.iter().find(|reason| reason.stage == Stage::Launch).unwrap();
    assert_eq!(launch.why, "the image is new; launch.count 2 → 3");
}

#[tokio::test]
async fn what_was_made_before_parts_were_recorded_is_still_read() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    // As earlier versions of alcedo published and baked: neither `inputs.json` nor the tags with the parts.
    let version = account.release(&site, "2026.1101.100000").await;
    let (plan, ending) = journey::run(&site, deploy(version)).await;
    assert_done(&plan, &ending);
    let said = planned(&site).await;
    let which = "an input of the build changed; the version of alcedo that made VERSION did not record which";
    assert_eq!(said[0], format!("build: {which}"), "{said:?}");
    assert_eq!(said[1..], ["publish: the artifact is new", "bake: the artifact is new", "launch: the image is new"]);
}
