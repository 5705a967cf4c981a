//! Signatures: whoever can write to the bucket, and has no key, gets nothing of theirs deployed. One attack for each refusal.

use std::sync::Arc;

use alcedo_pipeline::{
    error::ErrorKind,
    event::Outcome,
    ids::RunId,
    plan::{Plan, Stage},
    version::Version,
};
use alcedo_stages::{
    execute::RunError,
    facts::{self, FactsError, Request},
    overview,
    releases::{self, InputsEntry, Manifest, ReleasesError},
    signature::{Distrust, Signer},
    site::Site,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, inventory, journey, region::LocalRegion, staged::Staged},
};

const FIRST: &str = "2026.1101.100000";
const SECOND: &str = "2026.1102.100000";

/// A key pair: the private one in the form that fits a variable, and the public one in the form that fits a file.
fn pair(seed: u8) -> (Arc<Signer>, String) {
    let base64 = |parts: &[&[u8]]| STANDARD.encode(parts.concat());
    let private = base64(&[&hex::decode("302e020100300506032b657004220420").unwrap(), &[seed; 32]]);
    let public = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
    let public = base64(&[&hex::decode("302a300506032b6570032100").unwrap(), public.as_bytes()]);
    (Arc::new(Signer::read(&private).unwrap()), public)
}

/// The same site with another key to sign with.
fn signing(site: &Site, signer: Option<Arc<Signer>>) -> Site {
    let mut site = site.clone();
    site.signer = signer;
    site
}

/// An account whose file trusts one key, with which the site signs.
struct Guarded {
    _region: LocalRegion,
    account: Account,
    site: Site,
    archive: NamedTempFile,
}

impl Guarded {
    async fn new() -> Self {
        let region = LocalRegion::without_lags().await;
        let account = Account::open(region.endpoint.clone()).await;
        let (signer, public) = pair(1);
        let mut site = account.site_with("production", json!({ "publish": { "signed_by": [public] } })).await;
        site.signer = Some(signer);
        let archive = NamedTempFile::new().unwrap();
        std::fs::write(archive.path(), "an archive").unwrap();
        Self { _region: region, account, site, archive }
    }

    /// The same file without a key to sign with.
    fn without_signer(&self) -> Site {
        signing(&self.site, None)
    }

    /// The same file, where somebody has another key.
    fn with_signer(&self, signer: Arc<Signer>) -> Site {
        signing(&self.site, Some(signer))
    }

    async fn publish(&self, version: &str) -> Manifest {
        self.account.publish(&self.site, version.parse().unwrap()).await
    }

    async fn object(&self, key: &str) -> Vec<u8> {
        self.site.store.read(key).await.unwrap().unwrap_or_else(|| panic!("{key}")).bytes
    }

    /// Puts it in the place of what is there, as whoever can write to the bucket can.
    async fn swap(&self, key: &str, bytes: Vec<u8>) {
        if let Some(there) = self.site.store.read(key).await.unwrap() {
            self.site.store.remove(key, &there.tag).await.unwrap();
        }
        self.site.store.create(key, bytes).await.unwrap();
    }

    fn manifest_key(&self, version: Version) -> String {
        releases::manifest_key(&self.site.root, version)
    }

    fn signature_key(&self, version: Version) -> String {
        releases::signature_key(&self.site.root, version)
    }

    /// Neither a deploy nor a rollback to the version is planned, and nothing is changed by the try.
    async fn refused(&self, version: Version) -> ReleasesError {
        let before = inventory::of(&self.account).await;
        let mut last = None;
        for request in [deploy(version), Request::Rollback { to: Some(version) }] {
            let error = journey::prepare(&self.site, request).await.err().expect("it is refused");
            let RunError::Facts(FactsError::Releases(error)) = error else { panic!("{error:?}") };
            assert!(!error.hints().is_empty());
            last = Some(error);
        }
        inventory::assert_same(&inventory::of(&self.account).await, &before);
        last.unwrap()
    }

