//! Retire: from here on nothing is undone. A fleet drains, its servers end, its target group goes; then images and
//! artifacts beyond the retention.

use std::{collections::BTreeSet, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    version::Version,
    wait::{Look, Wait, Waiter},
};
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetHealthStateEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    absent::{self, Thing},
    clients::Clients,
    cloud_error::CloudError,
    flip,
    last_look::Terms,
    launch,
    listener::{self, Place},
    preview,
    quiet::{self, Leaving},
    servers,
    site::Site,
};

/// Takes a fleet's servers out of its target group and waits until their requests are done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    pub target_group: String,
    pub instances: Vec<String>,
    /// Where production traffic comes from: a fleet that is named there is not drained.
    pub place: Place,
    pub timeout: Span,
    /// What has to be so right before; `None`: the caller has just seen to it.
    pub last: Option<Last>,
}

/// What is looked at right before a fleet drains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub leaving: Leaving,
    pub terms: Terms,
}

impl Drain {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        if quiet::is_asked(context, &self.target_group)? {
            return Ok(self.stays());
        }
        if let Some(objection) = self.objection(clients, context).await? {
            quiet::warn_of(context, objection);
            return Ok(self.stays());
        }
        self.wait(clients, context).await?;
        Ok(Value::Null)
    }

    fn stays(&self) -> Value {
        let version = self.last.as_ref().map(|last| last.leaving.version);
        json!(quiet::Stays { stays: true, target_group: self.target_group.clone(), version })
    }

    /// What speaks against draining the fleet now, where what was seen of it is too old to act on: another fleet has drained
    /// before it, or a process that died was here. One whose servers are leaving already is not looked at.
    async fn objection(&self, clients: &Clients, context: &StepContext) -> Result<Option<StepError>, StepError> {
        let Some(Last { leaving, terms }) = &self.last else { return Ok(None) };
        if quiet::is_fresh(context)? || is_leaving(clients, &self.target_group).await? {
            return Ok(None);
        }
        let successor = terms.successor(context)?;
        let since = (flip::proven_at(context), context.now());
        terms.objection(clients, leaving, successor.as_deref(), since).await
    }

    /// The same outside of a run.
    ///
    /// # Errors
    /// The fleet is in service, or does not finish in time.
    pub async fn wait(&self, clients: &Clients, waiter: &impl Waiter) -> Result<(), StepError> {
        let now = listener::read(clients, &self.place).await?;
        if now.serving().contains(&self.target_group.as_str()) {
            let name = listener::group_name(&self.target_group);
            return Err(StepError::new(ErrorKind::Changed, format!("{name} is in service again; it is not retired"))
                .hint("somebody changed the listener; `alcedo status` shows what is in service"));
        }
        // The group is the fleet's own: whatever else is registered in it, such as a server that was stopped or has ended
        // since the plan was made, would keep it from getting empty.
        let registered = match launch::target_health(clients, &self.target_group).await {
            Ok(health) => health,
            Err(error) if error.is("TargetGroupNotFound") => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let registered = registered.iter().filter_map(|target| target.target()?.id());
        let leaving: BTreeSet<&str> = self.instances.iter().map(String::as_str).chain(registered).collect();
        if !leaving.is_empty() {
            let targets = leaving.into_iter().map(|id| TargetDescription::builder().id(id).build()).collect();
            let call = clients.elb.deregister_targets().target_group_arn(&self.target_group).set_targets(Some(targets));
            if let Err(error) = call.send().await {
                let error = CloudError::of("deregister the servers", error);
                let error = absent::told(clients, error, Thing::TargetGroup(&self.target_group)).await;
                if !error.is("TargetGroupNotFound") && !error.is("InvalidTarget") {
                    return Err(error.into());
                }
            }
        }
        let wait = Wait::new(Duration::from_millis(500), self.timeout.duration()).in_a_row(2);
        wait.until(waiter, "the old servers to finish their requests", || async {
            match launch::target_health(clients, &self.target_group).await {
                Ok(health) if health.is_empty() => Ok(Look::Ready(())),
                Ok(health) => Ok(Look::NotYet(format!("{} draining", health.len()))),
                Err(error) if error.is("TargetGroupNotFound") => Ok(Look::Ready(())),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

async fn is_leaving(clients: &Clients, group: &str) -> Result<bool, StepError> {
    match launch::target_health(clients, group).await {
        Ok(health) => {
            let draining = |target| launch::state(target) == Some(&TargetHealthStateEnum::Draining);
            // One that somebody takes out by hand says nothing of the others.
            Ok(health.iter().all(draining))
        }
        Err(error) if error.is("TargetGroupNotFound") => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Ends a fleet's servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terminate {
    pub target_group: String,
    pub instances: Vec<String>,
}

impl Terminate {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        if quiet::is_asked(context, &self.target_group)? {
            return Ok(Value::Null);
        }
        servers::terminate(clients, context, &self.instances).await?;
        Ok(Value::Null)
    }
}

/// Deletes what routed to a fleet, and its target group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteGroup {
    pub target_group: String,
    pub preview_rule: Option<String>,
    /// The preview listener. Where it still points at the fleet, it does what production does from now on: whoever made
    /// the listener, it is there to be looked through.
    pub preview_listener: Option<String>,
    /// Where production traffic comes from.
    pub place: Place,
}

impl DeleteGroup {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        if quiet::is_asked(context, &self.target_group)? {
            return Ok(Value::Null);
        }
        self.delete(clients).await?;
        Ok(Value::Null)
    }

    /// The same outside of a run.
    ///
    /// # Errors
    /// The group, or what routes to it, stands.
    pub async fn delete(&self, clients: &Clients) -> Result<(), StepError> {
        if let Some(rule) = &self.preview_rule {
            preview::delete_rule(clients, rule).await?;
        }
        if let Some(arn) = &self.preview_listener {
            self.move_preview(clients, &Place::Listener { arn: arn.clone() }).await?;
        }
        launch::delete_target_group(clients, &self.target_group).await
    }

    async fn move_preview(&self, clients: &Clients, preview: &Place) -> Result<(), StepError> {
        if listener::read(clients, preview).await?.named() != [self.target_group.as_str()] {
            return Ok(());
        }
        let production = listener::read(clients, &self.place).await?;
        Ok(listener::write(clients, preview, &production).await?)
    }
}

/// An image that no fleet and no retention needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OldImage {
    pub ami: String,
    pub version: Version,
    pub name: String,
    pub snapshots: Vec<String>,
}

/// Deregisters images beyond the retention, with their snapshots, and removes artifacts beyond it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prune {
    pub images: Vec<OldImage>,
    pub versions: Vec<Version>,
}

impl Prune {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let stays = quiet::stays(context)?;
        let mut images = 0;
        for image in self.images.iter().filter(|image| !stays.contains(&image.version)) {
            delete_image(&site.clients, &image.ami, &image.snapshots).await?;
            images += 1;
            context.output_line(format!("removed image {}", image.name));
        }
        let mut removed = 0;
        for version in self.versions.iter().filter(|version| !stays.contains(version)) {
            let unreadable = |error| StepError::new(ErrorKind::Service, "the bucket cannot be read").because(error);
            if site.manifest(*version).await.map_err(unreadable)?.is_none() {
                context.output_line(format!("left {version}, which is not published: a run may be at work on it"));
                continue;
            }
            remove_version(site, *version).await?;
            removed += 1;
            context.output_line(format!("removed artifact {version}"));
        }
        Ok(json!({ "images": images, "versions": removed }))
    }
}

