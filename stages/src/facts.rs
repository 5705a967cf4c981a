//! A read-only view of one environment: everything the planner decides from. Only Describe, Get and List calls.

use std::net::Ipv4Addr;

use alcedo_images::inputs::Parts as BuildParts;
use alcedo_pipeline::{
    error::StepError,
    file::{Base, Pipeline},
    version::Version,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    build::Source,
    cloud_error::CloudError,
    listener::{Place, Routing},
    parts::Parts,
    releases::{Manifest, ReleasesError},
    signature::KeyId,
    site::Site,
};

mod balancer;
mod fleets;
mod glance;
mod images;
mod network;
pub mod uses;

pub use balancer::{observe as balancer, observe_all as balancer_with_all_uses};
pub use fleets::{Elsewhere, everywhere, fleets, reachable};
pub use glance::{glance, listener_tag};
pub use images::of_app as app_images;
pub use network::{security_groups, subnets};
pub use uses::Use;

/// What was observed.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub balancer: Balancer,
    /// Every fleet of this app and environment, oldest version first.
    pub fleets: Vec<Fleet>,
    /// How many servers of the fleet in service are healthy, where that fleet is of the version that the request means.
    pub healthy_in_service: Option<usize>,
    /// Versions that the app's other environments have in service, hold or would go back to.
    pub used_elsewhere: Vec<Version>,
    pub network: Network,
    pub base: BaseImage,
    /// This machine's address, as the servers would see it; `None` where nobody could tell.
    pub own_address: Option<Ipv4Addr>,
    /// Images of this app, newest first.
    pub images: Vec<Image>,
    /// Published versions, newest first.
    pub versions: Vec<Version>,
    /// Versions that somebody keeps beyond the retention.
    pub pins: Vec<Version>,
    /// The source to build from, where the request builds.
    pub source: Option<Source>,
    /// The image fingerprint of the release, where its artifact is known.
    pub fingerprint: Option<String>,
    /// The published version that the request means, or that has the source's inputs.
    pub release: Option<Manifest>,
    pub signing: Signing,
    /// What the version in service was built from, where the source has to be built and that was recorded.
    pub inputs_in_service: Option<BuildParts>,
    /// What an image would be made with today, and servers be launched with.
    pub image_parts: Option<Parts>,
    pub launch_parts: Parts,
    pub observed_at: Timestamp,
}

/// What is known of signatures, where the file has to do with them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Signing {
    /// The key that a new version would be signed with.
    pub key: Option<KeyId>,
    /// The digest of the artifact of which the version's manifest tells, signed by somebody who is trusted; whether or not the
    /// artifact is there.
    pub vouched: Option<String>,
    /// The version of the same inputs that is not used, and why.
    pub passed_over: Option<String>,
}

/// The load balancer and what its listener does now.
#[derive(Debug, Clone, Serialize)]
pub struct Balancer {
    pub arn: String,
    pub name: String,
    pub dns_name: String,
    /// Addresses of its nodes, where the balancer tells them; empty: they are in the DNS.
    pub addresses: Vec<String>,
    pub vpc: String,
    pub listener: String,
    pub protocol: String,
    pub port: u16,
    /// What the flip changes.
    pub place: Place,
    pub routing: Routing,
    /// Priorities of the listener's rules.
    pub priorities: Vec<u32>,
    /// Who sends requests to which target groups, production and previews among them. The rules of other listeners are here
    /// only where somebody has looked for them ([`balancer_with_all_uses`]).
    pub uses: Vec<Use>,
    /// How the listener's connections are secured, where they are.
    pub secured: Option<Secured>,
    /// The test listener that previews by port, where it exists.
    pub preview_listener: Option<(String, Routing)>,
}

impl Balancer {
    /// Whoever else sends requests to a fleet: another rule, the default action where a rule is production, another listener.
    pub fn foreign_use_of(&self, fleet: &Fleet) -> Option<&Use> {
        let preview = self.preview_listener.as_ref().map(|(arn, _)| arn.as_str());
        let own: Vec<&str> =
            [Some(self.place.arn()), preview, fleet.preview_rule.as_deref()].into_iter().flatten().collect();
        uses::foreign(&self.uses, &fleet.target_group, &own)
    }
}

/// What an HTTPS listener takes to be made like another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secured {
    /// The default certificate's ARN.
    pub certificate: String,
    /// `ELBSecurityPolicy-…`.
    pub policy: Option<String>,
}

/// The servers of one version behind one target group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    pub version: Version,
    pub commit: Option<String>,
    pub target_group: String,
    pub name: String,
    pub instances: Vec<String>,
    /// The rule that reaches it by header, by ARN.
    pub preview_rule: Option<String>,
    /// Its weight in the production listener.
    pub weight: i32,
    pub replaces: Option<Version>,
    /// Since when it has no traffic, where it is held.
    pub held_since: Option<Timestamp>,
    pub held_until: Option<Timestamp>,
    pub run: Option<String>,
    /// The settings that its servers were launched with, where they are recorded.
    #[serde(skip)]
    pub launched_with: Option<Parts>,
}

