//! An account as a user has it before Alcedo comes: network, balancer, bucket, a base image, and releases.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use alcedo_images::{base::BuildBase, platform::Platform};
use alcedo_pipeline::{
    file::{Aws, Pipeline},
    overlay::overlay,
    version::Version,
};
use alcedo_stages::{
    bake,
    clients::{Clients, LocalEndpoint},
    facts,
    listener::{self, Place, Routing},
    releases::{self, InputsEntry, Manifest},
    site::Site,
    tags::{self, Tags},
};
use aws_sdk_ec2::types::{
    Filter, ImageState, IpPermission, IpRange, ResourceType, UserIdGroupPair, builders::IpPermissionBuilder,
};
use aws_sdk_elasticloadbalancingv2::{config::AppName, types::ProtocolEnum};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::Instant;

use super::here_alone;

pub const APP: &str = "hello";
pub const BUCKET: &str = "releases";
pub const BALANCER: &str = "public";
const PORT: i32 = 80;

/// How long an endpoint may take to show what it has just made.
const VISIBLE: Duration = Duration::from_secs(20);

/// What is there before the first deploy, and ways to add what an earlier run would have left.
pub struct Account {
    reached: Reached,
    pub clients: Clients,
    pub vpc: String,
    pub subnets: Vec<String>,
    /// Lets the balancer in.
    pub group_of_servers: String,
    /// The builder's, where SSH is opened.
    pub builder_group: String,
    /// Lets everybody in.
    pub balancer_group: String,
    pub balancer: String,
    pub listener: String,
    /// A vendor's image: it carries no recipe's digest.
    pub base: String,
    pub project: TempDir,
}

/// How sites of the account reach it.
enum Reached {
    At(LocalEndpoint),
    /// Through the account's own clients; each site has dice of its own, from a seed and a count.
    Within(u64, AtomicU64),
}

/// What the listener answers before anything is deployed.
pub fn nothing_yet() -> Routing {
    Routing::FixedResponse {
        status: "503".into(),
        content_type: Some("text/plain".into()),
        body: Some("nothing yet".into()),
    }
}

impl Account {
    pub async fn open(endpoint: LocalEndpoint) -> Self {
        let clients = Clients::connect(&Aws::default(), Some(&endpoint)).await;
        Self::with(Reached::At(endpoint), clients).await
    }

    /// An account of a simulation, which is reached through its clients alone.
    pub async fn within(clients: Clients, seed: u64) -> Self {
        Self::with(Reached::Within(seed, AtomicU64::new(0)), clients).await
    }

    async fn with(reached: Reached, clients: Clients) -> Self {
        clients.s3.create_bucket().bucket(BUCKET).send().await.unwrap();
        let (vpc, subnets) = network(&clients).await;
        let group_of_servers = group(&clients, &vpc, "hello").await;
        let builder_group = group(&clients, &vpc, "hello-builder").await;
        let balancer_group = group(&clients, &vpc, "public").await;
        let anybody = IpRange::builder().cidr_ip("0.0.0.0/0").build();
        let_in(&clients, &balancer_group, PORT, |rule| rule.ip_ranges(anybody.clone())).await;
        let from = UserIdGroupPair::builder().group_id(&balancer_group).build();
        let_in(&clients, &group_of_servers, 8080, |rule| rule.user_id_group_pairs(from.clone())).await;
        let (balancer, listener) = balancer(&clients, &subnets, &balancer_group).await;
        let base = base_image(&clients, &subnets[0]).await;
        let project = tempfile::tempdir().unwrap();
        std::fs::write(project.path().join("hello.sh"), "#!/bin/sh\necho hello\n").unwrap();
        Self {
            reached,
            clients,
            vpc,
            subnets,
            group_of_servers,
            builder_group,
            balancer_group,
            balancer,
            listener,
            base,
            project,
        }
    }

    /// The user's file: no smoke tests and no version probe, because no server is there to answer.
    pub fn file(&self) -> Value {
        json!({
            "app": APP,
            "build": { "recipe": "debian-bookworm", "commands": ["true"], "pack": ["hello.sh"] },
            "publish": { "bucket": BUCKET, "prefix": "team" },
            "bake": { "base": { "ami": self.base }, "security_group": "hello-builder" },
            "launch": {
                "count": 2,
                "subnets": self.subnets,
                "security_groups": ["hello"],
                "deregistration_delay": "1s",
                "timeout": "1m",
            },
            "flip": {
                "listener": { "load_balancer": BALANCER, "port": PORT },
                "preview": { "header": { "name": "X-Preview", "value": "green" } },
                "quiet": "0s",
            },
            "hold": { "for": "10m", "attended": false },
            "retire": { "timeout": "1m" },
        })
    }

    pub async fn site(&self) -> Site {
        self.site_with("production", json!({})).await
    }

