//! Bake: a builder from the base image, provisioned over SSH, checked, scrubbed, captured as the server image.

use std::time::Duration;

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    ids::RunId,
    resource::Resource,
    units::Span,
    version::Version,
    wait::{Look, Wait},
};
use aws_sdk_ec2::{
    primitives::Blob,
    types::{Filter, ImageState, ResourceType},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    clients::{Clients, ec2_once},
    cloud_error::CloudError,
    facts, launch,
    releases::{Manifest, ReleasesError},
    retire, servers,
    site::Site,
    tags,
    workshop::Workshop,
};

mod provision;
mod sbom;

pub use provision::{ProvisionBuilder, fingerprint, parts};

pub const KEY: &str = "bake/key";
pub const BUILDER: &str = "bake/builder";
pub const PROVISION: &str = "bake/provision";
pub const IMAGE: &str = "bake/image";

/// The image that this run has made.
#[derive(Debug, Deserialize)]
pub struct MadeImage {
    pub ami: String,
}

/// The builder that this run has launched.
#[derive(Debug, Deserialize)]
pub struct MadeBuilder {
    pub server: servers::Server,
}

/// The run's key pair in EC2. Its name holds the run, so that it is found again after a lost answer.
pub fn key_name(run: &RunId) -> String {
    format!("alcedo-{run}")
}

/// The image's name: AWS allows letters, digits and `( ) [ ] . / - ' @ _`, 3 to 128 of them, and wants it unique.
pub fn image_name(app: &str, version: Version, run: &RunId) -> String {
    format!("{app}/{version}/{run}")
}

/// Makes the run's ephemeral key here, and tells EC2 its public half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportKey {}

impl ImportKey {
    pub async fn run(&self, clients: &Clients, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let name = key_name(context.run());
        let key = shop.key().await?;
        // A key of this name is an earlier attempt's, whose private half may be gone.
        delete_key(clients, context.run()).await?;
        context.own(Resource::new("key pair", &name)).await?;
        let call = clients
            .ec2
            .import_key_pair()
            .key_name(&name)
            .public_key_material(Blob::new(key.public().as_bytes()))
            .tag_specifications(launch::tags(context).specification(ResourceType::KeyPair));
        let imported = call.customize().config_override(ec2_once()).send().await;
        if let Err(error) = imported {
            let error = CloudError::of("import the ephemeral key", error);
            // The same public half under the same name: our own call came through.
            if !error.is("InvalidKeyPair.Duplicate") {
                return Err(error.into());
            }
        }
        Ok(json!({ "name": name }))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        Ok(delete_key(clients, context.run()).await?)
    }
}

/// Deletes the run's key pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteKey {}

impl DeleteKey {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        delete_key(clients, context.run()).await?;
        Ok(Value::Null)
    }
}

/// Deleting what is not there is no error at AWS either.
pub async fn delete_key(clients: &Clients, run: &RunId) -> Result<(), CloudError> {
    let answer = clients.ec2.delete_key_pair().key_name(key_name(run)).send().await;
    match answer.map_err(|error| CloudError::of("delete the ephemeral key", error)) {
        Err(error) if !error.is("InvalidKeyPair.NotFound") => Err(error),
        _ => Ok(()),
    }
}

/// Launches the builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchBuilder {
    pub image: String,
    pub instance_type: String,
    pub subnet: String,
    pub security_group: String,
    /// Whatever finds it after this many seconds may end it.
    pub lease_seconds: u64,
    pub timeout: Span,
}

