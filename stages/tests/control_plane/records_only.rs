//! The control-plane flow against the local region on records alone, and what others may do to an environment meanwhile.

use std::time::Duration;

use alcedo_local_region::config::Lags;
use alcedo_pipeline::{
    error::ErrorKind,
    event::Outcome,
    journal::{self, JournalError},
    lock::{Lease, LockError},
    plan::{Plan, Stage},
    recovery::Wish,
    runner::Halt,
    store::StoreError,
};
use alcedo_stages::{
    bake,
    execute::RunError,
    facts::{self, Request},
    listener::{self, Routing, Weighted},
    site::Site,
    tags::Tags,
    who::{self, Who},
};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde_json::json;

use crate::{
    life::{self, assert_done, deploy, fleet},
    support::{
        account::{Account, image, nothing_yet},
        inventory, journey,
        region::LocalRegion,
        simulation::{Machine, Simulation},
        staged::Staged,
    },
};

/// What somebody else sets the listener to.
fn foreign() -> Routing {
    Routing::FixedResponse { status: "418".into(), content_type: None, body: None }
}

#[tokio::test]
async fn a_release_is_deployed_replaced_brought_back_and_retired() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    life::of_three_releases(&account, &[]).await;
}

/// All of it from the source on; only the build's container and the builder's shell are answered for.
#[tokio::test]
async fn a_version_is_published_baked_launched_and_flipped_to() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(archive.path(), "an archive").unwrap();

    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    let steps = Staged::new(&site).built(archive.path()).provisioned();
    let ending = journey::walk(&site, plan.clone(), &steps).await;
    assert_done(&plan, &ending);

    let manifest = site.manifest(plan.version).await.unwrap().unwrap();
    let base = facts::base(&site).await.unwrap();
    let fingerprint = bake::fingerprint(&site, &base, &manifest.sha256, plan.version).unwrap();
    let images = facts::app_images(&site).await.unwrap();
    assert_eq!(images.iter().map(|it| it.fingerprint.as_str()).collect::<Vec<_>>(), [fingerprint.as_str()]);
    assert_eq!(account.routing().await, Routing::to(fleet(&site, plan.version).await.unwrap().target_group));
    let left = inventory::of(&account).await;
    assert!(!left.iter().any(|line| line.contains(&journey::OWN_ADDRESS.to_string())), "SSH is closed: {left:#?}");
    assert!(!left.iter().any(|line| line.starts_with("key pair")), "the ephemeral key is gone: {left:#?}");
    assert_eq!(left.iter().filter(|line| line.starts_with("server")).count(), 2, "the builder has ended: {left:#?}");

    // The same source again: published, baked and in service, so nothing is left to do.
    let (again, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    assert_eq!((again.version, again.steps.len()), (plan.version, 0), "{again}");
    account.edit("#!/bin/sh\necho changed\n");
    let (changed, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    assert!(changed.version > plan.version && changed.stages().contains(&Stage::Build), "{changed}");
}

#[tokio::test]
async fn a_listener_that_somebody_changed_after_the_plan_is_not_overwritten() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.release(&site, "2026.1101.100000").await;
    let before = inventory::of(&account).await;

    let prepared = journey::prepare(&site, deploy(version)).await.unwrap();
    account.reroute(&foreign()).await;
    let (ending, _) = journey::finish(prepared).await;
    let ending = ending.unwrap();

    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("flip/switch", ErrorKind::Changed), "{error:?}");
    let who = Regex::new(
        r"; arn:aws:iam::\d{12}:user/local-region called ModifyListener at \S+Z from [0-9.]+ \(aws-sdk-rust/\S+\)$",
    );
    assert!(who.unwrap().is_match(&error.message), "{error:?}");
    assert_eq!(error.hints, ["nothing was overwritten; agree with them, then run again"]);
    assert_eq!(account.routing().await, foreign());
    account.reroute(&nothing_yet()).await;
    inventory::assert_same(&inventory::of(&account).await, &before);
}

