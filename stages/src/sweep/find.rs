//! Everything that carries the app's tags and that no live run and no release needs.
//!
//! **Assumption.** The caller holds the environment's lock, so that no run of it is at work. **Guarantees.** Only what
//! carries the app's own tags, or lies below the app's prefix in its bucket, is ever found. What an open run has made is left
//! to that run: `alcedo resume` or `alcedo rollback --run`.

use std::collections::BTreeSet;

use alcedo_pipeline::{error::StepError, journal, wait::Alone};
use aws_sdk_ec2::types::{Filter, Reservation};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::leases::{self, by_tag, is_ours};
use crate::{
    cloud_error::CloudError,
    costs,
    facts::{self, Facts, FactsError, Fleet},
    last_look::{Successor, Terms},
    quiet::Leaving,
    releases, retire, servers,
    site::Site,
    tags::{self, Tags},
};

/// An upload that was begun longer ago than this is not at work any more: AWS's sessions last twelve hours at most.
const UPLOAD_HOURS: i64 = 24;

/// One thing that nobody needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// In the field's word: `instance`, `image`, `snapshot`…
    pub kind: &'static str,
    pub id: String,
    /// `None` where it does not say when it was made.
    pub made_at: Option<Timestamp>,
    /// US dollars; `None` where the table does not know it.
    pub monthly: Option<f64>,
    /// The run that made it.
    pub run: Option<String>,
    pub why: String,
    #[serde(skip)]
    removal: Removal,
}

#[derive(Debug, Clone, PartialEq)]
enum Removal {
    Rule,
    Instance,
    Fleet(Box<Ending>),
    Key,
    Image { snapshots: Vec<String> },
    Snapshot,
    Version(alcedo_pipeline::version::Version),
    Object,
    Upload { key: String },
}

/// Looks at everything, in the order in which it has to go.
///
/// # Errors
/// Something could not be looked at: then nothing is known.
pub async fn find(site: &Site) -> Result<Vec<Found>, FactsError> {
    let store = site.store.as_ref();
    let read = |error| FactsError::from(releases::ReleasesError::from(error));
    let open: BTreeSet<String> = journal::open_runs_of_all(store, &site.root)
        .await
        .map_err(read)?
        .into_iter()
        .map(|run| run.to_string())
        .collect();
    let facts = facts::stock(site).await?;
    let look = Look { site, facts: &facts, open: &open };
    let mut found = look.rules().await?;
    found.extend(look.fleets());
    found.extend(look.instances().await?);
    found.extend(look.keys().await?);
    found.extend(look.images());
    found.extend(look.snapshots().await?);
    found.extend(look.versions().await?);
    found.extend(look.uploads().await?);
    Ok(found)
}

/// A fleet that is to go, with what has to be seen before.
#[derive(Debug, Clone, PartialEq)]
struct Ending {
    fleet: Fleet,
    delete: retire::DeleteGroup,
    terms: Terms,
    in_service: Fleet,
}

impl Ending {
    async fn end(&self, site: &Site) -> Result<(), StepError> {
        let Self { fleet, delete, terms, in_service } = self;
        let clients = &site.clients;
        let leaving = Leaving::from(fleet);
        let now = (None, site.now());
        if let Some(objection) = terms.objection(clients, &leaving, Some(&in_service.target_group), now).await? {
            return Err(objection);
        }
        let drain = retire::Drain {
            target_group: fleet.target_group.clone(),
            instances: fleet.instances.clone(),
            place: delete.place.clone(),
            timeout: site.pipeline.retire.timeout,
            last: None,
        };
        drain.wait(clients, &Alone::default()).await?;
        servers::terminate(clients, &Alone::default(), &fleet.instances).await?;
        delete.delete(clients).await
    }
}

struct Look<'a> {
    site: &'a Site,
    facts: &'a Facts,
    open: &'a BTreeSet<String>,
}

