//! An environment as facts, made step by step.

use alcedo_images::{base::BuildBase, inputs::Parts as BuildParts, platform::Platform};
use alcedo_pipeline::{file::Pipeline, ids::RunId, overlay::overlay, plan::Plan, version::Version};
use alcedo_stages::{
    build::Source,
    facts::{Balancer, BaseImage, Facts, Fleet, Image, Network, Request, Signing},
    listener::{Place, Routing},
    parts::Parts,
    planner::{self, PlanError, Scope},
    releases::Manifest,
    signature::KeyId,
};
use jiff::Timestamp;
use serde_json::{Value, json};

const RECIPE: &str = "debian-bookworm";
/// Versions of three days, in order.
pub const FIRST: &str = "2026.1101.100000";
pub const SECOND: &str = "2026.1102.100000";
pub const THIRD: &str = "2026.1103.100000";
const NOW: &str = "2026-11-20T19:05:12Z";
const COMMIT: &str = "3f2c1ab0";

pub fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub fn run() -> RunId {
    "20261120-190512-7f3a".parse().unwrap()
}

/// The target group of a version's fleet.
pub fn arn(text: &str) -> String {
    format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/hello-{}/1", text.replace('.', "-"))
}

fn recipe_base() -> BuildBase {
    BuildBase::Recipe { name: RECIPE.into(), digest: "sha256:the recipe".into() }
}

/// A file and what was observed.
pub struct Environment {
    file: Value,
    facts: Facts,
}

impl Environment {
    /// Nothing is deployed or published yet; the source is there to be built.
    pub fn new() -> Self {
        let file = json!({
            "app": "hello",
            "build": { "recipe": RECIPE, "commands": ["make test", "make"], "pack": ["hello", "deploy/**"] },
            "publish": { "bucket": "releases", "prefix": "team" },
            "bake": { "base": { "recipe": RECIPE }, "security_group": "hello-builder" },
            "launch": { "subnets": ["a", "b"], "security_groups": ["hello"] },
            "flip": {
                "listener": { "load_balancer": "public", "port": 80 },
                "preview": { "header": { "name": "X-Preview", "value": "green" } },
                "version": { "path": "/version" },
            },
            "hold": { "for": "10m", "attended": false },
        });
        let balancer = Balancer {
            secured: None,
            arn: "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/public/1".into(),
            name: "public".into(),
            dns_name: "public-1.eu-west-1.elb.amazonaws.com".into(),
            addresses: Vec::new(),
            vpc: "vpc-1".into(),
            listener: "arn:listener".into(),
            protocol: "HTTP".into(),
            port: 80,
            place: Place::Listener { arn: "arn:listener".into() },
            routing: Routing::FixedResponse { status: "503".into(), content_type: None, body: None },
            uses: Vec::new(),
            priorities: Vec::new(),
            preview_listener: None,
        };
        let facts = Facts {
            balancer,
            fleets: Vec::new(),
            healthy_in_service: None,
            used_elsewhere: Vec::new(),
            network: Network {
                subnets: vec!["subnet-a".into(), "subnet-b".into()],
                security_groups: vec!["sg-hello".into()],
                builder_subnet: "subnet-a".into(),
                builder_security_group: "sg-builder".into(),
            },
            base: BaseImage {
                ami: "ami-base".into(),
                name: "alcedo/debian-bookworm/0123456789ab".into(),
                recipe_digest: Some(recipe_base().digest().to_owned()),
            },
            own_address: Some([203, 0, 113, 7].into()),
            images: Vec::new(),
            versions: Vec::new(),
            pins: Vec::new(),
            source: Some(Source {
                inputs: "the source".into(),
                parts: BuildParts::default(),
                base: recipe_base(),
                commit: Some(COMMIT.into()),
                dirty: false,
            }),
            fingerprint: None,
            release: None,
            signing: Signing::default(),
            inputs_in_service: None,
            image_parts: None,
            launch_parts: Parts::default(),
            observed_at: NOW.parse().unwrap(),
        };
        Self { file, facts }
    }

    pub fn plan(&self, request: Request) -> Result<Plan, PlanError> {
        let pipeline: Pipeline = serde_json::from_value(self.file.clone()).unwrap();
        let mut facts = self.facts.clone();
        if request != (Request::Deploy { version: None }) {
            facts.source = None;
        }
        let now: Timestamp = NOW.parse().unwrap();
        let scope = Scope {
            pipeline: &pipeline,
            environment: "production",
            root: "team/hello/",
            run: run(),
            now,
            new_version: Version::at(now),
        };
        planner::plan(&scope, &request, &facts)
    }

    /// Changes the file.
    pub fn with(mut self, changes: Value) -> Self {
        overlay(&mut self.file, &changes);
        self
    }

    /// A fleet of two that has all traffic.
    pub fn in_service(mut self, text: &str) -> Self {
        self.facts.balancer.routing = Routing::to(arn(text));
        self.fleet(text, |fleet| fleet.weight = 1)
    }

    /// A fleet of two behind the flip that replaced it.
    pub fn held(self, text: &str, until: &str) -> Self {
        self.fleet(text, |fleet| fleet.held_until = Some(until.parse().unwrap()))
    }

    fn fleet(mut self, text: &str, change: impl Fn(&mut Fleet)) -> Self {
        let mut fleet = Fleet {
            version: version(text),
            commit: Some(COMMIT.into()),
            target_group: arn(text),
            name: format!("hello-{}", text.replace('.', "-")),
            instances: vec![format!("i-{text}-1"), format!("i-{text}-2")],
            preview_rule: None,
            weight: 0,
            replaces: None,
            held_since: None,
            held_until: None,
            run: Some("20261101-100000-0001".into()),
            launched_with: None,
        };
        change(&mut fleet);
        self.facts.fleets.push(fleet);
        self
    }

