//! What runs have left is found, told and removed; what anybody needs, and what is somebody else's, stays.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use alcedo_pipeline::{
    clock::SystemClock,
    ids::RunId,
    journal,
    lock::{Claim, Lock},
};
use alcedo_stages::{
    action::Action,
    ingress::OpenIngress,
    publish,
    site::Site,
    sweep,
    tags::{self, Tags},
};
use aws_sdk_ec2::{primitives::Blob, types::ResourceType};
use serde_json::json;

use crate::{
    broken::Bench,
    life::{assert_done, fleet},
    support::{
        account::{Account, BUCKET, nothing_yet, state},
        inventory, journey,
        region::LocalRegion,
        staged::Staged,
    },
};

pub fn a_run() -> RunId {
    "20261101-090000-00aa".parse().unwrap()
}

pub fn tags_of(site: &Site, run: &RunId, step: &str) -> Tags {
    Tags::of(&site.pipeline.app, &site.environment, "2026.1101.90000".parse().unwrap(), run, &step.into())
}

/// SSH, as a run of this name has left it open.
async fn opened(account: &Account, site: &Site) -> RunId {
    let action = Action::OpenIngress(OpenIngress {
        security_group: account.builder_group.clone(),
        address: journey::OWN_ADDRESS,
        ports: vec![22],
        lease_seconds: 600,
    });
    let plan = journey::plan_of(site, [("open", action)]);
    let ending = journey::walk(site, plan.clone(), &Staged::new(site)).await;
    assert_done(&plan, &ending);
    plan.run
}

async fn hold(site: &Site, run: &RunId) -> Lock {
    let claim = Claim {
        run: run.clone(),
        holder: "ann@build".into(),
        reason: "deploy".into(),
        nonce: format!("of {run}"),
        process: None,
    };
    Lock::acquire(site.store.clone(), &site.lock_key(), &claim, Arc::new(SystemClock)).await.unwrap()
}

#[tokio::test]
async fn what_is_open_is_closed_once_its_run_is_no_longer_at_work() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let staging = account.site_with("staging", json!({})).await;
    let before = inventory::of(&account).await;
    let run = opened(&account, &site).await;

    let lock = hold(&site, &run).await;
    assert_eq!(sweep::overdue(&site).await.unwrap(), Vec::<String>::new(), "its run holds the environment");
    assert_eq!(sweep::overdue(&staging).await.unwrap(), Vec::<String>::new(), "it is another environment's");
    lock.release().await.unwrap();

    // A run that holds the environment now is not the one that has opened it.
    let lock = hold(&site, &a_run()).await;
    let told = sweep::overdue(&site).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("closed port 22") && told[0].contains(run.as_str()), "{told:?}");
    lock.release().await.unwrap();
    inventory::assert_same(&inventory::of(&account).await, &before);
    assert_eq!(sweep::overdue(&site).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rule_that_another_environments_run_uses_stays_for_it() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let (site, staging) = (account.site().await, account.site_with("staging", json!({})).await);
    let before = inventory::of(&account).await;
    let ours = opened(&account, &site).await;
    let theirs = opened(&account, &staging).await;
    let told = sweep::overdue(&site).await.unwrap();
    assert!(told[0].contains("left to its other users") && told[0].contains(ours.as_str()), "{told:?}");
    assert_eq!(sweep::overdue(&site).await.unwrap(), Vec::<String>::new(), "there is nothing more to do about it");
    let ending = journey::undo(&staging, &theirs).await;
    assert!(ending.left.is_empty(), "{:?}", ending.left);
    inventory::assert_same(&inventory::of(&account).await, &before);
}

#[tokio::test]
async fn a_builder_of_a_dead_run_is_ended_and_others_servers_are_not() {
    let bench = Bench::new().await;
    let (account, site) = (&bench.account, &bench.site);
    launch(account, &tags_of(site, &a_run(), "bake/builder")).await;
    launch(account, &Tags::default().with("Name", "somebody's")).await;
    let mut theirs = tags_of(site, &a_run(), "bake/builder");
    theirs = theirs.with(tags::APP, "another");
    launch(account, &theirs).await;
    let told = sweep::overdue(site).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let left: BTreeSet<String> = bench.inventory().await.difference(&bench.before).cloned().collect();
    let servers: Vec<&String> =
        left.iter().filter(|line| line.starts_with("server") && line.contains("running")).collect();
    assert_eq!(servers.len(), 2, "{servers:#?}");
}

pub async fn launch(account: &Account, tags: &Tags) -> String {
    let run = account.clients.ec2.run_instances().image_id(&account.base).subnet_id(&account.subnets[0]);
    let run = run.min_count(1).max_count(1).instance_type("t3.medium".into());
    let made = run.tag_specifications(tags.specification(ResourceType::Instance)).send().await.unwrap();
    made.instances()[0].instance_id().unwrap().to_owned()
}

pub const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ours";

