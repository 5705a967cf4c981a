//! What is published: artifacts, their manifests and the index of build inputs.

use std::sync::Arc;

use alcedo_images::{base::BuildBase, inputs::Parts, platform::Platform};
use alcedo_pipeline::{
    store::{Store, StoreError},
    version::Version,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    signature::{Distrust, KeyError, Signer, Trust},
    site::Site,
};

/// What an artifact was made from; `<version>/manifest.json` beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format; see [`Manifest::FORMAT`].
    pub format: u32,
    pub app: String,
    pub version: Version,
    pub commit: Option<String>,
    /// Whether the working tree had changes that no commit holds.
    pub dirty: bool,
    /// SHA-256 of `artifact.tar.zst`, in hex.
    pub sha256: String,
    pub size_bytes: u64,
    /// What the build ran in: the recipe's digest, or the image's.
    pub base: BuildBase,
    /// Distribution, architecture and C library of what the build ran in.
    pub platform: Platform,
    pub commands: Vec<String>,
    /// Fingerprint of the build's inputs.
    pub inputs: String,
    /// `alcedo 0.1.0`.
    pub tool: String,
    pub built_at: Timestamp,
}

impl Manifest {
    pub const FORMAT: u32 = 1;
}

/// Which version has these build inputs; `inputs/<fingerprint>.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InputsEntry {
    pub format: u32,
    pub version: Version,
}

/// Why what is published cannot be looked at, or is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleasesError {
    #[error("the bucket could not be read")]
    Store(#[from] StoreError),
    #[error("{key} is not something that this version of alcedo reads")]
    Unreadable {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("version {version} is not used")]
    Distrust {
        version: Version,
        #[source]
        source: Distrust,
    },
    #[error("what stands as the manifest of {app} {version} is one of {named}")]
    Misplaced { app: String, version: Version, named: String },
}

impl ReleasesError {
    /// What to do about it.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Store(_) | Self::Unreadable { .. } => "`alcedo doctor` checks the bucket",
            Self::Key(error) => error.hint(),
            Self::Distrust { source, .. } => source.hint(),
            Self::Misplaced { .. } => "find out who wrote it to the bucket; build again, or deploy another version",
        };
        vec![hint.to_owned()]
    }
}

pub fn artifact_key(root: &str, version: Version) -> String {
    format!("{root}{version}/artifact.tar.zst")
}

pub fn manifest_key(root: &str, version: Version) -> String {
    format!("{root}{version}/manifest.json")
}

/// Who has published the manifest, where that was signed.
pub fn signature_key(root: &str, version: Version) -> String {
    format!("{}.sig", manifest_key(root, version))
}

/// What packages an image of the version has. By the image, because two bakes of one version can find other packages at the
/// distribution; a version's images are few.
pub fn sbom_key(root: &str, version: Version, ami: &str) -> String {
    format!("{}{ami}.cdx.json", sboms(root, version))
}

fn sboms(root: &str, version: Version) -> String {
    format!("{root}{version}/sbom-")
}

/// What the version was built from, part by part; beside its manifest.
pub fn build_parts_key(root: &str, version: Version) -> String {
    format!("{root}{version}/inputs.json")
}

/// Who made the version: written first, so that two builds in one second cannot take the same name. Beside the versions'
/// folders: a name that is only taken is no version yet, and retention does not count it.
pub fn reservation_key(root: &str, version: Version) -> String {
    format!("{root}reservations/{version}.json")
}

pub fn inputs_key(root: &str, fingerprint: &str) -> String {
    format!("{root}inputs/{fingerprint}.json")
}

pub fn pointer_key(root: &str) -> String {
    format!("{root}VERSION")
}

async fn read_json<T: serde::de::DeserializeOwned>(store: &dyn Store, key: String) -> Result<Option<T>, ReleasesError> {
    match store.read(&key).await? {
        None => Ok(None),
        Some(object) => {
            serde_json::from_slice(&object.bytes).map(Some).map_err(|source| ReleasesError::Unreadable { key, source })
        }
    }
}

impl Site {
    /// The keys of which one must have signed what is used; none: the file asks for no signature.
    ///
    /// # Errors
    /// One of them is no key.
    pub fn trust(&self) -> Result<Trust, KeyError> {
        Trust::read(&self.folder, &self.pipeline.publish.signed_by)
    }