impl LaunchBuilder {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let lease = SignedDuration::from_secs(i64::try_from(self.lease_seconds).unwrap_or(i64::MAX));
        let expires = context.now().saturating_add(lease).unwrap_or(Timestamp::MAX);
        let groups = [self.security_group.clone()];
        let key = key_name(context.run());
        let launch = servers::Launch {
            image: &self.image,
            count: 1,
            instance_type: &self.instance_type,
            subnet: &self.subnet,
            security_groups: &groups,
            instance_profile: None,
            key: Some(&key),
            user_data: None,
            name: format!("{}-builder", context.plan().app),
            tags: launch::tags(context).expiring(expires),
            token: context.token(),
        };
        let ids = match launch.run(clients).await {
            Ok(ids) => ids,
            // An earlier attempt's call came through; its lease ends at another time than this one's would.
            Err(error) if error.is("IdempotentParameterMismatch") => adopt_builder(clients, context).await?,
            Err(error) => return Err(error.into()),
        };
        for id in &ids {
            context.own(Resource::new("instance", id)).await?;
        }
        let mut running = servers::await_running(clients, context, &ids, self.timeout.duration()).await?;
        let server = running.pop().ok_or_else(|| StepError::failed("EC2 launched no builder"))?;
        Ok(json!({ "server": server }))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        servers::end(clients, context).await
    }
}

/// The builder that an earlier attempt of this step has launched, once it is visible.
async fn adopt_builder(clients: &Clients, context: &StepContext) -> Result<Vec<String>, StepError> {
    let wait = Wait::new(Duration::from_millis(500), Duration::from_secs(30));
    wait.until(context, "the builder of an earlier attempt", || async {
        let ids = servers::tagged(clients, context.run(), context.step()).await?;
        Ok(match ids.is_empty() {
            true => Look::NotYet("it is not visible yet".into()),
            false => Look::Ready(ids),
        })
    })
    .await
}

/// Ends the builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndBuilder {}

impl EndBuilder {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let made: MadeBuilder = context.output(BUILDER)?;
        servers::terminate(clients, context, &[made.server.id]).await?;
        Ok(Value::Null)
    }
}

/// Captures the builder as the server image, and writes down what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateImage {
    pub name: String,
    pub base: facts::BaseImage,
    pub timeout: Span,
}

