//! Everything in an account that a run could make, change or leave behind, as lines that can be compared.

use std::collections::BTreeSet;

use alcedo_stages::{clients::Clients, listener::Routing, tags::Tags};
use aws_sdk_elasticloadbalancingv2::types::{TargetHealthDescription, TargetHealthStateEnum};

use super::account::{Account, BUCKET};

/// One line a thing, each with its state and tags. Servers that have ended are nothing: EC2 shows them for a while.
pub type Inventory = BTreeSet<String>;

/// Takes stock, of everything but journals and what runs took: their history outlives them.
pub async fn of(account: &Account) -> Inventory {
    let clients = &account.clients;
    let mut all = Inventory::new();
    servers(clients, &mut all).await;
    groups_and_keys(clients, &mut all).await;
    images(clients, &mut all).await;
    balancer(account, &mut all).await;
    objects(clients, &mut all).await;
    all
}

/// Says what is more and what is less.
pub fn assert_same(now: &Inventory, before: &Inventory) {
    let more: Vec<_> = now.difference(before).collect();
    let less: Vec<_> = before.difference(now).collect();
    assert!(more.is_empty() && less.is_empty(), "left behind: {more:#?}\nmissing: {less:#?}");
}

fn ec2_tags(tags: &[aws_sdk_ec2::types::Tag]) -> String {
    format!("{:?}", Tags::from_ec2(tags))
}

async fn servers(clients: &Clients, all: &mut Inventory) {
    let answer = clients.ec2.describe_instances().send().await.unwrap();
    for instance in answer.reservations().iter().flat_map(|it| it.instances()) {
        let state = instance.state().and_then(|it| it.name()).map(|it| it.as_str()).unwrap();
        if state != "terminated" {
            let tags = ec2_tags(instance.tags());
            all.insert(format!("server {} {state} {tags}", instance.instance_id().unwrap()));
        }
    }
    for volume in clients.ec2.describe_volumes().send().await.unwrap().volumes() {
        all.insert(format!("volume {}", volume.volume_id().unwrap()));
    }
}

async fn groups_and_keys(clients: &Clients, all: &mut Inventory) {
    for group in clients.ec2.describe_security_groups().send().await.unwrap().security_groups() {
        all.insert(format!("security group {}", group.group_id().unwrap()));
    }
    for rule in clients.ec2.describe_security_group_rules().send().await.unwrap().security_group_rules() {
        all.insert(format!(
            "ingress rule {} of {}: {:?} {:?} {:?}–{:?} {}",
            rule.security_group_rule_id().unwrap(),
            rule.group_id().unwrap(),
            rule.ip_protocol(),
            rule.cidr_ipv4(),
            rule.from_port(),
            rule.to_port(),
            ec2_tags(rule.tags())
        ));
    }
    for key in clients.ec2.describe_key_pairs().send().await.unwrap().key_pairs() {
        all.insert(format!("key pair {}", key.key_name().unwrap()));
    }
}

async fn images(clients: &Clients, all: &mut Inventory) {
    for image in clients.ec2.describe_images().owners("self").send().await.unwrap().images() {
        all.insert(format!("image {} {}", image.image_id().unwrap(), ec2_tags(image.tags())));
    }
    for snapshot in clients.ec2.describe_snapshots().owner_ids("self").send().await.unwrap().snapshots() {
        all.insert(format!("snapshot {}", snapshot.snapshot_id().unwrap()));
    }
}

async fn balancer(account: &Account, all: &mut Inventory) {
    let elb = &account.clients.elb;
    for group in elb.describe_target_groups().send().await.unwrap().target_groups() {
        let arn = group.target_group_arn().unwrap();
        let tags = elb.describe_tags().resource_arns(arn).send().await.unwrap();
        let tags = Tags::from_elb(tags.tag_descriptions()[0].tags());
        let health = elb.describe_target_health().target_group_arn(arn).send().await.unwrap();
        // Those that leave are nothing: they are gone when their time is up, whoever does what.
        let leaves = |it: &TargetHealthDescription| {
            it.target_health().and_then(|health| health.state()) == Some(&TargetHealthStateEnum::Draining)
        };
        let targets = health.target_health_descriptions().iter().filter(|it| !leaves(it));
        let mut targets: Vec<&str> = targets.filter_map(|it| it.target()?.id()).collect();
        targets.sort_unstable();
        all.insert(format!("target group {arn} {targets:?} {tags:?}"));
    }
    let listeners = elb.describe_listeners().load_balancer_arn(&account.balancer).send().await.unwrap();
    for listener in listeners.listeners() {
        let arn = listener.listener_arn().unwrap();
        all.insert(format!("listener {arn}: {:?}", Routing::read(listener.default_actions())));
        let rules = elb.describe_rules().listener_arn(arn).send().await.unwrap();
        // The default rule is the listener's own action.
        for rule in rules.rules().iter().filter(|rule| rule.priority() != Some("default")) {
            let conditions: Vec<&[String]> = rule
                .conditions()
                .iter()
                .filter_map(|condition| Some(condition.http_header_config()?.values()))
                .collect();
            let routing = Routing::read(rule.actions());
            all.insert(format!("listener rule {}: {conditions:?} {routing:?}", rule.rule_arn().unwrap()));
        }
    }
}

async fn objects(clients: &Clients, all: &mut Inventory) {
    for object in clients.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents() {
        let key = object.key().unwrap();
        if !key.contains("/runs/") && !key.contains("/times/") {
            all.insert(format!("object {key} {}", object.e_tag().unwrap()));
        }
    }
    for upload in clients.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads() {
        all.insert(format!("unfinished upload of {}", upload.key().unwrap()));
    }
}