    /// The key to sign with, where there is one.
    ///
    /// # Errors
    /// What is there is no key, or one that the file does not trust.
    pub fn signer(&self) -> Result<Option<Arc<Signer>>, KeyError> {
        let signer = match &self.signer {
            Some(signer) => Some(signer.clone()),
            None => Signer::of_environment(&self.redactor)?.map(Arc::new),
        };
        let trust = self.trust()?;
        match signer {
            Some(signer) if !trust.is_empty() && !trust.has(&signer.id) => Err(KeyError::NotTrusted(signer.id.clone())),
            signer => Ok(signer),
        }
    }

    /// The manifest of a version that is to be used. [`Site::manifest`] is for whoever only looks.
    ///
    /// # Errors
    /// It is another version's or another app's, or nobody has signed it whom the file trusts.
    pub async fn release(&self, version: Version) -> Result<Option<Manifest>, ReleasesError> {
        let trust = self.trust()?;
        let key = manifest_key(&self.root, version);
        let Some(object) = self.store.read(&key).await? else { return Ok(None) };
        if !trust.is_empty() {
            let signed = self.store.read(&signature_key(&self.root, version)).await?;
            let verified = trust.verify(&object.bytes, signed.as_ref().map(|object| object.bytes.as_slice()));
            verified.map_err(|source| ReleasesError::Distrust { version, source })?;
        }
        // The very bytes that were verified.
        let manifest: Manifest =
            serde_json::from_slice(&object.bytes).map_err(|source| ReleasesError::Unreadable { key, source })?;
        if (&manifest.app, manifest.version) != (&self.pipeline.app, version) {
            let named = format!("{} {}", manifest.app, manifest.version);
            return Err(ReleasesError::Misplaced { app: self.pipeline.app.clone(), version, named });
        }
        Ok(Some(manifest))
    }

    pub async fn manifest(&self, version: Version) -> Result<Option<Manifest>, ReleasesError> {
        read_json(self.store.as_ref(), manifest_key(&self.root, version)).await
    }

    /// What the version was built from, where that was recorded in a format that this version of alcedo reads.
    pub async fn inputs_of(&self, version: Version) -> Result<Option<Parts>, ReleasesError> {
        let parts: Option<Parts> = read_json(self.store.as_ref(), build_parts_key(&self.root, version)).await?;
        Ok(parts.filter(|parts| parts.format == Parts::FORMAT))
    }

    /// Whether the version's artifact itself is there.
    pub async fn has_artifact(&self, version: Version) -> Result<bool, ReleasesError> {
        Ok(!self.store.list(&artifact_key(&self.root, version)).await?.is_empty())
    }

    /// Where the bills of materials of the version's images are: also of those that are gone, as long as the version is there.
    pub async fn sboms(&self, version: Version) -> Result<Vec<String>, ReleasesError> {
        let keys = self.store.list(&sboms(&self.root, version)).await?;
        Ok(keys.iter().map(|key| self.url(key)).collect())
    }

    /// An object of the site's bucket, as AWS's own tools name it.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket())
    }

    /// The published version that was built from these inputs. The index is signed by nobody, so that the manifest has the
    /// last word.
    ///
    /// # Errors
    /// As [`Site::release`].
    pub async fn version_with_inputs(&self, fingerprint: &str) -> Result<Option<Manifest>, ReleasesError> {
        let entry: Option<InputsEntry> = read_json(self.store.as_ref(), inputs_key(&self.root, fingerprint)).await?;
        let release = match entry {
            Some(entry) => self.release(entry.version).await?,
            None => None,
        };
        Ok(release.filter(|manifest| manifest.inputs == fingerprint))
    }

    /// All versions that have a folder in the bucket, newest first. One whose manifest is missing is being published.
    pub async fn versions(&self) -> Result<Vec<Version>, ReleasesError> {
        let names = self.store.folders(&self.root).await?;
        let mut versions: Vec<Version> = names.iter().filter_map(|name| name.parse().ok()).collect();
        versions.sort();
        versions.reverse();
        Ok(versions)
    }
}