pub async fn import_key(account: &Account, name: &str, tags: &Tags) {
    let import = account.clients.ec2.import_key_pair().key_name(name).public_key_material(Blob::new(PUBLIC_KEY));
    import.tag_specifications(tags.specification(ResourceType::KeyPair)).send().await.unwrap();
}

/// Key pairs are listed without a filter, so each of these is seen.
async fn foreign_keys(account: &Account, site: &Site) {
    let ours = tags_of(site, &a_run(), "bake/key");
    import_key(account, "somebodys", &Tags::default().with("Name", "somebody's")).await;
    import_key(account, "of-another-app", &ours.clone().with(tags::APP, "another")).await;
    import_key(account, "of-another-environment", &ours.with(tags::ENVIRONMENT, "staging")).await;
    let by_no_run = Tags::default().with(tags::APP, &site.pipeline.app).with(tags::ENVIRONMENT, &site.environment);
    import_key(account, "by-no-run", &by_no_run).await;
}

/// A run that begins takes the keys of those before it; another environment's run may be at work with its own.
#[tokio::test]
async fn the_next_run_takes_its_own_environments_keys_and_no_others() {
    let bench = Bench::new().await;
    let (account, site) = (&bench.account, &bench.site);
    foreign_keys(account, site).await;
    let foreign = bench.inventory().await;
    import_key(account, "alcedo-ours", &tags_of(site, &a_run(), "bake/key")).await;
    let told = sweep::leases(site).await.unwrap();
    assert_eq!(told, ["deleted the ephemeral key alcedo-ours, which a run that died had left"]);
    inventory::assert_same(&bench.inventory().await, &foreign);
}

/// A young one may be another environment's, at work.
#[tokio::test(start_paused = true)]
async fn an_unfinished_upload_is_ended_when_it_is_a_day_old() {
    let bench = Bench::new().await;
    let (account, site) = (&bench.account, &bench.site);
    let s3 = &account.clients.s3;
    for key in ["team/hello/2026.1103.100000/artifact.tar.zst", "team/another/2026.1103.100000/artifact.tar.zst"] {
        s3.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    }
    let uploads = async || {
        let left = bench.inventory().await;
        left.into_iter().filter(|line| line.starts_with("unfinished")).collect::<Vec<_>>()
    };
    assert_eq!(uploads().await.len(), 2);
    tokio::time::sleep(Duration::from_secs(23 * 60 * 60)).await;
    let kinds = async || sweep::find(site).await.unwrap().iter().map(|one| one.kind).collect::<Vec<_>>();
    assert!(!kinds().await.contains(&"unfinished upload"));
    tokio::time::sleep(Duration::from_secs(2 * 60 * 60)).await;
    let found = sweep::find(site).await.unwrap();
    let old: Vec<_> = found.iter().filter(|one| one.kind == "unfinished upload").collect();
    assert_eq!(old.len(), 1, "{found:#?}");
    old[0].remove(site).await.unwrap();
    assert_eq!(uploads().await, ["unfinished upload of team/another/2026.1103.100000/artifact.tar.zst"]);
}

#[tokio::test]
async fn everything_that_nobody_needs_is_found_and_removed_and_nothing_else() {
    let bench = Bench::new().await;
    let (account, site) = (&bench.account, &bench.site);
    assert_eq!(sweep::find(site).await.unwrap(), [], "what is in service and what is held is needed");

    // Somebody else's, and another app's.
    launch(account, &Tags::default().with("Name", "somebody's")).await;
    launch(account, &tags_of(site, &a_run(), "launch/instances").with(tags::APP, "another")).await;
    foreign_keys(account, site).await;
    let foreign = bench.inventory().await;

    // What runs of ours have left.
    let opened = opened(account, site).await;
    launch(account, &tags_of(site, &a_run(), "launch/instances")).await;
    import_key(account, "alcedo-ours", &tags_of(site, &a_run(), "bake/key")).await;
    publish::reserve(site, "2026.1103.100000".parse().unwrap(), a_run().as_str()).await.unwrap();
    publish::reserve(site, "2026.1104.100000".parse().unwrap(), a_run().as_str()).await.unwrap();
    site.store.create(&format!("{}2026.1104.100000/artifact.tar.zst", site.root), b"half".to_vec()).await.unwrap();

    let dry = bench.inventory().await;
    let found = sweep::find(site).await.unwrap();
    assert_eq!(bench.inventory().await, dry, "looking changes nothing");
    let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, ["security group rule", "instance", "key pair", "artifact", "object"], "{found:#?}");
    assert_eq!(found[0].run.as_deref(), Some(opened.as_str()));
    assert_eq!(alcedo_stages::costs::in_words(found[1].monthly), "$30.37");
    assert!(found[3].why.contains("never published"), "{found:#?}");

    for one in &found {
        one.remove(site).await.unwrap();
        one.remove(site).await.expect("what is gone is removed");
    }
    let now: BTreeSet<String> = bench.inventory().await;
    let journal = |line: &&String| !line.contains("/open/");
    let now = now.iter().filter(journal).cloned().collect();
    let foreign = foreign.iter().filter(journal).cloned().collect();
    inventory::assert_same(&now, &foreign);
    assert_eq!(sweep::find(site).await.unwrap(), []);
}

