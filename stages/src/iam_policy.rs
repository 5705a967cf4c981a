//! The least IAM policy for one environment of one file, and who may take a role that has it.
//!
//! What a call is checked for is in AWS's *Service Authorization Reference*; that the policy lets every flow through and
//! stops what it is there to stop is tested against the local region's enforcement of it. What IAM cannot limit is in
//! `docs/security.md`.
//!
//! One policy is for one environment: what carries another environment's tags is out of its reach. Images, snapshots and the
//! artifacts are the app's, for all environments.

use std::collections::BTreeSet;

use alcedo_pipeline::file::{Base, Pipeline};
use serde_json::{Map, Value, json};

use crate::{
    cloud_error::CloudError,
    facts::{self, Balancer, BaseImage, FactsError},
    listener::Place,
    site::Site,
    tags,
};

/// What the policy is made from: the file's names as ids.
struct Names<'a> {
    pipeline: &'a Pipeline,
    environment: &'a str,
    bucket: &'a str,
    root: String,
    partition: String,
    region: String,
    account: String,
    subnets: BTreeSet<String>,
    /// All security groups of servers and builders.
    groups: BTreeSet<String>,
    /// Those of them in which a run opens ports.
    opened: BTreeSet<String>,
    balancer: Balancer,
    base: BaseImage,
}

/// The policy document for an environment, made by asking AWS what the file's names stand for.
///
/// # Errors
/// Something that the file names is not there, or cannot be asked for.
pub async fn policy(site: &Site) -> Result<Value, FactsError> {
    let identity = site.clients.sts.get_caller_identity().send().await;
    let identity = identity.map_err(|error| CloudError::of("ask AWS who we are", error))?;
    let (mut subnets, mut groups, balancer, base) = futures::try_join!(
        facts::subnets(site),
        facts::security_groups(site),
        facts::balancer(site),
        facts::base(site)
    )?;
    let pipeline = site.pipeline.as_ref();
    let of_servers = groups.first().cloned();
    let of_builder = groups.pop();
    // Smoke tests look at servers, and secrets are handed to them, through the first of their groups.
    let looked_at = of_servers.filter(|_| !pipeline.smoke_tests.is_empty() || !pipeline.secrets.is_empty());
    let opened = of_builder.iter().cloned().chain(looked_at).collect();
    let names = Names {
        pipeline,
        environment: &site.environment,
        bucket: site.bucket(),
        root: escaped(&site.root),
        partition: partition(identity.arn()).to_owned(),
        region: site.clients.region.clone().unwrap_or_default(),
        account: identity.account().unwrap_or_default().to_owned(),
        subnets: subnets.drain(..).collect(),
        groups: groups.into_iter().chain(of_builder).collect(),
        opened,
        balancer,
        base,
    };
    let mut statements = Vec::new();
    statements.push(names.look());
    statements.extend(names.launch());
    statements.extend(names.own_things());
    statements.extend(names.ports());
    statements.extend(names.traffic());
    statements.extend(names.objects());
    statements.extend(names.secrets());
    Ok(json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// What a policy would read as a wildcard or a variable (IAM User Guide, *Policy variables*).
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '*' | '?' | '$' => format!("${{{c}}}"),
            other => other.to_string(),
        })
        .collect()
}

fn statement(name: &str, actions: Value, resources: Value, conditions: Value) -> Value {
    let mut statement = Map::new();
    statement.insert("Sid".into(), name.into());
    statement.insert("Effect".into(), "Allow".into());
    statement.insert("Action".into(), actions);
    statement.insert("Resource".into(), resources);
    if !conditions.is_null() {
        statement.insert("Condition".into(), conditions);
    }
    Value::Object(statement)
}

fn of_request(tag: &str) -> String {
    format!("aws:RequestTag/{tag}")
}

fn of_resource(tag: &str) -> String {
    format!("aws:ResourceTag/{tag}")
}

