//! Calls that nobody with these credentials must be able to make.

use std::sync::Arc;

use alcedo_local_region::iam::{Check, of_ec2};
use alcedo_stages::{
    cloud_error::CloudError,
    site::Site,
    tags::{self, Tags},
};
use aws_sdk_ec2::types::{
    HttpTokensState, IamInstanceProfileSpecification, InstanceMetadataOptionsRequest, InstanceType, IpPermission,
    IpRange, ResourceType,
};
use serde_json::json;

use super::free;
use crate::{
    broken::Bench,
    life::fleet,
    support::account::{Account, BUCKET, group, image},
    sweep::{a_run, import_key, launch, tags_of},
};

/// A call that must not go through, and what stops it.
pub struct Attack {
    pub what: &'static str,
    pub checks: Vec<Check>,
}

/// Calls as somebody with these credentials could make them. Answers those that are not refused for want of a permission.
pub async fn attacks(bench: &Bench) -> Vec<Attack> {
    let (account, site) = (&bench.account, &bench.site);
    let clients = &account.clients;
    let region = Arc::clone(&bench.simulation.region.region);
    let policy = region.policy();
    free(bench);
    let staging = account.site_with("staging", json!({})).await;
    let ours = |step: &str| tags_of(site, &a_run(), step);
    let another = || ours("launch/instances").with(tags::APP, "another");
    let untagged = launch(account, &Tags::default().with("Name", "somebody's")).await;
    let of_another = launch(account, &another()).await;
    let of_staging = launch(account, &tags_of(&staging, &a_run(), "launch/instances")).await;
    let our_server = launch(account, &ours("launch/instances")).await;
    let builder_of_another = launch(account, &ours("bake/builder").with(tags::APP, "another")).await;
    let builder_of_staging = launch(account, &tags_of(&staging, &a_run(), "bake/builder")).await;
    import_key(account, "alcedo-stagings", &tags_of(&staging, &a_run(), "bake/key")).await;
    let group_of_another = fleet_of(account, "hello-1a2b3c4f", &another()).await;
    let foreign_group = group(clients, &account.vpc, "foreign").await;
    let foreign_image = image(clients, &account.base, &account.subnets[0], "foreign", &another()).await;
    let shown = clients.ec2.describe_images().image_ids(&foreign_image).send().await.unwrap();
    let foreign_snapshot =
        shown.images()[0].block_device_mappings()[0].ebs().unwrap().snapshot_id().unwrap().to_owned();
    import_key(account, "somebodys", &Tags::default()).await;
    import_key(account, "alcedo-anothers", &another()).await;
    let foreign_rule = rule(account, &foreign_group, &Tags::default()).await;
    let our_rule = rule(account, &account.builder_group, &ours("smoke/open")).await;
    let subnets = clients.ec2.describe_subnets().send().await.unwrap();
    let foreign_subnet = subnets
        .subnets()
        .iter()
        .filter_map(|it| it.subnet_id())
        .find(|id| !account.subnets.iter().any(|own| own == id));
    let foreign_subnet = foreign_subnet.unwrap().to_owned();
    let foreign_fleet = fleet_of(account, "another-1a2b3c4d", &another()).await;
    let staging_fleet = fleet_of(account, "hello-1a2b3c4e", &tags_of(&staging, &a_run(), "launch/target-group")).await;
    let service = fleet(site, "2026.1102.100000".parse().unwrap()).await.unwrap();
    let other_listener = other_listener(account).await;
    let foreign_listener_rule = listener_rule(account, 77, &Tags::default()).await;
    let root = site.root.clone();
    clients.s3.put_object().bucket(BUCKET).key("elsewhere/secret").body(b"x".to_vec().into()).send().await.unwrap();
    clients.s3.create_bucket().bucket("another-bucket").send().await.unwrap();
    let journals = site.store.list(&format!("{root}runs/")).await.unwrap();
    let journal_entry = journals.iter().find(|key| key.ends_with("000001.json")).unwrap().clone();
    let versions = site.store.list(&format!("{root}2026.1102.100000/")).await.unwrap();
    let artifact = versions.iter().find(|key| key.ends_with("artifact.tar.zst")).unwrap().clone();
    region.restrict(policy);
    region.take_asked();

    let mut stopped = Vec::new();
    let mut passed: Vec<&'static str> = Vec::new();
    macro_rules! attack {
        ($what:literal, $call:expr) => {{
            // Boxed: a hundred different futures would not fit on a test's stack.
            let answer = Box::pin($call.send()).await;
            let refused = match answer {
                Ok(_) => false,
                Err(error) => {
                    let error = CloudError::of($what, error);
                    error.is_refused()
                }
            };
            let checks = region.take_asked().pop().unwrap_or_default();
            if refused {
                stopped.push(Attack { what: $what, checks });
            } else {
                passed.push($what);
            }
        }};
    }
    let ec2 = &clients.ec2;
    let tag = |key: &str, value: &str| aws_sdk_ec2::types::Tag::builder().key(key).value(value).build();
    attack!("end somebody's server", ec2.terminate_instances().instance_ids(&untagged));
    attack!("end another app's server", ec2.terminate_instances().instance_ids(&of_another));
    attack!("end staging's server", ec2.terminate_instances().instance_ids(&of_staging));
    attack!("read another's console", ec2.get_console_output().instance_id(&of_another));
    attack!(
        "tag somebody's server as ours",
        ec2.create_tags().resources(&untagged).tags(tag(tags::APP, "hello")).tags(tag(tags::ENVIRONMENT, "production"))
    );
    attack!("take the tags off our own", ec2.delete_tags().resources(&our_server));
    attack!("take all tags off a rule", ec2.delete_tags().resources(&our_rule));
    attack!("take another tag off a rule", ec2.delete_tags().resources(&our_rule).tags(tag(tags::EXPIRES, "")));
    attack!(
        "lengthen a rule's lease",
        ec2.create_tags().resources(&our_rule).tags(tag(tags::EXPIRES, "2999-01-01T00:00:00Z"))
    );
    attack!(
        "say that a foreign rule is used",
        ec2.create_tags().resources(&foreign_rule).tags(tag("alcedo:user:x", "2999-01-01T00:00:00Z"))
    );
    attack!(
        "image another's server",
        ec2.create_image()
            .instance_id(&of_another)
            .name("stolen")
            .set_tag_specifications(Some(image_tags(&ours("bake/image"))))
    );
    attack!(
        "image staging's server",
        ec2.create_image()
            .instance_id(&of_staging)
            .name("stolen")
            .set_tag_specifications(Some(image_tags(&ours("bake/image"))))
    );
    let image_of = |id: &str| {
        ec2.create_image().instance_id(id).name("stolen").set_tag_specifications(Some(image_tags(&ours("bake/image"))))
    };
    attack!("image another app's builder", image_of(&builder_of_another));
    attack!("image staging's builder", image_of(&builder_of_staging));
    attack!(
        "image a server in service",
        ec2.create_image()
            .instance_id(&service.instances[0])
            .name("stolen")
            .set_tag_specifications(Some(image_tags(&ours("bake/image"))))
    );
    attack!("remove another app's image", ec2.deregister_image().image_id(&foreign_image));
    attack!("delete another app's snapshot", ec2.delete_snapshot().snapshot_id(&foreign_snapshot));
    attack!("delete somebody's key", ec2.delete_key_pair().key_name("somebodys"));
    attack!("delete staging's key", ec2.delete_key_pair().key_name("alcedo-stagings"));
    attack!("delete another app's key", ec2.delete_key_pair().key_name("alcedo-anothers"));
    let material = aws_sdk_ec2::primitives::Blob::new(crate::sweep::PUBLIC_KEY);
    let key = |name: &str| ec2.import_key_pair().key_name(name).public_key_material(material.clone());
    attack!(
        "import a key of another name",
        key("mine").tag_specifications(ours("bake/key").specification(ResourceType::KeyPair))
    );
    attack!(
        "import a key as another app",
        key("alcedo-x").tag_specifications(another().specification(ResourceType::KeyPair))
    );
    attack!("import a key without tags", key("alcedo-y"));
    attack!(
        "import a key as staging",
        key("alcedo-z")
            .tag_specifications(tags_of(&staging, &a_run(), "bake/key").specification(ResourceType::KeyPair))
    );
    attack!(
        "import a key with other tags",
        key("alcedo-t")
            .tag_specifications(ours("bake/key").with("owner", "mallory").specification(ResourceType::KeyPair))
    );
    attack!(
        "open a port elsewhere",
        ec2.authorize_security_group_ingress().group_id(&foreign_group).ip_permissions(any())
    );
    attack!(
        "open a port as another app",
        ec2.authorize_security_group_ingress()
            .group_id(&account.builder_group)
            .ip_permissions(any())
            .tag_specifications(another().specification(ResourceType::SecurityGroupRule))
    );
    attack!(
        "close a port elsewhere",
        ec2.revoke_security_group_ingress().group_id(&foreign_group).ip_permissions(any())
    );
    attack!(
        "let everything out",
        ec2.authorize_security_group_egress().group_id(&account.builder_group).ip_permissions(any())
    );
    attack!("stop a server", ec2.stop_instances().instance_ids(&our_server));
    for (what, spec) in [
        ("launch with version 1 of the metadata service", Launch { tokens: "optional", ..Launch::ours() }),
        ("launch with metadata for containers", Launch { hops: 2, ..Launch::ours() }),
        ("launch something expensive", Launch { kind: "p5.48xlarge", ..Launch::ours() }),
        ("launch without tags", Launch { tagged: &[], ..Launch::ours() }),
        ("launch with an untagged volume", Launch { tagged: &["instance", "network-interface"], ..Launch::ours() }),
        ("launch as another app", Launch { app: ["another", "hello"], ..Launch::ours() }),
        ("launch with another app's volume", Launch { app: ["hello", "another"], ..Launch::ours() }),
        ("launch as staging", Launch { environment: ["staging", "production"], ..Launch::ours() }),
        ("launch with staging's volume", Launch { environment: ["production", "staging"], ..Launch::ours() }),
        ("launch with tags of one's own", Launch { extra: Some("owner"), ..Launch::ours() }),
        ("launch into another subnet", Launch { subnet: Some(&foreign_subnet), ..Launch::ours() }),
        ("launch behind another group", Launch { group: Some(&foreign_group), ..Launch::ours() }),
        ("launch another app's image", Launch { image: Some(&foreign_image), ..Launch::ours() }),
        ("launch with somebody's key", Launch { key: Some("somebodys"), ..Launch::ours() }),
        ("launch with another role", Launch { profile: Some("admin"), ..Launch::ours() }),
    ] {
        let answer = Box::pin(spec.call(account, site).send()).await;
        let refused = answer.is_err_and(|error| CloudError::of(what, error).is("UnauthorizedOperation"));
        let checks = region.take_asked().pop().unwrap_or_default();
        if refused { stopped.push(Attack { what, checks }) } else { passed.push(what) }
    }
    let elb = &clients.elb;
    let mark = |key: &str| aws_sdk_elasticloadbalancingv2::types::Tag::builder().key(key).value("x").build();
    let target = |id: &str| aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder().id(id).build();
    let action = || alcedo_stages::listener::Routing::to(&service.target_group).action();
    attack!("flip another listener", elb.modify_listener().listener_arn(&other_listener).default_actions(action()));
    attack!("change a rule of somebody's", elb.modify_rule().rule_arn(&foreign_listener_rule).actions(action()));
    attack!("delete a rule of somebody's", elb.delete_rule().rule_arn(&foreign_listener_rule));
    attack!("delete the listener", elb.delete_listener().listener_arn(&account.listener));
    attack!("delete another's fleet", elb.delete_target_group().target_group_arn(&foreign_fleet));
    attack!("delete what another app named like ours", elb.delete_target_group().target_group_arn(&group_of_another));
    attack!("delete staging's fleet", elb.delete_target_group().target_group_arn(&staging_fleet));
    attack!(
        "join another's fleet",
        elb.register_targets().target_group_arn(&foreign_fleet).targets(target(&our_server))
    );
    attack!("hold another's fleet", elb.add_tags().resource_arns(&foreign_fleet).tags(mark(tags::HELD_UNTIL)));
    attack!(
        "hold what another app named",
        elb.add_tags().resource_arns(&group_of_another).tags(mark(tags::HELD_UNTIL))
    );
    attack!("hold staging's fleet", elb.add_tags().resource_arns(&staging_fleet).tags(mark(tags::HELD_UNTIL)));
    attack!("give our fleet away", elb.add_tags().resource_arns(&service.target_group).tags(mark(tags::APP)));
    attack!("take our tags off a fleet", elb.remove_tags().resource_arns(&service.target_group).tag_keys(tags::APP));
    let make = |name: &str, tags: &Tags| {
        elb.create_target_group()
            .name(name)
            .port(80)
            .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http)
            .vpc_id(&account.vpc)
            .set_tags(Some(tags.elb()).filter(|tags| !tags.is_empty()))
    };
    attack!("make a fleet of another name", make("another-0a0a0a0a", &ours("launch/target-group")));
    attack!("make a fleet for another app", make("hello-0a0a0a0b", &another()));
    attack!("make a fleet for staging", make("hello-0a0a0a0d", &tags_of(&staging, &a_run(), "x")));
    attack!("make a fleet without tags", make("hello-0a0a0a0c", &Tags::default()));
    attack!("make a fleet with other tags", make("hello-0a0a0a0e", &ours("x").with("owner", "mallory")));
    let s3 = &clients.s3;
    let put = |key: &str| s3.put_object().bucket(BUCKET).key(key).body(b"mine".to_vec().into());
    attack!("read outside of the prefix", s3.get_object().bucket(BUCKET).key("elsewhere/secret"));
    attack!("write outside of the prefix", put("elsewhere/mine").if_none_match("*"));
    attack!("delete outside of the prefix", s3.delete_object().bucket(BUCKET).key("elsewhere/secret"));
    attack!("list the whole bucket", s3.list_objects_v2().bucket(BUCKET));
    attack!("list another bucket", s3.list_objects_v2().bucket("another-bucket").prefix(&root));
    attack!("write a journal over", put(&journal_entry));
    attack!("swap a journal's entry", put(&journal_entry).if_match("\"0\""));
    attack!("delete a journal's entry", s3.delete_object().bucket(BUCKET).key(&journal_entry));
    attack!("write an artifact over", put(&artifact));
    attack!("swap an artifact", put(&artifact).if_match("\"0\""));
    attack!("take the lock without looking", put(&site.lock_key()));
    attack!("take staging's lock", put(&staging.lock_key()).if_none_match("*"));
    attack!("end staging's lock", s3.delete_object().bucket(BUCKET).key(staging.lock_key()));
    attack!("begin an upload elsewhere", s3.create_multipart_upload().bucket(BUCKET).key("elsewhere/big"));
    attack!("delete the bucket", s3.delete_bucket().bucket(BUCKET));
    attack!("read another's secret", clients.ssm.get_parameters().names("/another/token").with_decryption(true));
    attack!("read a secret among ours", clients.ssm.get_parameters().names("hello-key").names("/another/token"));
    attack!("change a secret", clients.ssm.put_parameter().name("hello-key").value("mine").overwrite(true));
    attack!("delete a secret", clients.ssm.delete_parameter().name("hello-key"));
    // The local region is one region; what another would ask is made up.
    let elsewhere = region.read(|world| of_ec2("DescribeInstances", &Default::default(), "us-west-2", world));
    assert!(region.policy().unwrap().refuses(&elsewhere).is_some());
    stopped.push(Attack { what: "look at another region", checks: elsewhere });
    let role = "arn:aws:iam::000000000000:role/hello";
    let lambda = Check::made_up("iam:PassRole", role, &[("iam:PassedToService", "lambda.amazonaws.com")]);
    assert!(region.policy().unwrap().refuses(std::slice::from_ref(&lambda)).is_some());
    stopped.push(Attack { what: "give the servers' role to a function", checks: vec![lambda] });
    assert!(passed.is_empty(), "not refused: {passed:?}");
    stopped
}

