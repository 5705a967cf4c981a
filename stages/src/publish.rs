//! Publish: the artifact and its manifest under a new version, then the pointer to the newest.

use std::{io::Read, sync::Arc};

use alcedo_images::inputs::Parts;
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    event::Unit,
    resource::Resource,
    store::StoreError,
    version::Version,
};
use aws_sdk_s3::{
    primitives::{ByteStream, Length},
    types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    build::{self, Built},
    cloud_error::CloudError,
    releases::{self, InputsEntry, Manifest, ReleasesError},
    retire,
    signature::{KeyError, KeyId, Signer, VARIABLE},
    site::Site,
    workshop::Workshop,
};

/// The step that uploads the artifact.
pub const ARTIFACT: &str = "publish/artifact";

/// Size of a part. S3 wants at least 5 MiB and at most 10,000 parts; this allows artifacts of 78 GiB.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Parts in flight: enough to fill a link with some latency, few enough to keep memory low (a part is streamed from
/// disk).
const PARTS_AT_ONCE: usize = 4;

/// Takes a version's name for this run, so that two builds of one second cannot both have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserve {}

impl Reserve {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let version = context.plan().version;
        let key = releases::reservation_key(&site.root, version);
        match reserve(site, version, context.run().as_str()).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => {
                return Err(StepError::new(ErrorKind::Changed, format!("version {version} was taken by another run"))
                    .hint("run again: the next second has another version"));
            }
            Err(error) => return Err(StepError::new(ErrorKind::Service, "the bucket cannot be written").because(error)),
        }
        context.own(Resource::new("object", &key)).await?;
        Ok(Value::Null)
    }

    /// Removes all of the version's folder, if it is this run's.
    pub async fn undo(&self, site: &Site, context: &StepContext) -> Result<(), StepError> {
        give_back(site, context.plan().version, context.run().as_str()).await
    }
}

/// Removes everything of a version that this run has taken, and nothing of one that it has not.
pub async fn give_back(site: &Site, version: Version, run: &str) -> Result<(), StepError> {
    match reserved_by(site, version).await {
        Ok(Some(holder)) if holder == run => retire::remove_version(site, version).await,
        Ok(_) => Ok(()),
        Err(error) => Err(StepError::new(ErrorKind::Service, "the bucket cannot be read").because(error)),
    }
}

/// Writes the reservation; one that is already this run's is fine.
pub async fn reserve(site: &Site, version: Version, run: &str) -> Result<(), StoreError> {
    let key = releases::reservation_key(&site.root, version);
    let body = serde_json::to_vec(&json!({ "format": 1, "run": run })).expect("plain JSON");
    match site.store.create(&key, body).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { key }) => match reserved_by(site, version).await? {
            Some(holder) if holder == run => Ok(()),
            _ => Err(StoreError::Conflict { key }),
        },
        Err(error) => Err(error),
    }
}

pub async fn reserved_by(site: &Site, version: Version) -> Result<Option<String>, StoreError> {
    let object = site.store.read(&releases::reservation_key(&site.root, version)).await?;
    let value: Option<Value> = object.and_then(|object| serde_json::from_slice(&object.bytes).ok());
    Ok(value.and_then(|value| Some(value.get("run")?.as_str()?.to_owned())))
}

/// Uploads the archive in parts whose checksums S3 verifies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadArtifact {}

impl UploadArtifact {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let built: Built = context.output(build::RUN)?;
        let key = releases::artifact_key(&site.root, context.plan().version);
        if self.is_there(site, &key, &built).await? {
            return Ok(json!({ "key": key, "sha256": built.sha256, "size_bytes": built.size_bytes }));
        }
        context.own(Resource::new("object", &key)).await?;
        if built.size_bytes <= PART_BYTES {
            put(site, context, &key, &built).await?;
        } else {
            put_in_parts(site, context, &key, &built).await?;
        }
        Ok(json!({ "key": key, "sha256": built.sha256, "size_bytes": built.size_bytes }))
    }

    /// Whether an earlier attempt has put it. Anything else under the name is not overwritten.
    async fn is_there(&self, site: &Site, key: &str, built: &Built) -> Result<bool, StepError> {
        let head = site.clients.s3.head_object().bucket(site.bucket()).key(key).checksum_mode(ChecksumMode::Enabled);
        match head.send().await {
            Ok(head) if head.metadata().and_then(|it| it.get("sha256")) == Some(&built.sha256) => Ok(true),
            Ok(_) => Err(StepError::new(ErrorKind::Changed, format!("{key} exists with other content"))
                .hint("a version is never overwritten; run again for a new version")),
            Err(error) => {
                let not_found = error.as_service_error().is_some_and(|error| error.is_not_found());
                if not_found { Ok(false) } else { Err(CloudError::of(format!("look for {key}"), error).into()) }
            }
        }
    }
}