impl Names<'_> {
    fn ec2(&self, what: &str) -> String {
        let Self { partition, region, account, .. } = self;
        // Images and snapshots have no account in their ARNs.
        let account = if what.starts_with("image/") || what.starts_with("snapshot/") { "" } else { account };
        format!("arn:{partition}:ec2:{region}:{account}:{what}")
    }

    fn elb(&self, what: &str) -> String {
        let Self { partition, region, account, .. } = self;
        format!("arn:{partition}:elasticloadbalancing:{region}:{account}:{what}")
    }

    /// The fleets' target groups: their names end with eight digits, so `hello` does not reach those of `hello-world`.
    fn fleets(&self) -> String {
        self.elb(&format!("targetgroup/{}-????????/*", self.pipeline.app))
    }

    fn object(&self, below: &str) -> String {
        format!("arn:{}:s3:::{}/{}{below}", self.partition, self.bucket, self.root)
    }

    fn bucket(&self) -> String {
        format!("arn:{}:s3:::{}", self.partition, self.bucket)
    }

    /// What is made carries this app's and environment's tags from the call on that makes it.
    fn made_for_us(&self) -> Map<String, Value> {
        let mut tags = Map::new();
        tags.insert(of_request(tags::APP), self.pipeline.app.clone().into());
        tags.insert(of_request(tags::ENVIRONMENT), self.environment.into());
        tags
    }

    fn ours(&self) -> Value {
        json!({ of_resource(tags::APP): self.pipeline.app, of_resource(tags::ENVIRONMENT): self.environment })
    }

    fn look(&self) -> Value {
        let mut actions = vec![
            "ec2:DescribeImages",
            "ec2:DescribeInstances",
            "ec2:DescribeKeyPairs",
            "ec2:DescribeSecurityGroupRules",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSnapshots",
            "ec2:DescribeSubnets",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeRules",
            "elasticloadbalancing:DescribeTags",
            "elasticloadbalancing:DescribeTargetGroups",
            "elasticloadbalancing:DescribeTargetHealth",
            // To say who has changed the listener; without it, a run says how to find out.
            "cloudtrail:LookupEvents",
        ];
        if self.pipeline.launch.slowest_request.is_some() {
            actions.push("elasticloadbalancing:DescribeTargetGroupAttributes");
        }
        if !self.pipeline.smoke_tests.is_empty() {
            actions.push("elasticloadbalancing:DescribeLoadBalancerAttributes");
        }
        if self.pipeline.watch.metrics {
            actions.push("cloudwatch:GetMetricData");
        }
        statement("Look", json!(actions), json!("*"), json!({ "StringEquals": { "aws:RequestedRegion": self.region } }))
    }

    fn launch(&self) -> Vec<Value> {
        let Pipeline { bake, launch, .. } = self.pipeline;
        let mut of_servers = self.made_for_us();
        let types: BTreeSet<&str> = [bake.instance_type.as_str(), launch.instance_type.as_str()].into();
        of_servers.insert("ec2:InstanceType".into(), json!(types));
        of_servers.insert("ec2:MetadataHttpTokens".into(), "required".into());
        let subnets = self.subnets.iter().map(|id| self.ec2(&format!("subnet/{id}")));
        let groups = self.groups.iter().map(|id| self.ec2(&format!("security-group/{id}")));
        let keys = ["alcedo-*".to_owned()].into_iter().chain(launch.key.as_deref().map(escaped));
        let keys = keys.map(|name| self.ec2(&format!("key-pair/{name}")));
        let into: Vec<String> = subnets.chain(groups).chain(keys).collect();
        let parts = ["volume/*", "network-interface/*"].map(|what| self.ec2(what));
        let run = || json!("ec2:RunInstances");
        let mut statements = vec![
            statement(
                "LaunchServers",
                run(),
                json!(self.ec2("instance/*")),
                json!({
                    "StringEquals": of_servers,
                    "NumericLessThanEquals": { "ec2:MetadataHttpPutResponseHopLimit": "1" },
                }),
            ),
            statement("LaunchParts", run(), json!(parts), json!({ "StringEquals": self.made_for_us() })),
            statement("LaunchInto", run(), json!(into), Value::Null),
            statement(
                "LaunchOwnImages",
                run(),
                json!(self.ec2("image/*")),
                json!({ "StringEquals": { of_resource(tags::APP): self.pipeline.app } }),
            ),
            self.base(),
        ];
        if let Some(profile) = &launch.instance_profile {
            let role = format!("arn:{}:iam::{}:role/{}", self.partition, self.account, escaped(profile));
            statements.push(statement(
                "GiveServersTheirRole",
                json!("iam:PassRole"),
                json!(role),
                json!({ "StringEquals": { "iam:PassedToService": "ec2.amazonaws.com" } }),
            ));
        }
        statements
    }

    /// The image that builders start from.
    fn base(&self) -> Value {
        let (image, conditions) = match &self.pipeline.bake.base {
            Base { ami: Some(_), .. } => (self.ec2(&format!("image/{}", self.base.ami)), Value::Null),
            Base { recipe: Some(_), .. } => (
                self.ec2("image/*"),
                json!({
                    "StringEquals": { "ec2:Owner": self.account },
                    "Null": { of_resource("alcedo:recipe"): "false" },
                }),
            ),
            // A newer one of the same owner is to be had without a new policy.
            Base { owner, .. } => {
                let owner = owner.as_deref().filter(|owner| *owner != "self").unwrap_or(&self.account);
                (self.ec2("image/*"), json!({ "StringEquals": { "ec2:Owner": owner } }))
            }
        };
        statement("LaunchBaseImage", json!("ec2:RunInstances"), json!(image), conditions)
    }

    fn own_things(&self) -> Vec<Value> {
        let tagged = ["instance/*", "volume/*", "network-interface/*", "key-pair/*", "security-group-rule/*"];
        let tagged: Vec<String> = tagged.iter().chain(&["image/*", "snapshot/*"]).map(|what| self.ec2(what)).collect();
        // Whose the tags say it is, is checked where it is made.
        let makers = ["RunInstances", "CreateImage", "ImportKeyPair", "AuthorizeSecurityGroupIngress"];
        let images = ["image/*", "snapshot/*"].map(|what| self.ec2(what));
        let mut of_builder = self.ours();
        of_builder[of_resource(tags::STEP)] = "bake/builder".into();
        let keys = json!(self.ec2("key-pair/alcedo-*"));
        let made =
            [self.ec2("security-group-rule/*"), self.ec2("key-pair/alcedo-*"), images[0].clone(), images[1].clone()];
        vec![
            statement(
                "TagWhatIsMade",
                json!("ec2:CreateTags"),
                json!(tagged),
                json!({
                    "StringEquals": { "ec2:CreateAction": makers },
                    "ForAllValues:StringLike": { "aws:TagKeys": ["alcedo:*", "Name"] },
                }),
            ),
            statement(
                "MakeTagged",
                json!(["ec2:AuthorizeSecurityGroupIngress", "ec2:CreateImage", "ec2:ImportKeyPair"]),
                json!(made),
                json!({ "StringEquals": self.made_for_us() }),
            ),
            statement(
                "CaptureBuilder",
                json!("ec2:CreateImage"),
                json!(self.ec2("instance/*")),
                json!({ "StringEquals": of_builder }),
            ),
            statement(
                "OwnServers",
                json!(["ec2:GetConsoleOutput", "ec2:TerminateInstances"]),
                json!(self.ec2("instance/*")),
                json!({ "StringEquals": self.ours() }),
            ),
            statement(
                "OwnImages",
                json!(["ec2:DeleteSnapshot", "ec2:DeregisterImage"]),
                json!(images),
                json!({ "StringEquals": { of_resource(tags::APP): self.pipeline.app } }),
            ),
            // A key is deleted before it is made, in case a run that died has left it; one that is not there has no tags.
            statement("OwnKeys", json!("ec2:DeleteKeyPair"), keys, json!({ "StringEqualsIfExists": self.ours() })),
        ]
    }

    /// The parameters that the file names. AWS's own key for them needs no permission; a key of one's own needs `kms:Decrypt`.
    fn secrets(&self) -> Option<Value> {
        let parameters: BTreeSet<&str> =
            self.pipeline.secrets.values().filter_map(|source| source.ssm.as_deref()).collect();
        let Self { partition, region, account, .. } = self;
        let arn = |name: &&str| {
            // A name that begins with `/` brings the one before it along.
            format!("arn:{partition}:ssm:{region}:{account}:parameter/{}", escaped(name.trim_start_matches('/')))
        };
        let arns: Vec<String> = parameters.iter().map(arn).collect();
        (!arns.is_empty()).then(|| statement("ReadSecrets", json!("ssm:GetParameters"), json!(arns), Value::Null))
    }

    fn ports(&self) -> Vec<Value> {
        let groups: Vec<String> = self.opened.iter().map(|id| self.ec2(&format!("security-group/{id}"))).collect();
        vec![
            statement(
                "NamedPorts",
                json!(["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]),
                json!(groups),
                Value::Null,
            ),
            // Two runs behind one address share a rule: each says on it that it uses it.
            statement(
                "ShareRules",
                json!(["ec2:CreateTags", "ec2:DeleteTags"]),
                json!(self.ec2("security-group-rule/*")),
                json!({
                    "Null": { of_resource(tags::APP): "false", "aws:TagKeys": "false" },
                    "ForAllValues:StringLike": { "aws:TagKeys": "alcedo:user:*" },
                }),
            ),
        ]
    }

    fn traffic(&self) -> Vec<Value> {
        let Balancer { arn, name, listener, place, preview_listener, .. } = &self.balancer;
        let by_port = self.pipeline.flip.preview.port.is_some();
        let rules = self.elb(&format!("listener-rule/app/{name}/*"));
        let listeners = self.elb(&format!("listener/app/{name}/*"));
        let (maker, made_on, made) = match by_port {
            true => ("CreateListener", arn, &listeners),
            false => ("CreateRule", listener, &rules),
        };
        let mut own = vec![
            "elasticloadbalancing:DeleteTargetGroup",
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:ModifyTargetGroupAttributes",
            "elasticloadbalancing:RegisterTargets",
        ];
        own.extend(match by_port {
            // A fleet that an earlier file has launched may still have a rule of its own.
            true => vec![
                "elasticloadbalancing:DeleteListener",
                "elasticloadbalancing:DeleteRule",
                "elasticloadbalancing:ModifyListener",
            ],
            false => vec!["elasticloadbalancing:DeleteRule", "elasticloadbalancing:ModifyRule"],
        });
        let mut things = vec![self.fleets(), made.clone()];
        things.extend(by_port.then(|| rules.clone()));
        let marks = json!([tags::HELD_SINCE, tags::HELD_UNTIL, tags::REPLACES]);
        let flip = match place {
            Place::Listener { .. } => "elasticloadbalancing:ModifyListener",
            Place::Rule { .. } => "elasticloadbalancing:ModifyRule",
        };
        let mut statements = vec![
            statement(
                "MakeFleets",
                json!(["elasticloadbalancing:CreateTargetGroup", format!("elasticloadbalancing:{maker}")]),
                json!([self.fleets(), made_on]),
                json!({ "StringEquals": self.made_for_us() }),
            ),
            // For a rule or a listener that is being made, AWS's pages do not say on which ARN this is checked.
            statement(
                "TagFleets",
                json!("elasticloadbalancing:AddTags"),
                json!([self.fleets(), made_on, made]),
                json!({
                    "StringEquals": { "elasticloadbalancing:CreateAction": ["CreateTargetGroup", maker] },
                    "ForAllValues:StringLike": { "aws:TagKeys": "alcedo:*" },
                }),
            ),
            statement("OwnFleets", json!(own), json!(things), json!({ "StringEquals": self.ours() })),
            statement(
                "MarkFleets",
                json!(["elasticloadbalancing:AddTags", "elasticloadbalancing:RemoveTags"]),
                json!(self.fleets()),
                json!({
                    "StringEquals": self.ours(),
                    "ForAllValues:StringEquals": { "aws:TagKeys": marks },
                }),
            ),
            statement("Flip", json!(flip), json!(place.arn()), Value::Null),
        ];
        // A preview listener that stood before, and may be the user's.
        if let (true, Some((preview, _))) = (by_port, preview_listener) {
            let modify = json!("elasticloadbalancing:ModifyListener");
            statements.push(statement("FlipPreview", modify, json!(preview), Value::Null));
        }
        statements
    }

    fn objects(&self) -> Vec<Value> {
        let environment = format!("environments/{}/*", self.environment);
        // A version begins with its year.
        let versions = "2???.*/*";
        let created = [&environment, "runs/*", versions, "inputs/*", "pins/*", "reservations/*", "VERSION"];
        let lock = format!("environments/{}/lock.json", self.environment);
        let replaced = [lock.as_str(), "inputs/*", "VERSION"];
        let removed = [&environment, versions, "inputs/*", "pins/*", "reservations/*", "VERSION"];
        let below = |keys: &[&str]| json!(keys.iter().map(|key| self.object(key)).collect::<Vec<_>>());
        vec![
            statement(
                "FindObjects",
                json!("s3:ListBucket"),
                json!(self.bucket()),
                json!({ "StringLike": { "s3:prefix": format!("{}*", self.root) } }),
            ),
            // It has no key for the prefix.
            statement("FindUploads", json!("s3:ListBucketMultipartUploads"), json!(self.bucket()), Value::Null),
            statement("ReadObjects", json!("s3:GetObject"), json!(self.object("*")), Value::Null),
            // Nothing that is there is written over, journals least of all.
            statement(
                "CreateObjects",
                json!("s3:PutObject"),
                below(&created),
                json!({ "Null": { "s3:if-none-match": "false" } }),
            ),
            statement(
                "ReplaceObjects",
                json!("s3:PutObject"),
                below(&replaced),
                json!({ "Null": { "s3:if-match": "false" } }),
            ),
            // Parts take no condition; the call that makes an object of them does (S3 User Guide, *Enforce conditional writes*).
            statement(
                "SendParts",
                json!("s3:PutObject"),
                json!(self.object("2???.*/artifact.tar.zst")),
                json!({ "Bool": { "s3:ObjectCreationOperation": "false" } }),
            ),
            statement(
                "RemoveObjects",
                json!(["s3:AbortMultipartUpload", "s3:DeleteObject"]),
                below(&removed),
                Value::Null,
            ),
        ]
    }
}

/// Whose tokens may take the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// GitHub Actions (GitHub Docs, *OpenID Connect reference*): `owner/name`, and what the job runs for.
    Github { repository: String, subject: GithubSubject },
    /// CircleCI (CircleCI docs, *Using OpenID Connect tokens in jobs*): ids of organization and project, the repository and
    /// the branch, as `CIRCLE_OIDC_TOKEN_V2` tells them.
    Circleci { organization: String, project: String, origin: String, branch: String },
}