    async fn distrusted(&self, version: Version) -> Distrust {
        match self.refused(version).await {
            ReleasesError::Distrust { version: named, source } if named == version => source,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_version_that_a_trusted_key_has_signed_is_deployed() {
    let guarded = Guarded::new().await;
    let Guarded { site, archive, .. } = &guarded;
    let (plan, _) = journey::plan(site, Request::Deploy { version: None }).await;
    let steps = || Staged::new(site).built(archive.path()).provisioned();
    let ending = journey::walk(site, plan.clone(), &steps()).await;
    assert_done(&plan, &ending);

    let manifest = guarded.object(&guarded.manifest_key(plan.version)).await;
    let signed = guarded.object(&guarded.signature_key(plan.version)).await;
    assert_eq!(site.trust().unwrap().verify(&manifest, Some(&signed)), Ok(()));
    let signed: Value = serde_json::from_slice(&signed).unwrap();
    assert_eq!(signed["key"], json!(site.signer.as_ref().unwrap().id));
    let image = &facts::app_images(site).await.unwrap()[0];
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(image.artifact.as_ref(), Some(&manifest.sha256), "the image says what it is made of");

    // A machine without the private key takes what is published, and builds nothing.
    let (again, _) = journey::plan(&guarded.without_signer(), Request::Deploy { version: None }).await;
    assert_eq!((again.version, again.steps.len()), (plan.version, 0), "{again}");
    guarded.account.edit("#!/bin/sh\necho changed\n");
    let before = inventory::of(&guarded.account).await;
    let error = journey::prepare(&guarded.without_signer(), Request::Deploy { version: None }).await.err().unwrap();
    assert!(matches!(&error, RunError::Plan(plan) if plan.what.contains("ALCEDO_SIGNING_KEY")), "{error:?}");
    let stranger = journey::prepare(&guarded.with_signer(pair(2).0), Request::Deploy { version: None }).await;
    let error = stranger.err().unwrap();
    assert!(matches!(&error, RunError::Facts(error) if error.to_string().contains("does not name")), "{error:?}");
    inventory::assert_same(&inventory::of(&guarded.account).await, &before);
}

#[tokio::test]
async fn nothing_unsigned_and_no_strangers_signature_is_used() {
    let guarded = Guarded::new().await;
    let version = FIRST.parse().unwrap();
    let manifest = guarded.account.publish(&guarded.without_signer(), version).await;
    // Its image is there, too: whoever can put an artifact there before keys were named can have had it baked.
    guarded.account.bake(&guarded.site, &manifest).await;
    assert_eq!(guarded.distrusted(version).await, Distrust::Unsigned);
    let told = overview::releases(&guarded.site, 5).await.unwrap();
    assert_eq!(told[0].distrusted.as_deref(), Some("it is not signed"), "`alcedo releases` says so");

    let (stranger, _) = pair(2);
    let signed = stranger.sign(&guarded.object(&guarded.manifest_key(version)).await);
    guarded.swap(&guarded.signature_key(version), signed).await;
    assert_eq!(guarded.distrusted(version).await, Distrust::Stranger(stranger.id.clone()));
}

#[tokio::test]
async fn a_manifest_that_was_changed_is_not_used() {
    let guarded = Guarded::new().await;
    let mut manifest = guarded.publish(FIRST).await;
    let ours = guarded.site.signer.as_ref().unwrap().id.clone();
    manifest.sha256 = "0".repeat(64);
    guarded.swap(&guarded.manifest_key(manifest.version), serde_json::to_vec(&manifest).unwrap()).await;
    assert_eq!(guarded.distrusted(manifest.version).await, Distrust::Forged(ours));
}

/// The manifest is as it was signed; what it tells of is not there any more.
#[tokio::test]
async fn an_artifact_that_was_changed_is_not_unpacked() {
    let guarded = Guarded::new().await;
    let manifest = guarded.publish(FIRST).await;
    guarded.swap(&releases::artifact_key(&guarded.site.root, manifest.version), b"another".to_vec()).await;
    let before = inventory::of(&guarded.account).await;
    let (plan, _) = journey::plan(&guarded.site, deploy(manifest.version)).await;
    // The real step: it does not come so far as to need a builder that lets somebody in.
    let ending = journey::walk(&guarded.site, plan, &Staged::new(&guarded.site)).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), ending.outcome), ("bake/provision", Outcome::Unwound), "{:?}", ending.left);
    assert!(error.message.contains("its manifest says") && error.message.contains(&manifest.sha256), "{error:?}");
    inventory::assert_same(&inventory::of(&guarded.account).await, &before);
}

