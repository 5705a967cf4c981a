//! ELBv2's API: what calls answer, refuse and remember. No data plane has to carry requests here.

use std::time::Duration;

use alcedo_local_region::{config::Lags, wire::ApiError};

mod balancer_support;
use balancer_support::{Answer, Backend, Lab, eventually, forward, free_port, no_lags, target_form};

fn code(answer: Result<Answer, ApiError>) -> String {
    answer.expect_err("the call is to be refused").code
}

fn form(pairs: &[&str]) -> Vec<String> {
    pairs.iter().map(|pair| (*pair).to_owned()).collect()
}

fn vpc(lab: &Lab) -> String {
    lab.region.read(|world| world.ec2.default_vpc().unwrap().vpc_id.clone())
}

fn subnets(lab: &Lab) -> Vec<String> {
    lab.region.read(|world| world.ec2.subnets().map(|subnet| subnet.subnet_id.clone()).collect())
}

#[tokio::test]
async fn a_load_balancer_is_described_with_its_nodes() {
    let lab = Lab::frozen(Lags { propagation: Duration::from_secs(3), ..no_lags() }).await;
    let arn = lab.load_balancer("web").await;
    assert!(arn.starts_with("arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/web/"), "{arn}");
    let described = lab.must("DescribeLoadBalancers", &form(&["Names.member.1=web"])).await;
    assert_eq!(described.text("LoadBalancerArn"), arn);
    assert_eq!(described.text("DNSName"), "localhost");
    assert_eq!(described.all("ZoneName"), ["us-east-1a", "us-east-1b", "us-east-1c"]);
    assert_eq!(described.all("IpAddress"), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(described.text("CreatedTime"), "2026-11-20T19:05:12.000Z");
    assert_eq!(described.text("Code"), "provisioning");
    lab.advance(Duration::from_secs(3));
    assert_eq!(lab.must("DescribeLoadBalancers", &[]).await.text("Code"), "active");
}

#[tokio::test]
async fn a_load_balancer_needs_two_zones_and_a_name_of_its_own() {
    let lab = Lab::start(no_lags()).await;
    let subnets = subnets(&lab);
    let create = async |pairs: &[String]| lab.call("CreateLoadBalancer", pairs).await;
    let with = |name: &str, chosen: &[usize]| {
        let mut form = vec![format!("Name={name}")];
        form.extend(
            chosen.iter().enumerate().map(|(at, place)| format!("Subnets.member.{}={}", at + 1, subnets[*place])),
        );
        form
    };
    assert_eq!(code(create(&with("one", &[0])).await), "ValidationError");
    assert_eq!(code(create(&with("one", &[0, 0])).await), "InvalidConfigurationRequest");
    assert_eq!(code(create(&form(&["Name=one", "Subnets.member.1=subnet-x"])).await), "SubnetNotFound");
    assert_eq!(code(create(&with("internal-x", &[0, 1])).await), "ValidationError");
    let first = create(&with("one", &[0, 1])).await.unwrap().text("LoadBalancerArn");
    assert_eq!(create(&with("one", &[0, 1])).await.unwrap().text("LoadBalancerArn"), first, "the same call again");
    assert_eq!(code(create(&with("one", &[0, 2])).await), "DuplicateLoadBalancerName");
    let mut network = with("two", &[0, 1]);
    network.push("Type=network".into());
    let refused = create(&network).await.unwrap_err();
    assert_eq!(refused.code, "Unsupported");
    assert!(refused.message.contains("network"), "{}", refused.message);
}

#[tokio::test]
async fn deletion_protection_holds() {
    let lab = Lab::start(no_lags()).await;
    let arn = format!("LoadBalancerArn={}", lab.load_balancer("web").await);
    let protect = |value: &str| {
        let key = "Attributes.member.1.Key=deletion_protection.enabled".to_owned();
        [arn.clone(), key, format!("Attributes.member.1.Value={value}")]
    };
    lab.must("ModifyLoadBalancerAttributes", &protect("true")).await;
    assert_eq!(code(lab.call("DeleteLoadBalancer", std::slice::from_ref(&arn)).await), "OperationNotPermitted");
    lab.must("ModifyLoadBalancerAttributes", &protect("false")).await;
    lab.must("DeleteLoadBalancer", std::slice::from_ref(&arn)).await;
    assert_eq!(
        code(lab.call("DescribeLoadBalancerAttributes", std::slice::from_ref(&arn)).await),
        "LoadBalancerNotFound"
    );
    lab.must("DeleteLoadBalancer", &[arn]).await;
}

#[tokio::test]
async fn a_target_group_created_again_is_the_same_one_or_refused() {
    let lab = Lab::start(no_lags()).await;
    let vpc = format!("VpcId={}", vpc(&lab));
    let create = async |pairs: &[&str]| {
        let mut form = form(&["Name=blue", "Protocol=HTTP", "Port=80", &vpc]);
        form.extend(pairs.iter().map(|pair| (*pair).to_owned()));
        lab.call("CreateTargetGroup", &form).await
    };
    let first = create(&[]).await.unwrap();
    assert_eq!(first.text("HealthCheckIntervalSeconds"), "30");
    assert_eq!(first.text("HealthCheckPort"), "traffic-port");
    assert_eq!(create(&[]).await.unwrap().text("TargetGroupArn"), first.text("TargetGroupArn"));
    assert_eq!(code(create(&["HealthCheckPath=/other"]).await), "DuplicateTargetGroupName");
    assert_eq!(code(create(&["HealthCheckIntervalSeconds=4"]).await), "ValidationError");
    assert_eq!(code(create(&["TargetType=lambda"]).await), "Unsupported");
    assert_eq!(code(create(&["Matcher.HttpCode=600"]).await), "ValidationError");
}

#[tokio::test]
async fn a_group_that_an_action_refers_to_cannot_be_deleted() {
    let lab = Lab::start(no_lags()).await;
    let group = lab.group("blue", &[]).await;
    let (listener, _) = lab.serve(&group).await;
    let delete = form(&[&format!("TargetGroupArn={group}")]);
    assert_eq!(code(lab.call("DeleteTargetGroup", &delete).await), "ResourceInUse");
    lab.must("DeleteListener", &[format!("ListenerArn={listener}")]).await;
    lab.must("DeleteTargetGroup", &delete).await;
    let by_arn = form(&[&format!("TargetGroupArns.member.1={group}")]);
    assert_eq!(code(lab.call("DescribeTargetGroups", &by_arn).await), "TargetGroupNotFound");
}

#[tokio::test]
async fn a_group_belongs_to_one_load_balancer() {
    let lab = Lab::start(no_lags()).await;
    let group = lab.group("blue", &[]).await;
    lab.serve(&group).await;
    let other = lab.load_balancer("other").await;
    let mut form = vec![format!("LoadBalancerArn={other}"), format!("Port={}", free_port()), "Protocol=HTTP".into()];
    form.extend(forward(&[(&group, 1)]).iter().map(|pair| format!("DefaultActions.member.1.{pair}")));
    assert_eq!(code(lab.call("CreateListener", &form).await), "TargetGroupAssociationLimit");
}

#[tokio::test]
async fn a_listener_is_unique_on_its_port() {
    let lab = Lab::start(no_lags()).await;
    let (blue, green) = (lab.group("blue", &[]).await, lab.group("green", &[]).await);
    let load_balancer = lab.load_balancer("web").await;
    let (listener, port) = lab.listener(&load_balancer, &forward(&[(&blue, 1)])).await;
    let create = async |group: &str| {
        let mut form = vec![format!("LoadBalancerArn={load_balancer}"), format!("Port={port}"), "Protocol=HTTP".into()];
        form.extend(forward(&[(group, 1)]).iter().map(|pair| format!("DefaultActions.member.1.{pair}")));
        lab.call("CreateListener", &form).await
    };
    assert_eq!(create(&blue).await.unwrap().text("ListenerArn"), listener, "the same call again");
    assert_eq!(code(create(&green).await), "DuplicateListener");
    assert_eq!(code(create("arn:none").await), "TargetGroupNotFound");
}

#[tokio::test]
async fn rules_have_priorities_that_can_be_swapped() {
    let lab = Lab::start(no_lags()).await;
    let group = lab.group("blue", &[]).await;
    let (listener, _) = lab.serve(&group).await;
    let create = async |priority: u32, path: &str| {
        let mut form = vec![
            format!("ListenerArn={listener}"),
            format!("Priority={priority}"),
            "Conditions.member.1.Field=path-pattern".into(),
            format!("Conditions.member.1.Values.member.1={path}"),
        ];
        form.extend(forward(&[(&group, 1)]).iter().map(|pair| format!("Actions.member.1.{pair}")));
        lab.call("CreateRule", &form).await
    };
    let first = create(1, "/a").await.unwrap().text("RuleArn");
    let second = create(2, "/b").await.unwrap().text("RuleArn");
    assert_eq!(code(create(2, "/c").await), "PriorityInUse");
    assert_eq!(code(create(50_001, "/c").await), "ValidationError");
    let set = async |priorities: &[(&str, u32)]| {
        let pairs = priorities.iter().enumerate().flat_map(|(at, (arn, priority))| {
            let prefix = format!("RulePriorities.member.{}", at + 1);
            [format!("{prefix}.RuleArn={arn}"), format!("{prefix}.Priority={priority}")]
        });
        lab.call("SetRulePriorities", &pairs.collect::<Vec<_>>()).await
    };
    assert_eq!(code(set(&[(&first, 2)]).await), "PriorityInUse");
    set(&[(&first, 2), (&second, 1)]).await.unwrap();
    let described = lab.must("DescribeRules", &[format!("ListenerArn={listener}")]).await;
    let arns = described.all("RuleArn");
    assert_eq!(arns[..2], [second, first.clone()]);
    assert_eq!(described.all("Priority"), ["1", "2", "default"]);
    assert_eq!(code(lab.call("DeleteRule", &[format!("RuleArn={}", arns[2])]).await), "OperationNotPermitted");
    lab.must("DeleteRule", &[format!("RuleArn={first}")]).await;
    assert_eq!(code(lab.call("DescribeRules", &[format!("RuleArns.member.1={first}")]).await), "RuleNotFound");
}

#[tokio::test]
async fn targets_must_exist_and_leave_only_once() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[]).await;
    let invalid = form(&[&format!("TargetGroupArn={group}"), "Targets.member.1.Id=8.8.8.8"]);
    assert_eq!(code(lab.call("RegisterTargets", &invalid).await), "InvalidTarget");
    assert_eq!(code(lab.call("DeregisterTargets", &target_form(&group, server.address)).await), "InvalidTarget");
    assert_eq!(lab.health(&group, &server).await, ("unused".into(), "Target.NotRegistered".into()));
    let vpc = format!("VpcId={}", vpc(&lab));
    let instances = lab.must("CreateTargetGroup", &form(&["Name=i", "Protocol=HTTP", "Port=80", &vpc])).await;
    let unknown = form(&[&format!("TargetGroupArn={}", instances.text("TargetGroupArn")), "Targets.member.1.Id=i-0"]);
    assert_eq!(code(lab.call("RegisterTargets", &unknown).await), "InvalidTarget");
}

