//! The control-plane flow against moto's server: does what others read in AWS's documentation agree with what we send?
//!
//! Nothing here waits for servers or traffic, which moto has not; see `moto-differences.md`.

use std::path::Path;

use alcedo_pipeline::event::Outcome;
use alcedo_stages::{bake, facts::Request, listener::Routing, site::Site, tags};
use serde_json::json;

use crate::{
    life::{self, assert_done, fleet},
    support::{
        account::{Account, nothing_yet},
        inventory, journey,
        moto::Moto,
        staged::Staged,
    },
};

#[tokio::test]
async fn a_release_is_deployed_replaced_brought_back_and_retired() {
    let moto = Moto::start();
    let account = Account::open(moto.endpoint.clone()).await;
    moto.record().await;
    // moto lets a resource of the balancer's have ten tags.
    life::of_three_releases(&account, &[tags::LISTENER, tags::URL, tags::LAUNCHED_WITH]).await;
    assert_tags_come_with_the_creating_call(&moto).await;
}

/// The site's steps, with answers where moto has none: the build's container, the builder's shell, and the image, which
/// moto does not make where its snapshots are tagged.
pub fn without_servers(account: &Account, site: &Site, archive: &Path) -> Staged {
    let image = json!({ "ami": account.base, "name": "an image made beforehand" });
    Staged::new(site).built(archive).provisioned().answered(bake::IMAGE, image)
}

/// The whole plan of a deploy from source, forward to its end.
#[tokio::test]
async fn a_version_is_published_baked_launched_and_flipped_to() {
    let moto = Moto::start();
    let account = Account::open(moto.endpoint.clone()).await;
    let site = account.site().await;
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(archive.path(), "an archive").unwrap();
    moto.record().await;

    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    let steps = without_servers(&account, &site, archive.path());
    let ending = journey::walk(&site, plan.clone(), &steps).await;
    assert_done(&plan, &ending);

    let manifest = site.manifest(plan.version).await.unwrap().unwrap();
    assert_eq!(manifest.size_bytes, "an archive".len() as u64);
    assert_eq!(account.routing().await, Routing::to(fleet(&site, plan.version).await.unwrap().target_group));
    let left = inventory::of(&account).await;
    let open = left.iter().filter(|line| line.contains(&journey::OWN_ADDRESS.to_string())).count();
    assert_eq!(open, 0, "SSH is closed again: {left:#?}");
    assert!(!left.iter().any(|line| line.starts_with("key pair")), "the ephemeral key is gone");
    let servers = left.iter().filter(|line| line.starts_with("server")).count();
    assert_eq!(servers, 2, "the builder has ended");
    assert_tags_come_with_the_creating_call(&moto).await;
}

/// Undone after the flip, in reverse, with nothing left.
#[tokio::test]
async fn a_run_that_fails_after_its_flip_leaves_the_account_as_it_was() {
    let moto = Moto::start();
    let account = Account::open(moto.endpoint.clone()).await;
    let site = account.site().await;
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(archive.path(), "an archive").unwrap();
    let before = inventory::of(&account).await;

    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    let steps = without_servers(&account, &site, archive.path()).failing_at("flip/release-preview");
    let ending = journey::walk(&site, plan.clone(), &steps).await;

    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    assert_eq!(account.routing().await, nothing_yet());
    inventory::assert_same(&inventory::of(&account).await, &before);
}

/// No tag is put on afterwards, but for the marks that say which fleet is held.
async fn assert_tags_come_with_the_creating_call(moto: &Moto) {
    let calls = moto.calls().await;
    assert!(calls.iter().any(|call| call.contains("Action=RunInstances")), "the recorder has seen the run");
    for call in calls {
        assert!(!call.contains("Action=CreateTags"), "{call}");
        if call.contains("Action=AddTags") {
            let marks = [tags::HELD_SINCE, tags::HELD_UNTIL, tags::REPLACES]
                .map(|name| format!("Tags.member.1.Key={}", encoded(name)));
            assert!(marks.iter().any(|mark| call.contains(mark)), "{call}");
        }
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