    /// The last fleet that was added stands where this one was.
    pub fn replaces(mut self, text: &str) -> Self {
        self.facts.fleets.last_mut().unwrap().replaces = Some(version(text));
        self
    }

    /// How many servers of the fleet in service are healthy.
    pub fn healthy_in_service(mut self, healthy: usize) -> Self {
        self.facts.healthy_in_service = Some(healthy);
        self
    }

    /// The release that the request means.
    pub fn published(mut self, text: &str, inputs: &str) -> Self {
        let version = version(text);
        self.facts.release = Some(Manifest {
            format: Manifest::FORMAT,
            app: "hello".into(),
            version,
            commit: Some(COMMIT.into()),
            dirty: false,
            sha256: "e3b0".into(),
            size_bytes: 1,
            base: recipe_base(),
            platform: Platform {
                os: "debian".into(),
                os_version: "12".into(),
                architecture: "x86_64".into(),
                libc: "glibc 2.36".into(),
            },
            commands: vec!["make".into()],
            inputs: inputs.into(),
            tool: "alcedo".into(),
            built_at: version.time(),
        });
        self
    }

    pub fn image(mut self, text: &str, fingerprint: &str) -> Self {
        self.facts.images.push(Image {
            ami: format!("ami-{text}"),
            name: format!("hello/{text}/20261101-100000-0001"),
            version: version(text),
            fingerprint: fingerprint.into(),
            artifact: None,
            snapshots: vec![format!("snap-{text}")],
            available: true,
            parts: None,
        });
        self
    }

    /// The last image says that this artifact is in it.
    pub fn made_of(mut self, artifact: &str) -> Self {
        self.facts.images.last_mut().unwrap().artifact = Some(artifact.into());
        self
    }

    /// Somebody who is trusted has signed a manifest of this artifact for the version.
    pub fn vouched(mut self, artifact: &str) -> Self {
        self.facts.signing.vouched = Some(artifact.into());
        self
    }

    /// The key that a new version would be signed with.
    pub fn signing_key(mut self, key: &KeyId) -> Self {
        self.facts.signing.key = Some(key.clone());
        self
    }

    /// A version of the same inputs, and why it is not used.
    pub fn passed_over(mut self, why: &str) -> Self {
        self.facts.signing.passed_over = Some(why.into());
        self
    }

    /// What the source to build consists of; `"main.go=1"` is a file with a digest, `"build.pack=1"` a setting.
    pub fn source_of(mut self, parts: &[&str]) -> Self {
        self.facts.source.as_mut().unwrap().parts = build_parts(parts);
        self
    }

    /// What the version in service was built from.
    pub fn was_built_from(mut self, parts: &[&str]) -> Self {
        self.facts.inputs_in_service = Some(build_parts(parts));
        self
    }

    pub fn commit(mut self, commit: &str, dirty: bool) -> Self {
        let source = self.facts.source.as_mut().unwrap();
        (source.commit, source.dirty) = (Some(commit.into()), dirty);
        self
    }

    /// What an image would be made with now.
    pub fn image_parts(mut self, tag: &str) -> Self {
        self.facts.image_parts = Some(Parts::read(tag));
        self
    }

    /// What the last image that was added was made with.
    pub fn was_made_with(mut self, tag: &str) -> Self {
        self.facts.images.last_mut().unwrap().parts = Some(Parts::read(tag));
        self
    }

    /// What servers would be launched with now.
    pub fn launch_parts(mut self, tag: &str) -> Self {
        self.facts.launch_parts = Parts::read(tag);
        self
    }

    /// What the last fleet that was added was launched with.
    pub fn was_launched_with(mut self, tag: &str) -> Self {
        self.facts.fleets.last_mut().unwrap().launched_with = Some(Parts::read(tag));
        self
    }

    /// What the release's image would have to carry.
    pub fn fingerprint(mut self, fingerprint: &str) -> Self {
        self.facts.fingerprint = Some(fingerprint.into());
        self
    }

    pub fn versions(mut self, newest_first: &[&str]) -> Self {
        self.facts.versions = newest_first.iter().map(|text| version(text)).collect();
        self
    }

    pub fn used_elsewhere(mut self, text: &str) -> Self {
        self.facts.used_elsewhere.push(version(text));
        self
    }

    pub fn pinned(mut self, text: &str) -> Self {
        self.facts.pins.push(version(text));
        self
    }

    pub fn preview_listener(mut self, routing: &Routing) -> Self {
        self.facts.balancer.preview_listener = Some(("arn:preview".into(), routing.clone()));
        self
    }

    pub fn priorities(mut self, taken: &[u32]) -> Self {
        self.facts.balancer.priorities = taken.to_vec();
        self
    }

    pub fn place(mut self, place: Place) -> Self {
        self.facts.balancer.place = place;
        self
    }

    pub fn without_own_address(mut self) -> Self {
        self.facts.own_address = None;
        self
    }

    pub fn base_digest(mut self, digest: &str) -> Self {
        self.facts.base.recipe_digest = Some(digest.into());
        self
    }

    pub fn vendors_base(mut self) -> Self {
        self.facts.base.recipe_digest = None;
        self
    }
}

fn build_parts(parts: &[&str]) -> BuildParts {
    let mut all = BuildParts { format: BuildParts::FORMAT, ..BuildParts::default() };
    for part in parts {
        let (name, digest) = part.split_once('=').unwrap();
        match name.strip_prefix("build.") {
            Some(name) => all.settings.insert(name.into(), digest.into()),
            None => all.files.insert(name.into(), digest.into()),
        };
    }
    all
}