#[tokio::test]
async fn target_health_is_described_late() {
    let lags = Lags { target_health: Duration::from_secs(2), registration: Duration::from_secs(5), ..no_lags() };
    let lab = Lab::frozen(lags).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    lab.advance(Duration::from_secs(10));
    lab.serve(&group).await;
    assert_eq!(lab.health(&group, &server).await.1, "Target.NotInUse");
    lab.advance(Duration::from_secs(2));
    assert_eq!(lab.health(&group, &server).await.1, "Elb.RegistrationInProgress");
    lab.advance(Duration::from_secs(4));
    assert_eq!(lab.health(&group, &server).await.1, "Elb.RegistrationInProgress", "seen as of two seconds ago");
    eventually("the target to be healthy, and to be seen so", async || {
        lab.advance(Duration::from_secs(1));
        let (state, reason) = lab.health(&group, &server).await;
        if state == "healthy" { Ok(()) } else { Err(reason) }
    })
    .await;
}

#[tokio::test]
async fn attributes_have_their_defaults_and_ranges() {
    let lab = Lab::start(no_lags()).await;
    let group = format!("TargetGroupArn={}", lab.group("blue", &[]).await);
    let described = lab.must("DescribeTargetGroupAttributes", std::slice::from_ref(&group)).await;
    assert!(
        described.0.contains("<Key>deregistration_delay.timeout_seconds</Key><Value>300</Value>"),
        "{}",
        described.0
    );
    let modify = form(&[&group, "Attributes.member.1.Key=slow_start.duration_seconds", "Attributes.member.1.Value=29"]);
    assert_eq!(code(lab.call("ModifyTargetGroupAttributes", &modify).await), "ValidationError");
}