    /// The same file with an environment's changes laid over it.
    pub async fn site_with(&self, environment: &str, changes: Value) -> Site {
        let mut file = self.file();
        overlay(&mut file, &changes);
        let pipeline: Pipeline = serde_json::from_value(file).unwrap();
        match &self.reached {
            Reached::At(endpoint) => {
                let mut site = Site::connect(pipeline, environment, self.project.path(), Some(endpoint)).await;
                site.clients.http = here_alone::client();
                site
            }
            Reached::Within(seed, sites) => {
                let dice = StdRng::seed_from_u64(seed.wrapping_mul(1 << 16) + sites.fetch_add(1, Relaxed));
                Site::of(pipeline, environment, self.project.path(), self.clients.clone(), dice)
            }
        }
    }

    /// Where it is, as somebody outside of this process would reach it.
    pub fn endpoint(&self) -> &LocalEndpoint {
        match &self.reached {
            Reached::At(endpoint) => endpoint,
            Reached::Within(..) => panic!("a simulation is on no port"),
        }
    }

    /// Sites of this account use another URL from now on; its own clients stay as they are.
    pub fn reached_through(mut self, url: String) -> Self {
        if let Reached::At(endpoint) = &mut self.reached {
            endpoint.url = url;
        }
        self
    }

    /// Sites of this account use these keys from now on; its own clients stay as they are.
    pub fn reached_by(mut self, endpoint: LocalEndpoint) -> Self {
        self.reached = Reached::At(endpoint);
        self
    }

    /// Changes the app, so that it has to be built again.
    pub fn edit(&self, text: &str) {
        std::fs::write(self.project.path().join("hello.sh"), text).unwrap();
    }

    /// Artifact and manifest of a version, as an earlier run has published them.
    pub async fn publish(&self, site: &Site, version: Version) -> Manifest {
        let artifact = format!("the artifact of {version}").into_bytes();
        let manifest = Manifest {
            format: Manifest::FORMAT,
            app: APP.into(),
            version,
            commit: Some(format!("{:040x}", version.time().as_second())),
            dirty: false,
            sha256: hex::encode(Sha256::digest(&artifact)),
            size_bytes: artifact.len() as u64,
            base: build_base(),
            platform: platform(),
            commands: vec!["true".into()],
            inputs: format!("inputs of {version}"),
            tool: alcedo_stages::TOOL.into(),
            built_at: version.time(),
        };
        let entry = InputsEntry { format: 1, version };
        let bytes = serde_json::to_vec(&manifest).unwrap();
        if let Some(signer) = &site.signer {
            let signed = signer.sign(&bytes);
            site.store.create(&releases::signature_key(&site.root, version), signed).await.unwrap();
        }
        for (key, bytes) in [
            (releases::artifact_key(&site.root, version), artifact),
            (releases::manifest_key(&site.root, version), bytes),
            (releases::inputs_key(&site.root, &manifest.inputs), serde_json::to_vec(&entry).unwrap()),
        ] {
            site.store.create(&key, bytes).await.unwrap();
        }
        manifest
    }

    /// The server image of a release, with the fingerprint that makes it fit for reuse.
    pub async fn bake(&self, site: &Site, manifest: &Manifest) -> String {
        let base = facts::base(site).await.unwrap();
        let fingerprint = bake::fingerprint(site, &base, &manifest.sha256, manifest.version).unwrap();
        let tags = Tags::default()
            .with(tags::APP, APP)
            .with(tags::VERSION, manifest.version)
            .with(tags::FINGERPRINT, fingerprint);
        image(&self.clients, &self.base, &self.subnets[0], &format!("{APP}/{}/earlier", manifest.version), &tags).await
    }

    /// A release that needs neither build nor bake.
    pub async fn release(&self, site: &Site, version: &str) -> Version {
        let manifest = self.publish(site, version.parse().unwrap()).await;
        self.bake(site, &manifest).await;
        manifest.version
    }

    /// An image that the endpoint offers to everybody: its id and its name.
    pub async fn offered_image(&self) -> (String, String) {
        let filter = Filter::builder().name("architecture").values("x86_64").build();
        let offered = self.clients.ec2.describe_images().filters(filter).send().await.unwrap();
        let other = offered.images().iter().find(|image| image.image_id() != Some(&self.base)).unwrap();
        (other.image_id().unwrap().to_owned(), other.name().unwrap_or_default().to_owned())
    }

    /// What the listener does now.
    pub async fn routing(&self) -> Routing {
        listener::read(&self.clients, &self.place()).await.unwrap()
    }

    /// Changes the listener as somebody else would, by another program.
    pub async fn reroute(&self, routing: &Routing) {
        let mut clients = self.clients.clone();
        let config = clients.elb.config().to_builder().app_name(AppName::new("somebody-elses").unwrap());
        clients.elb = aws_sdk_elasticloadbalancingv2::Client::from_conf(config.build());
        listener::write(&clients, &self.place(), routing).await.unwrap();
    }