async fn put(site: &Site, context: &StepContext, key: &str, built: &Built) -> Result<(), StepError> {
    let bytes = tokio::fs::read(&built.archive).await.map_err(|error| gone(&built.archive, error))?;
    let digest = hex::decode(&built.sha256).unwrap_or_default();
    let call = site
        .clients
        .s3
        .put_object()
        .bucket(site.bucket())
        .key(key)
        .if_none_match("*")
        .checksum_sha256(STANDARD.encode(digest))
        .metadata("sha256", &built.sha256)
        .content_type("application/zstd")
        .body(ByteStream::from(bytes));
    call.send().await.map_err(|error| CloudError::of(format!("upload {key}"), error))?;
    context.progress(built.size_bytes, built.size_bytes, Unit::Bytes);
    Ok(())
}

async fn put_in_parts(site: &Site, context: &StepContext, key: &str, built: &Built) -> Result<(), StepError> {
    let s3 = &site.clients.s3;
    let create =
        s3.create_multipart_upload().bucket(site.bucket()).key(key).checksum_algorithm(ChecksumAlgorithm::Sha256);
    let create = create.metadata("sha256", &built.sha256).content_type("application/zstd");
    let upload = create.send().await.map_err(|error| CloudError::of(format!("begin the upload of {key}"), error))?;
    let id = upload.upload_id().unwrap_or_default().to_owned();
    let result = send_parts(site, context, key, built, &id).await;
    if result.is_err() {
        // Parts cost until the upload is aborted; a failure to abort is told, but the upload's own failure is the news.
        let abort = s3.abort_multipart_upload().bucket(site.bucket()).key(key).upload_id(&id);
        if let Err(error) = abort.send().await {
            let error = CloudError::of("abort the upload", error);
            context.warn(format!("the unfinished upload {id} of {key} could not be aborted: {error}"), None);
        }
    }
    result
}

async fn send_parts(site: &Site, context: &StepContext, key: &str, built: &Built, id: &str) -> Result<(), StepError> {
    let total = built.size_bytes;
    let digests = part_digests(built).await?;
    let count = total.div_ceil(PART_BYTES);
    let digests = &digests;
    let parts = futures::stream::iter(0..count).map(|index| async move {
        let offset = index * PART_BYTES;
        let length = PART_BYTES.min(total - offset);
        let body = ByteStream::read_from().path(&built.archive).offset(offset).length(Length::Exact(length)).build();
        let body = body
            .await
            .map_err(|error| StepError::failed(format!("{} cannot be read", built.archive.display())).because(error))?;
        let number = i32::try_from(index + 1).expect("at most 10,000 parts");
        let call = site.clients.s3.upload_part().bucket(site.bucket()).key(key).upload_id(id).part_number(number);
        // Told beforehand, not computed while sending: what S3 keeps is what was built, or the part is refused.
        let digest = &digests[usize::try_from(index).expect("at most 10,000 parts")];
        let answer = call.checksum_sha256(digest).body(body).send().await;
        let answer = answer.map_err(|error| CloudError::of(format!("upload part {number} of {key}"), error))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag().map(str::to_owned))
            .set_checksum_sha256(answer.checksum_sha256().map(str::to_owned));
        Ok::<_, StepError>((length, part.build()))
    });
    let mut sent = 0;
    let mut done = Vec::new();
    let mut parts = parts.buffered(PARTS_AT_ONCE);
    while let Some((length, part)) = parts.try_next().await? {
        sent += length;
        done.push(part);
        context.progress(sent, total, Unit::Bytes);
        if context.cancellation().is_cancelled() {
            return Err(StepError::interrupted());
        }
    }
    let complete = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let call = site.clients.s3.complete_multipart_upload().bucket(site.bucket()).key(key).upload_id(id);
    let call = call.multipart_upload(complete).if_none_match("*");
    call.send().await.map_err(|error| CloudError::of(format!("complete the upload of {key}"), error))?;
    Ok(())
}