impl Look<'_> {
    fn is_of_an_open_run(&self, run: Option<&str>) -> bool {
        run.is_some_and(|run| self.open.contains(run))
    }

    async fn rules(&self) -> Result<Vec<Found>, CloudError> {
        let rules = leases::rules(self.site).await?;
        let found = rules.iter().filter_map(|rule| {
            let tags = Tags::from_ec2(rule.tags());
            Some(Found {
                kind: "security group rule",
                id: rule.security_group_rule_id()?.to_owned(),
                made_at: None,
                monthly: Some(0.0),
                run: tags.get(tags::RUN).map(str::to_owned),
                why: format!(
                    "port {} of {} is open and no run is at work",
                    rule.from_port().unwrap_or_default(),
                    rule.group_id().unwrap_or_default()
                ),
                removal: Removal::Rule,
            })
        });
        Ok(found.collect())
    }

    /// Fleets that nobody uses, and those whose hold is over.
    fn fleets(&self) -> Vec<Found> {
        let Facts { fleets, balancer, .. } = self.facts;
        // Where the listener does something that is not ours, nobody can say which fleet is production.
        let Some(in_service) = fleets.iter().find(|fleet| fleet.is_in_service()) else { return Vec::new() };
        let reserve = facts::version_before(fleets);
        let named = balancer.routing.named();
        let nobodys =
            |fleet: &&Fleet| !named.contains(&fleet.target_group.as_str()) && balancer.foreign_use_of(fleet).is_none();
        let found = fleets.iter().filter(nobodys).filter_map(|fleet| {
            let why = match fleet.held_until {
                Some(until) if until <= self.site.now() => format!("its hold ended at {until}"),
                Some(_) => return None,
                None if Some(fleet.version) == reserve || self.is_of_an_open_run(fleet.run.as_deref()) => return None,
                None => "it has no traffic and is not held".to_owned(),
            };
            let delete = retire::DeleteGroup {
                target_group: fleet.target_group.clone(),
                preview_rule: fleet.preview_rule.clone(),
                preview_listener: balancer.preview_listener.as_ref().map(|(arn, _)| arn.clone()),
                place: balancer.place.clone(),
            };
            let each = costs::of_instance(&self.site.pipeline.launch.instance_type);
            Some(Found {
                kind: "fleet",
                id: format!("{} ({} servers)", fleet.name, fleet.instances.len()),
                made_at: Some(fleet.version.time()),
                monthly: each.map(|each| each * fleet.instances.len() as f64),
                run: fleet.run.clone(),
                why,
                removal: Removal::Fleet(Box::new(Ending {
                    fleet: fleet.clone(),
                    delete,
                    terms: Terms::of(
                        balancer,
                        self.site.pipeline.watch.metrics,
                        // What was held is the way back, as long as what replaced it is not well.
                        fleet.is_held().then(|| Successor::in_service(in_service)),
                    ),
                    in_service: in_service.clone(),
                })),
            })
        });
        found.collect()
    }

    /// Servers of ours that belong to no fleet: builders, and what a launch that died has left.
    async fn instances(&self) -> Result<Vec<Found>, CloudError> {
        let call = self
            .site
            .clients
            .ec2
            .describe_instances()
            .filters(by_tag(tags::APP, &self.site.pipeline.app))
            .filters(by_tag(tags::ENVIRONMENT, &self.site.environment))
            .filters(
                Filter::builder()
                    .name("instance-state-name")
                    .values("pending")
                    .values("running")
                    .values("stopped")
                    .build(),
            );
        let mut pages = call.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| CloudError::of("list the app's servers", error))?;
            for instance in page.reservations().iter().flat_map(Reservation::instances) {
                let tags = Tags::from_ec2(instance.tags());
                let Some(id) = instance.instance_id() else { continue };
                let of_a_fleet = self.facts.fleets.iter().any(|fleet| fleet.instances.iter().any(|there| there == id));
                if of_a_fleet || !is_ours(self.site, &tags) || self.is_of_an_open_run(tags.get(tags::RUN)) {
                    continue;
                }
                let kind = instance.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default();
                found.push(Found {
                    kind: "instance",
                    id: id.to_owned(),
                    made_at: instance.launch_time().and_then(|at| Timestamp::from_second(at.secs()).ok()),
                    monthly: costs::of_instance(&kind),
                    run: tags.get(tags::RUN).map(str::to_owned),
                    why: format!("step {} of a run that has ended made it", tags.get(tags::STEP).unwrap_or("?")),
                    removal: Removal::Instance,
                });
            }
        }
        Ok(found)
    }

    async fn keys(&self) -> Result<Vec<Found>, CloudError> {
        let answer = self.site.clients.ec2.describe_key_pairs().send().await;
        let answer = answer.map_err(|error| CloudError::of("look for ephemeral keys", error))?;
        let found = answer.key_pairs().iter().filter_map(|key| {
            let tags = Tags::from_ec2(key.tags());
            let ours = is_ours(self.site, &tags) && !self.is_of_an_open_run(tags.get(tags::RUN));
            ours.then(|| Found {
                kind: "key pair",
                id: key.key_name().unwrap_or_default().to_owned(),
                made_at: key.create_time().and_then(|at| Timestamp::from_second(at.secs()).ok()),
                monthly: Some(0.0),
                run: tags.get(tags::RUN).map(str::to_owned),
                why: "its private half has gone with the process that made it".to_owned(),
                removal: Removal::Key,
            })
        });
        Ok(found.collect())
    }

    /// Versions that a fleet, the hold, a pin or another environment refers to.
    fn kept(&self) -> BTreeSet<alcedo_pipeline::version::Version> {
        let Facts { fleets, used_elsewhere, pins, .. } = self.facts;
        let of_fleets = fleets.iter().flat_map(|fleet| [Some(fleet.version), fleet.replaces]).flatten();
        of_fleets.chain(used_elsewhere.iter().copied()).chain(pins.iter().copied()).collect()
    }

    fn images(&self) -> Vec<Found> {
        let kept = self.kept();
        let keep = self.site.pipeline.retire.keep_images as usize;
        let of_open_runs = |name: &str| self.open.iter().any(|run| name.ends_with(run.as_str()));
        let old = self.facts.images.iter().skip(keep).filter(|image| !kept.contains(&image.version));
        old.filter(|image| !of_open_runs(&image.name))
            .map(|image| Found {
                kind: "image",
                id: image.ami.clone(),
                made_at: Some(image.version.time()),
                monthly: None,
                run: image.name.rsplit('/').next().map(str::to_owned),
                why: format!("{} is beyond the {keep} images that are kept", image.version),
                removal: Removal::Image { snapshots: image.snapshots.clone() },
            })
            .collect()
    }

    /// Snapshots whose image is gone: deregistering leaves them.
    async fn snapshots(&self) -> Result<Vec<Found>, CloudError> {
        let used: BTreeSet<&String> = self.facts.images.iter().flat_map(|image| &image.snapshots).collect();
        let call = self.site.clients.ec2.describe_snapshots().owner_ids("self");
        let mut pages = call.filters(by_tag(tags::APP, &self.site.pipeline.app)).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| CloudError::of("list the app's snapshots", error))?;
            for snapshot in page.snapshots() {
                let tags = Tags::from_ec2(snapshot.tags());
                let Some(id) = snapshot.snapshot_id().map(str::to_owned) else { continue };
                if used.contains(&id) || self.is_of_an_open_run(tags.get(tags::RUN)) {
                    continue;
                }
                found.push(Found {
                    kind: "snapshot",
                    made_at: snapshot.start_time().and_then(|at| Timestamp::from_second(at.secs()).ok()),
                    monthly: Some(costs::of_snapshot(f64::from(snapshot.volume_size().unwrap_or_default()))),
                    run: tags.get(tags::RUN).map(str::to_owned),
                    why: "its image is gone".to_owned(),
                    removal: Removal::Snapshot,
                    id,
                });
            }
        }
        Ok(found)
    }

    /// Artifacts beyond the retention, what was begun and never published, and names that were only taken.
    async fn versions(&self) -> Result<Vec<Found>, FactsError> {
        let kept = self.kept();
        let keep = self.site.pipeline.publish.keep as usize;
        let (mut published, mut found) = (0, Vec::new());
        for version in &self.facts.versions {
            let manifest = self.site.manifest(*version).await?;
            let run = crate::publish::reserved_by(self.site, *version).await.map_err(releases::ReleasesError::from)?;
            let why = match &manifest {
                Some(_) => {
                    published += 1;
                    let beyond = published > keep && !kept.contains(version);
                    beyond.then(|| format!("it is beyond the {keep} versions that are kept"))
                }
                None => {
                    (!self.is_of_an_open_run(run.as_deref())).then(|| "it was begun and never published".to_owned())
                }
            };
            if let Some(why) = why {
                found.push(Found {
                    kind: "artifact",
                    id: version.to_string(),
                    made_at: Some(version.time()),
                    monthly: manifest.map(|manifest| costs::of_objects(manifest.size_bytes)),
                    run,
                    why,
                    removal: Removal::Version(*version),
                });
            }
        }
        found.extend(self.reservations().await?);
        Ok(found)
    }

    async fn reservations(&self) -> Result<Vec<Found>, FactsError> {
        let folder =
            releases::reservation_key(&self.site.root, alcedo_pipeline::version::Version::at(Timestamp::UNIX_EPOCH));
        let folder = &folder[..=folder.rfind('/').expect("a key has a folder")];
        let keys = self.site.store.list(folder).await.map_err(releases::ReleasesError::from)?;
        let mut found = Vec::new();
        for key in keys {
            let version = key[folder.len()..].trim_end_matches(".json").parse().ok();
            let Some(version) = version.filter(|version| !self.facts.versions.contains(version)) else { continue };
            let run = crate::publish::reserved_by(self.site, version).await.map_err(releases::ReleasesError::from)?;
            if self.is_of_an_open_run(run.as_deref()) {
                continue;
            }
            let why = "a version's name was taken, and nothing published under it".to_owned();
            let made_at = Some(version.time());
            found.push(Found {
                kind: "object",
                id: key,
                made_at,
                monthly: Some(0.0),
                run,
                why,
                removal: Removal::Object,
            });
        }
        Ok(found)
    }

    async fn uploads(&self) -> Result<Vec<Found>, CloudError> {
        let call = self.site.clients.s3.list_multipart_uploads().bucket(self.site.bucket()).prefix(&self.site.root);
        let answer = call.send().await.map_err(|error| CloudError::of("look for unfinished uploads", error))?;
        let old = self.site.now().saturating_sub(SignedDuration::from_hours(UPLOAD_HOURS)).unwrap_or(Timestamp::MIN);
        let found = answer.uploads().iter().filter_map(|upload| {
            let made_at = upload.initiated().and_then(|at| Timestamp::from_second(at.secs()).ok());
            (made_at? < old).then(|| Found {
                kind: "unfinished upload",
                id: upload.upload_id().unwrap_or_default().to_owned(),
                made_at,
                monthly: None,
                run: None,
                why: format!("its parts cost until it is aborted; it was begun more than {UPLOAD_HOURS} h ago"),
                removal: Removal::Upload { key: upload.key().unwrap_or_default().to_owned() },
            })
        });
        Ok(found.collect())
    }
}

