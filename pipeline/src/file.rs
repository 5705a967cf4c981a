//! `alcedo.yaml` as types: what one environment asks for, after its overrides have been laid over the rest of the file.
//!
//! Every key, with its unit, default and an example, is shown in `docs/alcedo.yaml`. A value is checked here as far as
//! its type can (units, ranges); what relates two keys is checked in [`crate::validate`].

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{plan::Stage, suite::Check, units::Span};

/// One environment's settings: the file with the environment's overrides laid over it and defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The app's name: lower-case letters, digits and hyphens, at most 20 characters (it becomes part of AWS names).
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"))]
    pub app: String,
    #[serde(default)]
    pub aws: Aws,
    pub build: Build,
    pub publish: Publish,
    pub bake: Bake,
    pub launch: Launch,
    /// What servers are given in memory, by the names that they find it under. Default: nothing.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Run against every green server and through the preview route, before any traffic moves.
    #[serde(default)]
    pub smoke_tests: Vec<Check>,
    pub flip: Flip,
    /// Before which stages a deploy waits for somebody's word. Default: none.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    #[serde(default)]
    pub watch: Watch,
    #[serde(default)]
    pub hold: Hold,
    #[serde(default)]
    pub retire: Retire,
}

/// Which cloud is spoken to. Credentials come from the usual places (environment, profile, SSO, web identity, role).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Such as `eu-west-1`. Default: `AWS_REGION`, then the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A profile of `~/.aws/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `local` for the local region, or a URL. Default: AWS itself, or `AWS_ENDPOINT_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// How the app becomes files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The recipe whose root the build runs in. Exactly one of `recipe` and `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// A container image the engine has or can pull, where the server's base is a vendor's AMI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Packages added to the recipe's root for building only, by the distribution's names.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Run one after another by `sh -e -c` in `working_directory`; the first that fails ends the build.
    #[schemars(length(min = 1))]
    pub commands: Vec<String>,
    /// Where the commands run, relative to the folder of `alcedo.yaml`. Default `.`.
    #[serde(default = "dot")]
    pub working_directory: PathBuf,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Absolute paths in the build container that are kept between builds.
    #[serde(default)]
    pub cache: Vec<PathBuf>,
    /// Files and folders that the artifact is packed from, relative to `working_directory`; patterns with `*` and `**`.
    #[schemars(length(min = 1))]
    pub pack: Vec<String>,
    /// Patterns left out of `pack`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Default `30m`.
    #[serde(default = "half_an_hour")]
    pub timeout: Span,
}

/// Where artifacts, manifests, run journals and the lock are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// An S3 bucket that exists.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// Put before `<app>/<version>/…`. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// How many of the newest versions' artifacts are kept; those in service are always kept. Default 20.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep: u32,
    /// Sign each new version with the private key in `ALCEDO_SIGNING_KEY`. Default: only where `signed_by` names keys.
    #[serde(default)]
    pub sign: bool,
    /// Ed25519 public keys, of which one must have signed each version that is used. Default: none, and any version is used.
    #[serde(default)]
    pub signed_by: Vec<String>,
}

impl Publish {
    /// Whether a new version has to be signed: one that is not would be of no use where keys are named.
    pub fn signs(&self) -> bool {
        self.sign || !self.signed_by.is_empty()
    }
}

/// How the server image is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bake {
    pub base: Base,
    /// Default `t3.small`.
    #[serde(default = "small")]
    pub instance_type: String,
    /// The builder's subnet, by id or by `Name` tag. Default: the first of `launch.subnets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The builder's security group, by id or name; SSH is opened in it for this machine's address, and only while
    /// needed.
    pub security_group: String,
    /// Default `admin`, as on Debian's AMIs.
    #[serde(default = "admin")]
    pub ssh_user: String,
    /// Default 22.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1))]
    pub ssh_port: u16,
    /// Reach the builder at its private address (over a VPN or from inside the VPC). Default false.
    #[serde(default)]
    pub private_address: bool,
    /// Where the artifact is unpacked on the server. Default `/opt/<app>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_path: Option<PathBuf>,
    /// What is done to the server after the artifact is in place, in order.
    #[serde(default)]
    pub provision: Vec<Provision>,
    /// What must hold on the provisioned server; otherwise there is no image.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Deadline of the whole stage. Default `20m`.
    #[serde(default = "twenty_minutes")]
    pub timeout: Span,
}

