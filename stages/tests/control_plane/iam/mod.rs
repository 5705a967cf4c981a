//! The printed policy: every flow passes under it, the planted attacks do not, and nothing in it can be left out.

mod attacks;
mod flows;
mod names;

use std::sync::Arc;

use alcedo_local_region::iam::Policy;
use alcedo_stages::{facts, iam_policy, tags};
use serde_json::{Value, json};

use self::{attacks::attacks, flows::flows};
use crate::broken::Bench;

/// What the file has beside the account's own, so that the policy has as many statements as it can have.
fn changes() -> Value {
    json!({
        "launch": { "slowest_request": "1s", "instance_profile": "hello" },
        "retire": { "keep_images": 1 },
        "publish": { "keep": 1 },
        "secrets": { "TOKEN": { "ssm": "/hello/token" }, "KEY": { "ssm": "hello-key" } },
    })
}

async fn bench() -> (Bench, Value) {
    let mut bench = Bench::new().await;
    let mut site = bench.account.site_with("production", changes()).await;
    site.clients.visible = bench.site.clients.visible;
    bench.site = site;
    // The account's images were made by hand, without the snapshots' tags that a bake gives them.
    for image in facts::app_images(&bench.site).await.unwrap() {
        let tag = aws_sdk_ec2::types::Tag::builder().key(tags::APP).value("hello").build();
        let call = bench.account.clients.ec2.create_tags().set_resources(Some(image.snapshots)).tags(tag);
        call.send().await.unwrap();
    }
    for name in ["/hello/token", "hello-key", "/another/token"] {
        let put = bench.account.clients.ssm.put_parameter().name(name).value("a long secret");
        put.r#type(aws_sdk_ssm::types::ParameterType::SecureString).send().await.unwrap();
    }
    // Large enough to be sent in parts.
    std::fs::write(bench.archive.path(), vec![7; 9 << 20]).unwrap();
    let policy = iam_policy::policy(&bench.site).await.unwrap();
    (bench, policy)
}

fn restrict(bench: &Bench, policy: &Value) {
    let region = &bench.simulation.region.region;
    region.restrict(Some(Arc::new(Policy::read(&policy.to_string()).unwrap())));
}

fn free(bench: &Bench) {
    bench.simulation.region.region.restrict(None);
}

/// What stands in a list, or alone where there is one.
fn members(part: &Value) -> &[Value] {
    part.as_array().map_or(std::slice::from_ref(part), Vec::as_slice)
}

/// The same policy with one thing taken out: an action, a resource, a condition's key, or one of a key's values.
fn without_one(policy: &Value) -> Vec<(String, bool, Value)> {
    let mut all = Vec::new();
    let statements = policy["Statement"].as_array().unwrap();
    for (at, statement) in statements.iter().enumerate() {
        let sid = statement["Sid"].as_str().unwrap();
        for part in ["Action", "Resource"] {
            let members = members(&statement[part]);
            for member in members {
                let mut changed = policy.clone();
                let rest: Vec<&Value> = members.iter().filter(|other| *other != member).collect();
                match rest.is_empty() {
                    true => drop(changed["Statement"].as_array_mut().unwrap().remove(at)),
                    false => changed["Statement"][at][part] = json!(rest),
                }
                all.push((format!("{sid} without {part} {member}"), true, changed));
            }
        }
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            for key in keys.as_object().unwrap().keys() {
                let mut changed = policy.clone();
                changed["Statement"][at]["Condition"][operator].as_object_mut().unwrap().remove(key);
                all.push((format!("{sid} without condition {key}"), false, changed));
            }
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn the_printed_policy_is_enough_and_nothing_in_it_can_be_left_out() {
    let (attacked, policy) = bench().await;
    restrict(&attacked, &policy);
    let attacks = Box::pin(attacks(&attacked)).await;
    // The attacks have left things of others about: the flows have a region of their own, in which all ids are the same.
    let (bench, again) = bench().await;
    assert_eq!(policy, again);
    restrict(&bench, &policy);
    let region = &bench.simulation.region.region;
    region.take_asked();
    Box::pin(flows(&bench)).await.unwrap();
    let calls = region.take_asked();
    let whole = Policy::read(&policy.to_string()).unwrap();
    let size = policy.to_string().len();
    assert!(size <= 10_240, "{size} characters are more than a role's inline policies may have");
    // What is removed a second time has no tags any more, and is refused: Alcedo looks, and goes on.
    let (calls, refused): (Vec<_>, Vec<_>) = calls.into_iter().partition(|checks| whole.refuses(checks).is_none());
    assert!(!refused.is_empty() && !format!("{refused:?}").contains("resourcetag"), "{refused:#?}");
    // On which ARN ELB checks AddTags for a rule that is being made is not documented: both are allowed, and here it is one.
    let unknown = format!("TagFleets without Resource \"{}\"", bench.account.listener);
    let mut needless = Vec::new();
    let mut tried = 0;
    for (what, is_grant, changed) in without_one(&policy) {
        tried += 1;
        let changed = Policy::read(&changed.to_string()).unwrap();
        let is_needed = match is_grant {
            // Some call of some flow is no longer allowed.
            true => calls.iter().any(|checks| changed.refuses(checks).is_some()),
            // Some attack is.
            false => attacks.iter().any(|attack| changed.refuses(&attack.checks).is_none()),
        };
        if !is_needed && what != unknown {
            needless.push(what);
        }
    }
    let names: Vec<&str> = attacks.iter().map(|attack| attack.what).collect();
    eprintln!(
        "{} calls allowed, {} attacks stopped, {tried} things taken out, {size} characters",
        calls.len(),
        names.len()
    );
    assert!(needless.is_empty(), "not needed: {needless:#?}");
}
