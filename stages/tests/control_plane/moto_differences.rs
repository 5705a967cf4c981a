//! The list in `moto-differences.md` holds: each difference is there in moto, and not in the local region.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use alcedo_local_region::config::Lags;
use alcedo_pipeline::file::Aws;
use alcedo_stages::{
    clients::{Clients, LocalEndpoint, ec2_once},
    cloud_error::CloudError,
    launch,
    tags::Tags,
};
use aws_sdk_ec2::{operation::run_instances::builders::RunInstancesFluentBuilder, types::ResourceType};
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetDescription, TargetHealthStateEnum};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::support::{
    account::{Account, BUCKET, eventually, group, image, server},
    moto::Moto,
    region::LocalRegion,
};

const TABLE: &str = include_str!("moto-differences.md");

/// Calls after which an endpoint that throttles has throttled.
const MANY_CALLS: usize = 60;

type Observation = for<'a> fn(&'a Account) -> Pin<Box<dyn Future<Output = bool> + 'a>>;

/// Whether the endpoint behaves as the table says of moto.
const DIFFERENCES: &[(&str, Observation)] = &[
    ("client-tokens", |account| Box::pin(client_tokens(account))),
    ("health-without-reference", |account| Box::pin(health_without_reference(account))),
    ("health-without-server", |account| Box::pin(health_without_server(account))),
    ("no-draining", |account| Box::pin(no_draining(account))),
    ("attached-groups", |account| Box::pin(attached_groups(account))),
    ("image-names", |account| Box::pin(image_names(account))),
    ("snapshot-tags", |account| Box::pin(snapshot_tags(account))),
    ("interface-tags", |account| Box::pin(interface_tags(account))),
    ("absent-key-pairs", |account| Box::pin(absent_key_pairs(account))),
    ("long-user-data", |account| Box::pin(long_user_data(account))),
    ("endless-capacity", |account| Box::pin(endless_capacity(account))),
    ("known-at-once", |account| Box::pin(known_at_once(account))),
    ("wrong-checksums", |account| Box::pin(wrong_checksums(account))),
    ("group-made-again", |account| Box::pin(group_made_again(account))),
    ("any-signature", |account| Box::pin(any_signature(account))),
    // Last: it leaves the endpoint's bucket of launches empty.
    ("no-throttling", |account| Box::pin(no_throttling(account))),
];

#[tokio::test]
async fn each_difference_holds_in_moto() {
    let moto = Moto::start();
    let gone = observed(&moto.endpoint, false).await;
    assert!(
        gone.is_empty(),
        "moto behaves like AWS now; take out of moto-differences.md, and assert in moto.rs: {gone:?}"
    );
}

#[tokio::test]
async fn no_difference_holds_in_the_local_region() {
    // A lag that a slow machine does not sleep through, and is waited out where it is of no interest.
    let region = LocalRegion::with(Lags { new_record: Duration::from_secs(1), ..Lags::quick() }).await;
    let same = observed(&region.endpoint, true).await;
    assert!(same.is_empty(), "the local region is no better than moto in: {same:?}");
}

#[test]
fn the_table_and_the_observations_name_the_same_differences() {
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: BTreeSet<&str> = rows.filter(|name| *name != "difference").collect();
    let observed: BTreeSet<&str> = DIFFERENCES.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, observed);
}

/// The differences whose observation comes out as `wanted`.
async fn observed(endpoint: &LocalEndpoint, wanted: bool) -> Vec<&'static str> {
    let account = Account::open(endpoint.clone()).await;
    let mut found = Vec::new();
    for (name, observe) in DIFFERENCES {
        if observe(&account).await == wanted {
            found.push(*name);
        }
    }
    found
}

/// A launch of one server, still to be sent.
fn launch_of_one(account: &Account) -> RunInstancesFluentBuilder {
    let run = account.clients.ec2.run_instances().image_id(&account.base).subnet_id(&account.subnets[0]);
    run.instance_type("t3.micro".into()).min_count(1).max_count(1)
}

async fn client_tokens(account: &Account) -> bool {
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let made = launch_of_one(account).client_token("the same token").send().await.unwrap();
        ids.insert(made.instances()[0].instance_id().unwrap().to_owned());
    }
    ids.len() == 2
}

async fn target_group(account: &Account, name: &str) -> Result<String, CloudError> {
    let create = account.clients.elb.create_target_group().name(name).protocol(ProtocolEnum::Http).port(8080);
    let made = create.vpc_id(&account.vpc).send().await.map_err(|error| CloudError::of("create", error))?;
    Ok(made.target_groups()[0].target_group_arn().unwrap().to_owned())
}

async fn register(account: &Account, group: &str, id: &str) -> bool {
    let target = TargetDescription::builder().id(id).build();
    account.clients.elb.register_targets().target_group_arn(group).targets(target).send().await.is_ok()
}

/// The state of a group's only target; `None` where there is no target.
async fn health(account: &Account, group: &str) -> Option<TargetHealthStateEnum> {
    let health = launch::target_health(&account.clients, group).await.unwrap();
    health.first().map(|target| launch::state(target).unwrap().clone())
}

async fn health_without_reference(account: &Account) -> bool {
    let group = target_group(account, "unreferenced").await.unwrap();
    let server = server(&account.clients, &account.base, &account.subnets[0]).await;
    assert!(register(account, &group, &server).await);
    eventually("the target to be described", async || health(account, &group).await.is_some()).await;
    health(account, &group).await == Some(TargetHealthStateEnum::Healthy)
}

