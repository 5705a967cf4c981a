//! What is in service, what is held, what is published: for `status`, `releases` and `runs`. Read-only.

use alcedo_pipeline::{
    journal::{self, JournalError},
    lock::{self, Lease, LockError},
    report::Report,
    version::Version,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    facts::{self, Elsewhere, FactsError, Fleet},
    launch,
    releases::{Manifest, ReleasesError},
    site::Site,
};

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum OverviewError {
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the bucket could not be read")]
    Store(#[from] alcedo_pipeline::store::StoreError),
}

impl From<crate::cloud_error::CloudError> for OverviewError {
    fn from(error: crate::cloud_error::CloudError) -> Self {
        Self::Facts(error.into())
    }
}

/// One environment now.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub app: String,
    pub environment: String,
    /// Where people reach the app.
    pub url: String,
    /// What the listener does, in words.
    pub routing: String,
    pub fleets: Vec<FleetStatus>,
    /// Who holds the environment.
    pub lock: Option<Lease>,
}

#[derive(Debug, Clone, Serialize)]
pub struct FleetStatus {
    #[serde(flatten)]
    pub fleet: Fleet,
    pub role: Role,
    pub healthy: usize,
    pub registered: usize,
}

/// What a fleet is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It has traffic.
    InService,
    /// Ready behind the flip that replaced it.
    Held,
    /// Neither: a run is at work, or has left it.
    Idle,
}

impl Role {
    fn of(fleet: &Fleet) -> Self {
        match (fleet.is_in_service(), fleet.is_held()) {
            (true, _) => Self::InService,
            (_, true) => Self::Held,
            _ => Self::Idle,
        }
    }
}

/// Looks at the environment: what is in service, and how well. Four calls and one a fleet: target groups, their tags, the
/// listener's rules and the lock. Where the fleets do not say where they are, two more; see [`facts::glance`].
///
/// # Errors
/// The cloud could not be asked, or what the file names is not there.
pub async fn status(site: &Site) -> Result<Status, OverviewError> {
    let looked = async {
        let (url, routing, fleets) = match facts::glance(site).await? {
            Some(seen) => (seen.url, seen.routing, seen.fleets),
            None => {
                let balancer = facts::balancer(site).await?;
                let fleets = facts::reachable(site, &balancer).await?;
                (facts::public_url(&site.pipeline, &balancer), balancer.routing, fleets)
            }
        };
        let fleets = futures::future::try_join_all(fleets.into_iter().map(|fleet| with_health(site, fleet))).await?;
        Ok::<_, OverviewError>((url, routing, fleets))
    };
    let ((url, routing, fleets), lock) =
        futures::try_join!(looked, async { Ok(lock::holder(site.store.as_ref(), &site.lock_key()).await?) })?;
    Ok(Status {
        app: site.pipeline.app.clone(),
        environment: site.environment.clone(),
        url,
        routing: routing.to_string(),
        fleets,
        lock,
    })
}

async fn with_health(site: &Site, mut fleet: Fleet) -> Result<FleetStatus, OverviewError> {
    let health = launch::target_health(&site.clients, &fleet.target_group).await?;
    let targets = health.iter().filter_map(|target| target.target()?.id().map(str::to_owned));
    fleet.instances = targets.collect();
    fleet.instances.sort();
    let healthy = launch::count_healthy(&health);
    Ok(FleetStatus { role: Role::of(&fleet), healthy, registered: health.len(), fleet })
}

/// One version, as far as anything is left of it.
#[derive(Debug, Clone, Serialize)]
pub struct Release {
    pub version: Version,
    pub manifest: Option<Manifest>,
    /// Why it would not be used, where the file asks for signatures.
    pub distrusted: Option<String>,
    /// The image's id, where one is there.
    pub image: Option<String>,
    /// Where the bills of materials of its images are, each with its image's id in its name.
    pub sboms: Vec<String>,
    pub role: Option<Role>,
    /// Where else a fleet of it is: other environments in the same account and region.
    pub elsewhere: Vec<Elsewhere>,
    /// Whether somebody keeps it beyond the retention.
    pub pinned: bool,
}

/// The newest versions, newest first.
pub async fn releases(site: &Site, at_most: usize) -> Result<Vec<Release>, OverviewError> {
    let balancer = facts::balancer(site).await?;
    let (versions, pins, images, (fleets, elsewhere)) = futures::try_join!(
        async { Ok::<_, OverviewError>(site.versions().await?) },
        async { Ok(site.pins().await?) },
        async { Ok(facts::app_images(site).await?) },
        async { Ok(facts::everywhere(site, &balancer).await?) },
    )?;
    let mut all = versions;
    all.extend(images.iter().map(|image| image.version));
    all.extend(fleets.iter().map(|fleet| fleet.version));
    all.extend(elsewhere.iter().map(|fleet| fleet.version));
    all.sort();
    all.dedup();
    let newest = all.into_iter().rev().take(at_most).map(|version| {
        let (images, fleets, elsewhere, pins) = (&images, &fleets, &elsewhere, &pins);
        async move {
            let role = fleets.iter().filter(|fleet| fleet.version == version).map(Role::of);
            Ok::<_, OverviewError>(Release {
                version,
                manifest: site.manifest(version).await?,
                distrusted: distrusted(site, version).await?,
                sboms: site.sboms(version).await?,
                image: images.iter().find(|image| image.version == version).map(|image| image.ami.clone()),
                role: role.min_by_key(|role| *role as u8),
                elsewhere: elsewhere.iter().filter(|fleet| fleet.version == version).cloned().collect(),
                pinned: pins.contains(&version),
            })
        }
    });
    let found = futures::future::try_join_all(newest).await?;
    // A name that a run has only reserved is no release.
    let is_one =
        |it: &Release| it.manifest.is_some() || it.image.is_some() || it.role.is_some() || !it.elsewhere.is_empty();
    Ok(found.into_iter().filter(is_one).collect())
}

async fn distrusted(site: &Site, version: Version) -> Result<Option<String>, ReleasesError> {
    if site.pipeline.publish.signed_by.is_empty() {
        return Ok(None);
    }
    match site.release(version).await {
        Ok(_) => Ok(None),
        Err(ReleasesError::Distrust { source, .. }) => Ok(Some(source.to_string())),
        Err(error @ ReleasesError::Misplaced { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The newest runs, newest first.
pub async fn runs(site: &Site, at_most: usize) -> Result<Vec<Report>, OverviewError> {
    let runs = journal::runs(site.store.as_ref(), &site.root).await?;
    let newest = runs.iter().take(at_most).map(|run| async move {
        Ok::<_, OverviewError>(Report::of(&journal::read(site.store.as_ref(), &site.root, run).await?))
    });
    futures::future::try_join_all(newest).await
}

/// When a held fleet stops being held, in words.
pub fn held_for(until: Timestamp, now: Timestamp) -> String {
    let left = until.duration_since(now);
    match left.is_positive() {
        true => format!(
            "for {} more",
            alcedo_pipeline::units::Span::from(std::time::Duration::from_secs(left.as_secs().unsigned_abs()))
        ),
        false => "the hold is over; the next deploy retires it".to_owned(),
    }
}