/// What a job of GitHub Actions runs for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GithubSubject {
    Branch(String),
    Environment(String),
}

/// The trust policy of a role in the site's account.
///
/// # Errors
/// AWS cannot be asked which account that is.
pub async fn trust_policy(site: &Site, trusted: &Trust) -> Result<Value, FactsError> {
    let identity = site.clients.sts.get_caller_identity().send().await;
    let identity = identity.map_err(|error| CloudError::of("ask AWS who we are", error))?;
    Ok(trust(trusted, partition(identity.arn()), identity.account().unwrap_or_default()))
}

/// `aws`, `aws-cn`, `aws-us-gov`: the second part of any ARN.
fn partition(arn: Option<&str>) -> &str {
    arn.and_then(|arn| arn.split(':').nth(1)).unwrap_or("aws")
}

/// The trust policy of a role for CI: exactly this audience, and exactly this subject.
fn trust(trust: &Trust, partition: &str, account: &str) -> Value {
    let (issuer, audience, operator, subject) = match trust {
        Trust::Github { repository, subject } => {
            let of = match subject {
                GithubSubject::Branch(branch) => format!("ref:refs/heads/{}", escaped(branch)),
                GithubSubject::Environment(name) => format!("environment:{}", escaped(name)),
            };
            let issuer = "token.actions.githubusercontent.com".to_owned();
            (issuer, "sts.amazonaws.com".to_owned(), "StringEquals", format!("repo:{}:{of}", escaped(repository)))
        }
        Trust::Circleci { organization, project, origin, branch } => {
            // Whoever pushed may deploy. The id is left open by its length: a `*` would match slashes, and with them a
            // branch whose name goes on like the rest of this text.
            let user = "????????-????-????-????-????????????";
            let subject = format!(
                "org/{organization}/project/{project}/user/{user}/vcs-origin/{}/vcs-ref/refs/heads/{}",
                escaped(origin),
                escaped(branch)
            );
            (format!("oidc.circleci.com/org/{organization}"), organization.clone(), "StringLike", subject)
        }
    };
    let mut conditions = Map::new();
    let mut condition = |operator: &str, key: &str, value: String| {
        conditions.entry(operator).or_insert_with(|| json!({}))[format!("{issuer}:{key}")] = value.into();
    };
    condition("StringEquals", "aud", audience);
    condition(operator, "sub", subject);
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": { "Federated": format!("arn:{partition}:iam::{account}:oidc-provider/{issuer}") },
            "Condition": conditions,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_branch_or_repository_does_not_fit() {
        let github =
            Trust::Github { repository: "octo-org/octo-repo".into(), subject: GithubSubject::Branch("main".into()) };
        let document = trust(&github, "aws", "111122223333");
        let github = "token.actions.githubusercontent.com";
        let of =
            |document: &Value, operator: &str, key: &str| document["Statement"][0]["Condition"][operator][key].clone();
        assert_eq!(of(&document, "StringEquals", &format!("{github}:aud")), "sts.amazonaws.com");
        let sub = "repo:octo-org/octo-repo:ref:refs/heads/main";
        assert_eq!(of(&document, "StringEquals", &format!("{github}:sub")), sub);
        let provider = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
        assert_eq!(document["Statement"][0]["Principal"]["Federated"], provider);
        let circleci = Trust::Circleci {
            organization: "0a1b2c3d-0000-4000-8000-000000000001".into(),
            project: "0a1b2c3d-0000-4000-8000-000000000002".into(),
            origin: "github.com/octo-org/octo-repo".into(),
            branch: "rel*se".into(),
        };
        let document = trust(&circleci, "aws", "111122223333");
        let issuer = "oidc.circleci.com/org/0a1b2c3d-0000-4000-8000-000000000001";
        let aud = of(&document, "StringEquals", &format!("{issuer}:aud"));
        assert_eq!(aud, "0a1b2c3d-0000-4000-8000-000000000001");
        let sub = of(&document, "StringLike", &format!("{issuer}:sub"));
        let sub = sub.as_str().unwrap();
        // The user's id alone is open, by its length; what the branch is called is no wildcard.
        assert_eq!((sub.matches('*').count(), sub.matches("${*}").count()), (1, 1), "{sub}");
        assert!(
            sub.contains("/user/????????-????-????-????-????????????/vcs-origin/github.com/octo-org/octo-repo/"),
            "{sub}"
        );
        assert!(sub.ends_with("/vcs-ref/refs/heads/rel${*}se"), "{sub}");
    }
}
