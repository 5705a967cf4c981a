//! Publish: a version has one owner, nothing is overwritten, what arrives is what was sent, and the pointer goes back.

use std::{collections::BTreeSet, path::Path, time::Duration};

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{
    error::ErrorKind,
    event::Outcome,
    plan::{Plan, Stage},
    runner::Ending,
    store::StoreError,
    version::Version,
};
use alcedo_stages::{
    clients::LocalEndpoint,
    facts::Request,
    publish,
    releases::{self, InputsEntry},
    site::Site,
};
use futures::future::try_join_all;
use jiff::SignedDuration;
use rand::RngCore;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{
    life::assert_done,
    support::{
        account::{Account, BUCKET},
        corrupting_proxy, inventory, journey,
        moto::Moto,
        region::LocalRegion,
        simulation::Simulation,
        staged::Staged,
    },
};

/// More than one part of 8 MiB, and a last part that is not full.
const THREE_PARTS: usize = (2 << 23) + 12_345;

fn archive(bytes: usize) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let mut content = vec![0; bytes];
    rand::rng().fill_bytes(&mut content);
    std::fs::write(file.path(), content).unwrap();
    file
}

/// The part of a deploy from source that builds and publishes.
async fn plan(site: &Site) -> Plan {
    let (plan, _) = journey::plan(site, Request::Deploy { version: None }).await;
    journey::only(plan, &[Stage::Build, Stage::Publish])
}

async fn published(site: &Site, archive: &Path) -> (Plan, Ending) {
    let plan = plan(site).await;
    let ending = journey::walk(site, plan.clone(), &Staged::new(site).built(archive)).await;
    (plan, ending)
}

async fn pointer(site: &Site) -> Option<Version> {
    let object = site.store.read(&releases::pointer_key(&site.root)).await.unwrap()?;
    Some(String::from_utf8(object.bytes).unwrap().trim().parse().unwrap())
}

#[tokio::test]
async fn builds_of_one_second_get_different_versions() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let mut sites = Vec::new();
    for number in 0..6 {
        sites.push(account.site_with(&format!("environment-{number}"), json!({})).await);
    }
    let request = Request::Deploy { version: None };
    let runs = try_join_all(sites.iter().map(|site| journey::prepare(site, request))).await.unwrap();
    let versions: BTreeSet<Version> = runs.iter().map(|run| run.plan.version).collect();
    assert_eq!(versions.len(), sites.len(), "{versions:?}");
    let (first, last) = (versions.first().unwrap(), versions.last().unwrap());
    let apart = last.time().duration_since(first.time()).as_secs();
    assert!(apart < 2 * sites.len() as i64, "they are of about one second: {versions:?}");

    for run in runs {
        run.abandon().await.unwrap();
    }
    assert_eq!(sites[0].versions().await.unwrap(), [], "a version that was not built is given back");
}

#[tokio::test]
async fn a_version_belongs_to_the_run_that_reserved_it() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = "2026.1101.100000".parse().unwrap();
    publish::reserve(&site, version, "ours").await.unwrap();
    publish::reserve(&site, version, "ours").await.expect("a second attempt of the same run");
    let refused = publish::reserve(&site, version, "theirs").await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    publish::give_back(&site, version, "theirs").await.unwrap();
    let is_taken = async || {
        let key = releases::reservation_key(&site.root, version);
        site.store.read(&key).await.unwrap().is_some()
    };
    assert!(is_taken().await, "it was not theirs to give back");
    assert_eq!(site.versions().await.unwrap(), [], "a name that is only taken is no version");
    publish::give_back(&site, version, "ours").await.unwrap();
    assert!(!is_taken().await);
}

#[tokio::test]
async fn an_archive_of_several_parts_arrives_as_it_was_built() {
    let region = LocalRegion::start().await;
    arrives(region.endpoint.clone()).await;
}

#[tokio::test]
async fn an_archive_of_several_parts_arrives_in_moto_as_it_was_built() {
    let moto = Moto::start();
    arrives(moto.endpoint.clone()).await;
}