#[tokio::test]
async fn what_was_signed_for_another_version_or_app_is_not_used() {
    let guarded = Guarded::new().await;
    let first = guarded.publish(FIRST).await.version;
    let second = guarded.publish(SECOND).await.version;
    let old = guarded.object(&guarded.manifest_key(first)).await;
    let old_signature = guarded.object(&guarded.signature_key(first)).await;
    let signer = guarded.site.signer.clone().unwrap();

    // The old signature alone, and then the old manifest with it: a way back to what had a hole, under a new name.
    guarded.swap(&guarded.signature_key(second), old_signature).await;
    assert_eq!(guarded.distrusted(second).await, Distrust::Forged(signer.id.clone()));
    guarded.swap(&guarded.manifest_key(second), old.clone()).await;
    let refused = guarded.refused(second).await;
    assert!(
        matches!(&refused, ReleasesError::Misplaced { named, .. } if *named == format!("hello {FIRST}")),
        "{refused:?}"
    );

    // Another app's, signed with the same key.
    let mut manifest: Value = serde_json::from_slice(&old).unwrap();
    manifest["app"] = "another".into();
    let manifest = serde_json::to_vec(&manifest).unwrap();
    guarded.swap(&guarded.signature_key(first), signer.sign(&manifest)).await;
    guarded.swap(&guarded.manifest_key(first), manifest).await;
    let refused = guarded.refused(first).await;
    assert!(refused.to_string().contains("another"), "{refused}");
}

#[tokio::test]
async fn half_a_signature_is_none() {
    let guarded = Guarded::new().await;
    let version = guarded.publish(FIRST).await.version;
    let key = guarded.signature_key(version);
    let whole = guarded.object(&key).await;
    let mut short: Value = serde_json::from_slice(&whole).unwrap();
    let bytes = STANDARD.decode(short["signature"].as_str().unwrap()).unwrap();
    short["signature"] = STANDARD.encode(&bytes[..32]).into();
    for broken in [serde_json::to_vec(&short).unwrap(), whole[..whole.len() - 10].to_vec(), Vec::new()] {
        guarded.swap(&key, broken).await;
        let refused = guarded.distrusted(version).await;
        assert!(matches!(refused, Distrust::NoSignature(_)), "{refused:?}");
    }
    guarded.swap(&key, whole).await;
    journey::plan(&guarded.site, deploy(version)).await;
}

/// Somebody writes to the bucket between the plan and the bake.
#[tokio::test]
async fn what_changes_after_the_plan_is_refused_where_it_is_used() {
    let guarded = Guarded::new().await;
    let version = guarded.publish(FIRST).await.version;
    let before = inventory::of(&guarded.account).await;
    let (site, key) = (guarded.site.clone(), guarded.signature_key(version));
    let steps = Staged::new(&site).provisioned().before("bake/image", move || {
        let (store, key) = (site.store.clone(), key.clone());
        Box::pin(async move {
            let there = store.read(&key).await.unwrap().unwrap();
            store.remove(&key, &there.tag).await.unwrap();
        })
    });
    let (plan, _) = journey::plan(&guarded.site, deploy(version)).await;
    let ending = journey::walk(&guarded.site, plan, &steps).await;
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("bake/image", ErrorKind::Changed), "{error:?}");
    assert!(error.causes.iter().any(|cause| cause.contains("not signed")), "{error:?}");
    let gone = format!("{}.sig", guarded.manifest_key(version));
    let without = |all: inventory::Inventory| -> inventory::Inventory {
        all.into_iter().filter(|line| !line.contains(&gone)).collect()
    };
    inventory::assert_same(&without(inventory::of(&guarded.account).await), &without(before));
}