/// The SHA-256 of each part, in base64, of a file that is still what was built.
async fn part_digests(built: &Built) -> Result<Vec<String>, StepError> {
    let path = built.archive.clone();
    let read = move || -> std::io::Result<(String, Vec<String>)> {
        let (mut file, mut whole, mut parts) = (std::fs::File::open(path)?, Sha256::new(), Vec::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut part = Sha256::new();
            let mut left = PART_BYTES;
            while left > 0 {
                let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let count = file.read(&mut buffer[..limit])?;
                if count == 0 {
                    break;
                }
                whole.update(&buffer[..count]);
                part.update(&buffer[..count]);
                left -= count as u64;
            }
            if left == PART_BYTES {
                return Ok((hex::encode(whole.finalize()), parts));
            }
            parts.push(STANDARD.encode(part.finalize()));
        }
    };
    let read = tokio::task::spawn_blocking(read).await;
    let (whole, parts) = read
        .map_err(|error| StepError::failed("reading the archive was cut off").because(error))?
        .map_err(|error| gone(&built.archive, error))?;
    match whole == built.sha256 {
        true => Ok(parts),
        false => Err(StepError::new(
            ErrorKind::Changed,
            format!("{} is not what was built: something has changed it since", built.archive.display()),
        )
        .hint("nothing was published; deploy again")),
    }
}

fn gone(path: &std::path::Path, error: std::io::Error) -> StepError {
    StepError::failed(format!("the built archive {} cannot be read", path.display()))
        .hint("it is kept on the machine that built it; roll the run back and deploy again")
        .because(error)
}

/// Writes the manifest; from then on the version is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteManifest {
    pub commands: Vec<String>,
    pub inputs: String,
    pub dirty: bool,
    /// The key that signs it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
}

impl WriteManifest {
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let built: Built = context.output(build::RUN)?;
        let plan = context.plan();
        if let Some(parts) = shop.inputs() {
            write_inputs(site, context, &parts).await;
        }
        let manifest = Manifest {
            format: Manifest::FORMAT,
            app: plan.app.clone(),
            version: plan.version,
            commit: plan.commit.clone(),
            dirty: self.dirty,
            sha256: built.sha256,
            size_bytes: built.size_bytes,
            base: built.base,
            platform: built.platform,
            commands: self.commands.clone(),
            inputs: self.inputs.clone(),
            tool: crate::TOOL.to_owned(),
            // The version is the moment, so that a second attempt writes the same bytes.
            built_at: plan.version.time(),
        };
        let body = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
        // First: without it the version would look published, and be refused.
        if let Some(id) = &self.signed_by {
            if !shop.has_built(&manifest.sha256) {
                return Err(StepError::failed("what is to be signed was not built by this process")
                    .hint("roll the run back and deploy again: nothing is signed on a journal's word"));
            }
            let signed = signer(site, id)?.sign(&body);
            create_same(site, context, &releases::signature_key(&site.root, plan.version), signed).await?;
        }
        create_same(site, context, &releases::manifest_key(&site.root, plan.version), body).await?;
        Ok(serde_json::to_value(manifest).expect("a manifest is JSON"))
    }
}

/// The key that the run was planned with, also on another machine.
fn signer(site: &Site, id: &KeyId) -> Result<Arc<Signer>, StepError> {
    let unusable = |error: KeyError| {
        let hint = error.hint();
        StepError::failed("the manifest cannot be signed").hint(hint).because(error)
    };
    site.signer().map_err(unusable)?.filter(|signer| signer.id == *id).ok_or_else(|| {
        StepError::failed(format!("the run is to sign with the key {}, which {VARIABLE} does not hold", id.short()))
            .hint("set it to that key and resume the run, or roll it back")
    })
}

/// Keeps what the version was built from, for whoever plans the next one. Nothing depends on it; it is in the version's
/// folder, and goes with it.
async fn write_inputs(site: &Site, context: &StepContext, parts: &Parts) {
    let key = releases::build_parts_key(&site.root, context.plan().version);
    let body = serde_json::to_vec(parts).expect("names and digests are JSON");
    match site.store.create(&key, body).await {
        // An earlier attempt of the same build, of the same source, has written it.
        Ok(_) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => {
            context.warn(format!("{key} was not written: {error}; later plans cannot name what changed"), None)
        }
    }
}