/// One attempt to launch, by default one that is as it should be.
struct Launch<'a> {
    tokens: &'static str,
    hops: i32,
    kind: &'static str,
    tagged: &'static [&'static str],
    /// What its own tags say, and what those of its volume and its interface say.
    app: [&'static str; 2],
    environment: [&'static str; 2],
    extra: Option<&'static str>,
    subnet: Option<&'a str>,
    group: Option<&'a str>,
    image: Option<&'a str>,
    key: Option<&'static str>,
    profile: Option<&'static str>,
}

impl Launch<'_> {
    const fn ours() -> Self {
        Self {
            tokens: "required",
            hops: 1,
            kind: "t3.small",
            tagged: &["instance", "volume", "network-interface"],
            app: ["hello"; 2],
            environment: ["production"; 2],
            extra: None,
            subnet: None,
            group: None,
            image: None,
            key: None,
            profile: None,
        }
    }

    fn call(
        &self,
        account: &Account,
        site: &Site,
    ) -> aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder {
        let tags = |which: usize| {
            let own = tags_of(site, &a_run(), "launch/instances");
            let own = own.with(tags::APP, self.app[which]).with(tags::ENVIRONMENT, self.environment[which]);
            self.extra.map_or(own.clone(), |extra| own.with(extra, "mallory"))
        };
        let (own, of_parts) = (tags(0), tags(1));
        let options = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::from(self.tokens))
            .http_put_response_hop_limit(self.hops)
            .build();
        let tagged = self
            .tagged
            .iter()
            .map(|kind| if *kind == "instance" { &own } else { &of_parts }.specification(ResourceType::from(*kind)))
            .collect();
        let profile = self.profile.map(|name| IamInstanceProfileSpecification::builder().name(name).build());
        account
            .clients
            .ec2
            .run_instances()
            .image_id(self.image.unwrap_or(&account.base))
            .instance_type(InstanceType::from(self.kind))
            .min_count(1)
            .max_count(1)
            .subnet_id(self.subnet.unwrap_or(&account.subnets[0]))
            .security_group_ids(self.group.unwrap_or(&account.builder_group))
            .set_key_name(self.key.map(str::to_owned))
            .set_iam_instance_profile(profile)
            .metadata_options(options)
            .set_tag_specifications(Some(tagged))
    }
}

