//! What calls of the query protocol are checked for.
//!
//! Sources: *Service Authorization Reference*, Amazon EC2 and AWS Elastic Load Balancing V2 (resource types and condition
//! keys of each action); EC2 user guide, *Grant permission to tag EC2 resources during creation*; ELB user guide, *Grant
//! permission to tag resources during creation*. On which ARN ELB checks `AddTags` for a rule or a listener that is being
//! made is documented nowhere; here it is the new thing's own, with `*` for its id.

use std::collections::BTreeMap;

use super::{Check, Context};
use crate::{
    state::{World, ec2::image::ACCOUNT, ec2::tagging},
    wire::Params,
};

type Tags = BTreeMap<String, String>;

/// What is made up for one call.
struct Call<'a> {
    service: &'static str,
    action: &'a str,
    params: &'a Params,
    region: &'a str,
    world: &'a World,
}

impl Call<'_> {
    fn check(&self, resource: impl Into<String>, fill: impl FnOnce(&mut Context)) -> Check {
        self.check_of(self.action, resource, fill)
    }

    /// A check of another action of the same service.
    fn check_of(&self, action: &str, resource: impl Into<String>, fill: impl FnOnce(&mut Context)) -> Check {
        let action = if action.contains(':') { action.to_owned() } else { format!("{}:{action}", self.service) };
        let mut context = Context::default();
        context.set("aws:RequestedRegion", [self.region]);
        fill(&mut context);
        Check { action, resource: resource.into(), context }
    }

    /// Images and snapshots have no account in their ARNs.
    fn arn(&self, kind: &str, id: &str) -> String {
        let account = if matches!(kind, "image" | "snapshot") { "" } else { ACCOUNT };
        format!("arn:aws:ec2:{}:{account}:{kind}/{id}", self.region)
    }

    fn of_id(&self, id: &str, fill: impl FnOnce(&mut Context)) -> Check {
        let kind = tagging::resource_type(id).unwrap_or("*");
        self.check(self.arn(kind, id), |context| {
            context.has(self.world.ec2.tags_now(id).iter().flatten());
            fill(context);
        })
    }

    /// The tags that a call brings for one kind of what it makes.
    fn specified(&self, kind: &str) -> Tags {
        let mut tags = Tags::new();
        for prefix in self.params.groups("TagSpecification") {
            if self.params.get(&format!("{prefix}.ResourceType")) == Some(kind) {
                tags.extend(self.pairs(&format!("{prefix}.Tag")));
            }
        }
        tags
    }

    fn pairs(&self, name: &str) -> Tags {
        let groups = self.params.groups(name).into_iter();
        let pair = |prefix: String| {
            let key = self.params.get(&format!("{prefix}.Key"))?.to_owned();
            Some((key, self.params.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned()))
        };
        groups.filter_map(pair).collect()
    }

    /// To make something of this kind with its tags, and to tag it.
    fn makes(&self, kind: &str, id: &str, checks: &mut Vec<Check>, fill: impl Fn(&mut Context)) {
        let tags = self.specified(kind);
        checks.push(self.check(self.arn(kind, id), |context| {
            context.requests(&tags);
            fill(context);
        }));
        if !tags.is_empty() {
            checks.push(self.check_of("CreateTags", self.arn(kind, id), |context| {
                context.requests(&tags);
                context.set("ec2:CreateAction", [self.action]);
            }));
        }
    }
}

