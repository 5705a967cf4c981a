//! The actions' names, checked by somebody else: moto derives a call's action from the request, S3's by its own table, others'
//! by the service that signed and the operation that is asked for.
//!
//! moto knows resources for S3 alone and refuses what has a condition on it, so the policy is reduced to what it can judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use alcedo_pipeline::{event::Outcome, version::Version};
use alcedo_stages::{facts::Request, iam_policy, logs, overview, servers, site::Site, sweep};
use aws_sdk_ec2::types::Tag;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::members;
use crate::{
    life::deploy,
    moto::without_servers,
    support::{
        account::Account,
        journey,
        moto::{Moto, Recorded},
    },
};

/// The printed policy as far as moto can judge it.
fn judged_by_moto(policy: &Value, without: Option<&str>) -> Value {
    let statements = policy["Statement"].as_array().unwrap().iter().filter_map(|statement| {
        let actions: Vec<String> = actions(statement).into_iter().filter(|it| Some(it.as_str()) != without).collect();
        let of_s3 = actions.first()?.starts_with("s3:");
        // It makes a regular expression of a pattern, by its stars alone.
        let as_moto_reads = |text: String| serde_json::from_str(&text.replace('?', ".")).unwrap();
        let resource: Value = if of_s3 { as_moto_reads(statement["Resource"].to_string()) } else { json!("*") };
        Some(json!({ "Effect": "Allow", "Action": actions, "Resource": resource }))
    });
    json!({ "Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>() })
}

fn actions(statement: &Value) -> Vec<String> {
    members(&statement["Action"]).iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// Plans and runs. Answers the first thing that went wrong, with everything that was said of it.
async fn run(site: &Site, request: Request) -> Result<(), String> {
    let prepared = journey::prepare(site, request).await.map_err(|error| format!("{error:?}"))?;
    let (ending, _) = journey::finish(prepared).await;
    let ending = ending.map_err(|error| format!("{error:?}"))?;
    done(ending.outcome, format!("{:?} {:?}", ending.failure, ending.left))
}

fn done(outcome: Outcome, why: String) -> Result<(), String> {
    (outcome == Outcome::Done).then_some(()).ok_or(why)
}

/// What can be done where no server answers: a deploy from source, one of a version that is there, a rollback, the end of a
/// hold, and looking at all of it.
async fn flows(account: &Account, site: &Site, release: Version, archive: &Path) -> Result<(), String> {
    run(site, deploy(release)).await?;
    let (plan, _) = journey::plan(site, Request::Deploy { version: None }).await;
    let failing = without_servers(account, site, archive).failing_at("flip/release-preview");
    let ending = journey::try_walk(site, plan, &failing).await.map_err(|error| format!("{error:?}"))?;
    if ending.outcome != Outcome::Unwound {
        return Err(format!("{:?} {:?}", ending.failure, ending.left));
    }
    let (plan, _) = journey::plan(site, Request::Deploy { version: None }).await;
    let source = without_servers(account, site, archive);
    let ending = journey::try_walk(site, plan.clone(), &source).await.map_err(|error| format!("{error:?}"))?;
    done(ending.outcome, format!("{:?} {:?}", ending.failure, ending.left))?;
    run(site, Request::Rollback { to: None }).await?;
    run(site, Request::EndHold).await?;
    overview::status(site).await.map_err(|error| format!("{error:?}"))?;
    overview::releases(site, 10).await.map_err(|error| format!("{error:?}"))?;
    logs::keep(site, &plan.run, site.now(), "a log".into()).await.map_err(|error| format!("{error:?}"))?;
    sweep::find(site).await.map(drop).map_err(|error| format!("{error:?}"))
}

/// What those do not come to without servers, each once, whatever comes of it.
async fn other_calls(site: &Site) {
    let (ec2, id) = (&site.clients.ec2, "i-00000000000000000");
    let _ = servers::console(&site.clients, id).await;
    let _ = ec2.create_image().instance_id(id).name("an image").send().await;
    let _ = ec2.deregister_image().image_id("ami-00000000000000000").send().await;
    let _ = ec2.delete_snapshot().snapshot_id("snap-00000000000000000").send().await;
    let tag = Tag::builder().key("a").value("b").build();
    let _ = ec2.create_tags().resources(id).tags(tag.clone()).send().await;
    let _ = ec2.delete_tags().resources(id).tags(tag).send().await;
    let _ = site.clients.cloudtrail.lookup_events().send().await;
    let upload = site.clients.s3.abort_multipart_upload().bucket(site.bucket()).upload_id("none");
    let _ = upload.key(format!("{}2026.1101.100000/artifact.tar.zst", site.root)).send().await;
}

#[tokio::test]
async fn moto_lets_through_what_the_policy_names_and_nothing_else() {
    let archive = tempfile::NamedTempFile::new().unwrap();
    // Large enough to be sent in parts.
    std::fs::write(archive.path(), vec![7; 9 << 20]).unwrap();
    let moto = Moto::start();
    let account = Account::open(moto.endpoint.clone()).await;
    let site = account.site().await;
    let release = account.release(&site, "2026.1101.100000").await;
    let policy = iam_policy::policy(&site).await.unwrap();
    let all: BTreeSet<String> = policy["Statement"].as_array().unwrap().iter().flat_map(actions).collect();

    let account = account.reached_by(moto.user().await);
    let site = account.site().await;
    moto.restrict(&judged_by_moto(&policy, None)).await;
    moto.record().await;
    flows(&account, &site, release, archive.path()).await.unwrap();
    other_calls(&site).await;
    let sent = one_of_each(moto.requests().await);

    let mut refused = Vec::new();
    for ((service, _), request) in &sent {
        if moto.refuses(request).await {
            refused.push(service);
        }
    }
    assert!(refused.is_empty(), "refused under the whole policy: {refused:?}");
    // moto takes the prefix from the signature, where CloudWatch is `monitoring`; in policies it is `cloudwatch`.
    for action in all.iter().filter(|it| !it.starts_with("cloudwatch:")) {
        let service = action.split(':').next().unwrap();
        moto.restrict(&judged_by_moto(&policy, Some(action))).await;
        let requests = stream::iter(sent.iter().filter(|((of, _), _)| of == service));
        let stopped = requests.any(async |(_, request)| moto.refuses(request).await).await;
        assert!(stopped, "without {action}, moto lets everything through");
    }
    eprintln!("{} actions, {} requests", all.len(), sent.len());
}

/// One of each kind that moto may tell from another, by service: a form's action; else method and URL.
fn one_of_each(requests: Vec<Recorded>) -> BTreeMap<(String, String), Recorded> {
    let kind = |request: &Recorded| {
        let body = String::from_utf8(request.body()).unwrap_or_default();
        let action = body.strip_prefix("Action=").and_then(|rest| rest.split('&').next()).map(str::to_owned);
        (request.service(), action.unwrap_or_else(|| format!("{} {}", request.method, request.url)))
    };
    requests.into_iter().map(|request| (kind(&request), request)).collect()
}