/// What was published before keys were named is built again, and says so; what was tampered with stops the deploy.
#[tokio::test]
async fn a_source_whose_version_nobody_signed_is_built_again() {
    let guarded = Guarded::new().await;
    let old = guarded.account.site().await;
    let (plan, _) = journey::plan(&old, Request::Deploy { version: None }).await;
    let plan = journey::only(plan, &[Stage::Build, Stage::Publish]);
    let ending = journey::walk(&old, plan.clone(), &Staged::new(&old).built(guarded.archive.path())).await;
    assert_done(&plan, &ending);
    assert_eq!(guarded.site.store.read(&guarded.signature_key(plan.version)).await.unwrap().map(|it| it.bytes), None);

    let (anew, _) = journey::plan(&guarded.site, Request::Deploy { version: None }).await;
    assert!(anew.version > plan.version && anew.stages().contains(&Stage::Build), "{anew}");
    let note = format!("build: {} has the same inputs, and is not used: it is not signed", plan.version);
    assert!(anew.notes.contains(&note), "{:?}", anew.notes);

    let signed = guarded.site.signer.as_ref().unwrap().sign(b"something else");
    guarded.swap(&guarded.signature_key(plan.version), signed).await;
    let error = journey::prepare(&guarded.site, Request::Deploy { version: None }).await.err().unwrap();
    let RunError::Facts(FactsError::Releases(ReleasesError::Distrust { source, .. })) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(source, Distrust::Forged(_)), "{source:?}");
}

/// The index of inputs is signed by nobody: it cannot bring back an old version in the name of today's source.
#[tokio::test]
async fn the_index_of_inputs_cannot_pass_off_another_version() {
    let guarded = Guarded::new().await;
    let old = guarded.publish(FIRST).await.version;
    let (plan, _) = journey::plan(&guarded.site, Request::Deploy { version: None }).await;
    let manifest = &plan.step(&"publish/manifest".into()).unwrap().action;
    let key = releases::inputs_key(&guarded.site.root, manifest["inputs"].as_str().unwrap());
    let entry = serde_json::to_vec(&InputsEntry { format: 1, version: old }).unwrap();
    guarded.site.store.create(&key, entry).await.unwrap();
    let (plan, _) = journey::plan(&guarded.site, Request::Deploy { version: None }).await;
    assert!(plan.version != old && plan.stages().contains(&Stage::Build), "{plan}");
}

/// A run goes on where its key is; on a machine that has another, it says what it needs.
#[tokio::test]
async fn a_run_signs_with_the_key_that_it_was_planned_with() {
    let guarded = Guarded::new().await;
    let (other, public) = pair(2);
    let trusts_both = json!({ "publish": { "signed_by": [pair(1).1, public] } });
    let mut site = guarded.account.site_with("production", trusts_both).await;
    site.signer = Some(pair(1).0);
    let before = inventory::of(&guarded.account).await;
    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    for signer in [Some(other), None] {
        let elsewhere = signing(&site, signer);
        let steps = Staged::new(&elsewhere).built(guarded.archive.path());
        let plan = Plan { run: RunId::new(site.now(), site.random() as u16), ..plan.clone() };
        let ending = journey::walk(&elsewhere, plan, &steps).await;
        let (step, error) = ending.failure.unwrap();
        assert_eq!((step.as_str(), ending.outcome), ("publish/manifest", Outcome::Unwound));
        assert!(error.message.contains("ALCEDO_SIGNING_KEY does not hold"), "{error:?}");
        inventory::assert_same(&inventory::of(&guarded.account).await, &before);
    }
}