/// Deregisters an image, then deletes its snapshots, which deregistering leaves.
pub async fn delete_image(clients: &Clients, ami: &str, snapshots: &[String]) -> Result<(), StepError> {
    let gone = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];
    until_gone(clients, &gone, || async {
        let call = clients.ec2.deregister_image().image_id(ami).send().await;
        let Err(error) = call else { return Ok(()) };
        Err(absent::told(clients, CloudError::of(format!("deregister image {ami}"), error), Thing::Image(ami)).await)
    })
    .await?;
    for snapshot in snapshots {
        delete_snapshot(clients, snapshot).await?;
    }
    Ok(())
}

/// Deletes a snapshot; one that is gone is deleted.
pub async fn delete_snapshot(clients: &Clients, snapshot: &str) -> Result<(), StepError> {
    until_gone(clients, &["InvalidSnapshot.NotFound"], || async {
        let call = clients.ec2.delete_snapshot().snapshot_id(snapshot).send().await;
        let Err(error) = call else { return Ok(()) };
        let error = CloudError::of(format!("delete snapshot {snapshot}"), error);
        Err(absent::told(clients, error, Thing::Snapshot(snapshot)).await)
    })
    .await
}

/// Deletes something that has been seen. What is new can be unknown to the next reader for a while, so an answer that it is
/// not there counts only once that time has passed.
async fn until_gone<F>(clients: &Clients, gone: &[&str], delete: impl Fn() -> F) -> Result<(), StepError>
where
    F: Future<Output = Result<(), CloudError>>,
{
    let begun = Instant::now();
    loop {
        match delete().await {
            Ok(()) => return Ok(()),
            Err(error) if !gone.iter().any(|code| error.is(code)) => return Err(error.into()),
            Err(_) if begun.elapsed() >= clients.visible => return Ok(()),
            Err(_) => tokio::time::sleep(Duration::from_secs(1).min(clients.visible)).await,
        }
    }
}

/// Removes everything of one version from the bucket, its manifest first: without it nothing counts as published.
pub async fn remove_version(site: &Site, version: Version) -> Result<(), StepError> {
    let folder = format!("{}{version}/", site.root);
    let listed = site
        .store
        .list(&folder)
        .await
        .map_err(|error| StepError::new(ErrorKind::Service, format!("could not list {folder}")).because(error))?;
    let manifest = crate::releases::manifest_key(&site.root, version);
    let (first, rest): (Vec<_>, Vec<_>) = listed.into_iter().partition(|key| *key == manifest);
    // The name is free again only when nothing is left under it.
    let reservation = crate::releases::reservation_key(&site.root, version);
    for key in first.into_iter().chain(rest).chain([reservation]) {
        let call = site.clients.s3.delete_object().bucket(site.bucket()).key(&key);
        call.send().await.map_err(|error| CloudError::of(format!("remove {key}"), error))?;
    }
    Ok(())
}