#[tokio::test]
async fn tags_are_kept_with_everything() {
    let lab = Lab::start(no_lags()).await;
    let group = lab.group("blue", &[]).await;
    let (listener, _) = lab.serve(&group).await;
    let arns = [group, listener];
    let resources = || arns.iter().enumerate().map(|(at, arn)| format!("ResourceArns.member.{}={arn}", at + 1));
    let add = form(&["Tags.member.1.Key=app", "Tags.member.1.Value=hello", "Tags.member.2.Key=run"]);
    lab.must("AddTags", &add.into_iter().chain(resources()).collect::<Vec<_>>()).await;
    let remove = form(&["TagKeys.member.1=run"]);
    lab.must("RemoveTags", &remove.into_iter().chain(resources()).collect::<Vec<_>>()).await;
    let described = lab.must("DescribeTags", &resources().collect::<Vec<_>>()).await;
    assert_eq!(described.all("ResourceArn"), arns);
    assert_eq!(described.all("Key"), ["app", "app"]);
    assert_eq!(described.all("Value"), ["hello", "hello"]);
    let bad = form(&["ResourceArns.member.1=arn:aws:elasticloadbalancing:r:0:targetgroup/x/1"]);
    assert_eq!(code(lab.call("DescribeTags", &bad).await), "TargetGroupNotFound");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let lab = Lab::start(no_lags()).await;
    for number in 0..5 {
        lab.group(&format!("group-{number}"), &[]).await;
    }
    let mut names = Vec::new();
    let mut marker = None;
    loop {
        let mut form = form(&["PageSize=2"]);
        form.extend(marker.map(|marker| format!("Marker={marker}")));
        let page = lab.must("DescribeTargetGroups", &form).await;
        names.extend(page.all("TargetGroupName"));
        marker = page.maybe("NextMarker");
        if marker.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["group-0", "group-1", "group-2", "group-3", "group-4"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let lab = Lab::start(no_lags()).await;
    let error = lab.call("CreateTrustStore", &[]).await.unwrap_err();
    assert_eq!(error.code, "Unsupported");
    assert!(error.message.contains("CreateTrustStore"), "{}", error.message);
}
