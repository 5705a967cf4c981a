//! Ingress: a rule for one address and one port, with its owner and its end in its tags; nobody else's is touched.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use alcedo_pipeline::{event::Outcome, plan::Plan, runner::Ending};
use alcedo_stages::{
    action::Action,
    ingress::{CloseIngress, OpenIngress},
    site::Site,
    tags::{self, Tags},
};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, SecurityGroupRule};
use jiff::{SignedDuration, Timestamp};

use crate::{
    life::assert_done,
    support::{account::Account, inventory, journey, moto::Moto, region::LocalRegion, staged::Staged},
};

const ADDRESS: Ipv4Addr = journey::OWN_ADDRESS;
const LEASE_SECONDS: u64 = 600;

pub fn open(account: &Account) -> Action {
    Action::OpenIngress(OpenIngress {
        security_group: account.builder_group.clone(),
        address: ADDRESS,
        ports: vec![22, 8080],
        lease_seconds: LEASE_SECONDS,
    })
}

pub fn close(account: &Account) -> Action {
    Action::CloseIngress(CloseIngress { security_group: account.builder_group.clone(), opened_by: "open".into() })
}

/// Inbound rules of the builder's group.
async fn rules(account: &Account) -> Vec<SecurityGroupRule> {
    let filter = Filter::builder().name("group-id").values(&account.builder_group).build();
    let answer = account.clients.ec2.describe_security_group_rules().filters(filter).send().await.unwrap();
    answer.security_group_rules().iter().filter(|rule| rule.is_egress() == Some(false)).cloned().collect()
}

/// A rule that somebody else has made.
async fn authorize(account: &Account, port: i32, from: &str) {
    let range = IpRange::builder().cidr_ip(from).description("the office").build();
    let permission = IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port).ip_ranges(range).build();
    let call = account.clients.ec2.authorize_security_group_ingress().group_id(&account.builder_group);
    call.ip_permissions(permission).send().await.unwrap();
}

async fn run(site: &Site, plan: &Plan) -> Ending {
    journey::walk(site, plan.clone(), &Staged::new(site)).await
}

#[tokio::test]
async fn a_rule_says_whose_it_is_and_when_it_ends_in_the_local_region() {
    let region = LocalRegion::without_lags().await;
    says_whose_it_is(&Account::open(region.endpoint.clone()).await).await;
}

#[tokio::test]
async fn a_rule_says_whose_it_is_and_when_it_ends_in_moto() {
    let moto = Moto::start();
    says_whose_it_is(&Account::open(moto.endpoint.clone()).await).await;
}

async fn says_whose_it_is(account: &Account) {
    let site = account.site().await;
    let before = inventory::of(account).await;
    let opening = journey::plan_of(&site, [("open", open(account))]);
    let now = Timestamp::now();
    let ending = run(&site, &opening).await;
    assert_done(&opening, &ending);

    let mut ports = Vec::new();
    for rule in rules(account).await {
        assert_eq!(rule.cidr_ipv4(), Some("203.0.113.7/32"));
        assert_eq!((rule.ip_protocol(), rule.from_port()), (Some("tcp"), rule.to_port()));
        ports.push(rule.from_port().unwrap());
        let tags = Tags::from_ec2(rule.tags());
        assert_eq!(tags.get(tags::RUN), Some(opening.run.as_str()));
        assert_eq!(tags.get(tags::STEP), Some("open"));
        let ends: Timestamp = tags.get(tags::EXPIRES).unwrap().parse().unwrap();
        let lasts = ends.duration_since(now);
        let lease = SignedDuration::from_secs(LEASE_SECONDS as i64);
        assert!(lasts >= lease && lasts < lease + SignedDuration::from_mins(1), "{lasts}");
    }
    ports.sort_unstable();
    assert_eq!(ports, [22, 8080]);

    // Closing is another step of the same run.
    let mut closing = journey::plan_of(&site, [("close", close(account))]);
    closing.run.clone_from(&opening.run);
    let other_journal =
        account.site_with("production", serde_json::json!({ "publish": { "prefix": "elsewhere" } })).await;
    let ending = run(&other_journal, &closing).await;
    assert_done(&closing, &ending);
    let journal = |line: &String| !line.contains("elsewhere");
    let now = inventory::of(account).await.into_iter().filter(journal).collect();
    inventory::assert_same(&now, &before);
}