/// What the server image starts from. Exactly one of `recipe`, `ami`, or `owner` with `name`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// A recipe's root: the same that the build ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// One image, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami: Option<String>,
    /// With `name`: the newest image of this account id (or `amazon`, `self`) whose name matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// A pattern with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One provisioning step. Exactly one of `script`, `run` and `ansible`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    /// A script of the project, copied to the server and run as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
    /// Commands given to `sh -e` on the server, as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// A playbook of the project, run by this machine's `ansible-playbook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ansible: Option<Ansible>,
    /// Variables of `script` and `run`, beside `ALCEDO_APP`, `ALCEDO_VERSION` and `ALCEDO_INSTALL_PATH`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// `ansible: { playbook: site.yml }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ansible {
    pub playbook: PathBuf,
    #[serde(default)]
    pub extra_vars: BTreeMap<String, String>,
    /// More arguments for `ansible-playbook`.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// The fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// How many servers. Default 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// Default `t3.small`.
    #[serde(default = "small")]
    pub instance_type: String,
    /// By id or `Name` tag; servers are spread over them evenly.
    #[schemars(length(min = 1))]
    pub subnets: Vec<String>,
    /// By id or name.
    #[schemars(length(min = 1))]
    pub security_groups: Vec<String>,
    /// An instance profile's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// A key pair's name, for people who log in later. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A template file; `{{app}}`, `{{version}}`, `{{environment}}` are filled in. At most 16 KiB when filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<PathBuf>,
    /// The app's HTTP port on a server. Default 8080.
    #[serde(default = "app_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    #[serde(default)]
    pub health_check: HealthCheck,
    /// How long a server that leaves may finish its requests. Default `30s`; AWS allows 0–3600 s.
    #[serde(default = "thirty_seconds")]
    pub deregistration_delay: Span,
    /// The longest that a request may take. Where it is named, no flip begins while the servers in service would be given less
    /// than that to finish. Default: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_request: Option<Span>,
    /// From launch to all servers healthy. Default `5m`.
    #[serde(default = "five_minutes")]
    pub timeout: Span,
}

/// Where a secret comes from. Exactly one of the keys.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// A variable of the environment in which `alcedo` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// A file of this machine; the end of its only line is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A parameter of AWS Systems Manager, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm: Option<String>,
    /// A file of the project, encrypted with age: a map of names to values, of which the secret's name is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<PathBuf>,
}

/// The balancer's health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// Default `/health`.
    pub path: String,
    /// Default `5s`; AWS allows 5–300 s.
    pub interval: Span,
    /// Default `2s`; AWS allows 2–120 s, less than the interval.
    pub timeout: Span,
    /// Default 2; AWS allows 2–10.
    #[schemars(range(min = 2, max = 10))]
    pub healthy_threshold: u8,
    /// Default 2; AWS allows 2–10.
    #[schemars(range(min = 2, max = 10))]
    pub unhealthy_threshold: u8,
    /// Statuses that pass: `200`, `200,204` or `200-299`. Default `200`.
    pub matcher: String,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/health".into(),
            interval: Span::seconds(5),
            timeout: Span::seconds(2),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: "200".into(),
        }
    }
}

/// How traffic moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    pub listener: Listener,
    /// How green is reached before it has traffic.
    pub preview: Preview,
    /// The address people use, such as `https://hello.example.com`; probes ask for it at every balancer node. Default: the
    /// balancer's own name and the listener's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How an answer tells which version gave it. Default: nothing is asked, and only the listener is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionProbe>,
    /// Traffic moves to green by these shares. At most one of `canary` and `linear`. Default: all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<Linear>,
    /// While two versions share the traffic, the balancer's cookie keeps a visitor at the one that answered first, for this
    /// long. AWS allows 1 s to 7 days. Default: each request may go to either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Span>,
    /// How long every answer, at every balancer node, must be green's before the flip counts as proven. Default `2s`.
    #[serde(default = "two_seconds")]
    pub quiet: Span,
    /// From the change to the proof that only green answers. Default `2m`.
    #[serde(default = "two_minutes")]
    pub timeout: Span,
    /// What becomes of a deploy whose servers close idle connections sooner than the balancer does. Default `require`.
    #[serde(default)]
    pub keep_alive: KeepAliveRule,
}

/// Whether the servers have to keep idle connections for longer than the balancer: `require`, and those that are seen to
/// close them sooner get no traffic; `warn`, and they get it, and the run says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAliveRule {
    #[default]
    Require,
    Warn,
}

/// `canary: { shares: [5, 25], pause: 5m }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Green's shares of the traffic, in percent and rising; all of it comes after the last.
    #[schemars(length(min = 1, max = 20), inner(range(min = 1, max = 99)))]
    pub shares: Vec<u8>,
    /// How long each share is watched. Default `5m`.
    #[serde(default = "five_minutes")]
    pub pause: Span,
}

/// `linear: { share: 20, pause: 2m }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// How much more of the traffic green gets at each step, in percent.
    #[schemars(range(min = 5, max = 50))]
    pub share: u8,
    /// How long each share is watched. Default `5m`.
    #[serde(default = "five_minutes")]
    pub pause: Span,
}