/// CloudTrail tells of a call some time later: until then nobody is named, least of all whoever made another change or Alcedo
/// itself, and the run says how to ask.
#[tokio::test(start_paused = true)]
async fn who_changed_the_listener_is_known_some_time_later() {
    let lags = Lags { trail: Duration::from_secs(20), ..LocalRegion::no_lags() };
    let simulation = Simulation::start(0, lags).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let mut site = account.site().await;
    site.clients.visible = Duration::from_millis(60);
    let [first, second] = ["2026.1101.100000", "2026.1102.100000"];
    let (first, second) = (account.release(&site, first).await, account.release(&site, second).await);
    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    let in_service = account.routing().await;
    for change in [nothing_yet(), in_service] {
        account.reroute(&change).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tokio::time::sleep(Duration::from_secs(25)).await;
    let on_record = site.clients.cloudtrail.lookup_events().send().await.unwrap();
    let agents = on_record.events().iter().filter(|event| event.event_name() == Some("ModifyListener"));
    let own = agents.map(|event| event.cloud_trail_event().unwrap().contains(" app/alcedo")).collect::<Vec<_>>();
    assert_eq!(own, [false, false, true], "{on_record:?}");

    let prepared = journey::prepare(&site, deploy(second)).await.unwrap();
    let plan = prepared.plan.clone();
    account.reroute(&foreign()).await;
    let (ending, events) = journey::finish(prepared).await;
    let (_, error) = ending.unwrap().failure.unwrap();
    assert!(error.message.ends_with(&format!("found `{}`", foreign())), "{error:?}");
    let [_, hint] = error.hints.as_slice() else { panic!("{error:?}") };
    assert!(hint.contains("on record") && hint.contains("AttributeValue=ModifyListener --start-time 20"), "{hint}");

    assert!(matches!(who::stopped(&site.clients, &plan, &events).await, Some(Who::Unknown(_))));
    tokio::time::sleep(Duration::from_secs(90)).await;
    // Whoever mends it afterwards has not done it.
    account.reroute(&nothing_yet()).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let Some(Who::Known(call)) = who::stopped(&site.clients, &plan, &events).await else { panic!("nobody is known") };
    let at = call.split(" at ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse::<Timestamp>().unwrap();
    assert!(at < events.last().unwrap().at, "{call}");
    assert_eq!(who::stopped(&site.clients, &plan, &[]).await, None, "nothing is asked of a run that nobody stopped");
}

/// A machine's clock says when its plan was made, and CloudTrail's when a call was.
#[tokio::test(start_paused = true)]
async fn who_changed_the_listener_is_known_where_the_clock_is_wrong() {
    for minutes in [-5, 5] {
        let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
        let account = Account::within(simulation.clients.clone(), 0).await;
        let clients = simulation.clients_of(Machine::default(), SignedDuration::from_mins(minutes));
        // It learns the time by any answer of the store.
        clients.s3.list_buckets().send().await.unwrap();
        account.reroute(&foreign()).await;
        account.reroute(&nothing_yet()).await;
        tokio::time::sleep(Duration::from_secs(180)).await;
        let planned = clients.clock.0.now();
        let asked = async || who::made(&clients, &account.place(), &foreign(), planned).await;
        assert!(matches!(asked().await, Who::Unknown(_)), "{minutes}: three minutes before the plan");
        account.reroute(&foreign()).await;
        assert!(matches!(asked().await, Who::Known(_)), "{minutes}");
    }
}

/// Where the change leaves green with traffic, its servers stay, and the run says that it is stuck; where green has no part
/// in it, green goes. Either way the change stands.
#[tokio::test]
async fn a_listener_that_somebody_changed_after_the_flip_is_not_put_back() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.release(&site, "2026.1101.100000").await;
    let before = inventory::of(&account).await;

    let (plan, _) = journey::plan(&site, deploy(version)).await;
    let ending = journey::walk(&site, plan, &rerouted_after_the_flip(&account, &site, |_| foreign())).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    assert_eq!(account.routing().await, foreign());
    account.reroute(&nothing_yet()).await;
    inventory::assert_same(&inventory::of(&account).await, &before);

    let (plan, _) = journey::plan(&site, deploy(version)).await;
    let sticky = |green: &Routing| Routing::Forward {
        groups: vec![Weighted { target_group: green.serving()[0].to_owned(), weight: 9 }],
        sticky_seconds: Some(60),
    };
    let ending = journey::walk(&site, plan, &rerouted_after_the_flip(&account, &site, sticky)).await;
    assert_eq!(ending.outcome, Outcome::Stuck);
    let left: Vec<_> = ending.left.iter().map(|(step, error, _)| (step.as_str(), error.kind)).collect();
    assert_eq!(left, [("flip/switch", ErrorKind::Changed)]);
    let fleet = fleet(&site, version).await.expect("its target group stays");
    assert_eq!((fleet.instances.len(), fleet.weight), (2, 9), "its servers stay, and so does the change");
}

/// A run that fails after its flip, when somebody has made something else of the listener.
fn rerouted_after_the_flip(account: &Account, site: &Site, to: fn(&Routing) -> Routing) -> Staged {
    let (clients, place) = (account.clients.clone(), account.place());
    Staged::new(site).failing_at("flip/prove").before("flip/prove", move || {
        let (clients, place) = (clients.clone(), place.clone());
        async move {
            let flipped = listener::read(&clients, &place).await.unwrap();
            listener::write(&clients, &place, &to(&flipped)).await.unwrap();
        }
        .boxed()
    })
}

/// Weights that somebody gave the listener are part of what was planned from.
#[tokio::test]
async fn a_listener_with_weights_is_flipped_and_put_back_as_it_was() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let first = account.release(&site, "2026.1101.100000").await;
    let second = account.release(&site, "2026.1102.100000").await;
    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    let group = fleet(&site, first).await.unwrap().target_group;
    let weighted =
        Routing::Forward { groups: vec![Weighted { target_group: group, weight: 7 }], sticky_seconds: Some(60) };
    account.reroute(&weighted).await;
    let before = inventory::of(&account).await;

    let (plan, _) = journey::plan(&site, deploy(second)).await;
    let ending = journey::walk(&site, plan, &Staged::new(&site).failing_at("flip/prove")).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    assert_eq!(account.routing().await, weighted);
    inventory::assert_same(&inventory::of(&account).await, &before);

    let (plan, ending) = journey::run(&site, deploy(second)).await;
    assert_done(&plan, &ending);
    let Routing::Forward { sticky_seconds, .. } = account.routing().await else { panic!("it forwards") };
    assert_eq!(sticky_seconds, Some(60), "stickiness is the user's");
}