#[tokio::test]
async fn what_an_open_run_has_made_is_left_to_it() {
    let bench = Bench::new().await;
    let (account, site) = (&bench.account, &bench.site);
    let plan = bench.plan().await;
    journal::Journal::begin(site.store.clone(), &site.root, &plan, "dead").await.unwrap();
    launch(account, &tags_of(site, &plan.run, "launch/instances")).await;
    publish::reserve(site, "2026.1103.100000".parse().unwrap(), plan.run.as_str()).await.unwrap();
    assert_eq!(sweep::find(site).await.unwrap(), []);
    journal::forget(site.store.as_ref(), &site.root, &site.environment, &plan.run).await.unwrap();
    let kinds: Vec<&str> = sweep::find(site).await.unwrap().iter().map(|one| one.kind).collect();
    assert_eq!(kinds, ["instance", "object"]);
}

#[tokio::test]
async fn beyond_the_retention_stays_what_a_fleet_the_hold_or_a_pin_refers_to() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let few = json!({ "publish": { "keep": 1 }, "retire": { "keep_images": 1 } });
    let site = account.site_with("production", few).await;
    let mut versions = Vec::new();
    for day in 1..=5 {
        versions.push(account.release(&site, &format!("2026.110{day}.100000")).await);
    }
    // The third is in service, and the second held; the fifth is the newest.
    for version in [versions[1], versions[2]] {
        let deploy = crate::life::deploy(version);
        let all = account.site().await;
        let (plan, ending) = journey::run(&all, deploy).await;
        assert_done(&plan, &ending);
    }
    site.pin(versions[0], Some("the last one before the migration".into())).await.unwrap();
    site.pin(versions[0], None).await.expect("it is pinned already");
    let found = async || {
        let found = sweep::find(&site).await.unwrap();
        found
            .into_iter()
            .map(|one| (one.kind, one.why.split(' ').next().unwrap().to_owned(), one.id))
            .collect::<Vec<_>>()
    };
    let beyond = found().await;
    let artifacts: Vec<&str> = beyond.iter().filter(|it| it.0 == "artifact").map(|it| it.2.as_str()).collect();
    assert_eq!(artifacts, [versions[3].to_string()], "{beyond:#?}");
    let images: Vec<&str> = beyond.iter().filter(|it| it.0 == "image").map(|it| it.1.as_str()).collect();
    assert_eq!(images, [versions[3].to_string()], "{beyond:#?}");

    assert!(site.unpin(versions[0]).await.unwrap());
    assert!(!site.unpin(versions[0]).await.unwrap());
    assert_eq!(found().await.len(), beyond.len() + 2, "its image and its artifact");
}

/// Somebody has stopped a server of each fleet: it is the fleet's all the same, and the deploy that retires a fleet retires
/// it as well.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_stopped_is_its_fleets() {
    let bench = Bench::new().await;
    let mut stopped = Vec::new();
    for version in ["2026.1101.100000", "2026.1102.100000"] {
        let fleet = fleet(&bench.site, version.parse().unwrap()).await.unwrap();
        let stop = bench.account.clients.ec2.stop_instances().instance_ids(&fleet.instances[0]);
        stop.send().await.unwrap();
        stopped.push(fleet.instances[0].clone());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let found = sweep::find(&bench.site).await.unwrap();
    assert!(found.is_empty(), "{found:#?}");
    let plan = bench.plan().await;
    let ending = bench.walk(&plan, &bench.steps()).await.unwrap();
    assert_done(&plan, &ending);
    assert_eq!(state(&bench.account.clients, &stopped[0]).await.as_deref(), Some("terminated"), "the held fleet's");
    assert_eq!(
        state(&bench.account.clients, &stopped[1]).await.as_deref(),
        Some("stopped"),
        "blue's, which is held now"
    );
}

/// Somebody has the listener answer for itself, for maintenance say: what was in service, and what is held, is nobody's
/// leftover.
#[tokio::test(start_paused = true)]
async fn production_is_no_leftover_while_the_listener_does_something_else() {
    let bench = Bench::new().await;
    bench.account.reroute(&nothing_yet()).await;
    let before = bench.inventory().await;
    let found = sweep::find(&bench.site).await.unwrap();
    assert!(found.iter().all(|found| found.kind != "fleet" && found.kind != "instance"), "{found:#?}");
    // The first thing that a deploy does.
    let ended = sweep::leases(&bench.site).await.unwrap();
    assert_eq!(ended, [""; 0]);
    assert_eq!(bench.inventory().await, before);
}