async fn arrives(endpoint: LocalEndpoint) {
    let account = Account::open(endpoint).await;
    let site = account.site().await;
    let archive = archive(THREE_PARTS);
    let (plan, ending) = published(&site, archive.path()).await;
    assert_done(&plan, &ending);

    let manifest = site.manifest(plan.version).await.unwrap().unwrap();
    let key = releases::artifact_key(&site.root, plan.version);
    let object = account.clients.s3.get_object().bucket(BUCKET).key(&key).send().await.unwrap();
    assert!(object.e_tag().unwrap().trim_matches('"').ends_with("-3"), "it came in three parts");
    assert_eq!(object.metadata().unwrap()["sha256"], manifest.sha256);
    let bytes = object.body.collect().await.unwrap().into_bytes();
    assert_eq!((bytes.len(), hex::encode(Sha256::digest(&bytes))), (THREE_PARTS, manifest.sha256.clone()));
    assert_eq!(pointer(&site).await, Some(plan.version));
    let found = site.version_with_inputs(&manifest.inputs).await.unwrap();
    assert_eq!(found, Some(manifest), "the same source finds it again");
}

/// One byte of one part changes on the way to S3: the signature of what is sent, or its checksum, tells.
#[tokio::test]
async fn an_archive_that_is_damaged_on_its_way_is_refused() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let before = inventory::of(&account).await;
    let url = corrupting_proxy::start(&region.endpoint.url).await;
    let account = account.reached_through(url);
    let site = account.site().await;

    let (plan, ending) = published(&site, archive(THREE_PARTS).path()).await;

    assert_eq!(ending.outcome, Outcome::Unwound, "{plan}{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!(step.as_str(), "publish/artifact");
    assert!(error.message.contains("upload part 2"), "{error:?}");
    inventory::assert_same(&inventory::of(&account).await, &before);
}

/// The digest that S3 compares is the build's own, not one of what was read for sending. Of an archive that is sent in parts
/// S3 has no such digest, so it is compared before the first part is sent.
#[tokio::test]
async fn an_archive_that_is_not_what_was_built_is_refused() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let before = inventory::of(&account).await;
    for bytes in [1000, THREE_PARTS] {
        let archive = archive(bytes);
        let steps = Staged::new(&site).built(archive.path());
        let mut content = std::fs::read(archive.path()).unwrap();
        content[bytes / 2] ^= 1;
        std::fs::write(archive.path(), content).unwrap();

        let ending = journey::walk(&site, plan(&site).await, &steps).await;

        assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
        let (step, error) = ending.failure.unwrap();
        assert_eq!(step.as_str(), "publish/artifact");
        let in_one = error.causes.iter().any(|cause| cause.contains("BadDigest"));
        let in_parts = error.kind == ErrorKind::Changed && error.message.contains("is not what was built");
        assert!(if bytes == 1000 { in_one } else { in_parts }, "{error:?}");
        inventory::assert_same(&inventory::of(&account).await, &before);
    }
}

#[tokio::test]
async fn what_is_published_is_never_overwritten() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    for (bytes, key, step) in [
        (1000, releases::artifact_key as fn(&str, Version) -> String, "publish/artifact"),
        (THREE_PARTS, releases::artifact_key, "publish/artifact"),
        (1000, releases::manifest_key, "publish/manifest"),
    ] {
        let plan = plan(&site).await;
        let key = key(&site.root, plan.version);
        site.store.create(&key, b"somebody else's".to_vec()).await.unwrap();
        let ending = journey::walk(&site, plan.clone(), &Staged::new(&site).built(archive(bytes).path())).await;
        let (failed, error) = ending.failure.unwrap();
        assert_eq!((failed.as_str(), error.kind), (step, ErrorKind::Changed), "{error:?}");
    }
}