async fn health_without_server(account: &Account) -> bool {
    let group = target_group(account, "nobody").await.unwrap();
    register(account, &group, "i-0123456789abcdef0").await
        && health(account, &group).await == Some(TargetHealthStateEnum::Healthy)
}

async fn no_draining(account: &Account) -> bool {
    let group = target_group(account, "leaving").await.unwrap();
    let listen = account.clients.elb.create_listener().load_balancer_arn(&account.balancer);
    let action = alcedo_stages::listener::Routing::to(&group).action();
    listen.protocol(ProtocolEnum::Http).port(8081).default_actions(action).send().await.unwrap();
    let server = server(&account.clients, &account.base, &account.subnets[0]).await;
    assert!(register(account, &group, &server).await);
    let healthy = Some(TargetHealthStateEnum::Healthy);
    eventually("the target to be healthy", async || health(account, &group).await == healthy).await;
    let target = TargetDescription::builder().id(server).build();
    let leave = account.clients.elb.deregister_targets().target_group_arn(&group).targets(target);
    leave.send().await.unwrap();
    eventually("the target to leave", async || health(account, &group).await != healthy).await;
    health(account, &group).await.is_none()
}

async fn attached_groups(account: &Account) -> bool {
    let ec2 = &account.clients.ec2;
    let id = group(&account.clients, &account.vpc, "attached").await;
    eventually("the group to be visible", async || ec2.describe_security_groups().group_ids(&id).send().await.is_ok())
        .await;
    launch_of_one(account).security_group_ids(&id).send().await.unwrap();
    ec2.delete_security_group().group_id(&id).send().await.is_ok()
}

async fn image_names(account: &Account) -> bool {
    let (clients, subnet) = (&account.clients, &account.subnets[0]);
    image(clients, &account.base, subnet, "a name of one image", &Tags::default().with("which", "first")).await;
    let server = server(clients, &account.base, subnet).await;
    clients.ec2.create_image().instance_id(server).name("a name of one image").send().await.is_ok()
}

async fn snapshot_tags(account: &Account) -> bool {
    let server = server(&account.clients, &account.base, &account.subnets[0]).await;
    let tags = Tags::default().with("some", "tag").specification(ResourceType::Snapshot);
    let create =
        account.clients.ec2.create_image().instance_id(server).name("tagged snapshots").tag_specifications(tags);
    let Err(error) = create.customize().config_override(ec2_once()).send().await else { return false };
    error.raw_response().is_some_and(|raw| raw.status().as_u16() == 500)
}

async fn interface_tags(account: &Account) -> bool {
    let tags = Tags::default().with("some", "tag").specification(ResourceType::NetworkInterface);
    let made = launch_of_one(account).tag_specifications(tags).send().await.unwrap();
    let interface = made.instances()[0].network_interfaces()[0].network_interface_id().unwrap().to_owned();
    let describe = || account.clients.ec2.describe_network_interfaces().network_interface_ids(&interface).send();
    eventually("the interface to be visible", async || describe().await.is_ok()).await;
    describe().await.unwrap().network_interfaces()[0].tag_set().is_empty()
}

async fn absent_key_pairs(account: &Account) -> bool {
    launch_of_one(account).key_name("nobody made it").send().await.is_ok()
}

async fn long_user_data(account: &Account) -> bool {
    launch_of_one(account).user_data(STANDARD.encode([b'#'; 20_000])).send().await.is_ok()
}

async fn endless_capacity(account: &Account) -> bool {
    launch_of_one(account).min_count(40).max_count(40).send().await.is_ok()
}

/// Several times, because a machine under load may ask too late to see that there is a lag.
async fn known_at_once(account: &Account) -> bool {
    for _ in 0..3 {
        let made = launch_of_one(account).send().await.unwrap();
        let id = made.instances()[0].instance_id().unwrap();
        let described = account.clients.ec2.describe_instances().instance_ids(id).send().await;
        if described.is_err_and(|error| CloudError::of("describe", error).is("InvalidInstanceID.NotFound")) {
            return false;
        }
    }
    true
}

async fn no_throttling(account: &Account) -> bool {
    for _ in 0..MANY_CALLS {
        let answer = launch_of_one(account).dry_run(true).customize().config_override(ec2_once()).send().await;
        let error = CloudError::of("launch", answer.expect_err("a dry run never launches"));
        if error.is("RequestLimitExceeded") {
            return false;
        }
        assert!(error.is("DryRunOperation"), "{error}");
    }
    true
}

async fn wrong_checksums(account: &Account) -> bool {
    let put = account.clients.s3.put_object().bucket(BUCKET).key("corrupted").body(b"one thing".to_vec().into());
    put.checksum_sha256(STANDARD.encode(Sha256::digest("another thing"))).send().await.is_ok()
}

async fn group_made_again(account: &Account) -> bool {
    let first = target_group(account, "again").await.unwrap();
    match target_group(account, "again").await {
        Ok(second) => {
            assert_eq!(first, second, "two groups of one name");
            false
        }
        Err(error) => error.is("DuplicateTargetGroupName"),
    }
}

async fn any_signature(account: &Account) -> bool {
    let stranger = LocalEndpoint { secret_key: "a guess".into(), ..account.endpoint().clone() };
    let clients = Clients::connect(&Aws::default(), Some(&stranger)).await;
    clients.ec2.describe_vpcs().send().await.is_ok()
}
