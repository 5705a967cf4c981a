//! Security groups: rules with ids and tags, duplicates, what readers see, and what a server's network is told.

use alcedo_local_region::instances::{FirewallRule, Protocol};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, ResourceType, SecurityGroupRule, UserIdGroupPair};

use crate::support::{TestRegion, code, tagged};

async fn group(region: &TestRegion, name: &str) -> String {
    let call = region.ec2().create_security_group().group_name(name).description("test");
    let id = call.send().await.unwrap().group_id().unwrap().to_owned();
    region.pass_lag();
    id
}

fn ssh_from(cidr: &str, description: &str) -> IpPermission {
    let range = IpRange::builder().cidr_ip(cidr).description(description).build();
    IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22).ip_ranges(range).build()
}

async fn rules(region: &TestRegion, group: &str) -> Vec<SecurityGroupRule> {
    let by_group = Filter::builder().name("group-id").values(group).build();
    let answer = region.ec2().describe_security_group_rules().filters(by_group).send().await.unwrap();
    answer.security_group_rules().iter().filter(|rule| rule.is_egress() == Some(false)).cloned().collect()
}

#[tokio::test]
async fn a_rule_comes_with_an_id_and_tags_is_seen_late_and_leaves_by_its_id() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let group = group(&region, "g").await;
    let authorize = client
        .authorize_security_group_ingress()
        .group_id(&group)
        .ip_permissions(ssh_from("10.0.0.7/32", "me"))
        .tag_specifications(tagged(ResourceType::SecurityGroupRule, "run", "1"));
    let answer = authorize.send().await.unwrap();
    let made = &answer.security_group_rules()[0];
    assert_eq!(made.tags()[0].key(), Some("run"));
    assert!(rules(&region, &group).await.is_empty(), "seen late");
    region.pass_lag();
    let seen = rules(&region, &group).await;
    assert_eq!(seen[0].security_group_rule_id(), made.security_group_rule_id());
    assert_eq!((seen[0].cidr_ipv4(), seen[0].description()), (Some("10.0.0.7/32"), Some("me")));

    let revoke = || {
        client
            .revoke_security_group_ingress()
            .group_id(&group)
            .security_group_rule_ids(made.security_group_rule_id().unwrap())
    };
    revoke().send().await.unwrap();
    assert_eq!(code(revoke().send().await), "InvalidSecurityGroupRuleId.NotFound");
    region.pass_lag();
    assert!(rules(&region, &group).await.is_empty());
}

#[tokio::test]
async fn the_same_permission_twice_is_a_duplicate_and_an_absent_one_is_not_revoked() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let group = group(&region, "g").await;
    let authorize = |cidr: &str, text: &str| {
        client.authorize_security_group_ingress().group_id(&group).ip_permissions(ssh_from(cidr, text)).send()
    };
    let revoke =
        |cidr: &str| client.revoke_security_group_ingress().group_id(&group).ip_permissions(ssh_from(cidr, "")).send();
    authorize("10.0.0.7/32", "one").await.unwrap();
    assert_eq!(code(authorize("10.0.0.7/32", "two").await), "InvalidPermission.Duplicate");
    assert_eq!(code(revoke("10.0.0.8/32").await), "InvalidPermission.NotFound");
    revoke("10.0.0.7/32").await.unwrap();
    assert_eq!(code(revoke("10.0.0.7/32").await), "InvalidPermission.NotFound");
    for last in 0..60 {
        authorize(&format!("10.0.1.{last}/32"), "").await.unwrap();
    }
    assert_eq!(code(authorize("10.0.2.0/32", "").await), "RulesPerSecurityGroupLimitExceeded");
}

#[tokio::test]
async fn a_servers_network_is_told_before_the_call_is_answered() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let (servers, clients) = (group(&region, "servers").await, group(&region, "clients").await);
    let image = region.base_image().await;
    let launch = async |group: &str| {
        let call = client.run_instances().image_id(&image).instance_type("t3.micro".into()).min_count(1).max_count(1);
        let answer = call.security_group_ids(group).send().await.unwrap();
        let made = &answer.instances()[0];
        region.pass_lag();
        region.wait_for(made.instance_id().unwrap(), aws_sdk_ec2::types::InstanceStateName::Running).await;
        (made.instance_id().unwrap().to_owned(), made.private_ip_address().unwrap().to_owned())
    };
    let (server, _) = launch(&servers).await;
    let (_, client_address) = launch(&clients).await;
    assert_eq!(region.machines.firewall(&server).unwrap(), []);

    let from_clients = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(8080)
        .to_port(8081)
        .user_id_group_pairs(UserIdGroupPair::builder().group_id(&clients).build())
        .build();
    client
        .authorize_security_group_ingress()
        .group_id(&servers)
        .ip_permissions(ssh_from("192.0.2.0/24", ""))
        .ip_permissions(from_clients)
        .send()
        .await
        .unwrap();
    let rule = |source: &str, from_port, to_port| FirewallRule {
        protocol: Protocol::Tcp,
        from_port,
        to_port,
        source: source.parse().unwrap(),
    };
    let both = [rule("192.0.2.0/24", 22, 22), rule(&format!("{client_address}/32"), 8080, 8081)];
    let told = |rules: &[FirewallRule]| {
        let (mut told, mut wanted) = (region.machines.firewall(&server).unwrap(), rules.to_vec());
        told.sort();
        wanted.sort();
        assert_eq!(told, wanted);
    };
    told(&both);
    let revoke = client.revoke_security_group_ingress().group_id(&servers).ip_permissions(ssh_from("192.0.2.0/24", ""));
    revoke.send().await.unwrap();
    told(&both[1..]);
}

#[tokio::test]
async fn a_group_in_use_stays() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let group = group(&region, "g").await;
    let image = region.base_image().await;
    let launch = client.run_instances().image_id(&image).instance_type("t3.micro".into()).min_count(1).max_count(1);
    let answer = launch.security_group_ids(&group).send().await.unwrap();
    let id = answer.instances()[0].instance_id().unwrap();
    region.pass_lag();
    let delete = || client.delete_security_group().group_id(&group).send();
    assert_eq!(code(delete().await), "DependencyViolation");
    client.terminate_instances().instance_ids(id).send().await.unwrap();
    region.wait_for(id, aws_sdk_ec2::types::InstanceStateName::Terminated).await;
    delete().await.unwrap();
    assert_eq!(code(delete().await), "InvalidGroup.NotFound");
    let again = client.create_security_group().group_name("default").description("d").send().await;
    assert_eq!(code(again), "InvalidGroup.Duplicate");
}
