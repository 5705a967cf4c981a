//! Everything that exists in a region, as AWS's API tells it, so that before and after can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
};

use alcedo_stages::clients::Clients;

/// What a region holds, by kind: one line a thing, with everything about it that a run could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeMap<&'static str, BTreeSet<String>>);

impl Inventory {
    /// Lists everything but the journals of runs, which stay on purpose.
    pub async fn take(clients: &Clients, bucket: &str) -> Self {
        let mut things = Self(BTreeMap::new());
        things.servers(clients).await;
        things.images(clients).await;
        things.groups(clients).await;
        things.balancer(clients).await;
        things.objects(clients, bucket).await;
        things
    }

    pub fn of(&self, kind: &str) -> Vec<&str> {
        self.0.get(kind).into_iter().flatten().map(String::as_str).collect()
    }

    /// Asserts that nothing was added, removed or changed.
    #[track_caller]
    pub fn assert_same(&self, after: &Self) {
        self.assert_same_but(&[], after);
    }

    /// Asserts that nothing was added, removed or changed except things of these kinds, and that those were.
    #[track_caller]
    pub fn assert_same_but(&self, changed: &[&str], after: &Self) {
        let mut text = String::new();
        for kind in changed {
            assert_ne!(self.of(kind), after.of(kind), "{kind} should have changed");
        }
        let kinds: BTreeSet<&str> = self.0.keys().chain(after.0.keys()).copied().collect();
        for kind in kinds.into_iter().filter(|kind| !changed.contains(kind)) {
            let (before, after) = (self.of(kind), after.of(kind));
            for gone in before.iter().filter(|thing| !after.contains(thing)) {
                let _ = writeln!(text, "- {kind} {gone}");
            }
            for new in after.iter().filter(|thing| !before.contains(thing)) {
                let _ = writeln!(text, "+ {kind} {new}");
            }
        }
        assert!(text.is_empty(), "the region is not what it was before:\n{text}");
    }