impl CreateImage {
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let clients = &site.clients;
        let release = release(site, context).await?;
        // No client token: the name is unique in the account and holds the run, so it is looked for first.
        let ami = match find(clients, &self.name).await? {
            Some(image) => image.ami,
            None => match self.create(site, context, &release).await {
                Ok(ami) => ami,
                Err(Failure::Cloud(error)) if error.effect_unknown || error.is("InvalidAMIName.Duplicate") => {
                    self.settle(clients, context, error).await?
                }
                Err(Failure::Cloud(error)) => return Err(error.into()),
                Err(Failure::Step(error)) => return Err(error),
            },
        };
        context.own(Resource::new("image", &ami)).await?;
        let wait = Wait::new(Duration::from_millis(500), self.timeout.duration());
        let made = wait.until(context, "the image to be available", || async {
            let Some(image) = find(clients, &self.name).await? else {
                return Ok(Look::NotYet("the image is not visible yet".into()));
            };
            Ok(match image.state {
                ImageState::Available => Look::Ready(image),
                ImageState::Failed | ImageState::Error | ImageState::Invalid => {
                    return Err(StepError::failed(format!("AWS could not make the image {}", self.name)));
                }
                state => Look::NotYet(format!("the image is {}", state.as_str())),
            })
        });
        let made = made.await?;
        let sbom = sbom::write(site, context, &release, &made, &shop.installed()?).await?;
        Ok(json!({ "ami": ami, "name": self.name, "sbom": sbom }))
    }

    /// The call's answer was lost, or says that the image exists: look until it is visible.
    async fn settle(&self, clients: &Clients, context: &StepContext, error: CloudError) -> Result<String, StepError> {
        let wait = Wait::new(Duration::from_millis(500), Duration::from_secs(15));
        let found = wait
            .until(context, "the image to be visible", || async {
                Ok(match find(clients, &self.name).await? {
                    Some(image) => Look::Ready(image.ami),
                    None => Look::NotYet("not visible yet".into()),
                })
            })
            .await;
        found.map_err(|_| error.into())
    }

    async fn create(&self, site: &Site, context: &StepContext, release: &Manifest) -> Result<String, Failure> {
        let made: MadeBuilder = context.output(BUILDER)?;
        let fingerprint = fingerprint(site, &self.base, &release.sha256, release.version)?;
        let mut tags = launch::tags(context)
            .with("Name", format!("{} {}", context.plan().app, context.plan().version))
            .with(tags::FINGERPRINT, fingerprint)
            .with(tags::ARTIFACT, &release.sha256)
            .with(tags::INPUTS, parts(site, &self.base)?)
            .with(tags::BASE, self.base.recipe_digest.as_deref().unwrap_or(&self.base.ami));
        if let Some(commit) = &release.commit {
            tags = tags.with(tags::COMMIT, commit);
        }
        let call = site
            .clients
            .ec2
            .create_image()
            .instance_id(&made.server.id)
            .name(&self.name)
            .description(format!("alcedo: {} {}", context.plan().app, context.plan().version))
            .tag_specifications(tags.specification(ResourceType::Image))
            .tag_specifications(tags.specification(ResourceType::Snapshot));
        let answer = call.customize().config_override(ec2_once()).send().await;
        let answer =
            answer.map_err(|error| Failure::Cloud(CloudError::of(format!("create the image {}", self.name), error)))?;
        Ok(answer.image_id().unwrap_or_default().to_owned())
    }

    pub async fn undo(&self, site: &Site, context: &StepContext) -> Result<(), StepError> {
        // The image costs something; one that cannot be removed keeps nobody from trying the other.
        let image = self.undo_image(&site.clients).await;
        let document = sbom::remove(site, context).await;
        image.and(document)
    }

    async fn undo_image(&self, clients: &Clients) -> Result<(), StepError> {
        let begun = Instant::now();
        loop {
            let call = clients.ec2.describe_images().owners("self").filters(by_name(&self.name));
            let answer = call.send().await.map_err(|error| CloudError::of("look for the image", error))?;
            if let Some(image) = answer.images().first() {
                let snapshots = image.block_device_mappings().iter();
                let snapshots: Vec<String> =
                    snapshots.filter_map(|mapping| mapping.ebs()?.snapshot_id().map(str::to_owned)).collect();
                return retire::delete_image(clients, image.image_id().unwrap_or_default(), &snapshots).await;
            }
            // An image whose creation was not answered, or was a moment ago, can still be invisible: also one that another
            // reader has shown already.
            if begun.elapsed() >= clients.visible {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1).min(clients.visible)).await;
        }
    }
}

enum Failure {
    Cloud(CloudError),
    Step(StepError),
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

fn by_name(name: &str) -> Filter {
    Filter::builder().name("name").values(name).build()
}

/// An image as AWS tells of it.
struct Found {
    ami: String,
    state: ImageState,
    made_at: Option<Timestamp>,
}

async fn find(clients: &Clients, name: &str) -> Result<Option<Found>, CloudError> {
    let answer = clients.ec2.describe_images().owners("self").filters(by_name(name)).send().await;
    let answer = answer.map_err(|error| CloudError::of(format!("look for the image {name}"), error))?;
    let found = answer.images().first();
    Ok(found.and_then(|image| {
        let made_at = image.creation_date().and_then(|at| at.parse().ok());
        Some(Found { ami: image.image_id()?.to_owned(), state: image.state()?.clone(), made_at })
    }))
}

/// The manifest of the version that this run deploys.
pub async fn release(site: &Site, context: &StepContext) -> Result<Manifest, StepError> {
    let version = context.plan().version;
    let found = site.release(version).await.map_err(|error| match error {
        ReleasesError::Store(_) => {
            StepError::new(ErrorKind::Service, format!("the manifest of {version} cannot be read")).because(error)
        }
        // The plan was made from one that could be used.
        _ => StepError { hints: error.hints(), ..StepError::new(ErrorKind::Changed, error.to_string()) }.because(error),
    })?;
    found.ok_or_else(|| {
        StepError::failed(format!("the artifact of {version} is missing"))
            .hint("`alcedo releases` lists what is published; deploy one of these, or build again")
    })
}