/// The look before the upload saw nothing; another's object came while ours was on its way.
#[tokio::test(start_paused = true)]
async fn an_object_that_comes_during_the_upload_is_not_overwritten() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let faults = &simulation.region.region.faults;
    for (bytes, last_call) in [(1000, "PutObject"), (THREE_PARTS, "CompleteMultipartUpload")] {
        let plan = plan(&site).await;
        let key = releases::artifact_key(&site.root, plan.version);
        let on =
            Calls { operation: Some(last_call.into()), about: Some(key.clone()), times: Some(1), ..Calls::default() };
        let held = faults.add(Fault { on, when: When::Before, effect: Effect::Hold });
        let archive = archive(bytes);
        let steps = Staged::new(&site).built(archive.path());
        let others = async {
            faults.struck(held, 1).await;
            site.store.create(&key, b"theirs".to_vec()).await.unwrap();
            faults.remove(held);
        };
        let (ending, ()) = tokio::join!(journey::walk(&site, plan.clone(), &steps), others);

        assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
        let (step, error) = ending.failure.unwrap();
        assert_eq!(step.as_str(), "publish/artifact");
        assert!(error.causes.iter().any(|cause| cause.contains("PreconditionFailed")), "{error:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn the_pointer_goes_back_when_the_run_does() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let archive = archive(1000);
    let empty = inventory::of(&account).await;
    let failing = || Staged::new(&site).built(archive.path()).failing_at("publish/pointer");

    let ending = journey::walk(&site, plan(&site).await, &failing()).await;
    assert_eq!((ending.outcome, pointer(&site).await), (Outcome::Unwound, None), "there was none before");
    inventory::assert_same(&inventory::of(&account).await, &empty);

    let (first, ending) = published(&site, archive.path()).await;
    assert_done(&first, &ending);
    let one = inventory::of(&account).await;
    account.edit("#!/bin/sh\necho changed\n");
    let second = plan(&site).await;
    assert!(second.version > first.version);
    let ending = journey::walk(&site, second, &failing()).await;
    assert_eq!((ending.outcome, pointer(&site).await), (Outcome::Unwound, Some(first.version)));
    let without_pointer = |all: inventory::Inventory| -> inventory::Inventory {
        all.into_iter().filter(|line| !line.contains("/VERSION ")).collect()
    };
    inventory::assert_same(&without_pointer(inventory::of(&account).await), &without_pointer(one));
}

/// Another environment has published something newer while this run was building, whatever becomes of this run.
#[tokio::test]
async fn the_pointer_never_goes_to_an_older_version() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let newer = Version::at(site.now() + SignedDuration::from_hours(1));
    account.publish(&site, newer).await;
    site.store.create(&releases::pointer_key(&site.root), format!("{newer}\n").into_bytes()).await.unwrap();

    let archive = archive(1000);
    let steps = Staged::new(&site).built(archive.path()).failing_at("publish/pointer");
    let ending = journey::walk(&site, plan(&site).await, &steps).await;
    assert_eq!(ending.outcome, Outcome::Unwound);
    assert_eq!(pointer(&site).await, Some(newer), "neither the step nor its undo touches it");

    let (plan, ending) = published(&site, archive.path()).await;
    assert_done(&plan, &ending);
    assert!(plan.version < newer);
    assert_eq!(pointer(&site).await, Some(newer), "what is older is published all the same, and is not the newest");
}

/// The index says which version has these inputs; another run's entry is not this run's to take away.
#[tokio::test]
async fn the_index_of_inputs_goes_back_only_to_what_this_run_wrote() {
    let region = LocalRegion::start().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let plan = plan(&site).await;
    let action = &plan.step(&"publish/pointer".into()).unwrap().action;
    let key = releases::inputs_key(&site.root, action["inputs"].as_str().unwrap());
    let theirs = serde_json::to_vec(&InputsEntry { format: 1, version: "2026.1101.100000".parse().unwrap() }).unwrap();
    let (store, entry, at) = (site.store.clone(), theirs.clone(), key.clone());
    let archive = archive(1000);
    // They write it between our step and its undo.
    let steps = Staged::new(&site).built(archive.path()).failing_at("after").before("after", move || {
        let (store, entry, at) = (store.clone(), entry.clone(), at.clone());
        Box::pin(async move {
            let there = store.read(&at).await.unwrap().unwrap();
            store.replace(&at, entry, &there.tag).await.unwrap();
        })
    });
    let steps = steps.answered("after", json!(null));
    let mut longer = plan.clone();
    let mut after = longer.steps.last().unwrap().clone();
    (after.id, after.undo) = ("after".into(), None);
    longer.steps.push(after);
    let ending = journey::walk(&site, longer, &steps).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    assert_eq!(site.store.read(&key).await.unwrap().unwrap().bytes, theirs);
}