#[tokio::test]
async fn a_second_run_is_told_who_holds_the_environment() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.release(&site, "2026.1101.100000").await;
    let staging = account.site_with("staging", json!({})).await;

    let first = journey::prepare(&site, deploy(version)).await.unwrap();
    let Err(RunError::Lock(LockError::Held(lease))) = journey::prepare(&site, deploy(version)).await else {
        panic!("two runs hold one environment")
    };
    assert_eq!((&lease.run, lease.reason.as_str()), (&first.plan.run, "a test"));
    let elsewhere = journey::prepare(&staging, deploy(version)).await.unwrap();
    elsewhere.abandon().await.unwrap();
    first.abandon().await.unwrap();
    journey::prepare(&site, deploy(version)).await.unwrap().abandon().await.unwrap();
}

/// The lock is somebody else's from the start of the run on; the next heartbeat, 20 s later, sees it, and the run goes back
/// without touching the other's lock.
#[tokio::test]
async fn a_run_that_loses_its_lock_stops_and_can_be_taken_up() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site_with("production", json!({ "hold": { "for": "3m", "attended": true } })).await;
    let first = account.release(&site, "2026.1101.100000").await;
    let second = account.release(&site, "2026.1102.100000").await;
    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    let before = inventory::of(&account).await;

    let prepared = journey::prepare(&site, deploy(second)).await.unwrap();
    assert!(prepared.plan.step(&"hold/watch".into()).is_some(), "it would last longer than a heartbeat");
    let theirs = steal_lock(&site, &prepared.plan).await;
    let (ending, _) = tokio::time::timeout(Duration::from_secs(60), journey::finish(prepared)).await.unwrap();

    let Err(RunError::LeaseLost { run, .. }) = ending else { panic!("{ending:?}") };
    let service = fleet(&site, second).await.unwrap();
    assert!(service.is_in_service(), "it neither goes on nor unwinds: that is the new holder's business");
    let lock = site.store.read(&site.lock_key()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Lease>(&lock.bytes).unwrap(), theirs, "it is not ours to release");
    site.store.remove(&site.lock_key(), &lock.tag).await.unwrap();

    let ending = journey::take_up(&site, &run, Wish::GoBack).await;
    assert_eq!(ending.outcome, Outcome::Interrupted);
    assert_eq!(account.routing().await, Routing::to(fleet(&site, first).await.unwrap().target_group));
    inventory::assert_same(&inventory::of(&account).await, &before);
}

async fn steal_lock(site: &Site, plan: &Plan) -> Lease {
    let now = Timestamp::now();
    let theirs = Lease {
        format: Lease::FORMAT,
        nonce: "theirs".into(),
        process: None,
        run: alcedo_pipeline::ids::RunId::new(now, 0),
        holder: "somebody@else".into(),
        reason: "it looked dead".into(),
        since: now,
        expires: now + SignedDuration::from_mins(2),
    };
    assert_ne!(theirs.run, plan.run);
    let lock = site.store.read(&site.lock_key()).await.unwrap().unwrap();
    site.store.replace(&site.lock_key(), serde_json::to_vec(&theirs).unwrap(), &lock.tag).await.unwrap();
    theirs
}