impl Flip {
    /// Green's shares of the traffic before it gets all, in percent; none: all at once.
    pub fn shares(&self) -> Vec<u8> {
        match (&self.canary, &self.linear) {
            (Some(canary), _) => canary.shares.clone(),
            (None, Some(linear)) => (1..).map(|step| step * linear.share).take_while(|share| *share < 100).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// How long each of them is watched.
    pub fn pause(&self) -> Span {
        let canary = self.canary.as_ref().map(|canary| canary.pause);
        canary.or_else(|| self.linear.as_ref().map(|linear| linear.pause)).unwrap_or(Span::ZERO)
    }
}

/// `{ before: flip, within: 1h }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The stage that waits.
    pub before: GatedStage,
    /// Longest wait; then the deploy fails and is undone. Default `1h`.
    #[serde(default = "one_hour")]
    pub within: Span,
}

/// A stage that can wait for somebody. Nothing comes before `build`, and `hold` begins by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GatedStage {
    Publish,
    Bake,
    Launch,
    Smoke,
    Flip,
    Retire,
}

impl GatedStage {
    pub const fn stage(self) -> Stage {
        match self {
            Self::Publish => Stage::Publish,
            Self::Bake => Stage::Bake,
            Self::Launch => Stage::Launch,
            Self::Smoke => Stage::Smoke,
            Self::Flip => Stage::Flip,
            Self::Retire => Stage::Retire,
        }
    }
}

/// What green is judged by while it shares the traffic, and in the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// Time between two rounds of probes. Default `1s`.
    pub every: Span,
    /// How many bad rounds in a row are a breach. Default 2.
    #[schemars(range(min = 1, max = 100))]
    pub bad_rounds: u32,
    /// Whether the requests that failed are compared, by CloudWatch's metrics of the balancer. Default true.
    pub metrics: bool,
    /// The fewest requests that green must have had before a share is judged by them. Default 300.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// How much longer than its pause a share waits for so many requests. Default `15m`.
    pub patience: Span,
    /// How often, in percent, a deploy whose versions fail alike may be taken for a breach. Default 1.
    #[schemars(range(min = 1, max = 20))]
    pub false_alarms: u8,
    /// The most that green's 99th percentile of response time may be, in percent of blue's; 0: it is not judged. Default 0.
    #[schemars(range(max = 10_000))]
    pub latency: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            every: Span::seconds(1),
            bad_rounds: 2,
            metrics: true,
            requests: 300,
            patience: Span::minutes(15),
            false_alarms: 1,
            latency: 0,
        }
    }
}

/// The listener that traffic comes in by; with `rule`, one rule of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The load balancer, by name or ARN.
    pub load_balancer: String,
    /// The listener's port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The priority of the rule that routes this app, where the listener serves several. Default: the listener's own
    /// default action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50_000))]
    pub rule: Option<u32>,
}

/// Exactly one of `header` and `port`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// A rule on the listener sends requests with this header to green.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<PreviewHeader>,
    /// A second listener of the same balancer on this port sends everything to green.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// `header: { name: X-Preview, value: green }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewHeader {
    pub name: String,
    pub value: String,
    /// The preview rule's priority on the listener. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 50_000))]
    pub priority: u32,
}

/// `version: { path: /version, json: $.version }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionProbe {
    pub path: String,
    /// JSON path of the version in the body. Default: the whole body, trimmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
}

/// How long blue stays ready after the flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// Default `5m`; `0` for none.
    #[serde(rename = "for")]
    pub span: Span,
    /// `true` (default): `deploy` watches for that long, then retires blue. `false`: `deploy` returns once green is
    /// proven; blue stays, as the reserve for a rollback, until the next deploy retires it.
    pub attended: bool,
}

impl Default for Hold {
    fn default() -> Self {
        Self { span: Span::minutes(5), attended: true }
    }
}

/// What is kept after the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retire {
    /// How many of the newest images are kept, with their snapshots; those in service are always kept. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    pub keep_images: u32,
    /// Longest wait for blue's servers to drain and end. Default `10m`.
    pub timeout: Span,
}

impl Default for Retire {
    fn default() -> Self {
        Self { keep_images: 5, timeout: Span::minutes(10) }
    }
}

fn one_hour() -> Span {
    Span::minutes(60)
}
fn dot() -> PathBuf {
    ".".into()
}
fn half_an_hour() -> Span {
    Span::minutes(30)
}
fn twenty_minutes() -> Span {
    Span::minutes(20)
}
fn five_minutes() -> Span {
    Span::minutes(5)
}
fn two_seconds() -> Span {
    Span::seconds(2)
}
fn two_minutes() -> Span {
    Span::minutes(2)
}
fn thirty_seconds() -> Span {
    Span::seconds(30)
}
fn twenty() -> u32 {
    20
}
fn two() -> u32 {
    2
}
fn one() -> u32 {
    1
}
fn small() -> String {
    "t3.small".into()
}
fn admin() -> String {
    "admin".into()
}
fn ssh_port() -> u16 {
    22
}
fn app_port() -> u16 {
    8080
}
