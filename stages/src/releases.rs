//! What is published: artifacts, their manifests and the index of build inputs.

use alcedo_images::{base::BuildBase, inputs::Parts, platform::Platform};
use alcedo_pipeline::{
    store::{Store, StoreError},
    version::Version,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::site::Site;

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
}

pub fn artifact_key(root: &str, version: Version) -> String {
    format!("{root}{version}/artifact.tar.zst")
}

pub fn manifest_key(root: &str, version: Version) -> String {
    format!("{root}{version}/manifest.json")
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

    /// The published version that was built from these inputs.
    pub async fn version_with_inputs(&self, fingerprint: &str) -> Result<Option<Manifest>, ReleasesError> {
        let entry: Option<InputsEntry> = read_json(self.store.as_ref(), inputs_key(&self.root, fingerprint)).await?;
        match entry {
            Some(entry) => self.manifest(entry.version).await,
            None => Ok(None),
        }
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