    pub fn place(&self) -> Place {
        Place::Listener { arn: self.listener.clone() }
    }
}

pub fn build_base() -> BuildBase {
    BuildBase::Recipe { name: "debian-bookworm".into(), digest: format!("sha256:{}", "b".repeat(64)) }
}

pub fn platform() -> Platform {
    Platform { os: "debian".into(), os_version: "12".into(), architecture: "x86_64".into(), libc: "glibc 2.36".into() }
}

/// The default VPC and two of its subnets.
async fn network(clients: &Clients) -> (String, Vec<String>) {
    let filter = Filter::builder().name("is-default").values("true").build();
    let vpcs = clients.ec2.describe_vpcs().filters(filter).send().await.unwrap();
    let vpc = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
    let filter = Filter::builder().name("vpc-id").values(&vpc).build();
    let subnets = clients.ec2.describe_subnets().filters(filter).send().await.unwrap();
    let mut subnets: Vec<(String, String)> = subnets
        .subnets()
        .iter()
        .map(|it| (it.availability_zone().unwrap().to_owned(), it.subnet_id().unwrap().to_owned()))
        .collect();
    subnets.sort();
    (vpc, subnets.into_iter().take(2).map(|(_, id)| id).collect())
}

pub async fn group(clients: &Clients, vpc: &str, name: &str) -> String {
    let create = clients.ec2.create_security_group().group_name(name).vpc_id(vpc).description(name);
    create.send().await.unwrap().group_id().unwrap().to_owned()
}

/// Opens a port in a group, which may be too new to be known.
async fn let_in(clients: &Clients, group: &str, port: i32, from: impl Fn(IpPermissionBuilder) -> IpPermissionBuilder) {
    let rule = from(IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port)).build();
    eventually("the group to be known", async || {
        let call = clients.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(rule.clone());
        call.send().await.is_ok()
    })
    .await;
}

async fn balancer(clients: &Clients, subnets: &[String], group: &str) -> (String, String) {
    let create = clients.elb.create_load_balancer().name(BALANCER).set_subnets(Some(subnets.to_vec()));
    let made = create.security_groups(group).send().await.unwrap();
    let balancer = made.load_balancers()[0].load_balancer_arn().unwrap().to_owned();
    let create = clients.elb.create_listener().load_balancer_arn(&balancer).protocol(ProtocolEnum::Http).port(PORT);
    let made = create.default_actions(nothing_yet().action()).send().await.unwrap();
    let listener = made.listeners()[0].listener_arn().unwrap().to_owned();
    (balancer, listener)
}

/// An image that is the account's own, from any that the endpoint offers.
async fn base_image(clients: &Clients, subnet: &str) -> String {
    let filter = Filter::builder().name("architecture").values("x86_64").build();
    let offered = clients.ec2.describe_images().filters(filter).send().await.unwrap();
    let offered = offered.images()[0].image_id().unwrap();
    image(clients, offered, subnet, "debian-12-amd64", &Tags::default().with("vendor", "somebody")).await
}

/// Starts a server, captures it, and ends it.
pub async fn image(clients: &Clients, from: &str, subnet: &str, name: &str, tags: &Tags) -> String {
    let server = server(clients, from, subnet).await;
    let create = clients.ec2.create_image().instance_id(&server).name(name);
    let create = create.tag_specifications(tags.specification(ResourceType::Image));
    let image = create.send().await.unwrap().image_id().unwrap().to_owned();
    eventually("the image to be available", async || {
        let call = clients.ec2.describe_images().image_ids(&image);
        call.send().await.is_ok_and(|answer| answer.images()[0].state() == Some(&ImageState::Available))
    })
    .await;
    clients.ec2.terminate_instances().instance_ids(&server).send().await.unwrap();
    eventually("the server to end", async || state(clients, &server).await.as_deref() == Some("terminated")).await;
    image
}

/// A running server that is nobody's.
pub async fn server(clients: &Clients, image: &str, subnet: &str) -> String {
    let run = clients.ec2.run_instances().image_id(image).subnet_id(subnet).min_count(1).max_count(1);
    let made = run.instance_type("t3.micro".into()).send().await.unwrap();
    let id = made.instances()[0].instance_id().unwrap().to_owned();
    eventually("the server to run", async || state(clients, &id).await.as_deref() == Some("running")).await;
    id
}

/// A server's state by EC2's name; `None` while it is not visible.
pub async fn state(clients: &Clients, id: &str) -> Option<String> {
    let answer = clients.ec2.describe_instances().instance_ids(id).send().await.ok()?;
    let instance = answer.reservations().first()?.instances().first()?;
    Some(instance.state()?.name()?.as_str().to_owned())
}

/// Looks until it is so, or fails the test.
pub async fn eventually(what: &str, look: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !look().await {
        assert!(begun.elapsed() < VISIBLE, "waited {} s for {what}", VISIBLE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
