//! Retention: what is beyond it goes, and what a fleet is, holds or would go back to stays, in every environment.

use alcedo_pipeline::version::Version;
use alcedo_stages::{facts, site::Site};
use serde_json::json;

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, inventory, journey, region::LocalRegion},
};

/// The versions that have a manifest, and those that have an image; oldest first.
async fn kept(site: &Site) -> (Vec<Version>, Vec<Version>) {
    let mut published = Vec::new();
    for version in site.versions().await.unwrap() {
        if site.manifest(version).await.unwrap().is_some() {
            published.push(version);
        }
    }
    published.reverse();
    let mut images: Vec<Version> = facts::app_images(site).await.unwrap().iter().map(|image| image.version).collect();
    images.reverse();
    (published, images)
}

#[tokio::test]
async fn what_fleets_refer_to_is_kept_beyond_the_retention() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let little = json!({ "publish": { "keep": 1 }, "retire": { "keep_images": 1 } });
    let site = account.site_with("production", little.clone()).await;
    let staging = account
        .site_with("staging", json!({ "flip": { "listener": { "load_balancer": "public", "port": 81 } } }))
        .await;
    another_listener(&account).await;
    let deploy_new = async |day: &str| {
        let version = account.release(&site, day).await;
        let (plan, ending) = journey::run(&site, deploy(version)).await;
        assert_done(&plan, &ending);
        version
    };

    let one = deploy_new("2026.1101.100000").await;
    let two = deploy_new("2026.1102.100000").await;
    let (plan, ending) = journey::run(&staging, deploy(two)).await;
    assert_done(&plan, &ending);
    let three = deploy_new("2026.1103.100000").await;
    let nobodys = account.release(&site, "2026.1104.100000").await;
    // Three is in service, and two is held; one is what two would go back to, and the last is the newest.
    let all = [one, two, three, nobodys];
    assert_eq!(kept(&site).await, (all.to_vec(), all.to_vec()));

    let five = deploy_new("2026.1105.100000").await;
    // Two was retired by this very run, which leaves what it referred to for the next one.
    let all = [one, two, three, five];
    assert_eq!(kept(&site).await, (all.to_vec(), all.to_vec()), "the one that nobody deployed is gone");

    let six = deploy_new("2026.1106.100000").await;
    // Two is what staging runs; five is held, and three is what it would go back to.
    let all = [two, three, five, six];
    assert_eq!(kept(&site).await, (all.to_vec(), all.to_vec()));
    let snapshots = inventory::of(&account).await.iter().filter(|line| line.starts_with("snapshot")).count();
    assert_eq!(snapshots, 1 + all.len(), "an image's snapshot goes with it; the base image has one");
}

/// Staging's own listener on the same balancer.
async fn another_listener(account: &Account) {
    let create = account.clients.elb.create_listener().load_balancer_arn(&account.balancer).port(81);
    let action = crate::support::account::nothing_yet().action();
    create.protocol("HTTP".into()).default_actions(action).send().await.unwrap();
}