/// The checks of an EC2 call.
pub fn ec2(action: &str, params: &Params, region: &str, world: &World) -> Vec<Check> {
    let call = Call { service: "ec2", action, params, region, world };
    let ids = |name: &str| params.list(name).into_iter().map(|id| call.of_id(id, |_| {})).collect::<Vec<_>>();
    let one = |name: &str| params.get(name).map(|id| call.of_id(id, |_| {})).into_iter().collect::<Vec<_>>();
    let mut checks = match action {
        "RunInstances" => run_instances(&call),
        "TerminateInstances" | "StopInstances" | "StartInstances" | "RebootInstances" => ids("InstanceId"),
        "GetConsoleOutput"
        | "ModifyInstanceAttribute"
        | "ModifyInstanceMetadataOptions"
        | "DescribeInstanceAttribute" => one("InstanceId"),
        "CreateImage" => {
            let mut checks = one("InstanceId");
            for kind in ["image", "snapshot"] {
                call.makes(kind, "*", &mut checks, |_| {});
            }
            checks
        }
        "DeregisterImage" | "ModifyImageAttribute" => one("ImageId"),
        "DeleteSnapshot" | "ModifySnapshotAttribute" => one("SnapshotId"),
        "ImportKeyPair" | "CreateKeyPair" => {
            let mut checks = Vec::new();
            call.makes("key-pair", params.get("KeyName").unwrap_or("*"), &mut checks, |_| {});
            checks
        }
        "DeleteKeyPair" => {
            let name = params.get("KeyName").unwrap_or("*");
            let tags = world.ec2.key_pair(name).map(|pair| pair.tags.current().clone());
            vec![call.check(call.arn("key-pair", name), |context| context.has(tags.iter().flatten()))]
        }
        "AuthorizeSecurityGroupIngress" | "AuthorizeSecurityGroupEgress" => {
            let mut checks = one("GroupId");
            // Without tags in the call there is no such check (EC2's page of the reference says so).
            if !call.specified("security-group-rule").is_empty() {
                call.makes("security-group-rule", "*", &mut checks, |_| {});
            }
            checks
        }
        "RevokeSecurityGroupIngress" | "RevokeSecurityGroupEgress" | "DeleteSecurityGroup" => one("GroupId"),
        "CreateTags" | "DeleteTags" => {
            let tags = call.pairs("Tag");
            let of_id = |id: &str| {
                call.of_id(id, |context| match action {
                    "CreateTags" => context.requests(&tags),
                    _ => context.asks_for(tags.keys()),
                })
            };
            params.list("ResourceId").into_iter().map(of_id).collect()
        }
        _ => Vec::new(),
    };
    if checks.is_empty() {
        checks.push(call.check("*", |_| {}));
    }
    checks
}

fn run_instances(call: &Call<'_>) -> Vec<Check> {
    let params = call.params;
    let mut checks = Vec::new();
    let option = |name: &str| params.get(&format!("MetadataOptions.{name}"));
    call.makes("instance", "*", &mut checks, |context| {
        context.set("ec2:InstanceType", [params.get("InstanceType").unwrap_or("m1.small")]);
        for (key, value) in [
            ("ec2:MetadataHttpTokens", option("HttpTokens")),
            ("ec2:MetadataHttpPutResponseHopLimit", option("HttpPutResponseHopLimit")),
            ("ec2:InstanceMetadataTags", option("InstanceMetadataTags")),
        ] {
            if let Some(value) = value {
                context.set(key, [value]);
            }
        }
    });
    call.makes("volume", "*", &mut checks, |_| {});
    call.makes("network-interface", "*", &mut checks, |_| {});
    let interfaces = params.groups("NetworkInterface");
    let inside = |name: &str| interfaces.iter().map(|prefix| format!("{prefix}.{name}")).collect::<Vec<_>>();
    let subnets = params.get("SubnetId").into_iter().chain(
        inside("SubnetId").into_iter().filter_map(|it| params.get(&it).map(|it| -> &str { it })).collect::<Vec<_>>(),
    );
    let groups = params
        .list("SecurityGroupId")
        .into_iter()
        .chain(inside("SecurityGroupId").into_iter().flat_map(|it| params.list(&it)).collect::<Vec<_>>());
    checks.extend(subnets.chain(groups).map(|id| call.of_id(id, |_| {})));
    if let Some(image) = params.get("ImageId") {
        let owner = call.world.ec2.image(image).map(|_| ACCOUNT);
        checks.push(call.of_id(image, |context| context.set("ec2:Owner", owner)));
    }
    if let Some(key) = params.get("KeyName") {
        let tags = call.world.ec2.key_pair(key).map(|pair| pair.tags.current().clone());
        checks.push(call.check(call.arn("key-pair", key), |context| context.has(tags.iter().flatten())));
    }
    let arn = params.get("IamInstanceProfile.Arn").and_then(|arn| arn.split_once("instance-profile/")).map(|it| it.1);
    if let Some(profile) = params.get("IamInstanceProfile.Name").or(arn) {
        // The region has no IAM: a profile's role is the one of its name, as where the console makes both.
        checks.push(call.check_of("iam:PassRole", format!("arn:aws:iam::{ACCOUNT}:role/{profile}"), |context| {
            context.set("iam:PassedToService", ["ec2.amazonaws.com"]);
        }));
    }
    checks
}