impl Fleet {
    pub fn is_in_service(&self) -> bool {
        self.weight > 0
    }

    /// Whether it waits, ready, behind a flip that replaced it.
    pub fn is_held(&self) -> bool {
        !self.is_in_service() && self.held_until.is_some()
    }
}

/// Names in the file, as ids.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub builder_subnet: String,
    pub builder_security_group: String,
}

/// What the server image starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BaseImage {
    pub ami: String,
    pub name: String,
    /// The recipe's digest, where the image was made from one.
    pub recipe_digest: Option<String>,
}

/// A server image of this app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    pub ami: String,
    pub name: String,
    pub version: Version,
    pub fingerprint: String,
    /// The digest of the artifact that is in it; images of earlier releases of alcedo do not tell.
    pub artifact: Option<String>,
    pub snapshots: Vec<String>,
    pub available: bool,
    /// What it was made with beside its version, where that is recorded.
    #[serde(skip)]
    pub parts: Option<Parts>,
}

/// What a person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Build what is here, or take a published version.
    Deploy { version: Option<Version> },
    /// Retire what is held.
    EndHold,
    /// Go back to a version; to the one in service before, where none is named.
    Rollback { to: Option<Version> },
}

/// Why the environment could not be observed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    #[error("{what}")]
    Missing { what: String, hint: String },
    #[error(transparent)]
    Source(#[from] StepError),
}

impl FactsError {
    pub(crate) fn missing(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Missing { what: what.into(), hint: hint.into() }
    }

    /// What the user can do about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Cloud(error) => crate::cloud_error::hint(error).map(str::to_owned).into_iter().collect(),
            Self::Releases(error) => error.hints(),
            Self::Missing { hint, .. } => vec![hint.clone()],
            Self::Source(error) => error.hints.clone(),
        }
    }
}

/// Looks at the environment.
///
/// # Errors
/// Something the file names is not there, or the cloud could not be asked.
pub async fn observe(site: &Site, request: &Request) -> Result<Facts, FactsError> {
    let source = match request {
        Request::Deploy { version: None } => Some(crate::build::source(site).await?),
        _ => None,
    };
    let balancer = balancer_with_all_uses(site).await?;
    let (fleets, used_elsewhere) = fleets::fleets_and_others(site, &balancer).await?;
    let pinned_held = pinned(request, &fleets)
        .is_some_and(|version| fleets.iter().any(|fleet| fleet.version == version && fleet.is_held()));
    if pinned_held || *request == Request::EndHold {
        let healthy_in_service = match fleets.iter().find(|fleet| fleet.is_in_service()) {
            Some(fleet) if !pinned_held => Some(healthy(site, fleet).await?),
            _ => None,
        };
        let facts = Facts::of_traffic_alone(balancer, fleets, used_elsewhere, site.now());
        return Ok(Facts { healthy_in_service, ..facts });
    }
    let (network, base, images, versions, pins, own_address) = futures::try_join!(
        network::observe(site),
        base(site),
        app_images(site),
        async { Ok(site.versions().await?) },
        async { Ok(site.pins().await.map_err(ReleasesError::from)?) },
        async { Ok(own_address(site).await) },
    )?;
    let mut passed_over = None;
    let release = match (request, &source) {
        (Request::Deploy { version: Some(version) } | Request::Rollback { to: Some(version) }, _) => {
            site.release(*version).await?
        }
        (Request::Rollback { to: None }, _) => match version_before(&fleets) {
            Some(version) => site.release(version).await?,
            None => None,
        },
        (_, Some(source)) => match site.version_with_inputs(&source.inputs).await {
            // What was published before anything was signed is built again; what was tampered with is not passed over.
            Err(ReleasesError::Distrust { version, source }) if source.is_of_before() => {
                passed_over = Some(format!("build: {version} has the same inputs, and is not used: {source}"));
                None
            }
            found => found?,
        },
        (_, None) => None,
    };
    let vouched = release.as_ref().map(|manifest| manifest.sha256.clone());
    let key = match &source {
        // Whoever deploys what is published already needs no key, and may have an old one.
        Some(_) if site.pipeline.publish.signs() && release.is_none() => {
            let signer = site.signer().map_err(ReleasesError::from)?;
            signer.map(|signer| signer.id.clone())
        }
        _ => None,
    };
    let signing = Signing { key, vouched, passed_over };
    // A manifest tells of an artifact that somebody may have removed: without it there is nothing to bake from.
    let release = match release {
        Some(manifest) if site.has_artifact(manifest.version).await? => Some(manifest),
        _ => None,
    };
    let in_service = fleets.iter().find(|fleet| fleet.is_in_service());
    let wanted = release.as_ref().map(|manifest| manifest.version).or_else(|| pinned(request, &fleets));
    let healthy_in_service = match in_service.filter(|fleet| Some(fleet.version) == wanted) {
        Some(fleet) => Some(healthy(site, fleet).await?),
        None => None,
    };
    let fingerprint = match &release {
        Some(manifest) => Some(crate::bake::fingerprint(site, &base, &manifest.sha256, manifest.version)?),
        None => None,
    };
    // For people alone: what cannot be read is not known.
    let inputs_in_service = match in_service.filter(|_| source.is_some() && release.is_none()) {
        Some(fleet) => site.inputs_of(fleet.version).await.ok().flatten(),
        None => None,
    };
    let image_parts = crate::bake::parts(site, &base).ok();
    let launch_parts = Parts::of_launch(&site.pipeline.launch, &site.folder);
    let observed_at = site.now();
    Ok(Facts {
        balancer,
        fleets,
        healthy_in_service,
        used_elsewhere,
        network,
        base,
        own_address,
        images,
        versions,
        pins,
        source,
        fingerprint,
        release,
        signing,
        inputs_in_service,
        image_parts,
        launch_parts,
        observed_at,
    })
}