impl Found {
    /// Removes it; what is gone already is removed.
    ///
    /// # Errors
    /// It stands as it was, or half of it.
    pub async fn remove(&self, site: &Site) -> Result<(), StepError> {
        let clients = &site.clients;
        match &self.removal {
            Removal::Rule => {
                let rules = leases::rules(site).await?;
                let this: Vec<_> =
                    rules.into_iter().filter(|it| it.security_group_rule_id() == Some(&self.id)).collect();
                leases::end_rules(clients, &this, site.now()).await?;
            }
            Removal::Instance => servers::terminate(clients, &Alone::default(), std::slice::from_ref(&self.id)).await?,
            Removal::Fleet(ending) => ending.end(site).await?,
            Removal::Key => {
                let call = clients.ec2.delete_key_pair().key_name(&self.id).send().await;
                call.map_err(|error| CloudError::of("delete the key pair", error))?;
            }
            Removal::Image { snapshots } => retire::delete_image(clients, &self.id, snapshots).await?,
            Removal::Snapshot => retire::delete_snapshot(clients, &self.id).await?,
            Removal::Version(version) => retire::remove_version(site, *version).await?,
            Removal::Object => {
                let call = clients.s3.delete_object().bucket(site.bucket()).key(&self.id).send().await;
                call.map_err(|error| CloudError::of(format!("remove {}", self.id), error))?;
            }
            Removal::Upload { key } => {
                let call = clients.s3.abort_multipart_upload().bucket(site.bucket()).key(key).upload_id(&self.id);
                if let Err(error) = call.send().await {
                    let error = CloudError::of(format!("abort the upload of {key}"), error);
                    if !error.is("NoSuchUpload") {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }
}