/// The checks of an ELBv2 call.
pub fn elbv2(action: &str, params: &Params, region: &str, world: &World) -> Vec<Check> {
    let call = Call { service: "elasticloadbalancing", action, params, region, world };
    let of_arn = |arn: &str, fill: &dyn Fn(&mut Context)| {
        call.check(arn, |context| {
            context.has(tags_of(world, arn).iter().flatten());
            fill(context);
        })
    };
    let one = |name: &str| params.get(name).map(|arn| of_arn(arn, &|_| {})).into_iter().collect::<Vec<_>>();
    let tags = call.pairs("Tags");
    // The thing that the check is on, and the thing that is tagged.
    let makes = |on: String, made: String| {
        let mut checks = vec![call.check(on, |context| context.requests(&tags))];
        if !tags.is_empty() {
            checks.push(call.check_of("AddTags", made, |context| {
                context.requests(&tags);
                context.set("elasticloadbalancing:CreateAction", [action]);
            }));
        }
        checks
    };
    let own = |kind: &str, name: &str| format!("arn:aws:elasticloadbalancing:{region}:{ACCOUNT}:{kind}/{name}");
    let mut checks = match action {
        "CreateTargetGroup" => {
            let group = own("targetgroup", &format!("{}/*", params.get("Name").unwrap_or("*")));
            makes(group.clone(), group)
        }
        "CreateRule" => {
            let listener = params.get("ListenerArn").unwrap_or("*").to_owned();
            let rule = listener.replace(":listener/", ":listener-rule/");
            makes(listener, format!("{rule}/*"))
        }
        "CreateListener" => {
            let balancer = params.get("LoadBalancerArn").unwrap_or("*").to_owned();
            let listener = balancer.replace(":loadbalancer/", ":listener/");
            makes(balancer, format!("{listener}/*"))
        }
        "ModifyTargetGroup"
        | "ModifyTargetGroupAttributes"
        | "DeleteTargetGroup"
        | "RegisterTargets"
        | "DeregisterTargets" => one("TargetGroupArn"),
        "ModifyListener" | "DeleteListener" => one("ListenerArn"),
        "ModifyRule" | "DeleteRule" => one("RuleArn"),
        "DeleteLoadBalancer" | "ModifyLoadBalancerAttributes" | "SetSecurityGroups" => one("LoadBalancerArn"),
        "AddTags" | "RemoveTags" => {
            let keys: Vec<String> = params.list("TagKeys").into_iter().map(str::to_owned).collect();
            let fill = |context: &mut Context| match action {
                "AddTags" => context.requests(&tags),
                _ => context.asks_for(&keys),
            };
            params.list("ResourceArns").into_iter().map(|arn| of_arn(arn, &fill)).collect()
        }
        _ => Vec::new(),
    };
    if checks.is_empty() {
        checks.push(call.check("*", |_| {}));
    }
    checks
}

fn tags_of(world: &World, arn: &str) -> Option<Tags> {
    let elb = &world.elbv2;
    let of_group = elb.target_group(arn).map(|it| it.tags.clone()).ok();
    let of_listener = || elb.listener(arn).map(|it| it.tags.clone()).ok();
    let of_rule = || elb.rule(arn).map(|it| it.tags.clone()).ok();
    of_group.or_else(of_listener).or_else(of_rule).or_else(|| elb.load_balancer(arn).map(|it| it.tags.clone()).ok())
}

/// The check of a call of CloudWatch, whose metrics have no resource.
pub fn cloudwatch(operation: &str, region: &str) -> Vec<Check> {
    of_no_resource(format!("cloudwatch:{operation}"), region)
}

/// The check of a call of CloudTrail, whose event history is one.
pub fn cloudtrail(operation: &str, region: &str) -> Vec<Check> {
    of_no_resource(format!("cloudtrail:{operation}"), region)
}

fn of_no_resource(action: String, region: &str) -> Vec<Check> {
    let mut context = Context::default();
    context.set("aws:RequestedRegion", [region]);
    vec![Check { action, resource: "*".to_owned(), context }]
}

/// The checks of a call about parameters: one for each.
pub fn ssm(operation: &str, names: &[String], region: &str) -> Vec<Check> {
    let mut context = Context::default();
    context.set("aws:RequestedRegion", [region]);
    let names: Vec<&str> = if names.is_empty() { vec!["*"] } else { names.iter().map(String::as_str).collect() };
    let check = |name: &str| Check {
        action: format!("ssm:{operation}"),
        resource: crate::wire::ssm::arn(name, region),
        context: context.clone(),
    };
    names.into_iter().map(check).collect()
}