fn any() -> IpPermission {
    let range = IpRange::builder().cidr_ip("0.0.0.0/0").build();
    IpPermission::builder().ip_protocol("tcp").from_port(1).to_port(65535).ip_ranges(range).build()
}

fn image_tags(tags: &Tags) -> Vec<aws_sdk_ec2::types::TagSpecification> {
    [ResourceType::Image, ResourceType::Snapshot].map(|kind| tags.specification(kind)).to_vec()
}

async fn rule(account: &Account, group: &str, tags: &Tags) -> String {
    let range = IpRange::builder().cidr_ip("198.51.100.1/32").build();
    let permission = IpPermission::builder().ip_protocol("tcp").from_port(99).to_port(99).ip_ranges(range).build();
    let call = account.clients.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(permission);
    let specification = (!tags.ec2().is_empty()).then(|| vec![tags.specification(ResourceType::SecurityGroupRule)]);
    let answer = call.set_tag_specifications(specification).send().await.unwrap();
    answer.security_group_rules()[0].security_group_rule_id().unwrap().to_owned()
}

async fn fleet_of(account: &Account, name: &str, tags: &Tags) -> String {
    let call = account.clients.elb.create_target_group().name(name).port(80).vpc_id(&account.vpc);
    let http = aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http;
    let answer = call.protocol(http).set_tags(Some(tags.elb())).send().await.unwrap();
    answer.target_groups()[0].target_group_arn().unwrap().to_owned()
}

async fn other_listener(account: &Account) -> String {
    let action = crate::support::account::nothing_yet().action();
    let call = account.clients.elb.create_listener().load_balancer_arn(&account.balancer).port(8099);
    let http = aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http;
    let answer = call.protocol(http).default_actions(action).send().await.unwrap();
    answer.listeners()[0].listener_arn().unwrap().to_owned()
}

async fn listener_rule(account: &Account, priority: i32, tags: &Tags) -> String {
    let condition = alcedo_stages::preview::header_condition("X-Somebody", ["x".to_owned()]);
    let call = account.clients.elb.create_rule().listener_arn(&account.listener).priority(priority);
    let action = crate::support::account::nothing_yet().action();
    let tags = Some(tags.elb()).filter(|tags| !tags.is_empty());
    let answer = call.conditions(condition).actions(action).set_tags(tags).send().await.unwrap();
    answer.rules()[0].rule_arn().unwrap().to_owned()
}