async fn healthy(site: &Site, fleet: &Fleet) -> Result<usize, CloudError> {
    Ok(crate::launch::count_healthy(&crate::launch::target_health(&site.clients, &fleet.target_group).await?))
}

/// Looks at what there is and who needs it, and at nothing that only a deploy needs.
///
/// # Errors
/// As [`observe`].
pub async fn stock(site: &Site) -> Result<Facts, FactsError> {
    let balancer = balancer_with_all_uses(site).await?;
    let (fleets, used_elsewhere) = fleets::fleets_and_others(site, &balancer).await?;
    let (images, versions, pins) = futures::try_join!(app_images(site), async { Ok(site.versions().await?) }, async {
        Ok(site.pins().await.map_err(ReleasesError::from)?)
    },)?;
    Ok(Facts { images, versions, pins, ..Facts::of_traffic_alone(balancer, fleets, used_elsewhere, site.now()) })
}

impl Facts {
    /// Where a held fleet only has to get the traffic back, nothing else is looked at, so that nothing else can stand in
    /// the way: no base image, no bucket's content, no address of this machine.
    fn of_traffic_alone(
        balancer: Balancer,
        fleets: Vec<Fleet>,
        used_elsewhere: Vec<Version>,
        observed_at: Timestamp,
    ) -> Self {
        Self {
            balancer,
            fleets,
            healthy_in_service: None,
            used_elsewhere,
            network: Network::default(),
            base: BaseImage::default(),
            own_address: None,
            images: Vec::new(),
            versions: Vec::new(),
            pins: Vec::new(),
            source: None,
            fingerprint: None,
            release: None,
            signing: Signing::default(),
            inputs_in_service: None,
            image_parts: None,
            launch_parts: Parts::default(),
            observed_at,
        }
    }
}

/// The version that the request means, where it does not build one.
fn pinned(request: &Request, fleets: &[Fleet]) -> Option<Version> {
    match request {
        Request::Deploy { version } => *version,
        Request::Rollback { to } => to.or_else(|| version_before(fleets)),
        Request::EndHold => None,
    }
}

/// The version in service before the one that is now.
pub fn version_before(fleets: &[Fleet]) -> Option<Version> {
    fleets.iter().find(|fleet| fleet.is_in_service()).and_then(|fleet| fleet.replaces)
}

/// What the server image starts from.
pub async fn base(site: &Site) -> Result<BaseImage, FactsError> {
    images::base(site, &site.pipeline.bake.base).await
}

/// Where people reach the app: as the file says, or the balancer's own name.
pub fn public_url(pipeline: &Pipeline, balancer: &Balancer) -> String {
    pipeline.flip.url.clone().unwrap_or_else(|| own_url(balancer))
}

/// The balancer's own name, as a URL.
pub fn own_url(balancer: &Balancer) -> String {
    let scheme = if balancer.protocol == "HTTPS" { "https" } else { "http" };
    format!("{scheme}://{}:{}", balancer.dns_name, balancer.port)
}

/// This machine's address as servers see it. An answer that is not one address counts as none: a wrong guess would open
/// SSH to somebody else.
pub async fn own_address(site: &Site) -> Option<Ipv4Addr> {
    if let Some(known) = site.clients.own_address {
        return Some(known);
    }
    let answer = site.clients.http.get(site.check_ip_url()).send().await.ok()?.error_for_status().ok()?;
    answer.text().await.ok()?.trim().parse().ok()
}

/// Tells a recipe from an AMI in words.
pub fn base_in_words(base: &Base) -> String {
    match base {
        Base { recipe: Some(recipe), .. } => format!("recipe {recipe}"),
        Base { ami: Some(ami), .. } => ami.clone(),
        Base { owner, name, .. } => {
            format!("newest image {} of {}", name.as_deref().unwrap_or("*"), owner.as_deref().unwrap_or("self"))
        }
    }
}
