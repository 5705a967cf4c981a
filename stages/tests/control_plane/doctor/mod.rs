//! `doctor` and every fault of an account that can be read before a deploy meets it. Each is planted alone in an account in
//! which nothing is wrong; the finding that is about it turns, those that must follow from it, and no other; and its fix
//! names what is to be changed. Faults of the machine are planted with the command line.

mod world;

use Verdict::{Bad, Warning};
use alcedo_local_region::faults::Effect;
use alcedo_pipeline::{
    event::{Outcome, What},
    ids::RunId,
    plan::Plan,
    process::Process,
};
use alcedo_stages::{
    doctor::{self, Verdict},
    iam_policy,
    site::Site,
};
use aws_sdk_ec2::types::Tag;
use jiff::SignedDuration;
use serde_json::{Value, json};

use self::world::{World, failure, is_wrong, plant, step_started, told};
use crate::support::{
    account::BUCKET,
    simulation::{Machine, Tampering},
};

/// What the good account is looked at for, in this order.
const SUBJECTS: [&str; 13] = [
    "region",
    "credentials",
    "clock",
    "bucket",
    "lock",
    "runs",
    "listener",
    "subnets",
    "security groups",
    "key pair",
    "base image",
    "own address",
    "permissions",
];

#[tokio::test(start_paused = true)]
async fn where_nothing_is_wrong_every_finding_is_good() {
    let world = World::new().await;
    let findings = doctor::of_account(&world.site().await).await;
    let good: Vec<&str> = findings.iter().filter(|it| !is_wrong(it)).map(|it| it.subject).collect();
    assert_eq!(good, SUBJECTS, "{findings:#?}");
    assert!(findings.iter().all(|it| it.fix.is_empty() && !it.detail.is_empty()), "{findings:#?}");

    // Nothing but the printed policy is needed, and nothing is changed by looking.
    let site = world.site().await;
    let policy = iam_policy::policy(&site).await.unwrap();
    world.restrict(&policy);
    let faults = &world.simulation.region.region.faults;
    faults.forget_calls();
    let findings = doctor::of_account(&site).await;
    assert!(!findings.iter().any(is_wrong), "{findings:#?}");
    let changing: Vec<_> = faults.calls().into_iter().filter(|call| call.changing).collect();
    assert!(changing.iter().all(|call| call.status == Some(412)), "only calls for show: {changing:?}");
    assert_eq!(changing.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_judged_before_anything_else() {
    plant("no region", &[("region", Bad)], &["aws.region", "AWS_REGION"], async |world| {
        let mut site = world.site().await;
        site.clients.region = None;
        site
    })
    .await;
    plant("expired credentials", &[("credentials", Bad)], &["renew them"], async |world| {
        world.strike("sts", "GetCallerIdentity", Effect::ExpiredCredentials);
        world.site().await
    })
    .await;
    for (seconds, verdict) in [(90, Warning), (-90, Warning), (400, Bad), (-400, Bad)] {
        let what = format!("a clock that is {seconds} s off");
        plant(&what, &[("clock", verdict)], &["timedatectl set-ntp true"], async |world| {
            let site = world.site().await;
            let clients = world.simulation.clients_of(Machine::default(), SignedDuration::from_secs(seconds));
            let (pipeline, dice) = ((*site.pipeline).clone(), rand::SeedableRng::seed_from_u64(0));
            Site::of(pipeline, "production", site.folder.clone(), clients, dice)
        })
        .await;
    }
    plant("an endpoint that tells no time", &[("clock", Warning)], &["timedatectl"], async |world| {
        let silent = Box::new(|asked: &str, mut answer: http::Response<String>| {
            if asked.contains("Action=GetCallerIdentity") {
                answer.headers_mut().remove("date");
            }
            answer
        });
        world.tampered(json!({}), silent).await
    })
    .await;
    told("who asks");
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_bucket_and_of_what_is_in_it_are_found() {
    let nowhere = json!({ "publish": { "bucket": "nowhere" } });
    plant("no bucket", &[("bucket", Bad)], &["aws s3 mb s3://nowhere", "publish.bucket"], async |world| {
        world.with(nowhere).await
    })
    .await;
    plant("a bucket elsewhere", &[("bucket", Bad)], &["aws.region", "publish.bucket"], async |world| {
        let moved = Box::new(|asked: &str, answer: http::Response<String>| {
            if !asked.contains(&format!("/{BUCKET}")) {
                return answer;
            }
            let code = "<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>";
            let moved = http::Response::builder().status(301).header("x-amz-bucket-region", "eu-west-1");
            moved.body(code.to_owned()).unwrap()
        });
        let site = world.tampered(json!({}), moved).await;
        let findings = doctor::of_account(&site).await;
        let detail = &findings.iter().find(|it| it.subject == "bucket").unwrap().detail;
        assert!(detail.contains("eu-west-1") && detail.contains("us-east-1"), "{detail}");
        site
    })
    .await;
    plant("a bucket that tells no time", &[("bucket", Warning)], &["`Date`"], async |world| {
        let silent = Box::new(|asked: &str, mut answer: http::Response<String>| {
            if asked.contains(&format!("/{BUCKET}")) {
                answer.headers_mut().remove("date");
            }
            answer
        });
        world.tampered(json!({}), silent).await
    })
    .await;
    plant("a held lock", &[("lock", Warning)], &["alcedo lock break --env production --yes"], async |world| {
        let site = world.site().await;
        world.lock(&site, Process::current(), &RunId::new(site.now(), 7)).await;
        site
    })
    .await;
    plant("a dead process's lock", &[("lock", Warning)], &["takes it over at once"], async |world| {
        let site = world.site().await;
        let ended = Process { started: 1, ..Process::current().unwrap() };
        world.lock(&site, Some(ended), &RunId::new(site.now(), 7)).await;
        site
    })
    .await;
    plant("a lock that was not renewed", &[("lock", Warning)], &["takes it over at once"], async |world| {
        let site = world.site().await;
        world.lock(&site, None, &RunId::new(site.now(), 7)).await;
        tokio::time::sleep(std::time::Duration::from_secs(121)).await;
        site
    })
    .await;
    plant("a lock of another alcedo", &[("lock", Bad)], &["alcedo lock break --env production --yes"], async |world| {
        let site = world.site().await;
        site.store.create(&site.lock_key(), b"{\"format\":9}".to_vec()).await.unwrap();
        site
    })
    .await;
    told("the bucket");
}

#[tokio::test(start_paused = true)]
async fn runs_that_stand_in_the_way_are_found() {
    plant("an open run", &[("runs", Warning)], &["alcedo resume 2026", "alcedo rollback --run 2026"], async |world| {
        let site = world.site().await;
        world.run(&site, |_| {}, vec![step_started("open")]).await;
        site
    })
    .await;
    plant(
        "a stuck run",
        &[("runs", Warning)],
        &["alcedo runs show 2026", "alcedo rollback --run 2026"],
        async |world| {
            let site = world.site().await;
            let stuck = vec![
                step_started("open"),
                What::StepFailed { step: "open".into(), error: failure(), seconds: 1.0 },
                What::UndoStarted { step: "open".into(), undo: "undo open".into() },
                What::UndoFailed { step: "open".into(), error: failure(), resources: Vec::new() },
                What::RunFinished { outcome: Outcome::Stuck, seconds: 1.0, journal_seconds: 0.0 },
            ];
            world.run(&site, |_| {}, stuck).await;
            site
        },
    )
    .await;
    plant("a frozen run", &[("runs", Bad)], &["alcedo resume 2026", "--env production"], async |world| {
        let site = world.site().await;
        let freeze = |plan: &mut Plan| {
            plan.freeze = true;
            plan.steps[0].barrier = true;
        };
        world.run(&site, freeze, vec![step_started("open")]).await;
        site
    })
    .await;
    plant("a journal with nonsense", &[("runs", Bad)], &["alcedo rollback --run 2026"], async |world| {
        let site = world.site().await;
        world.run(&site, |_| {}, vec![What::UndoSucceeded { step: "open".into() }]).await;
        site
    })
    .await;
    // Whoever is at work is no fault of its own.
    plant("a run at work", &[("lock", Warning)], &["wait for it"], async |world| {
        let site = world.site().await;
        let run = world.run(&site, |_| {}, vec![step_started("open")]).await;
        world.lock(&site, Process::current(), &run).await;
        site
    })
    .await;
    told("its runs");
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_balancer_are_found() {
    let named = |changes: Value| json!({ "flip": { "listener": changes } });
    let absent = "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/nowhere/0123456789abcdef";
    for name in ["nowhere", absent] {
        let changes = named(json!({ "load_balancer": name }));
        let fix = ["create it", "flip.listener.load_balancer"];
        plant("no balancer", &[("listener", Bad)], &fix, async |world| world.with(changes).await).await;
    }
    plant("a network balancer", &[("listener", Bad)], &["flip.listener.load_balancer"], async |world| {
        world.saying("DescribeLoadBalancers", "<Type>application</Type>", "<Type>network</Type>").await
    })
    .await;
    for (state, verdict, fix) in [
        ("provisioning", Bad, "wait"),
        ("failed", Bad, "make the load balancer anew"),
        ("active_impaired", Warning, "subnets"),
    ] {
        let to: &'static str = format!("<Code>{state}</Code>").leak();
        plant(state, &[("listener", verdict)], &[fix], async |world| {
            world.saying("DescribeLoadBalancers", "<Code>active</Code>", to).await
        })
        .await;
    }
    plant("another port", &[("listener", Bad)], &["flip.listener.port", "80"], async |world| {
        world.with(named(json!({ "port": 8443 }))).await
    })
    .await;
    plant("no listener", &[("listener", Bad)], &["create the listener"], async |world| {
        let elb = &world.account.clients.elb;
        elb.delete_listener().listener_arn(&world.account.listener).send().await.unwrap();
        world.site().await
    })
    .await;
    plant("no rule", &[("listener", Bad)], &["create the rule", "flip.listener.rule"], async |world| {
        world.with(named(json!({ "rule": 100 }))).await
    })
    .await;
    plant("HTTPS without an address", &[("listener", Bad)], &["flip.url"], async |world| {
        world.saying("DescribeListeners", "<Protocol>HTTP</Protocol>", "<Protocol>HTTPS</Protocol>").await
    })
    .await;
    let url = |url: &str| json!({ "flip": { "url": url } });
    plant("an https address", &[("listener", Warning)], &["flip.url", "flip.listener.port"], async |world| {
        world.with(url("https://hello.example.com")).await
    })
    .await;
    plant("an address of another port", &[("listener", Warning)], &["flip.url", "flip.listener.port"], async |world| {
        world.with(url("http://hello.example.com:8081")).await
    })
    .await;
    plant("a name that leads nowhere", &[("listener", Bad)], &["DNS record", "flip.url"], async |world| {
        // AWS does not tell the addresses of a balancer that has no fixed ones.
        let no_addresses = Box::new(|asked: &str, answer: http::Response<String>| {
            match asked.contains("Action=DescribeLoadBalancers&") {
                true => answer.map(|text| {
                    assert!(text.contains("<LoadBalancerAddresses>"), "{text}");
                    text.replace("LoadBalancerAddresses>", "None>")
                }),
                false => answer,
            }
        });
        world.tampered(url("http://nowhere.invalid"), no_addresses).await
    })
    .await;
    told("the balancer");
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_subnets_are_found() {
    let subnets = |names: &[&str]| json!({ "launch": { "subnets": names } });
    for name in ["public-a", "subnet-0123456789abcdef0"] {
        plant("no subnet", &[("subnets", Bad)], &["create the subnet"], async |world| {
            let changes = subnets(&[&world.account.subnets[0], name]);
            let site = world.with(changes).await;
            let findings = doctor::of_account(&site).await;
            assert!(findings.iter().any(|it| it.subject == "subnets" && it.detail.contains(name)), "{findings:#?}");
            site
        })
        .await;
    }
    plant("no subnet for builders", &[("subnets", Bad)], &["create the subnet"], async |world| {
        world.with(json!({ "bake": { "subnet": "nowhere" } })).await
    })
    .await;
    plant("two subnets of one name", &[("subnets", Bad)], &["name one by its id: subnet-"], async |world| {
        let account = &world.account;
        let tag = Tag::builder().key("Name").value("public").build();
        let call = account.clients.ec2.create_tags().set_resources(Some(account.subnets.clone())).tags(tag);
        call.send().await.unwrap();
        world.with(subnets(&["public"])).await
    })
    .await;
    plant("one zone", &[("subnets", Warning)], &["another zone", "launch.subnets"], async |world| {
        world.with(subnets(&[&world.account.subnets[0]])).await
    })
    .await;
    plant("a zone without the balancer", &[("subnets", Bad)], &["aws elbv2 set-subnets", "us-east-1"], async |world| {
        let all = world.account.clients.ec2.describe_subnets().send().await.unwrap();
        let other = all.subnets().iter().filter_map(|it| it.subnet_id());
        let other = other.filter(|id| !world.account.subnets.iter().any(|own| own == id)).min().unwrap().to_owned();
        world.with(subnets(&[&world.account.subnets[0], &other])).await
    })
    .await;
    plant("a subnet of another VPC", &[("subnets", Bad)], &["name subnets of vpc-", "launch.subnets"], async |world| {
        world.saying_of("DescribeSubnets", &world.account.subnets[1], "vpcId", "vpc-elsewhere").await
    })
    .await;
    plant("a full subnet", &[("subnets", Bad)], &["launch.subnets"], async |world| {
        world.saying_of("DescribeSubnets", &world.account.subnets[1], "availableIpAddressCount", "0").await
    })
    .await;
    plant(
        "no public addresses",
        &[("subnets", Warning)],
        &["bake.private_address: true", "bake.subnet"],
        async |world| {
            world.saying_of("DescribeSubnets", &world.account.subnets[0], "mapPublicIpOnLaunch", "false").await
        },
    )
    .await;
    told("the subnets");
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_security_groups_are_found() {
    let groups = ("security groups", Bad);
    for changes in [
        json!({ "launch": { "security_groups": ["nowhere"] } }),
        json!({ "launch": { "security_groups": ["sg-0123456789abcdef0"] } }),
        json!({ "bake": { "security_group": "nowhere" } }),
    ] {
        plant("no group", &[groups], &["create the security group"], async |world| world.with(changes).await).await;
    }
    plant("a group of another VPC", &[groups], &["name security groups of vpc-"], async |world| {
        world.saying_of("DescribeSecurityGroups", &world.account.group_of_servers, "vpcId", "vpc-elsewhere").await
    })
    .await;
    plant("a builder's group of another VPC", &[groups], &["bake.security_group", "bake.subnet"], async |world| {
        world.saying_of("DescribeSecurityGroups", &world.account.builder_group, "vpcId", "vpc-elsewhere").await
    })
    .await;
    let let_it_in = "aws ec2 authorize-security-group-ingress --group-id sg-";
    plant("a closed group", &[groups], &[let_it_in, "--port 8080 --source-group sg-", "launch.port"], async |world| {
        world.close(&world.account.group_of_servers, false).await;
        world.site().await
    })
    .await;
    plant("another port open", &[groups], &[let_it_in, "--port 9000"], async |world| {
        world.with(json!({ "launch": { "port": 9000 } })).await
    })
    .await;
    plant("open for others alone", &[groups], &[let_it_in], async |world| {
        world.close(&world.account.group_of_servers, false).await;
        world.let_in(&world.account.group_of_servers, [8080, 8080], "192.0.2.0/24").await;
        world.site().await
    })
    .await;
    let let_out = "aws ec2 authorize-security-group-egress --group-id sg-";
    plant("a balancer that may send nothing", &[groups], &[let_out, "--port 8080 --source-group sg-"], async |world| {
        world.close(&world.account.balancer_group, true).await;
        world.site().await
    })
    .await;
    plant("a balancer that nobody reaches", &[groups], &[let_it_in, "--port 80 --cidr"], async |world| {
        world.close(&world.account.balancer_group, false).await;
        world.site().await
    })
    .await;
    plant("a builder that reaches nothing", &[groups], &[let_out, "--port 80 --cidr"], async |world| {
        world.close(&world.account.builder_group, true).await;
        world.site().await
    })
    .await;
    plant("a full group", &[("security groups", Warning)], &["hello-builder"], async |world| {
        for port in 1000..1060 {
            world.let_in(&world.account.builder_group, [port, port], "192.0.2.1/32").await;
        }
        world.site().await
    })
    .await;
    // As good as the balancer's own group.
    let world = World::new().await;
    world.close(&world.account.group_of_servers, false).await;
    world.let_in(&world.account.group_of_servers, [8000, 9000], "0.0.0.0/0").await;
    let findings = doctor::of_account(&world.site().await).await;
    assert!(!findings.iter().any(is_wrong), "{findings:#?}");
    told("the groups");
}

#[tokio::test(start_paused = true)]
async fn faults_of_what_servers_start_from_are_found() {
    plant(
        "no key pair",
        &[("key pair", Bad)],
        &["aws ec2 import-key-pair --key-name gone", "launch.key"],
        async |world| {
            // With the key that the file names, EC2 would be asked to launch.
            world.with(json!({ "launch": { "key": "gone" } })).await
        },
    )
    .await;
    let base = |base: Value| json!({ "bake": { "base": base } });
    let absent = [
        (base(json!({ "ami": "ami-0123456789abcdef0" })), "bake.base.ami"),
        (base(json!({ "ami": null, "owner": "136693071363", "name": "debian-12-amd64-*" })), "bake.base.owner"),
        (base(json!({ "ami": null, "owner": "self", "name": "nothing-*" })), "bake.base.name"),
        (base(json!({ "ami": null, "recipe": "debian-bookworm" })), "bake.base.ami"),
    ];
    for (changes, fix) in absent {
        plant("no base image", &[("base image", Bad)], &[fix], async |world| world.with(changes).await).await;
    }
    for (state, fix) in [("pending", "wait"), ("failed", "bake.base"), ("deregistered", "bake.base")] {
        plant(state, &[("base image", Bad)], &[fix], async |world| {
            world.saying_of("DescribeImages", &world.account.base, "imageState", state).await
        })
        .await;
    }
    let refused = |code: &'static str| -> Tampering {
        Box::new(move |asked: &str, answer: http::Response<String>| {
            // EC2 looks for the profile of whoever asks to launch with one.
            if !asked.contains("Action=RunInstances&") || !asked.contains("IamInstanceProfile.Name=hello") {
                return answer;
            }
            let text = format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
            );
            http::Response::builder().status(400).body(text).unwrap()
        })
    };
    let fix = ["launch.instance_profile (hello)", "launch.instance_type (t3.small)"];
    plant("no instance profile", &[("permissions", Bad)], &fix, async |world| {
        world.tampered(json!({}), refused("InvalidParameterValue")).await
    })
    .await;
    plant("no room for servers", &[("permissions", Bad)], &["Service Quotas"], async |world| {
        world.tampered(json!({}), refused("VcpuLimitExceeded")).await
    })
    .await;
    told("the servers");
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_forbids_is_found_where_it_is_needed() {
    for (action, subject) in [
        ("s3:ListBucket", "bucket"),
        ("s3:GetObject", "lock"),
        ("elasticloadbalancing:DescribeLoadBalancers", "listener"),
        ("elasticloadbalancing:DescribeListeners", "listener"),
        ("elasticloadbalancing:DescribeRules", "listener"),
        ("ec2:DescribeSubnets", "subnets"),
        ("ec2:DescribeSecurityGroups", "security groups"),
        ("ec2:DescribeKeyPairs", "key pair"),
        ("ec2:DescribeImages", "base image"),
        ("ec2:RunInstances", "permissions"),
        ("ec2:AuthorizeSecurityGroupIngress", "permissions"),
        ("iam:PassRole", "permissions"),
        ("ec2:CreateTags", "permissions"),
    ] {
        plant(action, &[(subject, Bad)], &["alcedo iam-policy"], async |world| world.forbidden(action).await).await;
    }
    told("what is forbidden");
}