/// Creates an object that must not exist with other content.
pub(crate) async fn create_same(site: &Site, context: &StepContext, key: &str, body: Vec<u8>) -> Result<(), StepError> {
    let service =
        |error: StoreError| StepError::new(ErrorKind::Service, format!("could not write {key}")).because(error);
    context.own(Resource::new("object", key)).await?;
    match site.store.create(key, body.clone()).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => match site.store.read(key).await.map_err(service)? {
            Some(there) if there.bytes == body => Ok(()),
            _ => Err(StepError::new(ErrorKind::Changed, format!("{key} exists with other content"))),
        },
        Err(error) => Err(service(error)),
    }
}

/// Moves `VERSION` to the newest version, and notes which inputs it was built from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MovePointer {
    pub inputs: String,
}

impl MovePointer {
    pub async fn run(&self, site: &Site, context: &StepContext) -> Result<Value, StepError> {
        let version = context.plan().version;
        let entry = serde_json::to_vec(&InputsEntry { format: 1, version }).expect("plain JSON");
        write(site, &releases::inputs_key(&site.root, &self.inputs), |_| Some(entry.clone())).await?;
        write(site, &releases::pointer_key(&site.root), |there| {
            // Never back: another environment may have published something newer meanwhile.
            let newer =
                there.and_then(|text| text.trim().parse::<Version>().ok()).is_some_and(|there| there >= version);
            (!newer).then(|| pointer(version))
        })
        .await?;
        Ok(Value::Null)
    }

    /// Puts the pointer on the newest version that stays, as found in the bucket, not as remembered.
    pub async fn undo(&self, site: &Site, context: &StepContext) -> Result<(), StepError> {
        let version = context.plan().version;
        let name = version.to_string();
        let key = releases::inputs_key(&site.root, &self.inputs);
        remove_if(site, &key, |text| text.contains(&name)).await?;
        let unreadable =
            |error: ReleasesError| StepError::new(ErrorKind::Service, "the bucket cannot be read").because(error);
        let mut newest = None;
        for other in site.versions().await.map_err(unreadable)?.into_iter().filter(|other| *other != version) {
            if site.manifest(other).await.map_err(unreadable)?.is_some() {
                newest = Some(other);
                break;
            }
        }
        let key = releases::pointer_key(&site.root);
        match newest {
            Some(newest) => write(site, &key, |there| (there?.trim() == name).then(|| pointer(newest))).await,
            None => remove_if(site, &key, |text| text.trim() == name).await,
        }
    }
}

fn pointer(version: Version) -> Vec<u8> {
    format!("{version}\n").into_bytes()
}

/// Reads, decides, and writes only if nobody else has written in between; tried again when somebody has.
async fn write(site: &Site, key: &str, decide: impl Fn(Option<&str>) -> Option<Vec<u8>>) -> Result<(), StepError> {
    let service =
        |error: StoreError| StepError::new(ErrorKind::Service, format!("could not write {key}")).because(error);
    for _ in 0..5 {
        let there = site.store.read(key).await.map_err(service)?;
        let before = there.as_ref().map(|object| String::from_utf8_lossy(&object.bytes).into_owned());
        let Some(body) = decide(before.as_deref()) else { return Ok(()) };
        let written = match &there {
            Some(object) => site.store.replace(key, body, &object.tag).await,
            None => site.store.create(key, body).await,
        };
        match written {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(service(error)),
        }
    }
    Err(StepError::new(ErrorKind::Service, format!("{key} is being written by others all the time")))
}

async fn remove_if(site: &Site, key: &str, ours: impl Fn(&str) -> bool) -> Result<(), StepError> {
    let service =
        |error: StoreError| StepError::new(ErrorKind::Service, format!("could not remove {key}")).because(error);
    let Some(object) = site.store.read(key).await.map_err(service)? else { return Ok(()) };
    if !ours(&String::from_utf8_lossy(&object.bytes)) {
        return Ok(());
    }
    match site.store.remove(key, &object.tag).await {
        Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(service(error)),
    }
}