#[tokio::test]
async fn a_rule_that_somebody_else_made_is_used_and_left() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    authorize(&account, 22, "203.0.113.7/32").await;
    authorize(&account, 8080, "198.51.100.0/24").await;
    let before = inventory::of(&account).await;

    let plan = journey::plan_of(&site, [("open", open(&account)), ("close", close(&account))]);
    let watched = account.builder_group.clone();
    let (clients, seen) = (account.clients.clone(), std::sync::Arc::new(std::sync::Mutex::new(0)));
    let count = seen.clone();
    let steps = Staged::new(&site).before("close", move || {
        let (clients, watched, count) = (clients.clone(), watched.clone(), count.clone());
        Box::pin(async move {
            let filter = Filter::builder().name("group-id").values(watched).build();
            let answer = clients.ec2.describe_security_group_rules().filters(filter).send().await.unwrap();
            *count.lock().unwrap() =
                answer.security_group_rules().iter().filter(|rule| rule.is_egress() == Some(false)).count();
        })
    });
    let ending = journey::walk(&site, plan.clone(), &steps).await;
    assert_done(&plan, &ending);
    assert_eq!(*seen.lock().unwrap(), 3, "port 22 was open already, and 8080 only to others");
    inventory::assert_same(&inventory::of(&account).await, &before);
}

/// Two machines behind one address: the second finds the first one's rule, and must not cut it.
#[tokio::test]
async fn a_rule_of_another_run_is_used_and_left() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let first = journey::plan_of(&site, [("open", open(&account))]);
    let ending = run(&site, &first).await;
    assert_done(&first, &ending);
    let opened = inventory::of(&account).await;

    let second = journey::plan_of(&site, [("open", open(&account)), ("close", close(&account))]);
    let ending = run(&site, &second).await;
    assert_done(&second, &ending);
    inventory::assert_same(&inventory::of(&account).await, &opened);
}

/// The first one ends while the second is at work: the rule stays for the second, and goes with it.
#[tokio::test]
async fn a_rule_that_two_runs_use_goes_with_the_last_of_them() {
    let region = LocalRegion::without_lags().await;
    let account = Arc::new(Account::open(region.endpoint.clone()).await);
    let site = account.site().await;
    let before = inventory::of(&account).await;
    let ids = async || rules(&account).await.iter().map(|it| it.security_group_rule_id().unwrap().to_owned()).collect();
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();

    let first = journey::plan_of(&site, [("open", open(&account)), ("close", close(&account))]);
    let (inner_account, inner_site, inner_seen) = (account.clone(), site.clone(), seen.clone());
    // While the first has opened and not closed, a second opens; the first closes before the second does.
    let second = journey::plan_of(&site, [("open", open(&account))]);
    let inner_second = second.clone();
    let steps = Staged::new(&site).before("close", move || {
        let (account, site, seen) = (inner_account.clone(), inner_site.clone(), inner_seen.clone());
        let second = inner_second.clone();
        Box::pin(async move {
            let ending = run(&site, &second).await;
            assert_done(&second, &ending);
            let ids = rules(&account).await.iter().map(|it| it.security_group_rule_id().unwrap().to_owned()).collect();
            seen.lock().unwrap().push(ids);
        })
    });
    let ending = journey::walk(&site, first.clone(), &steps).await;
    assert_done(&first, &ending);
    let still: Vec<String> = ids().await;
    assert_eq!(still.len(), 2, "the second still needs them");
    assert_eq!(vec![still], *seen.lock().unwrap(), "they are the same rules");
    for rule in rules(&account).await {
        let users: Vec<_> = Tags::from_ec2(rule.tags()).users().into_iter().map(|(run, _)| run).collect();
        assert_eq!(users, std::slice::from_ref(&second.run));
    }

    let ending = journey::undo(&site, &second.run).await;
    assert_eq!(ending.outcome, Outcome::Interrupted, "{:?}", ending.left);
    let left: Vec<String> = ids().await;
    assert!(left.is_empty(), "{left:?}");
    let journal = |line: &String| !line.contains("/runs/") && !line.contains("/open/");
    let now = inventory::of(&account).await.into_iter().filter(journal).collect();
    let before = before.into_iter().filter(journal).collect();
    inventory::assert_same(&now, &before);
}

#[tokio::test]
async fn what_a_failed_run_opened_is_closed() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let before = inventory::of(&account).await;
    let plan = journey::plan_of(&site, [("open", open(&account))]);
    let ending = journey::walk(&site, plan, &Staged::new(&site).failing_at("open")).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    inventory::assert_same(&inventory::of(&account).await, &before);
}