    /// Asserts that no key pair and no rule of a run is left, whatever else there is.
    #[track_caller]
    pub fn assert_nothing_open(&self) {
        assert!(self.of("key pair").is_empty(), "{:#?}", self.of("key pair"));
        let ours: Vec<&str> = self.of("ingress rule").into_iter().filter(|rule| rule.contains("alcedo")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
        // Whatever carries no tag of ours would still have one address: this machine's.
        let single: Vec<&str> = self.of("ingress rule").into_iter().filter(|rule| rule.contains("/32")).collect();
        assert!(single.is_empty(), "{single:#?}");
    }

    fn add(&mut self, kind: &'static str, thing: String) {
        self.0.entry(kind).or_default().insert(thing);
    }

    async fn servers(&mut self, clients: &Clients) {
        let found = clients.ec2.describe_instances().send().await.expect("instances are listed");
        for instance in found.reservations().iter().flat_map(|reservation| reservation.instances()) {
            let state = instance.state().and_then(|state| state.name()).map_or("unknown", |name| name.as_str());
            if state != "terminated" {
                let (id, image) = (instance.instance_id(), instance.image_id());
                self.add("instance", format!("{} {state} from {}", or_none(id), or_none(image)));
            }
        }
        let found = clients.ec2.describe_volumes().send().await.expect("volumes are listed");
        for volume in found.volumes() {
            self.add("volume", or_none(volume.volume_id()).to_owned());
        }
        let found = clients.ec2.describe_key_pairs().send().await.expect("key pairs are listed");
        for key in found.key_pairs() {
            self.add("key pair", or_none(key.key_name()).to_owned());
        }
    }

    async fn images(&mut self, clients: &Clients) {
        let found = clients.ec2.describe_images().owners("self").send().await.expect("images are listed");
        for image in found.images() {
            let state = image.state().map_or("unknown", |state| state.as_str());
            self.add("image", format!("{} {} {state}", or_none(image.image_id()), or_none(image.name())));
        }
        let found = clients.ec2.describe_snapshots().owner_ids("self").send().await.expect("snapshots are listed");
        for snapshot in found.snapshots() {
            self.add("snapshot", or_none(snapshot.snapshot_id()).to_owned());
        }
    }

    async fn groups(&mut self, clients: &Clients) {
        let found = clients.ec2.describe_security_groups().send().await.expect("security groups are listed");
        for group in found.security_groups() {
            self.add("security group", format!("{} {}", or_none(group.group_id()), or_none(group.group_name())));
        }
        let found = clients.ec2.describe_security_group_rules().send().await.expect("rules are listed");
        for rule in found.security_group_rules().iter().filter(|rule| rule.is_egress() != Some(true)) {
            let from = rule.cidr_ipv4().or(rule.referenced_group_info().and_then(|group| group.group_id()));
            self.add(
                "ingress rule",
                format!(
                    "{} in {}: {} {}-{} from {} {}",
                    or_none(rule.security_group_rule_id()),
                    or_none(rule.group_id()),
                    or_none(rule.ip_protocol()),
                    rule.from_port().unwrap_or(-1),
                    rule.to_port().unwrap_or(-1),
                    or_none(from),
                    or_none(rule.description()),
                ),
            );
        }
    }

    async fn balancer(&mut self, clients: &Clients) {
        let found = clients.elb.describe_target_groups().send().await.expect("target groups are listed");
        for group in found.target_groups() {
            let arn = or_none(group.target_group_arn());
            let tags = clients.elb.describe_tags().resource_arns(arn).send().await.expect("tags are listed");
            let tags = tags.tag_descriptions().iter().flat_map(|description| description.tags());
            let tags: BTreeMap<_, _> = tags.map(|tag| (or_none(tag.key()), or_none(tag.value()))).collect();
            self.add("target group", format!("{arn} {tags:?}"));
            let targets = clients.elb.describe_target_health().target_group_arn(arn).send().await;
            for target in targets.expect("targets are listed").target_health_descriptions() {
                let id = or_none(target.target().and_then(|target| target.id()));
                self.add("target", format!("{id} in {arn}"));
            }
        }
        let balancers = clients.elb.describe_load_balancers().send().await.expect("balancers are listed");
        for balancer in balancers.load_balancers() {
            let arn = or_none(balancer.load_balancer_arn());
            self.add("load balancer", arn.to_owned());
            let listeners = clients.elb.describe_listeners().load_balancer_arn(arn).send().await;
            for listener in listeners.expect("listeners are listed").listeners() {
                let arn = or_none(listener.listener_arn());
                let port = listener.port().unwrap_or_default();
                self.add("listener", format!("{arn} on {port}: {}", one_line(listener.default_actions())));
                let rules = clients.elb.describe_rules().listener_arn(arn).send().await;
                let rules = rules.expect("rules are listed");
                // The default rule says what the listener itself has said.
                for rule in rules.rules().iter().filter(|rule| rule.priority() != Some("default")) {
                    let (priority, conditions) = (or_none(rule.priority()), one_line(rule.conditions()));
                    let actions = one_line(rule.actions());
                    let arn = or_none(rule.rule_arn());
                    self.add("listener rule", format!("{arn} {priority}: {conditions} → {actions}"));
                }
            }
        }
    }

    async fn objects(&mut self, clients: &Clients, bucket: &str) {
        let buckets = clients.s3.list_buckets().send().await.expect("buckets are listed");
        if !buckets.buckets().iter().any(|there| there.name() == Some(bucket)) {
            return;
        }
        let mut pages = clients.s3.list_objects_v2().bucket(bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.expect("objects are listed").contents() {
                let key = or_none(object.key());
                if !key.contains("/runs/") && !key.contains("/times/") {
                    self.add("object", format!("{key} {}", or_none(object.e_tag())));
                }
            }
        }
        let uploads = clients.s3.list_multipart_uploads().bucket(bucket).send().await.expect("uploads are listed");
        for upload in uploads.uploads() {
            self.add("unfinished upload", format!("{} {}", or_none(upload.key()), or_none(upload.upload_id())));
        }
    }
}

fn or_none(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

/// Every field that is set.
fn one_line(value: &(impl Debug + ?Sized)) -> String {
    let text = format!("{value:?}");
    text.split(", ").filter(|field| !field.ends_with(": None")).collect::<Vec<_>>().join(", ")
}
