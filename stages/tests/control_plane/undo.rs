//! Doing a step twice is doing it once, and undoing it twice is undoing it once: that is what makes recovery safe.

use std::{collections::BTreeMap, sync::Arc};

use alcedo_pipeline::{event::Outcome, plan::Plan};
use alcedo_stages::{facts::Request, site::Site};
use serde_json::{Value, json};

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, inventory, journey, region::LocalRegion, staged::Staged},
};

/// The site's steps, each done and undone twice. What a second undo may not change is everything there is.
fn twice(account: &Arc<Account>, site: &Site, archive: &std::path::Path) -> Staged {
    let account = account.clone();
    Staged::new(site).built(archive).provisioned().repeating(move || {
        let account = account.clone();
        Box::pin(async move { format!("{:#?}", inventory::of(&account).await) })
    })
}

async fn account(region: &LocalRegion) -> (Arc<Account>, tempfile::NamedTempFile) {
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(archive.path(), "an archive").unwrap();
    (Arc::new(Account::open(region.endpoint.clone()).await), archive)
}

#[tokio::test]
async fn steps_that_are_done_twice_make_one_of_everything() {
    let region = LocalRegion::without_lags().await;
    let (account, archive) = account(&region).await;
    let site = account.site().await;
    let before = inventory::of(&account).await;
    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    let ending = journey::walk(&site, plan.clone(), &twice(&account, &site, archive.path())).await;
    assert_done(&plan, &ending);

    let after = inventory::of(&account).await;
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for line in after.difference(&before) {
        let kinds = ["image", "listener rule", "listener", "object", "server", "snapshot", "target group", "volume"];
        let kind = kinds.into_iter().find(|kind| line.starts_with(kind)).unwrap_or(line);
        *made.entry(kind).or_default() += 1;
    }
    let wanted = [
        ("image", 1),
        // The listener is there before and after, as two different lines.
        ("listener", 1),
        ("listener rule", 1),
        ("object", 6),
        ("server", 2),
        ("snapshot", 1),
        ("target group", 1),
        ("volume", 2),
    ];
    assert_eq!(made, wanted.into(), "{:#?}", after.difference(&before).collect::<Vec<_>>());
}

#[tokio::test]
async fn undoing_a_deploy_from_source_twice_changes_nothing_more() {
    let region = LocalRegion::without_lags().await;
    let (account, archive) = account(&region).await;
    let site = account.site().await;
    let (plan, _) = journey::plan(&site, Request::Deploy { version: None }).await;
    undone_twice(&account, &site, plan, archive.path()).await;
}

#[tokio::test]
async fn undoing_a_flip_between_two_fleets_twice_changes_nothing_more() {
    let by_header = json!({});
    let by_port = json!({ "flip": { "preview": { "header": null, "port": 8080 } } });
    futures::join!(second_deploy_and_rollback(by_header), second_deploy_and_rollback(by_port));
}

async fn second_deploy_and_rollback(changes: Value) {
    let region = LocalRegion::without_lags().await;
    let (account, archive) = account(&region).await;
    let site = account.site_with("production", changes).await;
    let first = account.release(&site, "2026.1101.100000").await;
    let second = account.release(&site, "2026.1102.100000").await;
    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    let (plan, _) = journey::plan(&site, deploy(second)).await;
    undone_twice(&account, &site, plan, archive.path()).await;

    let (plan, ending) = journey::run(&site, deploy(second)).await;
    assert_done(&plan, &ending);
    let (plan, _) = journey::plan(&site, Request::Rollback { to: None }).await;
    undone_twice(&account, &site, plan, archive.path()).await;
}

/// Runs the plan to its last step that can be undone, lets that fail, and looks at every undo.
async fn undone_twice(account: &Arc<Account>, site: &Site, plan: Plan, archive: &std::path::Path) {
    let last = plan.steps.iter().rev().find(|step| step.undo.is_some()).unwrap().id.to_string();
    let before = inventory::of(account).await;
    let steps = twice(account, site, archive).failing_at(&last);
    let ending = journey::walk(site, plan.clone(), &steps).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{plan}\n{:?}", ending.left);
    assert_eq!(ending.failure.unwrap().0.as_str(), last);
    assert_eq!(steps.changed_by_a_second_undo(), Vec::<String>::new(), "{plan}");
    inventory::assert_same(&inventory::of(account).await, &before);
}