/// Another machine has taken the run up: the paused one wakes, loses the race for the next event, and changes nothing more.
#[tokio::test]
async fn a_run_whose_journal_goes_on_elsewhere_stops_where_it_is() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.release(&site, "2026.1101.100000").await;
    let (plan, _) = journey::plan(&site, deploy(version)).await;

    let (store, root, run) = (site.store.clone(), site.root.clone(), plan.run.clone());
    let steps = Staged::new(&site).before("launch/healthy", move || {
        let (store, root, run) = (store.clone(), root.clone(), run.clone());
        async move {
            let (mut other, record) = journal::Journal::resume(store, &root, &run, "another").await.unwrap();
            other.append(record.events.last().unwrap()).await.unwrap();
        }
        .boxed()
    });
    let ended = journey::try_walk(&site, plan, &steps).await;

    assert!(matches!(ended, Err(Halt::Journal(JournalError::Fenced { .. }))), "{ended:?}");
    assert_eq!(account.routing().await, nothing_yet(), "no traffic was moved");
    assert_eq!(
        fleet(&site, version).await.unwrap().instances.len(),
        2,
        "and nothing was taken from the one who goes on"
    );
}

/// Two fleets take turns in service, previewed by port: the one that waits stays health-checked, whoever it is.
#[tokio::test]
async fn going_back_and_forth_between_two_fleets_works_with_a_preview_port() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let by_port = json!({ "flip": { "preview": { "header": null, "port": 8080 } } });
    let site = account.site_with("production", by_port).await;
    let first = account.release(&site, "2026.1101.100000").await;
    let second = account.release(&site, "2026.1102.100000").await;
    for request in [deploy(first), deploy(second), Request::Rollback { to: None }, Request::Rollback { to: None }] {
        let (plan, ending) = journey::run(&site, request).await;
        assert_done(&plan, &ending);
    }
    assert_eq!(account.routing().await, Routing::to(fleet(&site, second).await.unwrap().target_group));
    assert!(fleet(&site, first).await.unwrap().is_held());
}

#[tokio::test]
async fn a_store_that_loses_a_race_says_so() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let store = account.site().await.store;
    let tag = store.create("one", b"first".to_vec()).await.unwrap();
    let conflict = |error: StoreError| matches!(error, StoreError::Conflict { .. });
    assert!(store.create("one", b"second".to_vec()).await.is_err_and(conflict));
    let newer = store.replace("one", b"third".to_vec(), &tag).await.unwrap();
    assert!(store.replace("one", b"fourth".to_vec(), &tag).await.is_err_and(conflict));
    assert!(store.remove("one", &tag).await.is_err_and(conflict));
    assert_eq!(store.read("one").await.unwrap().unwrap().bytes, b"third");
    store.remove("one", &newer).await.unwrap();
    assert!(store.replace("one", b"fifth".to_vec(), &newer).await.is_err_and(conflict), "it is gone");
    assert!(store.read("one").await.unwrap().is_none());
}

/// A recipe in the project's folder is named by its path in the file, and by its own name in the region.
#[tokio::test(start_paused = true)]
async fn a_base_image_of_the_projects_own_recipe_is_found() {
    let bench = crate::broken::Bench::new().await;
    let account = &bench.account;
    let built_in = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/recipes/debian-bookworm");
    let own = account.project.path().join("recipes/web");
    copy(&built_in, &own);
    let manifest = std::fs::read_to_string(own.join("recipe.yaml")).unwrap();
    std::fs::write(own.join("recipe.yaml"), manifest.replace("name: debian-bookworm", "name: web")).unwrap();
    let digest = alcedo_images::recipe::Recipe::load(own.to_str().unwrap()).unwrap().digest();
    let tags = Tags::default().with("alcedo:recipe", "web").with("alcedo:recipe-digest", &digest);
    let image = image(&account.clients, &account.base, &account.subnets[0], "alcedo/web/1", &tags).await;

    let changes = json!({ "bake": { "base": { "ami": null, "recipe": "./recipes/web" } } });
    let site = account.site_with("production", changes).await;
    let base = facts::base(&site).await.unwrap();
    assert_eq!((base.ami, base.recipe_digest), (image, Some(digest)));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
